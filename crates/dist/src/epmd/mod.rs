//! EPMD's wire protocol, both roles (`erl_dist_protocol`, "EPMD Protocol").
//!
//! A client sends one request, `u16` length and body, and reads a reply that has no length of its
//! own. Only after [`Request::Alive`] does the connection stay open: it is the lease of the name,
//! and closing it gives the name back. After every other reply the daemon closes.
//!
//! Bounds: a request has at most [`REQUEST_MAX`] bytes, an extra field at most [`EXTRA_MAX`], a name
//! at most [`crate::name::MAX`] characters, a text reply at most [`TEXT_MAX`] bytes. Names are
//! restricted to what [`crate::name`] allows; a real daemon takes any text, so that a name with a
//! line break can forge lines of its NAMES reply.
//!
//! ```
//! use bytes::BytesMut;
//! use meshx_dist::epmd::{Alive, AliveReply, Request};
//!
//! let request = Request::Alive(Alive::new("shop", 40123));
//! let mut wire = BytesMut::new();
//! request.encode(&mut wire)?;
//! assert_eq!(Request::decode(&wire[..5])?, None); // more bytes are needed
//! let (decoded, used) = Request::decode(&wire)?.unwrap();
//! assert_eq!((decoded, used), (request, wire.len()));
//!
//! let Some((Request::Alive(alive), _)) = Request::decode(&wire)? else { unreachable!() };
//! assert_eq!(AliveReply::granted(&alive, 77), AliveReply::Extended { result: 0, creation: 77 });
//! # Ok::<(), meshx_dist::epmd::Error>(())
//! ```

pub mod front_door;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod text;

use crate::name;

pub use reply::{AliveReply, PortReply};
pub use request::{Alive, NodeType, Request};
pub use text::{DumpEntry, DumpReply, KillReply, NamesReply, StopReply};

/// The port of a machine's daemon, if `ERL_EPMD_PORT` does not name another.
pub const PORT: u16 = 4369;
/// The longest request with its length prefix; the daemon refuses 3060 bytes and more.
pub const REQUEST_MAX: usize = 3059;
/// The longest extra field of a registration.
pub const EXTRA_MAX: usize = 1020;
/// The most bytes of a NAMES or DUMP reply that a client should collect: over 3 000 names of the
/// longest kind.
pub const TEXT_MAX: usize = 1 << 20;
/// The distribution version of OTP 23 and later; from it on creations have 32 bits.
pub const VERSION_6: u16 = 6;
/// The distribution version before OTP 23.
pub const VERSION_5: u16 = 5;
/// The only protocol number in use: TCP, over IPv4 or IPv6.
pub const PROTOCOL_TCP: u8 = 0;

/// Why bytes are not a message of EPMD, or a value cannot be sent as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The length prefix is 0.
    #[error("an empty EPMD request: the length prefix is 0")]
    Empty,
    /// The length prefix exceeds [`REQUEST_MAX`]: not EPMD, or not honest.
    #[error("an EPMD request of {len} bytes was announced; the limit is {REQUEST_MAX}")]
    TooLong {
        /// Length with prefix.
        len: usize,
    },
    /// The first byte names no message that may stand here.
    #[error("{code} is not the code of {expected}")]
    Code {
        /// The byte found.
        code: u8,
        /// What was expected.
        expected: &'static str,
    },
    /// A field reaches past the end of the message.
    #[error("the {0} ends before its last field")]
    Truncated(&'static str),
    /// Bytes follow the last field.
    #[error("the {0} goes on after its last field")]
    Trailing(&'static str),
    /// The name is not allowed.
    #[error("the name in the {message} is not allowed: {reason}")]
    Name {
        /// Which message.
        message: &'static str,
        /// What is wrong with it.
        #[source]
        reason: name::Error,
    },
    /// The extra field exceeds [`EXTRA_MAX`].
    #[error("the extra field of the {message} has {len} bytes; the limit is {EXTRA_MAX}")]
    ExtraTooLong {
        /// Which message.
        message: &'static str,
        /// Bytes found or given.
        len: usize,
    },
    /// An extra field that is not one of ours ([`front_door`]).
    #[error("the extra field is not of the form {0}")]
    Extra(&'static str),
    /// A text reply that is not UTF-8, too long, or lacks its form.
    #[error("the {0} is not in the form EPMD gives it")]
    Text(&'static str),
}

impl Error {
    fn name(message: &'static str) -> impl FnOnce(name::Error) -> Self {
        move |reason| Self::Name { message, reason }
    }
}
