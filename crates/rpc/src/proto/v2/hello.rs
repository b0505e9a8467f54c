//! §4: what both sides say of themselves, and what they agree on.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::checksum::Algorithm;
use super::{HELLO_MAX, VERSION};

/// A HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) versions: (u8, u8),
    pub(crate) hsk_ref: u64,
    pub(crate) conn_ref: Vec<u8>,
    pub(crate) node_ref: String,
    pub(crate) svc_ref: String,
    pub(crate) instance: [u8; 16],
    pub(crate) max_block: u32,
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_streams: u32,
    pub(crate) max_message: u64,
    pub(crate) checksums: Vec<u8>,
    pub(crate) compressors: Vec<u8>,
    pub(crate) keep_alive: u32,
    pub(crate) nonce: Option<[u8; 32]>,
}

/// Why a HELLO is none, or no connection comes of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("its HELLO is cut short")]
    Short,
    #[error("its HELLO goes on behind the proof")]
    Behind,
    #[error("its HELLO has {0} bytes; the limit is {HELLO_MAX}")]
    Long(usize),
    #[error("the field {0} of its HELLO is not as it should be")]
    Field(u8),
    #[error("it speaks the versions {0} to {1}; this one speaks {VERSION}")]
    Version(u8, u8),
    #[error("no checksum is known to both")]
    Checksum,
    #[error("it answers another handshake")]
    Reference,
    #[error("it has no proof of the shared key; is one set there?")]
    NoProof,
    #[error("it wants a shared key, and none is set here")]
    NoKey,
    #[error("its shared key is another one")]
    Proof,
}

const HSK_REF: u8 = 2;
const PROOF: u8 = 16;
/// §4.3.
pub(crate) const BLOCKS: std::ops::RangeInclusive<u32> = 1024..=1_048_576;
pub(crate) const WINDOW_MIN: u32 = 65_536;
/// §4.3: who asks to be asked more often is not.
pub(crate) const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);

impl Default for Hello {
    fn default() -> Self {
        Self {
            versions: (VERSION, VERSION),
            hsk_ref: 0,
            conn_ref: Vec::new(),
            node_ref: String::new(),
            svc_ref: String::new(),
            instance: [0; 16],
            max_block: 65_536,
            stream_window: 1 << 20,
            connection_window: 1 << 24,
            max_streams: 16_384,
            max_message: 64 << 20,
            checksums: vec![Algorithm::Crc32c.number()],
            compressors: Vec::new(),
            keep_alive: 15_000,
            nonce: None,
        }
    }
}

impl Hello {
    /// As a payload, without a proof.
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        let mut field = |tag: u8, value: &[u8]| {
            // What is too long is cut; see `Refs`.
            let value = value.get(..value.len().min(255)).unwrap_or_default();
            out.put_u8(tag);
            out.put_u16_le(u16::try_from(value.len()).unwrap_or(0));
            out.put_slice(value);
        };
        field(1, &[self.versions.0, self.versions.1]);
        field(HSK_REF, &self.hsk_ref.to_le_bytes());
        field(3, &self.conn_ref);
        field(4, cut(&self.node_ref).as_bytes());
        field(5, cut(&self.svc_ref).as_bytes());
        field(6, &self.instance);
        field(7, &self.max_block.to_le_bytes());
        field(8, &self.stream_window.to_le_bytes());
        field(9, &self.connection_window.to_le_bytes());
        field(10, &self.max_streams.to_le_bytes());
        field(11, &self.max_message.to_le_bytes());
        field(12, &self.checksums);
        field(13, &self.compressors);
        field(14, &self.keep_alive.to_le_bytes());
        if let Some(nonce) = &self.nonce {
            field(15, nonce);
        }
        out
    }

    /// Adds the server's proof.
    pub(crate) fn add_proof(payload: &mut BytesMut, proof: &[u8; 32]) {
        payload.put_u8(PROOF);
        payload.put_u16_le(32);
        payload.put_slice(proof);
    }

    /// Reads a payload; gives also the proof, and how long the payload is without it.
    pub(crate) fn decode(payload: &[u8]) -> Result<(Self, Option<[u8; 32]>, usize), HelloError> {
        if payload.len() > HELLO_MAX {
            return Err(HelloError::Long(payload.len()));
        }
        let mut hello = Self::default();
        let mut seen = [false; 256];
        let (mut rest, mut proof, mut without) = (payload, None, payload.len());
        while !rest.is_empty() {
            let at = payload.len().saturating_sub(rest.len());
            let (tag, value) = field(&mut rest).ok_or(HelloError::Short)?;
            let seen = seen.get_mut(usize::from(tag)).ok_or(HelloError::Field(tag))?;
            if std::mem::replace(seen, true) {
                continue;
            }
            if tag == PROOF {
                proof = Some(value.try_into().map_err(|_| HelloError::Field(tag))?);
                without = at;
                // What followed would not be proven (§5.2).
                if !rest.is_empty() {
                    return Err(HelloError::Behind);
                }
            } else {
                hello.take(tag, value).ok_or(HelloError::Field(tag))?;
            }
        }
        if seen.get(usize::from(HSK_REF)) != Some(&true) {
            return Err(HelloError::Field(HSK_REF));
        }
        hello.max_block = hello.max_block.clamp(*BLOCKS.start(), *BLOCKS.end());
        hello.stream_window = hello.stream_window.max(WINDOW_MIN);
        hello.connection_window = hello.connection_window.max(WINDOW_MIN);
        let least = u32::try_from(KEEP_ALIVE_MIN.as_millis()).unwrap_or(u32::MAX);
        hello.keep_alive = hello.keep_alive.max(least);
        Ok((hello, proof, without))
    }

    fn take(&mut self, tag: u8, value: &[u8]) -> Option<()> {
        let text = |value: &[u8]| std::str::from_utf8(value).ok().map(str::to_owned);
        let number = |value: &[u8]| value.try_into().ok().map(u32::from_le_bytes);
        let reference = value.get(..value.len().min(255)).filter(|it| it.len() == value.len());
        match tag {
            1 => match value {
                [lowest, highest] => self.versions = (*lowest, *highest),
                _ => return None,
            },
            HSK_REF => self.hsk_ref = u64::from_le_bytes(value.try_into().ok()?),
            3 => self.conn_ref = reference?.to_vec(),
            4 => self.node_ref = text(reference?)?,
            5 => self.svc_ref = text(reference?)?,
            6 => self.instance = value.try_into().ok()?,
            7 => self.max_block = number(value)?,
            8 => self.stream_window = number(value)?,
            9 => self.connection_window = number(value)?,
            10 => self.max_streams = number(value)?,
            11 => self.max_message = u64::from_le_bytes(value.try_into().ok()?),
            12 => self.checksums = value.to_vec(),
            13 => self.compressors = value.to_vec(),
            14 => self.keep_alive = number(value)?,
            15 => self.nonce = Some(value.try_into().ok()?),
            _ => {}
        }
        Some(())
    }

    /// §4.2: whether both can speak.
    pub(crate) fn check_version(&self) -> Result<(), HelloError> {
        let (lowest, highest) = self.versions;
        if (lowest..=highest).contains(&VERSION) {
            Ok(())
        } else {
            Err(HelloError::Version(lowest, highest))
        }
    }

    /// §3.1: the first algorithm that `self` offers and `accepted` has.
    pub(crate) fn choose_checksum(&self, accepted: &[Algorithm]) -> Result<Algorithm, HelloError> {
        let offered = self.checksums.iter().filter_map(|&number| Algorithm::from_number(number));
        let chosen = offered.into_iter().find(|it| accepted.contains(it));
        chosen.ok_or(HelloError::Checksum)
    }

    /// Whether it names this compressor.
    pub(crate) fn has_compressor(&self, number: u8) -> bool {
        self.compressors.contains(&number)
    }
}

