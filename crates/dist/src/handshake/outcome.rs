//! What the end of a connection means, judged by the moment at which it came.

use std::fmt;

use super::observer::{Seen, Stage};
use super::{Flags, Side, Status};

/// How a handshake ended: a [`Verdict`] and the names, for a sentence that an operator can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeOutcome {
    /// What happened.
    pub verdict: Verdict,
    /// The initiator's node name, if it said one.
    pub initiator: Option<String>,
    /// The acceptor's node name, if it said one, or else the one that was dialled, if known.
    pub acceptor: Option<String>,
}

/// What happened. The handshake itself reports little: apart from the acceptor's status, a side that
/// is not content closes, and the moment tells why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The handshake succeeded; the close is the end of a link.
    Up,
    /// Closed before the initiator said its name: a port scan, a health check, or a node that was
    /// not ready.
    NoHello {
        /// Who closed.
        closed_by: Side,
    },
    /// One side waited for the other in vain (a stock VM waits 7 s, `net_setuptime`), and closed.
    Timeout {
        /// Who was awaited.
        silent: Side,
    },
    /// One side closed when it was its own turn to speak: it went down, or did not accept what it
    /// had read.
    Closed {
        /// Who closed.
        by: Side,
    },
    /// The acceptor's allow list, or its mandatory flags, refuse the initiator.
    NotAllowed {
        /// The mandatory flags of OTP 26 and later that the initiator lacks; if there are none, it is
        /// the allow list (`net_kernel:allow/1`).
        missing: Flags,
    },
    /// Both dialled each other at once, and the other attempt goes on.
    Nok,
    /// The acceptor still had a connection to the initiator, and this attempt was given up.
    Alive,
    /// The initiator asked for a name, and the acceptor gave none.
    NotNamed,
    /// Another node answered than the one that was dialled.
    NameMismatch {
        /// The node that was dialled; unknown if nobody told the observer.
        wanted: Option<String>,
        /// The node that answered.
        got: String,
    },
    /// The acceptor lacks flags that the initiator insists on.
    Flags {
        /// The mandatory flags of OTP 26 and later that the acceptor lacks.
        missing: Flags,
    },
    /// The cookies of the two nodes differ: the acceptor closed after the initiator's digest.
    Cookie,
    /// The initiator closed after the ack without having sent a byte. Either it did not accept the
    /// acceptor's digest, or the link was just not used: two hidden VMs may have nothing to say to
    /// each other for 15 s. The former cannot happen between two stock VMs: the acceptor, which has
    /// checked first, would have found the difference. Only time tells: a refusal comes at once.
    Unconfirmed,
    /// What one side sent is no handshake.
    Malformed {
        /// Who sent it.
        by: Side,
        /// What is wrong with it.
        reason: String,
    },
}

pub(super) fn judge(stage: &Stage, seen: &Seen, closed_by: Side) -> HandshakeOutcome {
    let acceptor = seen.acceptor.as_ref().map(|peer| peer.name.clone());
    HandshakeOutcome {
        verdict: verdict(stage, seen, closed_by),
        initiator: seen.initiator.as_ref().map(|peer| peer.name.clone()),
        acceptor: acceptor.or_else(|| seen.wanted.clone()),
    }
}

fn verdict(stage: &Stage, seen: &Seen, closed_by: Side) -> Verdict {
    match (stage, closed_by) {
        (Stage::AwaitName, closed_by) => Verdict::NoHello { closed_by },
        (Stage::Refused(Status::NotAllowed), _) => Verdict::NotAllowed {
            missing: seen.initiator.as_ref().map_or(Flags::NONE, |peer| lacking(peer.flags)),
        },
        (Stage::Refused(Status::AliveAnswer(_)) | Stage::AwaitAliveAnswer, _) => Verdict::Alive,
        (Stage::Refused(_), _) => Verdict::Nok,
        (Stage::Malformed { by, error }, _) => {
            Verdict::Malformed { by: *by, reason: error.to_string() }
        }
        (Stage::AwaitChallenge, Side::Initiator) if seen.unnamed() => Verdict::NotNamed,
        (Stage::AwaitReply, Side::Initiator) => seen.why_challenge_was_refused(),
        (Stage::AwaitAck, Side::Acceptor) => Verdict::Cookie,
        (Stage::Up, Side::Initiator) if !seen.confirmed => Verdict::Unconfirmed,
        (Stage::Up, _) => Verdict::Up,
        (Stage::AwaitStatus | Stage::AwaitChallenge | Stage::AwaitAck, Side::Initiator) => {
            Verdict::Timeout { silent: Side::Acceptor }
        }
        (Stage::AwaitReply, Side::Acceptor) => Verdict::Timeout { silent: Side::Initiator },
        (Stage::AwaitStatus | Stage::AwaitChallenge, by @ Side::Acceptor) => Verdict::Closed { by },
    }
}

