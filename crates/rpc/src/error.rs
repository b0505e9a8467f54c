//! Why a call failed, and whether it may be made again.

use std::fmt;
use std::time::Duration;

use meshx_core::{Code, Diagnostic};
use serde::de::DeserializeOwned;

use crate::codec::Body;

/// Why a call failed.
///
/// None of these ends the connection, except [`Kind::Transport`] and [`Kind::Protocol`], which say that
/// it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inside>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inside {
    kind: Kind,
    executed: Executed,
    reason: String,
    function: Option<String>,
    peer: Option<String>,
    value: Option<Body>,
    retry_after: Option<Duration>,
}

/// What kind of failure. The numbers of these go over the wire (`docs/protocol/rpc.md`, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The function ran and failed: its own error, with its value.
    Application,
    /// The peer offers no such function.
    UnknownFunction,
    /// The peer does not let this caller call it.
    Denied,
    /// The time was over.
    Deadline,
    /// The peer, or the queue in front of it, has too much to do.
    Overloaded,
    /// Who asked does not want the answer any more.
    Cancelled,
    /// An argument or a result could not be read, or is larger than what is taken.
    Value,
    /// A checksum did not match.
    Integrity,
    /// The peer stops, and takes no new calls.
    Draining,
    /// The function panicked.
    Panic,
    /// The peer broke the protocol, or speaks another one.
    Protocol,
    /// The connection could not be made, or was lost.
    Transport,
}

/// Whether the function ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Executed {
    /// Surely not: the call may be made again.
    Never,
    /// Nobody knows: only an idempotent call may be made again.
    Maybe,
    /// It did.
    Yes,
}

impl Error {
    /// A failure, and what can be said of it.
    pub fn new(kind: Kind, executed: Executed, reason: impl Into<String>) -> Self {
        Self(Box::new(Inside {
            kind,
            executed,
            reason: reason.into(),
            function: None,
            peer: None,
            value: None,
            retry_after: None,
        }))
    }

    /// Of a call of this function.
    #[must_use]
    pub fn of(mut self, function: &str) -> Self {
        self.0.function.get_or_insert_with(|| function.to_owned());
        self
    }

    /// Of this peer: an address or a name.
    #[must_use]
    pub fn at(mut self, peer: &str) -> Self {
        self.0.peer.get_or_insert_with(|| peer.to_owned());
        self
    }

    /// With the application's own value.
    #[must_use]
    pub fn with_value(mut self, value: Body) -> Self {
        self.0.value = Some(value);
        self
    }

    /// Not to be tried again before this has passed.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// What kind of failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether the function ran.
    pub fn executed(&self) -> Executed {
        self.0.executed
    }

    /// In words, without the function and the peer.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Which function was called.
    pub fn function(&self) -> Option<&str> {
        self.0.function.as_deref()
    }

    /// Whom it was called at.
    pub fn peer(&self) -> Option<&str> {
        self.0.peer.as_deref()
    }

    /// When it may be tried again, if the peer said so.
    pub fn pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The application's own value, as it came.
    pub fn value(&self) -> Option<&Body> {
        self.0.value.as_ref()
    }

    /// The application's own error, if this is one and can be read as `E`.
    pub fn application<E: DeserializeOwned>(&self) -> Option<E> {
        self.0.value.as_ref().filter(|_| self.0.kind == Kind::Application)?.decode().ok()
    }

    /// Whether the same call may be made again without running twice.
    pub fn is_surely_not_executed(&self) -> bool {
        self.0.executed == Executed::Never
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Application,
        Self::UnknownFunction,
        Self::Denied,
        Self::Deadline,
        Self::Overloaded,
        Self::Cancelled,
        Self::Value,
        Self::Integrity,
        Self::Draining,
        Self::Panic,
        Self::Protocol,
        Self::Transport,
    ];

    /// As it is written in a frame.
    pub const fn number(self) -> u8 {
        match self {
            Self::Application => 1,
            Self::UnknownFunction => 2,
            Self::Denied => 3,
            Self::Deadline => 4,
            Self::Overloaded => 5,
            Self::Cancelled => 6,
            Self::Value => 7,
            Self::Integrity => 8,
            Self::Draining => 9,
            Self::Panic => 10,
            Self::Protocol => 11,
            Self::Transport => 12,
        }
    }

    /// The kind of a number, if it is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// One stable word for metrics, events and scripts.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::UnknownFunction => "unknown_function",
            Self::Denied => "denied",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::Cancelled => "cancelled",
            Self::Value => "value",
            Self::Integrity => "integrity",
            Self::Draining => "draining",
            Self::Panic => "panic",
            Self::Protocol => "protocol",
            Self::Transport => "transport",
        }
    }
}

impl Executed {
    /// As it is written in a frame.
    pub const fn number(self) -> u8 {
        match self {
            Self::Never => 0,
            Self::Maybe => 1,
            Self::Yes => 2,
        }
    }

    /// From a frame; what is unknown is taken for [`Executed::Maybe`].
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Never,
            2 => Self::Yes,
            _ => Self::Maybe,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inside { function, peer, reason, .. } = &*self.0;
        match (function, peer) {
            (Some(function), Some(peer)) => write!(f, "{function} at {peer}: {reason}"),
            (Some(who), None) | (None, Some(who)) => write!(f, "{who}: {reason}"),
            (None, None) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

impl Diagnostic for Error {
    fn code(&self) -> Code {
        Code(850 + u16::from(self.0.kind.number()))
    }

    fn hint(&self) -> Option<String> {
        let hint = match self.0.kind {
            Kind::Application | Kind::Cancelled => return None,
            Kind::UnknownFunction => "`meshx rpc list` shows what the server offers",
            Kind::Denied => "allow it in the server's policy: who (SPIFFE identity) may call what",
            Kind::Deadline => "allow more time, or see where it goes: the events of the call tell",
            Kind::Overloaded => "try again later; the server's limit of calls in flight is reached",
            Kind::Value => "the types of caller and function differ, or the limit of sizes is low",
            Kind::Integrity => "bytes were changed on the way; look at what is between the two",
            Kind::Draining => "another instance takes the call; this one stops",
            Kind::Panic => "the server's log has the panic",
            Kind::Protocol => "is it a meshx RPC server, of a version that speaks with this one?",
            Kind::Transport => "is the server there, and is the address right?",
        };
        Some(hint.to_owned())
    }

    fn is_retryable(&self) -> bool {
        self.is_surely_not_executed()
            && !matches!(self.0.kind, Kind::UnknownFunction | Kind::Denied | Kind::Value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::codec::Codec;

    #[test]
    fn numbers_are_stable_and_come_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            let error = Error::new(kind, Executed::Never, "no");
            assert_eq!(
                error.code().to_string(),
                format!("MX{:04}", 850 + u16::from(kind.number()))
            );
        }
        for executed in [Executed::Never, Executed::Maybe, Executed::Yes] {
            assert_eq!(Executed::from_number(executed.number()), executed);
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Executed::from_number(9), Executed::Maybe);
    }

    #[test]
    fn an_error_says_who_and_why_and_what_the_application_said() {
        let value = Body::encode(Codec::Json, &("empty", 3)).unwrap();
        let error = Error::new(Kind::Application, Executed::Yes, "the cart is empty")
            .of("checkout")
            .at("127.0.0.1:9")
            .with_value(value);
        assert_eq!(error.to_string(), "checkout at 127.0.0.1:9: the cart is empty");
        assert_eq!(error.application::<(String, u8)>(), Some(("empty".to_owned(), 3)));
        assert_eq!(error.application::<u8>(), None);
        assert_eq!(size_of::<Error>(), 8);
    }
}
