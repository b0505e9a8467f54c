//! A connection after its handshake: frames, the atom caches of both directions, fragments, ticks
//! (`erl_dist_protocol`, "Protocol between Connected Nodes"; `erl_ext_dist`, "Distribution Header").
//!
//! Three parts that know nothing of each other, so that the tasks of a connection need not share
//! more than they must:
//!
//! * [`Receiver`]: bytes of the peer in, [`Event`]s out;
//! * [`Outbox`]: messages in, bytes for the peer out, large messages cut into fragments between which
//!   others pass;
//! * [`Ticks`]: when to say something so that the peer does not give us up, and when to give it up.
//!
//! Bounds: see [`Limits`]; the outbox is bounded by who fills it, see [`Outbox::queued`].

mod inbound;
mod outbound;
mod ticks;

pub use inbound::{Event, Message, Receiver};
pub use outbound::{Batch, LARGE_AT_ONCE, Outbox};
pub use ticks::{Tick, Ticks, Ticktime};

use meshx_etf::dist::{Draft, FRAGMENT, Form, FrameError};

use crate::control::ReadError;
use crate::handshake::Flags;

/// What a peer may demand of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest message, in one frame or in fragments; default 1 GiB and 1 MiB. Memory is taken
    /// as bytes arrive, not as they are announced.
    pub message: usize,
    /// How many messages may be incomplete at a time; default 1 024.
    pub incomplete: usize,
    /// How many bytes all incomplete messages may have; default 2 GiB.
    pub held: usize,
}

/// Why a connection cannot go on. The caller closes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A longer message than [`Limits::message`].
    #[error("a message of {size} bytes; the limit is {limit}")]
    TooLong {
        /// What was announced.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::incomplete`] messages are incomplete.
    #[error("more than {limit} messages are incomplete")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// All incomplete messages together exceed [`Limits::held`].
    #[error("incomplete messages have more than {limit} bytes")]
    TooMuch {
        /// The limit.
        limit: usize,
    },
    /// No frame.
    #[error("a wrong frame: {0}")]
    Frame(#[from] FrameError),
    /// A frame of a form that was not negotiated.
    #[error("a frame of a form that was not negotiated")]
    Form,
    /// A fragment that does not follow the one before, or none was before.
    #[error("a fragment out of its order, of message {sequence}")]
    Fragment {
        /// Of which message.
        sequence: u64,
    },
    /// No control message.
    #[error(transparent)]
    Control(#[from] ReadError),
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: (1 << 30) + (1 << 20), incomplete: 1024, held: 2 << 30 }
    }
}

/// How the messages of a connection with these negotiated flags are written.
pub fn form(flags: Flags) -> Form {
    if flags.contains(Flags::DIST_HDR_ATOM_CACHE) {
        Form::Cached
    } else if flags.contains(Flags::FRAGMENTS) {
        Form::Plain
    } else {
        Form::PassThrough
    }
}

/// Whether this message goes out in fragments on a connection with these negotiated flags.
pub fn is_large(flags: Flags, draft: &Draft) -> bool {
    flags.contains(Flags::FRAGMENTS) && draft.len().saturating_sub(draft.control_len()) > FRAGMENT
}
