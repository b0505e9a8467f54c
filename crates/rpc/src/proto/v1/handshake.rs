//! The first message of each side.

use bytes::{BufMut, Bytes, BytesMut};
use subtle::ConstantTimeEq;

use super::{Fields, checksum, command};

/// The only version of the protocol.
const VERSION: u8 = 1;

/// Who a side is, and what it expects of the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The number of the handshake: the client's choice, and repeated by the server.
    pub hsk_ref: u64,
    /// What this side writes into every block.
    pub conn_ref: Vec<u8>,
    /// The largest block; both sides must say the same.
    pub block_size: u64,
    /// Which service.
    pub svc_ref: String,
    /// Which node.
    pub node_ref: String,
}

/// Why a handshake is not accepted, as the Elixir package says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read, or speaks of another version or size of blocks.
    #[error("invalid_hsk_params")]
    Parameters,
    /// The digest is another one: the shared keys differ.
    #[error("invalid_digest")]
    Digest,
    /// It is no request, or answers another one.
    #[error("invalid_ref")]
    Reference,
}

/// Why an answer to a handshake is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server says no.
    #[error("the server refuses the handshake: {0}")]
    Refused(String),
    /// What the server says is not right.
    #[error("the server's handshake is refused: {0}")]
    Wrong(#[from] Refusal),
}

/// A reference has more than 255 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} has {len} bytes; it can have 255")]
pub struct TextTooLong {
    /// Which one.
    pub name: &'static str,
    /// How long it is.
    pub len: usize,
}

impl Hello {
    /// As a client's first bytes, in their frame.
    pub fn request(&self, key: &[u8]) -> Result<Bytes, TextTooLong> {
        self.write(command::HSK_REQ, key)
    }

    /// As a server's answer, in its frame.
    pub fn acknowledgement(&self, key: &[u8]) -> Result<Bytes, TextTooLong> {
        self.write(command::HSK_ACK, key)
    }

    /// Reads a client's request; `block_size` and `key` are ours.
    pub fn read_request(message: &Bytes, block_size: u64, key: &[u8]) -> Result<Self, Refusal> {
        Self::read(message, command::HSK_REQ, block_size, key)
    }

    /// Reads a server's answer to the request with this number.
    pub fn read_answer(
        message: &Bytes,
        hsk_ref: u64,
        block_size: u64,
        key: &[u8],
    ) -> Result<Self, AnswerError> {
        if message.first() == Some(&command::HSK_ERR) {
            let text = message.get(1..).unwrap_or_default();
            // It goes into logs.
            let text = String::from_utf8_lossy(text).chars().take(256).collect();
            return Err(AnswerError::Refused(text));
        }
        let hello = Self::read(message, command::HSK_ACK, block_size, key)?;
        if hello.hsk_ref == hsk_ref { Ok(hello) } else { Err(Refusal::Reference.into()) }
    }

    fn read(message: &Bytes, wanted: u8, block_size: u64, key: &[u8]) -> Result<Self, Refusal> {
        let mut rest = message.clone();
        match rest.byte() {
            Some(command) if command == wanted => {}
            Some(command::HSK_REQ | command::HSK_ACK) => return Err(Refusal::Reference),
            _ => return Err(Refusal::Parameters),
        }
        let (hello, version) = Self::fields(&mut rest).ok_or(Refusal::Parameters)?;
        if version != VERSION || hello.block_size != block_size {
            return Err(Refusal::Parameters);
        }
        let covered = message.len().saturating_sub(rest.len());
        let covered = message.get(..covered).unwrap_or_default();
        let digest = checksum(&[covered, key]).to_vec();
        if bool::from(digest.ct_eq(&rest)) { Ok(hello) } else { Err(Refusal::Digest) }
    }

    fn fields(rest: &mut Bytes) -> Option<(Self, u8)> {
        let hsk_ref = rest.number()?;
        let conn_ref = short(rest)?.to_vec();
        let version = rest.byte()?;
        let block_size = rest.number()?;
        // For people only: what is no UTF-8 is not refused.
        let svc_ref = String::from_utf8_lossy(&short(rest)?).into_owned();
        let node_ref = String::from_utf8_lossy(&short(rest)?).into_owned();
        Some((Self { hsk_ref, conn_ref, block_size, svc_ref, node_ref }, version))
    }

