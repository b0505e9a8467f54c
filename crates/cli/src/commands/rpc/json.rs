//! Arguments and results as JSON.

use std::io::{self, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use meshx_etf::{Decoder, Limits};
use meshx_rpc::{Body, Codec};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::commands::etf;
use crate::failure::{Failure, exit};

/// How long an argument may be: what servers take, unless they say otherwise.
const INPUT: u64 = 64 << 20;

/// How deep a term may nest to become JSON: each of its levels is up to three there, and each takes stack.
const DEPTH: usize = 64;

/// The argument that was written at the command line, or is at stdin. It stays as it was written: the
/// digits of its numbers and the order of its keys are the caller's.
pub(super) fn argument(given: Option<&str>) -> Result<Box<RawValue>, Failure> {
    let text = match given {
        None => return Ok(RawValue::NULL.to_owned()),
        Some("-") => {
            stdin().map_err(|what| Failure::new(840, exit::USAGE, format!("stdin {what}")))?
        }
        Some(text) => text.to_owned(),
    };
    RawValue::from_string(text).map_err(|error| {
        Failure::new(840, exit::USAGE, format!("the argument is no JSON: {error}"))
            .hint("in a shell: '\"text\"', '[1, 2]', '{\"key\": true}'")
    })
}

fn stdin() -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(INPUT.saturating_add(1)).read_to_end(&mut bytes);
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > INPUT => Err("has more than 64 MiB".to_owned()),
        Ok(_) => String::from_utf8(bytes).map_err(|_| "is no UTF-8".to_owned()),
    }
}

/// An argument as it goes over the wire.
pub(super) fn body(argument: &RawValue) -> Body {
    Body { codec: Codec::Json, bytes: argument.get().to_owned().into() }
}

/// A result as JSON: as it came, if it came as JSON. What JSON has no words for, or nests too deep, is
/// `{"binary": BASE64}`.
pub(super) fn text(body: &Body) -> Box<RawValue> {
    let written = match body.codec {
        Codec::Json => std::str::from_utf8(&body.bytes).ok().map(harmless),
        _ => Some(harmless(&value(body).to_string())),
    };
    let read = written.and_then(|text| RawValue::from_string(text).ok());
    read.or_else(|| RawValue::from_string(binary(body).to_string()).ok())
        .unwrap_or_else(|| RawValue::NULL.to_owned())
}

/// The same, read.
pub(super) fn value(body: &Body) -> Value {
    let read = match body.codec {
        Codec::Raw | Codec::Postcard => None,
        Codec::Etf => {
            let mut limits = Limits::default();
            limits.depth = DEPTH;
            let term = Decoder::new().limits(limits).term(&body.bytes);
            term.ok().map(|it| etf::json::value(&it))
        }
        _ => body.decode::<Value>().ok(),
    };
    read.unwrap_or_else(|| binary(body))
}

fn binary(body: &Body) -> Value {
    serde_json::json!({ "binary": BASE64.encode(&body.bytes) })
}

/// The same JSON without characters that command a terminal, or make text run backwards: they are
/// escaped, which loses nothing.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // Outside of strings, and so it is space.
            '\r' => text.push(' '),
            '\n' | '\t' => text.push(c),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(codec: Codec, bytes: &[u8]) -> String {
        text(&Body { codec, bytes: bytes.to_vec().into() }).get().to_owned()
    }

    #[test]
    fn json_stays_as_it_was_written() {
        for json in ["1.0", "123456789012345678901234567890", "{\"b\": 1, \"a\":[2.50]}", "null"] {
            assert_eq!(shown(Codec::Json, json.as_bytes()), json);
            assert_eq!(body(&argument(Some(json)).unwrap()).bytes, json);
        }
        assert_eq!(argument(None).unwrap().get(), "null");
        assert_eq!(argument(Some("{no")).unwrap_err().exit, 2);
    }

    #[test]
    fn what_is_no_json_is_made_into_some() {
        assert_eq!(shown(Codec::Raw, &[0, 255]), r#"{"binary":"AP8="}"#);
        assert_eq!(shown(Codec::Json, b"{no"), r#"{"binary":"e25v"}"#);
        assert_eq!(shown(Codec::Etf, &[131, 119, 2, b'o', b'k']), r#"{"atom":"ok"}"#);
        assert_eq!(shown(Codec::MessagePack, &[0x92, 1, 0xc0]), "[1,null]");
        assert_eq!(shown(Codec::Cbor, &[0x82, 1, 0xf6]), "[1,null]");
        // Maps of one, more levels than there is stack for.
        for deep in [300, 100_000] {
            let deep = [&[131][..], &[116, 0, 0, 0, 1, 97, 1].repeat(deep), &[106]].concat();
            assert!(shown(Codec::Etf, &deep).starts_with(r#"{"binary":"g3QA"#));
        }
        // JSON is not looked into, so that it nests as it likes.
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(shown(Codec::Json, deep.as_bytes()), deep);
    }

    #[test]
    fn a_result_does_not_command_the_terminal() {
        let json = "[\"\u{9b}2J\u{202e}\",\r\n\t1]";
        let shown = shown(Codec::Json, json.as_bytes());
        assert_eq!(shown, "[\"\\u009b2J\\u202e\", \n\t1]");
        let same: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(same, serde_json::from_str::<Value>(json).unwrap());
    }
}
