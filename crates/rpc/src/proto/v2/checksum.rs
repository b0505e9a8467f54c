//! §3: checksums of frames, bound to their connection.

use crc_fast::{CrcAlgorithm, Digest};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// §3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// No trailer: TCP's own checksum must do, or TLS.
    None,
    /// CRC-32C, in hardware: the default.
    Crc32c,
    /// XXH3, 64 bits.
    Xxh3,
    /// BLAKE3, 256 bits.
    Blake3,
}

/// What a checksum is bound to (§3.3).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) client_ref: &'a [u8],
    pub(crate) server_ref: &'a [u8],
    pub(crate) hsk_ref: u64,
    pub(crate) from_server: bool,
}

/// Computes the trailers of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    None,
    Crc32c(u32),
    Xxh3(u64),
    Blake3([u8; 32]),
}

/// A trailer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trailer {
    bytes: [u8; 32],
    len: usize,
}

impl Algorithm {
    /// All of them, in the order in which they are offered unless told otherwise.
    pub const ALL: [Self; 4] = [Self::Crc32c, Self::Xxh3, Self::Blake3, Self::None];

    /// As it is written in a HELLO.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Crc32c => 1,
            Self::Xxh3 => 2,
            Self::Blake3 => 3,
        }
    }

    /// The algorithm of a number, if it is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }
}

impl Checksum {
    /// Of HELLO frames (§3.4).
    pub(crate) const HELLO: Self = Self::Crc32c(0);

    pub(crate) fn new(algorithm: Algorithm, binding: Binding<'_>) -> Self {
        let mut bound = Vec::with_capacity(64);
        for reference in [binding.client_ref, binding.server_ref] {
            // It is no longer than 255 bytes (§4.1).
            bound.push(u8::try_from(reference.len()).unwrap_or(u8::MAX));
            bound.extend_from_slice(reference);
        }
        bound.extend_from_slice(&binding.hsk_ref.to_le_bytes());
        bound.push(u8::from(binding.from_server));
        match algorithm {
            Algorithm::None => Self::None,
            Algorithm::Crc32c => Self::Crc32c(crc32c(0, [&bound, &[]])),
            Algorithm::Xxh3 => Self::Xxh3(xxh3_64(&bound)),
            Algorithm::Blake3 => Self::Blake3(*blake3::hash(&bound).as_bytes()),
        }
    }

    /// How long a trailer is.
    pub(crate) const fn size(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32c(_) => 4,
            Self::Xxh3(_) => 8,
            Self::Blake3(_) => 32,
        }
    }

    /// The trailer of a frame that lies in two parts.
    pub(crate) fn of(&self, head: &[u8], block: &[u8]) -> Trailer {
        let mut trailer = Trailer { bytes: [0; 32], len: self.size() };
        match self {
            Self::None => {}
            Self::Crc32c(start) => {
                let sum = crc32c(*start, [head, block]);
                trailer.bytes[..4].copy_from_slice(&sum.to_le_bytes());
            }
            Self::Xxh3(seed) => {
                let sum = if block.is_empty() {
                    xxh3_64_with_seed(head, *seed)
                } else {
                    let mut state = Xxh3::with_seed(*seed);
                    state.update(head);
                    state.update(block);
                    state.digest()
                };
                trailer.bytes[..8].copy_from_slice(&sum.to_le_bytes());
            }
            Self::Blake3(key) => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                hasher.update(head).update(block);
                trailer.bytes = *hasher.finalize().as_bytes();
            }
        }
        trailer
    }

    /// Whether the end of a frame is the checksum of what is before it; gives how long that is.
    pub(crate) fn check(&self, frame: &[u8]) -> Option<usize> {
        let body = frame.len().checked_sub(self.size())?;
        let (body, trailer) = frame.split_at_checked(body)?;
        (self.of(body, &[]).as_ref() == trailer).then_some(body.len())
    }
}

/// The checksum of `parts`, behind something of which it is `start`.
fn crc32c(start: u32, parts: [&[u8]; 2]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!start));
    for part in parts {
        digest.update(part);
    }
    // It has 32 bits.
    u32::try_from(digest.finalize()).unwrap_or_default()
}

impl AsRef<[u8]> for Trailer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const BINDING: Binding<'_> =
        Binding { client_ref: b"c1", server_ref: b"s1", hsk_ref: 7, from_server: false };

    #[test]
    fn a_checksum_finds_every_changed_bit() {
        let frame: Vec<u8> = (0..200).collect();
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_number(algorithm.number()), Some(algorithm));
            let checksum = Checksum::new(algorithm, BINDING);
            let (head, block) = frame.split_at(50);
            assert_eq!(checksum.of(&frame, &[]).as_ref(), checksum.of(head, block).as_ref());
            let mut whole = frame.clone();
            whole.extend_from_slice(checksum.of(&frame, &[]).as_ref());
            assert_eq!(checksum.check(&whole), Some(frame.len()));
            if algorithm == Algorithm::None {
                continue;
            }
            for bit in 0..whole.len() * 8 {
                let mut changed = whole.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(checksum.check(&changed), None, "{algorithm:?} {bit}");
            }
            assert_eq!(checksum.check(&whole[..3]), None);
        }
    }

    #[test]
    fn a_frame_of_another_connection_or_direction_does_not_match() {
        let others = [
            Binding { client_ref: b"c2", ..BINDING },
            Binding { server_ref: b"", ..BINDING },
            // The bytes of both together are the same.
            Binding { client_ref: b"c1s", server_ref: b"1", ..BINDING },
            Binding { hsk_ref: 8, ..BINDING },
            Binding { from_server: true, ..BINDING },
        ];
        for algorithm in [Algorithm::Crc32c, Algorithm::Xxh3, Algorithm::Blake3] {
            let own = Checksum::new(algorithm, BINDING);
            for other in others {
                assert_ne!(own, Checksum::new(algorithm, other));
            }
        }
        // The test vector of RFC 3720, B.4.
        assert_eq!(Checksum::HELLO.of(&[0; 32], &[]).as_ref(), 0x8a91_36aa_u32.to_le_bytes());
    }
}