    fn write(&self, command: u8, key: &[u8]) -> Result<Bytes, TextTooLong> {
        let mut out = BytesMut::with_capacity(128);
        out.put_u16(0);
        out.put_u8(command);
        out.put_u64(self.hsk_ref);
        put_short(&mut out, "conn_ref", &self.conn_ref)?;
        out.put_u8(VERSION);
        out.put_u64(self.block_size);
        put_short(&mut out, "svc_ref", self.svc_ref.as_bytes())?;
        put_short(&mut out, "node_ref", self.node_ref.as_bytes())?;
        let digest = checksum(&[out.get(2..).unwrap_or_default(), key]).to_vec();
        out.put_slice(&digest);
        Ok(framed(out))
    }
}

/// The answer to a handshake that is refused, in its frame.
pub fn refuse(refusal: Refusal) -> Bytes {
    let mut out = BytesMut::with_capacity(32);
    out.put_u16(0);
    out.put_u8(command::HSK_ERR);
    out.put_slice(refusal.to_string().as_bytes());
    framed(out)
}

/// Writes the length to its place. No message of a handshake is longer than it can say.
fn framed(mut out: BytesMut) -> Bytes {
    let len = u16::try_from(out.len().saturating_sub(2)).unwrap_or(u16::MAX);
    if let Some(place) = out.first_chunk_mut() {
        *place = len.to_be_bytes();
    }
    out.freeze()
}

/// Bytes behind one that says how many.
fn short(rest: &mut Bytes) -> Option<Bytes> {
    let len = rest.byte()?;
    rest.bytes(len.into())
}

fn put_short(out: &mut BytesMut, name: &'static str, bytes: &[u8]) -> Result<(), TextTooLong> {
    let len = bytes.len();
    out.put_u8(u8::try_from(len).map_err(|_| TextTooLong { name, len })?);
    out.put_slice(bytes);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            hsk_ref: 5,
            conn_ref: b"PYC1".to_vec(),
            block_size: 16384,
            svc_ref: "py".into(),
            node_ref: "n".into(),
        }
    }

    #[test]
    fn a_digest_may_have_three_bytes() {
        let bytes = hello().request(b"").unwrap();
        assert_eq!(bytes[bytes.len() - 3..], [0x88, 0x6d, 0x11]);
        let message = bytes.slice(2..);
        assert_eq!(Hello::read_request(&message, 16384, b"").unwrap(), hello());
        // With a zero in front it is refused, as by the Elixir package.
        let (head, digest) = message.split_at(message.len() - 3);
        let padded = Bytes::from([head, &[0], digest].concat());
        assert_eq!(Hello::read_request(&padded, 16384, b""), Err(Refusal::Digest));
    }

    #[test]
    fn what_is_wrong_is_named_as_the_elixir_package_does() {
        let message = hello().request(b"key").unwrap().slice(2..);
        let read = |message: Bytes, size, key: &[u8]| Hello::read_request(&message, size, key);
        assert_eq!(read(message.clone(), 16384, b"key").unwrap(), hello());
        assert_eq!(read(message.clone(), 8192, b"key"), Err(Refusal::Parameters));
        assert_eq!(read(message.clone(), 16384, b"Key"), Err(Refusal::Digest));
        for end in 0..message.len() {
            let expected =
                if end < message.len() - 4 { Refusal::Parameters } else { Refusal::Digest };
            assert_eq!(read(message.slice(..end), 16384, b"key"), Err(expected), "{end}");
        }
        let answer = hello().acknowledgement(b"key").unwrap().slice(2..);
        assert_eq!(read(answer.clone(), 16384, b"key"), Err(Refusal::Reference));
        let read = |message: Bytes, number| Hello::read_answer(&message, number, 16384, b"key");
        assert_eq!(read(answer.clone(), 5).unwrap(), hello());
        assert_eq!(read(answer, 6), Err(AnswerError::Wrong(Refusal::Reference)));
        let refused = refuse(Refusal::Digest);
        assert_eq!(refused, &b"\x00\x0f\xdbinvalid_digest"[..]);
        let refused = read(refused.slice(2..), 5);
        assert_eq!(refused, Err(AnswerError::Refused("invalid_digest".into())));
    }

    #[test]
    fn texts_have_a_byte_for_their_length() {
        let longest = Hello {
            conn_ref: vec![255; 255],
            svc_ref: "s".repeat(255),
            node_ref: "n".repeat(255),
            ..hello()
        };
        let bytes = longest.request(b"").unwrap();
        assert!(bytes.len() - 2 <= super::super::HANDSHAKE_MAX && bytes[0] < 4);
        assert_eq!(Hello::read_request(&bytes.slice(2..), 16384, b"").unwrap(), longest);
        let error = Hello { svc_ref: "s".repeat(256), ..hello() }.request(b"").unwrap_err();
        assert_eq!(error, TextTooLong { name: "svc_ref", len: 256 });
    }
}
