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
pub(crate) use hello::{BLOCKS, Hello, HelloError, KEEP_ALIVE_MIN, WINDOW_MIN};
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

/// For the fuzzer: whatever the bytes are, they are frames or an error, within their bounds.
#[doc(hidden)]
pub fn look_at(data: &[u8]) {
    let frames = Frames::new(Checksum::None, 4096).zipped(true);
    let mut bytes = bytes::BytesMut::from(data);
    loop {
        let before = bytes.len();
        match frames.next(&mut bytes) {
            Ok(Some(Frame::Open(open))) => {
                if let Ok(extensions) = Extensions::decode(&open.extensions)
                    && let Some(again) = extensions.encode()
                {
                    assert_eq!(Extensions::decode(&again).ok(), Some(extensions));
                }
            }
            Ok(Some(Frame::Hello(payload))) => {
                if let Ok((hello, ..)) = Hello::decode(&payload) {
                    let (again, ..) = Hello::decode(&hello.encode()).unwrap_or_default();
                    assert_eq!(again.conn_ref, hello.conn_ref);
                }
            }
            Ok(Some(Frame::Fail { error, .. })) => assert!(fail_payload(&error).len() <= FAIL_MAX),
            Ok(Some(_)) => {}
            Ok(None) => {
                assert!(frames.missing(&bytes).is_none_or(|missing| missing < 64_000));
                return;
            }
            Err(_) => return,
        }
        assert!(bytes.len() < before);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
