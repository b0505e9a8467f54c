//! What happens, told as it happens.
//!
//! Whoever implements [`Observe`] is told. [`Log`] makes log lines of it, [`Metrics`] numbers for
//! Prometheus, [`Spans`] a trace for `OpenTelemetry`, and [`Pretty`] a text for whoever develops.

mod log;
mod metrics;
mod pretty;
#[cfg(test)]
mod samples;
mod spans;
mod text;

use std::sync::Arc;
use std::time::Duration;

pub use self::log::Log;
pub use self::metrics::Metrics;
pub use self::pretty::Pretty;
pub use self::spans::Spans;
use crate::context::Peer;
use crate::error::Error;
use crate::trace::TraceParent;

/// Something that happened. All sinks (logs, metrics, traces) are made of these.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection could not be made.
    Unreachable {
        /// Where it should lead.
        address: &'a str,
        /// Why not.
        error: &'a Error,
    },
    /// A handshake failed.
    HandshakeFailed {
        /// Which side we are.
        side: Side,
        /// Where the peer is.
        address: &'a str,
        /// Why.
        error: &'a Error,
    },
    /// A connection is up.
    Connected {
        /// Which side we are.
        side: Side,
        /// With whom.
        peer: &'a Peer,
        /// How long the handshake took.
        took: Duration,
    },
    /// A connection ended.
    Disconnected {
        /// Which side we are.
        side: Side,
        /// With whom.
        peer: &'a Peer,
        /// Why; `None`: as it should.
        error: Option<&'a Error>,
    },
    /// A call, cast or stream is over.
    Called(&'a Called<'a>),
    /// A cast that nobody waits for did not get there.
    CastLost {
        /// Of which function.
        function: &'a str,
        /// Why.
        error: &'a Error,
    },
}

/// Which side of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that dialled.
    Client,
    /// The one that accepted.
    Server,
}

/// What kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// With an answer.
    Call,
    /// Without one.
    Cast,
    /// With messages both ways.
    Stream,
}

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Called<'a> {
    /// Which side we are.
    pub side: Side,
    /// Of which kind.
    pub way: Way,
    /// Of which function.
    pub function: &'a str,
    /// With whom; `None`: it never got onto a connection.
    pub peer: Option<&'a Peer>,
    /// Its number on the connection.
    pub req_ref: u64,
    /// Its place in a trace; `None`: it is in none.
    pub trace: Option<TraceParent>,
    /// How it ended.
    pub result: Result<(), &'a Error>,
    /// Which attempt this was, from 1 on.
    pub attempt: u32,
    /// Where the time went.
    pub times: Times,
    /// Bytes of the argument and the result, as they were on the wire.
    pub sent: Amount,
    /// The same, of what was received.
    pub received: Amount,
}

/// Where the time of a call went; what is not known is zero, and part of `exec`. Version 2 writes frames of
/// many calls together, and knows neither `idle` nor `send`; a server of version 1 reads and writes
/// within `exec`; a client reads the result when it has told of the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The connection had nothing to do before.
    pub idle: Duration,
    /// It waited for a connection, or for a place among the calls in flight.
    pub queue: Duration,
    /// The argument, or at the server the result, was written into bytes.
    pub ser: Duration,
    /// The bytes were sent.
    pub send: Duration,
    /// The function ran; at the client, until the first byte of the answer.
    pub exec: Duration,
    /// The bytes were received.
    pub recv: Duration,
    /// The result, or at the server the argument, was read from bytes.
    pub dser: Duration,
}

impl Times {
    /// All of them together, but for the idling before.
    pub fn total(&self) -> Duration {
        [self.queue, self.ser, self.send, self.exec, self.recv, self.dser]
            .into_iter()
            .fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// How much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Blocks that they came in.
    pub blocks: u32,
}

/// Is told what happens, at once and by whoever it happens to: it must not block.
pub trait Observe: Send + Sync + 'static {
    /// Takes note.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observe for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Those who are told.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observe>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observe>) {
        self.0.push(observer);
    }

    /// Nobody listens: what is only for events need not be measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        for observer in &self.0 {
            observer.event(event);
        }
    }
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Observers").field(&self.0.len()).finish()
    }
}

impl Side {
    /// The one at the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// As it is in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl Way {
    /// As it is in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Cast => "cast",
            Self::Stream => "stream",
        }
    }
}
