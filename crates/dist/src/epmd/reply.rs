//! What the daemon answers, in binary.

use bytes::{BufMut, BytesMut};

use super::{Alive, EXTRA_MAX, Error};
use crate::name;
use crate::wire::Reader;

const ALIVE2_X_RESP: u8 = 118;
const ALIVE2_RESP: u8 = 121;
const PORT2_RESP: u8 = 119;

/// The answer to [`super::Request::Alive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AliveReply {
    /// `ALIVE2_X_RESP`, for a node whose highest version is 6 or more.
    Extended {
        /// 0 is success; everything else means that the name is taken.
        result: u8,
        /// Distinguishes this run of the node from earlier ones of the same name; the VM expects 4
        /// or more.
        creation: u32,
    },
    /// `ALIVE2_RESP`, for older nodes.
    Short {
        /// 0 is success.
        result: u8,
        /// 1, 2 or 3.
        creation: u16,
    },
}

/// The answer to [`super::Request::PortPlease`]. The daemon closes after it, and a stock VM waits
/// for that close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortReply {
    /// The registration, as the node gave it.
    Found(Alive),
    /// No such node.
    NotFound {
        /// Not 0; the daemon says 1.
        result: u8,
    },
}

impl AliveReply {
    /// The longest form in bytes.
    pub const MAX: usize = 6;
    /// What the daemon puts in the creation field of a refusal; it means nothing.
    const NO_CREATION: u8 = 99;

    /// The name is the node's, in the form that it understands. An old node's creation is brought
    /// into 1..=3.
    pub fn granted(alive: &Alive, creation: u32) -> Self {
        if alive.wants_long_creation() {
            return Self::Extended { result: 0, creation };
        }
        let short = match creation % 3 {
            0 => 3,
            1 => 1,
            _ => 2,
        };
        Self::Short { result: 0, creation: short }
    }

    /// The name is taken (or not allowed; EPMD has no other word).
    pub fn refused(alive: &Alive) -> Self {
        if alive.wants_long_creation() {
            Self::Extended { result: 1, creation: Self::NO_CREATION.into() }
        } else {
            Self::Short { result: 1, creation: Self::NO_CREATION.into() }
        }
    }

    /// The creation, or the result code of the refusal.
    pub fn creation(&self) -> Result<u32, u8> {
        match *self {
            Self::Extended { result: 0, creation } => Ok(creation),
            Self::Short { result: 0, creation } => Ok(creation.into()),
            Self::Extended { result, .. } | Self::Short { result, .. } => Err(result),
        }
    }

    /// Decodes the reply at the start of `buffer` and says how many bytes it took; `None` if more
    /// are needed.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        match *buffer {
            [ALIVE2_X_RESP, result, a, b, c, d, ..] => {
                let creation = u32::from_be_bytes([a, b, c, d]);
                Ok(Some((Self::Extended { result, creation }, 6)))
            }
            [ALIVE2_RESP, result, a, b, ..] => {
                let creation = u16::from_be_bytes([a, b]);
                Ok(Some((Self::Short { result, creation }, 4)))
            }
            [] | [ALIVE2_X_RESP | ALIVE2_RESP, ..] => Ok(None),
            [code, ..] => Err(Error::Code { code, expected: "an answer to ALIVE2_REQ" }),
        }
    }

    /// Appends the reply.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Self::Extended { result, creation } => {
                out.put_slice(&[ALIVE2_X_RESP, result]);
                out.put_u32(creation);
            }
            Self::Short { result, creation } => {
                out.put_slice(&[ALIVE2_RESP, result]);
                out.put_u16(creation);
            }
        }
    }
}

impl PortReply {
    /// The longest reply in bytes: two bytes, ten of fixed fields, name, length, extra.
    pub const MAX: usize = 2 + 10 + name::MAX + 2 + EXTRA_MAX;

    /// Decodes the reply at the start of `buffer` and says how many bytes it took; `None` if more
    /// are needed. A client never needs to hold more than [`Self::MAX`] bytes: with that many there
    /// is an answer or an error.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let mut reader = Reader::new(buffer);
        match reader.u8() {
            None => return Ok(None),
            Some(PORT2_RESP) => {}
            Some(code) => return Err(Error::Code { code, expected: "PORT2_RESP" }),
        }
        match reader.u8() {
            None => Ok(None),
            Some(0) => {
                bounded(reader)?;
                let found = Alive::take("PORT2_RESP", &mut reader)?;
                let used = buffer.len().saturating_sub(reader.rest().len());
                Ok(found.map(|alive| (Self::Found(alive), used)))
            }
            Some(result) => Ok(Some((Self::NotFound { result }, 2))),
        }
    }

    /// Appends the reply. On error (a name or extra field that is not allowed) nothing is appended.
    /// A refusal always goes out with a code that is not 0.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::Found(alive) => {
                let mut fields = BytesMut::new();
                alive.put("PORT2_RESP", &mut fields)?;
                out.put_slice(&[PORT2_RESP, 0]);
                out.unsplit(fields);
            }
            Self::NotFound { result } => out.put_slice(&[PORT2_RESP, (*result).max(1)]),
        }
        Ok(())
    }
}

// A reply has no length of its own, so an absurd length field must be refused as soon as it is
// seen, not when as many bytes have been collected.
fn bounded(mut reader: Reader<'_>) -> Result<(), Error> {
    let message = "PORT2_RESP";
    let Some(_fixed) = reader.array::<8>() else { return Ok(()) };
    let mut ahead = reader;
    if let Some(len) = ahead.u16().map(usize::from).filter(|&len| len > name::MAX) {
        return Err(Error::Name { message, reason: name::Error::TooLong { len } });
    }
    let Some(_name) = reader.counted() else { return Ok(()) };
    match reader.u16().map(usize::from) {
        Some(len) if len > EXTRA_MAX => Err(Error::ExtraTooLong { message, len }),
        _ => Ok(()),
    }
}
