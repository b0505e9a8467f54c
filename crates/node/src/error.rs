//! Why something did not happen.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use meshx_core::{Code, Diagnostic, MeshError};
use meshx_dist::handshake::{Failure, Flags, Status};
use meshx_etf::{Atom, TypedError};

use crate::node::TooManyProcesses;

use crate::carrier::PortError;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name is none.
    #[error("{name:?} is no node name: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        #[source]
        reason: meshx_dist::name::Error,
    },
    /// No cookie, or an empty one: of the node itself, or for the other one that is named.
    #[error("the cookie of the node {0} is missing or empty: it is the secret that nodes share")]
    Cookie(String),
    /// It was to get its name from another node, and did not.
    #[error("the node got no name of {from}: {reason}")]
    Unnamed {
        /// Who was to give it.
        from: String,
        /// Why it did not.
        #[source]
        reason: ConnectError,
    },
    /// A carrier could not listen, or its listener not be made known.
    #[error("the node {name} could not start ({carrier}): {reason}")]
    Listen {
        /// The node.
        name: String,
        /// Which carrier.
        carrier: String,
        /// Why.
        #[source]
        reason: io::Error,
    },
}

/// Why there is no connection to a node.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name is none.
    #[error("{0:?} is no node name")]
    Name(String),
    /// No carrier knows where the node is, or none could get there.
    #[error("{node} could not be reached: {reason}")]
    Reach {
        /// The node.
        node: Atom,
        /// What the last carrier said.
        #[source]
        reason: Arc<io::Error>,
    },
    /// The handshake failed.
    #[error("the handshake with {node} failed: {reason}")]
    Handshake {
        /// The node.
        node: Atom,
        /// Why.
        #[source]
        reason: Failure,
    },
    /// The peer closed in the midst of the handshake.
    #[error("{node} closed the connection at the {stage} of the handshake")]
    Closed {
        /// The node.
        node: Atom,
        /// When.
        stage: &'static str,
    },
    /// It took too long.
    #[error("{node} did not finish the handshake within {limit:?}")]
    Timeout {
        /// The node.
        node: Atom,
        /// The limit.
        limit: Duration,
    },
    /// There is none, and none was to be made.
    #[error("{0} is not connected")]
    NotConnected(Atom),
    /// It was closed at that moment.
    #[error("the connection to {node} was lost: {reason}")]
    Lost {
        /// The node.
        node: Atom,
        /// Why, for people.
        reason: String,
    },
    /// The operating system gave no random number, and without one nobody can be asked for a proof.
    #[error(
        "this node can ask nobody for a proof: the operating system gives no random number: {0}"
    )]
    Random(String),
    /// The node stops.
    #[error("this node is stopping")]
    Stopping,
}

/// Why a message was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Too much waits for that connection already; only of what does not wait itself.
    #[error("more waits to be sent to {0} than it takes")]
    Busy(Atom),
    /// The value has no form in Erlang's terms.
    #[error("the message cannot be encoded: {0}")]
    Encode(#[from] TypedError),
    /// The node has no process left in whose name it could be sent.
    #[error(transparent)]
    Full(#[from] TooManyProcesses),
    /// More arguments than a function has.
    #[error("{0} arguments; a function has at most 255")]
    Arity(usize),
    /// The peer is of a release that has no such thing: an alias, a request for a process, or, without
    /// `V4_NC`, a pid beyond 15 and 13 bits, a port beyond 28, a reference of more than three words.
    #[error("{node} cannot read that: it lacks {lacks}")]
    Incapable {
        /// The node.
        node: Atom,
        /// What it would have to be capable of.
        lacks: Flags,
    },
}

/// Why a process did not get a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Another process has it, or this one has a name already, or has ended.
    #[error("the name {0} is taken, or the process has one or has ended")]
    Taken(String),
    /// It is no name.
    #[error("{0:?} cannot be a registered name")]
    Invalid(String),
}

impl Diagnostic for ConnectError {
    fn code(&self) -> Code {
        Code(match self {
            Self::Name(_) => 401,
            Self::Reach { reason, .. } if says_no_port(reason) => 401,
            Self::Reach { reason, .. } => match mesh(reason) {
                Some(error) => return error.code(),
                None if reason.kind() == io::ErrorKind::NotFound => 201,
                None => 203,
            },
            Self::Handshake { reason: Failure::Cookie, .. } => 204,
            Self::Handshake { .. } | Self::Closed { .. } | Self::Random(_) => 208,
            Self::Timeout { .. } => 212,
            Self::NotConnected(_) | Self::Lost { .. } | Self::Stopping => 213,
        })
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Name(_) => "a node name is name@host",
            Self::Reach { reason, .. } if mesh(reason).is_some() => {
                return mesh(reason).and_then(MeshError::hint);
            }
            Self::Reach { reason, .. } if says_no_port(reason) => {
                "the number at the end of a node's name, before the @, is to say its port"
            }
            Self::Reach { .. } => {
                "is the node running, and is its EPMD, or its port, the one asked?"
            }
            Self::Handshake { reason: Failure::Cookie, .. } => "both nodes need the same cookie",
            Self::Handshake { reason: Failure::Refused(Status::NotAllowed), .. } => {
                "the other node does not let this one in (net_kernel:allow/1)"
            }
            Self::Handshake { reason: Failure::Name { got, .. }, .. } => {
                return Some(format!("at its address runs {got}: ask for it by that name"));
            }
            // A VM answers a wrong cookie in no other way.
            Self::Closed { stage: "last step", .. } => "most likely the cookies differ",
            Self::Closed { .. } => "is it an Erlang node that listens there?",
            Self::Timeout { .. } => "is the node overloaded, or something else at its port?",
            Self::Random(_) => "is the program kept from the system call getrandom?",
            Self::Handshake { .. } | Self::NotConnected(_) | Self::Lost { .. } | Self::Stopping => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Name(_) | Self::Stopping => false,
            Self::Reach { reason, .. } => !says_no_port(reason),
            _ => true,
        }
    }
}

/// Whether the name of the node was of no use to the carrier.
fn says_no_port(reason: &io::Error) -> bool {
    let Some(inner) = reason.get_ref() else { return false };
    inner.is::<PortError>()
}

/// What the mesh said, where the carrier is one.
fn mesh(reason: &io::Error) -> Option<&MeshError> {
    reason.get_ref()?.downcast_ref()
}