impl Seen {
    fn unnamed(&self) -> bool {
        self.dynamic && !matches!(self.status, Some(Status::Named { .. }))
    }

    fn why_challenge_was_refused(&self) -> Verdict {
        let Some(acceptor) = &self.acceptor else {
            return Verdict::Closed { by: Side::Initiator };
        };
        let got = acceptor.name.clone();
        match &self.wanted {
            Some(wanted) if *wanted != got => {
                Verdict::NameMismatch { wanted: Some(wanted.clone()), got }
            }
            wanted => match (lacking(acceptor.flags), wanted) {
                (missing, _) if !missing.is_empty() => Verdict::Flags { missing },
                (_, None) => Verdict::NameMismatch { wanted: None, got },
                (_, Some(_)) => Verdict::Closed { by: Side::Initiator },
            },
        }
    }
}

// Seen flags may be those of an old hello without its complement; its high half is then unknown,
// but no release that still sends it is refused for it.
fn lacking(flags: Flags) -> Flags {
    flags.missing(Flags::MANDATORY_26)
}

impl HandshakeOutcome {
    /// One stable word for metrics, events and scripts.
    pub fn token(&self) -> &'static str {
        self.verdict.token()
    }

    /// Whether the handshake succeeded.
    pub fn is_up(&self) -> bool {
        self.verdict == Verdict::Up
    }
}

impl Verdict {
    /// One stable word for metrics, events and scripts.
    pub fn token(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoHello { .. } => "no_hello",
            Self::Timeout { .. } => "timeout",
            Self::Closed { .. } => "closed",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Nok => "nok",
            Self::Alive => "alive",
            Self::NotNamed => "not_named",
            Self::NameMismatch { .. } => "name_mismatch",
            Self::Flags { .. } => "flags",
            Self::Cookie => "cookie",
            Self::Unconfirmed => "unconfirmed",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// A sentence for an operator: who failed, and what it wanted.
impl fmt::Display for HandshakeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let initiator = self.initiator.as_deref().unwrap_or("the dialling node");
        let acceptor = self.acceptor.as_deref().unwrap_or("the dialled node");
        let name = |side: Side| match side {
            Side::Initiator => initiator,
            Side::Acceptor => acceptor,
        };
        match &self.verdict {
            Verdict::Up => write!(f, "{initiator} and {acceptor} finished the handshake"),
            Verdict::NoHello { closed_by: Side::Initiator } => {
                write!(f, "{initiator} closed the connection to {acceptor} without a hello")
            }
            Verdict::NoHello { closed_by: Side::Acceptor } => write!(
                f,
                "{acceptor} closed the connection before {initiator} said its name; is it a node, \
                 and is its distribution started?"
            ),
            Verdict::Timeout { silent } => {
                let (silent, waiting) = (name(*silent), name(silent.other()));
                write!(f, "{silent} did not answer in the handshake, and {waiting} gave up waiting")
            }
            Verdict::Closed { by } => write!(
                f,
                "{} closed the connection in the middle of the handshake with {}, without a reason",
                name(*by),
                name(by.other())
            ),
            Verdict::NotAllowed { missing } if missing.is_empty() => write!(
                f,
                "{acceptor} does not allow {initiator} to connect (net_kernel:allow/1 was called \
                 there)"
            ),
            Verdict::NotAllowed { missing } => write!(
                f,
                "{acceptor} does not allow {initiator} to connect; it may be too old: it lacks \
                 {missing}"
            ),
            Verdict::Nok => write!(
                f,
                "{initiator} and {acceptor} dialled each other at the same time; the connection \
                 that {acceptor} opened goes on"
            ),
            Verdict::Alive => write!(
                f,
                "{acceptor} still had a connection to {initiator}, and this one was given up"
            ),
            Verdict::NotNamed => write!(
                f,
                "{initiator} asked {acceptor} for a node name and got none; {acceptor} is older \
                 than OTP 23, or has no names to give"
            ),
            Verdict::NameMismatch { wanted: Some(wanted), got } => {
                write!(f, "{initiator} dialled {wanted}, but {got} answered")
            }
            Verdict::NameMismatch { wanted: None, got } => write!(
                f,
                "{initiator} gave up when {got} answered; it probably dialled another node"
            ),
            Verdict::Flags { missing } => {
                write!(f, "{initiator} gave up: {acceptor} is too old, it lacks {missing}")
            }
            Verdict::Cookie => {
                write!(f, "the cookies of {initiator} and {acceptor} differ: {acceptor} refused")
            }
            Verdict::Unconfirmed => write!(
                f,
                "{initiator} closed after the handshake with {acceptor} without a word: it did not \
                 use the link, or it did not accept {acceptor}'s cookie"
            ),
            Verdict::Malformed { by, reason } => write!(
                f,
                "{} did not speak the distribution handshake with {}: {reason}",
                name(*by),
                name(by.other())
            ),
        }
    }
}