/// The next field, of which the length is believed only as far as there are bytes.
pub(super) fn field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, low, high], tail) = rest.split_first_chunk()?;
    let (value, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
    *rest = tail;
    Some((tag, value))
}

/// As much of a text as fits into a reference.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(255)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            hsk_ref: 99,
            conn_ref: vec![1, 2, 3],
            node_ref: "shop@h1".into(),
            svc_ref: "orders".into(),
            instance: [7; 16],
            max_streams: 5,
            checksums: vec![200, 2, 1],
            compressors: vec![1],
            nonce: Some([9; 32]),
            ..Hello::default()
        }
    }

    /// §4.1.
    #[test]
    fn a_hello_comes_back_and_unknown_fields_do_not_matter() {
        let mut payload = hello().encode();
        let plain = payload.len();
        payload.put_slice(&[222, 2, 0, 1, 1]);
        payload.put_slice(&[5, 1, 0, b'x']);
        let (read, proof, without) = Hello::decode(&payload).unwrap();
        assert_eq!((&read, proof, without), (&hello(), None, payload.len()));
        let mut payload = hello().encode();
        Hello::add_proof(&mut payload, &[4; 32]);
        let (read, proof, without) = Hello::decode(&payload).unwrap();
        assert_eq!((read, proof, without), (hello(), Some([4; 32]), plain));
        // §5.2: nothing that is not proven.
        payload.put_slice(&[222, 0, 0]);
        assert_eq!(Hello::decode(&payload), Err(HelloError::Behind));
    }

    #[test]
    fn every_cut_is_an_error_or_a_shorter_hello() {
        let payload = hello().encode();
        let ends: Vec<usize> =
            (0..payload.len()).filter(|&end| Hello::decode(&payload[..end]).is_ok()).collect();
        // At the ends of fields, from that on that is required.
        assert_eq!(ends.len(), 13);
        assert_eq!(Hello::decode(&[]), Err(HelloError::Field(HSK_REF)));
        assert_eq!(Hello::decode(&[0; HELLO_MAX + 1]), Err(HelloError::Long(HELLO_MAX + 1)));
        assert_eq!(Hello::decode(&[1, 1, 0, 2]), Err(HelloError::Field(1)));
        assert_eq!(Hello::decode(&[4, 1, 0, 255]), Err(HelloError::Field(4)));
    }

    /// §3.1, §4.2, §4.3.
    #[test]
    fn what_both_have_is_chosen() {
        let hello = hello();
        assert_eq!(hello.choose_checksum(&Algorithm::ALL), Ok(Algorithm::Xxh3));
        assert_eq!(hello.choose_checksum(&[Algorithm::Crc32c]), Ok(Algorithm::Crc32c));
        assert_eq!(hello.choose_checksum(&[Algorithm::None]), Err(HelloError::Checksum));
        let other = Hello { versions: (3, 4), ..Hello::default() };
        assert_eq!(other.check_version(), Err(HelloError::Version(3, 4)));
        let tiny =
            Hello { max_block: 1, stream_window: 0, connection_window: 1, keep_alive: 0, ..hello };
        let (read, ..) = Hello::decode(&tiny.encode()).unwrap();
        assert_eq!((read.max_block, read.stream_window), (1024, WINDOW_MIN));
        assert_eq!(read.keep_alive, 1000);
    }
}
