//! Arguments and results as bytes.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How a value is written. The numbers go over the wire (`docs/protocol/rpc.md`, "Codecs").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// The bytes themselves: for values that are bytes or text, and as terms would be binaries.
    Raw,
    /// Erlang's External Term Format.
    Etf,
    /// Compact, between Rust programs that share their types: bytes say nothing of what they are, so
    /// that a value of another type may be read as one of this.
    Postcard,
    /// JSON.
    Json,
    /// CBOR.
    Cbor,
    /// `MessagePack`; structs as maps, with the names of their fields.
    MessagePack,
}

/// An argument, a result or a message of a stream, as it was or will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// How it is written.
    pub codec: Codec,
    /// What it is.
    pub bytes: Bytes,
}

/// A value could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{codec}: {reason}")]
pub struct CodecError {
    /// By which codec.
    pub codec: Codec,
    /// Why not.
    pub reason: String,
}

impl Codec {
    /// All of them, the preferred ones of two Rust programs first.
    pub const ALL: [Self; 6] =
        [Self::Postcard, Self::Raw, Self::Etf, Self::MessagePack, Self::Cbor, Self::Json];

    /// As it is written in a frame.
    pub const fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Etf => 1,
            Self::Postcard => 2,
            Self::Json => 4,
            Self::Cbor => 5,
            Self::MessagePack => 6,
        }
    }

    /// The codec of a number, if it is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.number() == number)
    }

    /// As operators write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Etf => "etf",
            Self::Postcard => "postcard",
            Self::Json => "json",
            Self::Cbor => "cbor",
            Self::MessagePack => "msgpack",
        }
    }

    fn failed(self, reason: impl fmt::Display) -> CodecError {
        CodecError { codec: self, reason: reason.to_string() }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Body {
    /// Bytes as they are.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { codec: Codec::Raw, bytes: bytes.into() }
    }

    /// Writes a value.
    ///
    /// ```
    /// use meshx_rpc::{Body, Codec};
    /// let body = Body::encode(Codec::Json, &("add", 2, 3))?;
    /// assert_eq!(body.bytes, r#"["add",2,3]"#);
    /// assert_eq!(body.decode::<(String, u8, u8)>()?, ("add".to_owned(), 2, 3));
    /// # Ok::<(), meshx_rpc::CodecError>(())
    /// ```
    pub fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Self, CodecError> {
        let bytes = match codec {
            Codec::Raw => return raw(&Self::encode(Codec::Etf, value)?),
            Codec::Etf => meshx_etf::to_bytes(value).map_err(|error| codec.failed(error))?,
            Codec::Postcard => postcard::to_stdvec(value).map_err(|error| codec.failed(error))?,
            Codec::Json => serde_json::to_vec(value).map_err(|error| codec.failed(error))?,
            Codec::Cbor => {
                let mut bytes = Vec::new();
                ciborium::into_writer(value, &mut bytes).map_err(|error| codec.failed(error))?;
                bytes
            }
            Codec::MessagePack => {
                rmp_serde::to_vec_named(value).map_err(|error| codec.failed(error))?
            }
        };
        Ok(Self { codec, bytes: bytes.into() })
    }

    /// Reads a value, all of it.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        let (codec, bytes) = (self.codec, &self.bytes[..]);
        match codec {
            Codec::Raw => {
                let len = u32::try_from(bytes.len()).map_err(|error| codec.failed(error))?;
                let term = [&[VERSION, BINARY], &len.to_be_bytes()[..], bytes].concat();
                meshx_etf::from_bytes(&term).map_err(|error| codec.failed(error))
            }
            Codec::Etf => meshx_etf::from_bytes(bytes).map_err(|error| codec.failed(error)),
            Codec::Postcard => match postcard::take_from_bytes(bytes) {
                Ok((value, [])) => Ok(value),
                Ok((_, rest)) => Err(codec.failed(format_args!("{} bytes too many", rest.len()))),
                Err(error) => Err(codec.failed(error)),
            },
            Codec::Json => serde_json::from_slice(bytes).map_err(|error| codec.failed(error)),
            Codec::Cbor => {
                let mut rest = bytes;
                let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH);
                match value.map_err(|error| codec.failed(error))? {
                    value if rest.is_empty() => Ok(value),
                    _ => Err(codec.failed(format_args!("{} bytes too many", rest.len()))),
                }
            }
            Codec::MessagePack => {
                let mut rest = bytes;
                let mut reader = rmp_serde::Deserializer::new(&mut rest);
                reader.set_max_depth(DEPTH);
                let value = T::deserialize(&mut reader).map_err(|error| codec.failed(error))?;
                match rest {
                    [] => Ok(value),
                    rest => Err(codec.failed(format_args!("{} bytes too many", rest.len()))),
                }
            }
        }
    }
}

