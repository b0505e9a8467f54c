//! What a control message carries.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use meshx_etf::{
    Atom, DecodeError, Decoder, EncodeError, Encoder, Limits, Term, TermRef, TypedError,
};
use serde::{Deserialize, Serialize};

/// A term that travels with a control message, not decoded yet.
///
/// It is a slice of the buffer that it was read into, with the atoms of its message; who receives it
/// decodes it, into whatever he wants. Cheap to clone. As with a VM, a payload is looked at only then,
/// so a peer's wrong term is the receiver's error.
///
/// It holds the buffer that it was read into: its own if it is long, else the 64 KiB that it came with.
/// Who keeps a short one for long, and drops most others, should copy it.
#[derive(Clone)]
pub struct Payload {
    bytes: Bytes,
    atoms: Arc<[Atom]>,
}

impl Payload {
    /// A payload of these bytes, without version byte, and the atoms of their header.
    pub fn new(bytes: Bytes, atoms: Arc<[Atom]>) -> Self {
        Self { bytes, atoms }
    }

    /// The payload that is this term.
    pub fn of(term: &Term) -> Result<Self, EncodeError> {
        let mut bytes = Vec::new();
        Encoder::new().bare(term, &mut bytes)?;
        Ok(Self::new(bytes.into(), Arc::default()))
    }

    /// The payload that is this value.
    pub fn of_typed<T: Serialize + ?Sized>(value: &T) -> Result<Self, TypedError> {
        let mut bytes = Vec::new();
        Encoder::new().bare_typed(value, &mut bytes)?;
        Ok(Self::new(bytes.into(), Arc::default()))
    }

    /// The term, of which there may be 2²⁶ inside of it ([`Limits::terms`]; [`Payload::decoder`] takes other
    /// limits). Binaries of more than 64 bytes are slices of the payload, not copies.
    pub fn term(&self) -> Result<Term, DecodeError> {
        self.decoder().bare_shared(&self.bytes)
    }

    /// The term, if there are no more than so many others in it ([`Limits::terms`]): for servers that
    /// read whatever anybody sends them, before they know what it is.
    pub fn term_up_to(&self, terms: usize) -> Result<Term, DecodeError> {
        let mut limits = limits();
        limits.terms = terms;
        self.decoder().limits(limits).bare_shared(&self.bytes)
    }

    /// The term, borrowed.
    pub fn term_ref(&self) -> Result<TermRef<'_>, DecodeError> {
        let (term, rest) = self.decoder().bare_ref(&self.bytes)?;
        if rest.is_empty() { Ok(term) } else { Err(DecodeError::Trailing { left: rest.len() }) }
    }

    /// The value, decoded without building a term.
    pub fn typed<'a, T: Deserialize<'a>>(&'a self) -> Result<T, TypedError> {
        let (value, rest) = self.decoder().bare_typed(&self.bytes)?;
        if rest.is_empty() {
            Ok(value)
        } else {
            Err(DecodeError::Trailing { left: rest.len() }.into())
        }
    }

    /// The last of several terms in it: what begins at that place of its bytes.
    #[must_use]
    pub fn slice(&self, from: usize) -> Self {
        Self::new(self.bytes.slice(from.min(self.bytes.len())..), Arc::clone(&self.atoms))
    }

    /// The same, not held inside of the buffer that it was read into, which is larger than a small
    /// payload and lives as long as it: for payloads that wait long.
    #[must_use]
    pub fn compact(self) -> Self {
        const SMALL: usize = 16 * 1024;
        if self.bytes.len() > SMALL {
            return self;
        }
        Self::new(Bytes::copy_from_slice(&self.bytes), self.atoms)
    }

    /// Its encoded bytes, without version byte; atoms may be numbers of [`Payload::atoms`].
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The atoms that its bytes refer to.
    pub fn atoms(&self) -> &[Atom] {
        &self.atoms
    }

    /// A decoder that knows the atoms.
    pub fn decoder(&self) -> Decoder<'_> {
        decoder(&self.atoms)
    }
}

/// A decoder of what is in a message, of which the connection has limited the size already.
pub(crate) fn decoder(atoms: &[Atom]) -> Decoder<'_> {
    Decoder::new().limits(limits()).atoms(atoms)
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.size = usize::MAX;
    limits
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = (self.bytes.len() <= 1024).then(|| self.term_ref());
        match short {
            Some(Ok(term)) => write!(f, "Payload({term:?})"),
            _ => write!(f, "Payload({} bytes)", self.bytes.len()),
        }
    }
}
