//! The version 6 handshake of the Erlang distribution (`erl_dist_protocol`, "Distribution
//! Handshake"), and the older forms that OTP 23 and 24 still use.
//!
//! The *initiator* dialled, the *acceptor* listened:
//!
//! | from | message | says |
//! |---|---|---|
//! | initiator | [`SendName`] | who I am, what I can do |
//! | acceptor | [`Status`] | go on, or not, and why |
//! | initiator | [`Status::AliveAnswer`] | only after `alive`: go on, or not |
//! | acceptor | [`Challenge`] | who I am, a number |
//! | initiator | [`Complement`] | only after the old form of [`SendName`] |
//! | initiator | [`ChallengeReply`] | digest of cookie and that number, a number of my own |
//! | acceptor | [`ChallengeAck`] | digest of cookie and that number |
//!
//! Each message is one frame with a length of two or four bytes ([`Framing`]). Afterwards both sides
//! use four bytes. A wrong cookie is answered by closing, without a word, which is why
//! [`Observer::diagnosis_at_close`] exists.
//!
//! Bounds: a frame's body has at most [`BODY_MAX`] bytes; names are those of [`crate::name`]. Bytes
//! after the last field of [`SendName`], [`Challenge`] and `named:` are ignored, as the protocol asks
//! of a receiver; elsewhere they are an error, as they are for the VM.

mod acceptor;
mod active;
mod digest;
mod flags;
mod initiator;
mod message;
mod observer;
mod outcome;
mod simultaneous;
#[cfg(test)]
mod tests;

use bytes::{BufMut, BytesMut};

pub use acceptor::{Accepted, Acceptor};
pub use active::{Cookie, Failure, Link, Local};
pub use digest::{Digest, digest, verify};
pub use flags::Flags;
pub use initiator::Initiator;
pub use message::{Challenge, ChallengeAck, ChallengeReply, Complement, Form, SendName, Status};
pub use observer::{Observer, Peer, Stage};
pub use outcome::{HandshakeOutcome, Verdict};
pub use simultaneous::answer_to_simultaneous;

use crate::name;
use crate::wire::Reader;

/// The longest body of a handshake frame that is accepted. The longest message of the protocol, a
/// challenge with a name of 255 four-byte characters, has 1 + 8 + 4 + 4 + 2 + 1020 = 1039 bytes; the
/// rest is room for fields that later versions append.
pub const BODY_MAX: usize = 2048;

/// How long the length prefix of a handshake frame is; the carrier decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Two bytes: `inet_tcp_dist`, `inet6_tcp_dist` and most carriers.
    #[default]
    U16,
    /// Four bytes: `inet_tls_dist`, `ei` over TLS.
    U32,
}

/// One end of a distribution connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The node that dialled.
    Initiator,
    /// The node that listened.
    Acceptor,
}

/// Why bytes are not the handshake message that may stand here, or a value cannot be sent as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A frame longer than [`BODY_MAX`]: not a distribution handshake, or not an honest one.
    #[error("a handshake frame of {len} bytes; the limit is {BODY_MAX}")]
    TooLong {
        /// The length announced or given.
        len: usize,
    },
    /// A frame without a body.
    #[error("an empty handshake frame where the {0} was due")]
    Empty(&'static str),
    /// The first byte is not this message's.
    #[error("a handshake message with tag {found:#04x} where the {expected} was due")]
    Tag {
        /// The byte found.
        found: u8,
        /// The message expected.
        expected: &'static str,
    },
    /// A field reaches past the end of the frame.
    #[error("the {0} ends before its last field")]
    Truncated(&'static str),
    /// Bytes follow a message that has no room for them.
    #[error("the {0} goes on after its last field")]
    Trailing(&'static str),
    /// The node name is not allowed.
    #[error("the node name in the {message} is not allowed: {reason}")]
    Name {
        /// The message.
        message: &'static str,
        /// What is wrong with it.
        #[source]
        reason: name::Error,
    },
    /// An old-form message of a version other than 5.
    #[error("the old form of the {message} has version {version}; only 5 is in use")]
    Version {
        /// The message.
        message: &'static str,
        /// The version found.
        version: u16,
    },
    /// A status word that is not in the protocol, or not from this side.
    #[error("an unknown handshake status")]
    Status,
    /// A side spoke while the other was to: it answered what it could not have seen, or more than one
    /// frame of it waits.
    #[error("it spoke out of its turn")]
    OutOfTurn,
}

impl Framing {
    /// Bytes of the length prefix.
    pub fn prefix(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// Splits the frame at the start of `buffer` off: its body and the bytes it took with its
    /// prefix, or `None` if more are needed. A caller never needs to hold more than [`BODY_MAX`] bytes
    /// and the prefix.
    pub fn split(self, buffer: &[u8]) -> Result<Option<(&[u8], usize)>, Error> {
        let mut reader = Reader::new(buffer);
        let length = match self {
            Self::U16 => reader.u16().map(u32::from),
            Self::U32 => reader.u32(),
        };
        let Some(length) = length else { return Ok(None) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > BODY_MAX {
            return Err(Error::TooLong { len: length });
        }
        Ok(reader.take(length).map(|body| (body, length.saturating_add(self.prefix()))))
    }

    /// Appends `body` as one frame. On error nothing is appended.
    pub fn join(self, body: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let too_long = || Error::TooLong { len: body.len() };
        if body.len() > BODY_MAX {
            return Err(too_long());
        }
        let length = u16::try_from(body.len()).map_err(|_| too_long())?;
        match self {
            Self::U16 => out.put_u16(length),
            Self::U32 => out.put_u32(length.into()),
        }
        out.put_slice(body);
        Ok(())
    }
}

impl Side {
    /// The one at the other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Acceptor,
            Self::Acceptor => Self::Initiator,
        }
    }
}

impl Error {
    fn name(message: &'static str) -> impl FnOnce(name::Error) -> Self {
        move |reason| Self::Name { message, reason }
    }
}
