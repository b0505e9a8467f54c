//! The wire protocol of `MeshxRpc`, version 1, as the Elixir package `meshx_rpc` 0.1.1 speaks it.
//!
//! Bytes go in, values and bytes come out: no socket, no clock, no task.
//!
//! * [`Frames`]: messages out of a byte stream; two bytes of length in the handshake, then four.
//! * [`Hello`]: the two messages of the handshake, with their digest.
//! * [`Writer`]: requests and answers, cut into blocks as the Elixir package cuts them.
//! * [`Requests`] and [`Answers`]: blocks put together again, under a limit.
//!
//! Neither the digest nor the checksums are authentication: both are a CRC-32, which anybody who has
//! seen one handshake can forge and replay. They find broken bytes and wrong configurations.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

mod assemble;
mod block;
mod checksum;
mod frame;
mod handshake;
mod message;
mod split;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use assemble::{Answer, Answers, Fault, Request, Requests, Violation};
pub use block::{Block, Class, Part};
pub use checksum::{Checksum, checksum};
pub use frame::{FrameTooLong, Frames};
pub use handshake::{AnswerError, Hello, Refusal, TextTooLong, refuse};
pub use message::{WriteError, Writer};
pub use split::{Split, TooSmall, split};

/// The longest message of a handshake: three references of 255 bytes each, what is around them, and
/// room for a digest. So the first byte of a connection is below 4.
pub const HANDSHAKE_MAX: usize = 1023;

/// The sizes of blocks that the Elixir package allows; both ends of a connection have the same.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 200..=268_435_456;

/// Whether a connection that begins so may speak version 1. Three bytes decide.
pub fn is_v1(first: [u8; 3]) -> bool {
    let [high, _, command] = first;
    high < 4 && command == command::HSK_REQ
}

/// The first byte of each message.
mod command {
    pub(super) const CAST_1: u8 = 10;
    pub(super) const CAST_N: u8 = 11;
    pub(super) const CAST_ACK: u8 = 15;
    pub(super) const CALL_1: u8 = 50;
    pub(super) const CALL_N: u8 = 51;
    pub(super) const RSP_1: u8 = 55;
    pub(super) const RSP_N: u8 = 56;
    pub(super) const ERR: u8 = 199;
    pub(super) const HSK_REQ: u8 = 210;
    pub(super) const HSK_ACK: u8 = 215;
    pub(super) const HSK_ERR: u8 = 219;
}

/// Fields from the front of a message.
trait Fields: Sized {
    /// So many bytes.
    fn bytes(&mut self, len: u64) -> Option<Self>;

    /// A number of one byte.
    fn byte(&mut self) -> Option<u8>;

    /// A number of eight bytes.
    fn number(&mut self) -> Option<u64>;
}

impl Fields for bytes::Bytes {
    fn bytes(&mut self, len: u64) -> Option<Self> {
        let len = usize::try_from(len).ok().filter(|&len| len <= self.len())?;
        Some(self.split_to(len))
    }

    fn byte(&mut self) -> Option<u8> {
        bytes::Buf::try_get_u8(self).ok()
    }

    fn number(&mut self) -> Option<u64> {
        bytes::Buf::try_get_u64(self).ok()
    }
}

/// How long something is, as the wire counts.
fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
