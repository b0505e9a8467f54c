//! Binaries and bit strings.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

/// A binary: bytes, cheap to clone.
///
/// Up to 22 bytes are held inside the value. Longer ones are shared between clones: either a copy
/// of its own, or a slice of the buffer that they were read from ([`Binary::shared`]).
#[derive(Clone)]
pub struct Binary(Repr);

/// A sequence of bits whose length is not a multiple of eight.
///
/// The last byte holds 1 to 7 of them, from its highest bit on; its other bits are zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BitString {
    bytes: Binary,
    last: u8,
}

const INLINE: usize = 22;

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Owned(Arc<[u8]>),
    Shared(Box<Bytes>),
}

impl Binary {
    /// A copy of these bytes.
    #[inline]
    pub fn copy(from: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        if let (Some(head), Ok(len)) = (bytes.get_mut(..from.len()), u8::try_from(from.len())) {
            head.copy_from_slice(from);
            return Self(Repr::Inline { len, bytes });
        }
        Self(Repr::Owned(from.into()))
    }

    /// These bytes, without a copy when there are more than 22.
    pub fn shared(bytes: Bytes) -> Self {
        if bytes.len() <= INLINE { Self::copy(&bytes) } else { Self(Repr::Shared(Box::new(bytes))) }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Owned(bytes) => bytes,
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The bytes, without a copy if they are a slice of a shared buffer already.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Shared(bytes) => *bytes,
            Repr::Owned(bytes) => Bytes::from_owner(bytes),
            Repr::Inline { .. } => Bytes::copy_from_slice(self.as_slice()),
        }
    }
}

impl BitString {
    /// The first `last` bits (1 to 7) of the last byte, and all bits before it. `None` when
    /// `last` is outside of that range or there is no byte.
    pub fn new(bytes: &[u8], last: u8) -> Option<Self> {
        let (&end, _) = bytes.split_last()?;
        if !(1..=7).contains(&last) {
            return None;
        }
        let mask = 0xff_u8.checked_shl(8_u32.saturating_sub(last.into())).unwrap_or_default();
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte = end & mask;
        }
        Some(Self { bytes: Binary::copy(&bytes), last })
    }

    /// All bytes; the unused low bits of the last one are zero.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bits of the last byte are used: 1 to 7.
    pub fn last_bits(&self) -> u8 {
        self.last
    }

    /// How many bits there are.
    pub fn bit_len(&self) -> u64 {
        let bytes = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        bytes.saturating_sub(1).saturating_mul(8).saturating_add(self.last.into())
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<&[u8]> for Binary {
    fn from(bytes: &[u8]) -> Self {
        Self::copy(bytes)
    }
}

impl From<&str> for Binary {
    fn from(text: &str) -> Self {
        Self::copy(text.as_bytes())
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self::shared(bytes.into())
    }
}

impl From<String> for Binary {
    fn from(text: String) -> Self {
        Self::shared(text.into())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self::shared(bytes)
    }
}

impl PartialEq for Binary {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Binary {}

impl PartialOrd for Binary {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Binary {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Binary {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}