/// What a term begins with, and what of it a binary (`erl_ext_dist`, `BINARY_EXT`).
const VERSION: u8 = 131;
const BINARY: u8 = 109;

/// The bytes of a term that is a binary.
fn raw(term: &Body) -> Result<Body, CodecError> {
    match &term.bytes[..] {
        [VERSION, BINARY, _, _, _, _, ..] => Ok(Body::raw(term.bytes.slice(6..))),
        _ => Err(Codec::Raw.failed("only bytes and text can be sent as they are")),
    }
}

/// How deep values may nest where the codec's own limit is not as tight.
const DEPTH: usize = 128;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use meshx_etf::{Binary, Term};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        lines: Vec<(String, i32)>,
        note: Option<String>,
        tags: BTreeMap<String, bool>,
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let order = Order {
            id: u64::MAX,
            lines: vec![("tea".into(), -3), (String::new(), i32::MAX)],
            note: Some("händle".into()),
            tags: BTreeMap::from([("paid".into(), true)]),
        };
        for codec in Codec::ALL {
            assert_eq!(Codec::from_number(codec.number()), Some(codec));
            if codec == Codec::Raw {
                continue;
            }
            let body = Body::encode(codec, &order).unwrap();
            assert_eq!(body.decode::<Order>().unwrap(), order, "{codec}");
            let mut longer = body.bytes.to_vec();
            longer.push(1);
            let longer = Body { codec, bytes: longer.into() };
            longer.decode::<Order>().unwrap_err();
            for end in 0..body.bytes.len() {
                let cut = Body { codec, bytes: body.bytes.slice(..end) };
                assert_eq!(cut.decode::<Order>().unwrap_err().codec, codec);
            }
        }
        assert_eq!(Codec::from_number(3), None);
    }

    #[test]
    fn bytes_and_text_go_as_they_are() {
        let encode = |text: &str| Body::encode(Codec::Raw, text).unwrap().bytes;
        assert_eq!((encode("text"), encode("")), (Bytes::from("text"), Bytes::new()));
        let binary = Binary::from(vec![131, 97, 1]);
        assert_eq!(Body::encode(Codec::Raw, &binary).unwrap().bytes, [131, 97, 1][..]);
        let raw = Body::raw(vec![131, 97, 1]);
        assert_eq!(raw.decode::<Binary>().unwrap(), binary);
        // What it looks like does not matter.
        assert_eq!(raw.decode::<Term>().unwrap(), Term::Binary(binary));
        assert_eq!(Body::raw("text").decode::<String>().unwrap(), "text");
        Body::raw(vec![255]).decode::<String>().unwrap_err();
        Body::raw("7").decode::<u8>().unwrap_err();
        Body::encode(Codec::Raw, &7).unwrap_err();
        Body::encode(Codec::Raw, &vec![1_u8, 2]).unwrap_err();
    }

    #[test]
    fn nesting_has_a_bound() {
        for (codec, open) in [(Codec::Json, b'['), (Codec::Cbor, 0x81), (Codec::MessagePack, 0x91)]
        {
            let body = Body { codec, bytes: vec![open; 1_000_000].into() };
            body.decode::<serde_json::Value>().unwrap_err();
        }
    }
}
