//! Why a daemon was of no use.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use meshx_core::{Code, Diagnostic};
use meshx_dist::epmd;

/// What a client wanted of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// To register a name.
    Register(String),
    /// To know where a node listens.
    LookUp(String),
    /// To list the names.
    Names,
    /// To list the names, old ones included.
    Dump,
    /// To end the daemon.
    Kill,
    /// To take a name from its holder.
    Stop(String),
}

/// A question or registration that came to nothing. Each names the daemon and what was wanted of it.
///
/// The codes: MX0620 no daemon, MX0621 no answer in time, MX0622 the connection broke, MX0623 closed
/// without an answer, MX0624 the name is taken, MX0625 not an answer, MX0626 an answer about another
/// node, MX0627 a name that cannot be asked for, MX0628 `ERL_EPMD_PORT`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody accepts connections there.
    #[error("cannot {wanted}: no EPMD answers at {daemon}: {source}")]
    Absent {
        /// Where it was looked for; the last of several addresses.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
        /// What the operating system says.
        source: io::Error,
    },
    /// It accepts connections, or the machine is there, but no whole answer came in time.
    #[error("cannot {wanted}: the EPMD at {daemon} gave no answer within {limit:?}")]
    Silent {
        /// Which daemon.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection failed under way.
    #[error("cannot {wanted}: the connection to the EPMD at {daemon} broke: {source}")]
    Broken {
        /// Which daemon.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
        /// What the operating system says.
        source: io::Error,
    },
    /// The daemon closed before its answer was whole: its word for "not from there", "not allowed"
    /// and "not understood".
    #[error("cannot {wanted}: the EPMD at {daemon} closed the connection without an answer")]
    Closed {
        /// Which daemon.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
    },
    /// Another node holds the name.
    #[error("cannot {wanted}: the EPMD at {daemon} says that the name is taken")]
    Taken {
        /// Which daemon.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
    },
    /// What came is not an answer.
    #[error("cannot {wanted}: what is at {daemon} does not answer as an EPMD: {reason}")]
    Malformed {
        /// Which daemon.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
        /// What is wrong with it.
        #[source]
        reason: epmd::Error,
    },
    /// The answer is about a node that was not asked for.
    #[error("cannot {wanted}: the EPMD at {daemon} answered about {found}")]
    OtherNode {
        /// Which daemon.
        daemon: SocketAddr,
        /// What was wanted.
        wanted: Wanted,
        /// The name in the answer.
        found: String,
    },
    /// The question cannot be put: the name is not one of a node.
    #[error("cannot {wanted}: {reason}")]
    Request {
        /// What was wanted.
        wanted: Wanted,
        /// Why not.
        #[source]
        reason: epmd::Error,
    },
    /// `ERL_EPMD_PORT` is not a port.
    #[error("ERL_EPMD_PORT is `{0}`, which is not a port between 1 and 65535")]
    Variable(String),
}

impl Diagnostic for Error {
    fn code(&self) -> Code {
        Code(match self {
            Self::Absent { .. } => 620,
            Self::Silent { .. } => 621,
            Self::Broken { .. } => 622,
            Self::Closed { .. } => 623,
            Self::Taken { .. } => 624,
            Self::Malformed { .. } => 625,
            Self::OtherNode { .. } => 626,
            Self::Request { .. } => 627,
            Self::Variable(_) => 628,
        })
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { daemon, .. } if daemon.ip().is_loopback() => {
                format!("start one with `meshx epmd -daemon -port {}`", daemon.port())
            }
            Self::Absent { daemon, .. } => format!(
                "is an EPMD running there, and does it listen on {}? See `meshx epmd --help`, \
                 -address",
                daemon.ip()
            ),
            Self::Silent { daemon, .. } | Self::Broken { daemon, .. } => {
                format!("look at the process that listens on port {} there", daemon.port())
            }
            Self::Closed { wanted: Wanted::Stop(_), .. } => {
                "only a daemon started with -relaxed_command_check takes a name away".to_owned()
            }
            Self::Closed { .. } => {
                "a daemon registers, and is commanded by, programs of its own machine only".into()
            }
            Self::Taken { .. } => {
                "another node of that name runs on this machine: stop it, or take another name"
                    .to_owned()
            }
            Self::Malformed { daemon, .. } => {
                format!("another program than an EPMD may listen on port {}", daemon.port())
            }
            Self::OtherNode { .. } => "do not trust this daemon".to_owned(),
            Self::Request { .. } => {
                "before the @ a node name has letters, digits, `_` and `-`".to_owned()
            }
            Self::Variable(_) => "unset it for the usual port, 4369".to_owned(),
        })
    }

    fn is_retryable(&self) -> bool {
        !matches!(self, Self::Request { .. } | Self::Variable(_))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(name) => write!(f, "register {}", Shown(name)),
            Self::LookUp(name) => write!(f, "look up {}", Shown(name)),
            Self::Names => f.write_str("list the names"),
            Self::Dump => f.write_str("list the names and old names"),
            Self::Kill => f.write_str("end the daemon"),
            Self::Stop(name) => write!(f, "take the name {} away", Shown(name)),
        }
    }
}

/// A name that may not be one: no control characters, and not more of it than is of use.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 64;
        for character in self.0.chars().take(MAX) {
            write!(f, "{}", character.escape_debug())?;
        }
        if self.0.chars().nth(MAX).is_some() { f.write_str("…") } else { Ok(()) }
    }
}
