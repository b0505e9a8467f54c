//! How the parts of an event are written, in every sink alike.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::context::Protocol;
use crate::error::{Error, Executed, Kind};

/// A `conn_ref` as `MeshxRpc` prints it: base64 without padding (RFC 4648 §4). So the logs of both ends
/// can be laid beside each other, whatever they are written in.
pub(super) struct Ref<'a>(pub(super) &'a [u8]);

/// Text of somebody else's: what could move the cursor or end a line is replaced, and what is very long
/// is cut.
pub(super) struct Foreign<'a>(pub(super) &'a str, pub(super) usize);

impl fmt::Display for Ref<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunks(3) {
            let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
            let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
            for shift in [18, 12, 6, 0].into_iter().take(chunk.len().saturating_add(1)) {
                f.write_char(letter((bits >> shift) & 63))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, most) = *self;
        for (at, char) in text.chars().enumerate() {
            if at == most {
                return f.write_char('…');
            }
            f.write_char(if is_plain(char) { char } else { '\u{fffd}' })?;
        }
        Ok(())
    }
}

impl Protocol {
    /// As it is in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Erlang => "erlang",
        }
    }
}

impl Executed {
    /// One stable word for logs.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }
}

/// How it ended, in one word.
pub(super) fn token(result: Result<(), &Error>) -> &'static str {
    result.map_or_else(|error| error.kind().token(), |()| "ok")
}

/// The reason, unless its text is the application's: that may repeat what callers have sent.
pub(super) fn harmless_reason(error: &Error) -> Option<&str> {
    match error.kind() {
        Kind::Application | Kind::Panic | Kind::Value => None,
        _ => Some(error.reason()),
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn letter(six: u32) -> char {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = usize::try_from(six).ok().and_then(|at| LETTERS.get(at));
    char::from(letter.copied().unwrap_or(b'='))
}

/// Neither a control character nor one that changes the direction of what follows.
fn is_plain(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn references_are_written_as_meshx_rpc_writes_them() {
        // From the documentation of MeshxRpc 0.1.1, and RFC 4648 §10.
        for (bytes, text) in [
            (&[123, 219, 9, 168][..], "e9sJqA"),
            (&[66, 9, 108, 5], "QglsBQ"),
            (b"", ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff], "+/8"),
        ] {
            assert_eq!(Ref(bytes).to_string(), text);
        }
    }

    #[test]
    fn foreign_text_stays_in_its_line() {
        assert_eq!(
            Foreign("a\x1b[2J\nb\u{202e}ü", 20).to_string(),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}ü"
        );
        assert_eq!(Foreign("12345", 5).to_string(), "12345");
        assert_eq!(Foreign("123456", 5).to_string(), "12345…");
    }
}
