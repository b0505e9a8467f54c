//! Version 2 (`docs/protocol/rpc.md`): frames as values, without I/O.

mod checksum;
mod frame;
mod hello;
mod key;

pub use checksum::Algorithm;
pub(crate) use checksum::{Binding, Checksum};
pub(crate) use frame::{
    Block, Extensions, Flags, Frame, FrameError, Frames, Head, Open, Type, fail_payload,
};
pub(crate) use hello::{Hello, HelloError};
pub use key::Key;
pub(crate) use key::is_same;

/// §1.1.
pub(crate) const PREFACE: [u8; 4] = *b"\xB2MX2";
/// The version that is spoken here (§4.2).
pub(crate) const VERSION: u8 = 2;
/// §7.3: a message of a call up to so many bytes is one frame, and needs no credit.
pub(crate) const SMALL: usize = 32_768;
/// §4.1.
pub(crate) const HELLO_MAX: usize = 8192;
/// §2.2.
pub(crate) const EXTENSIONS_MAX: usize = 16_384;
/// §6.1.
pub(crate) const METADATA_MAX: usize = 64;
/// §8.1: of a whole FAIL, and of the reason in it.
pub(crate) const FAIL_MAX: usize = 32_768;
pub(crate) const REASON_MAX: usize = 4096;
