//! Bytes to terms.

mod borrowed;
mod cursor;
mod error;
mod inflate;
mod owned;
mod reader;
mod token;

use std::borrow::Cow;

pub use borrowed::{MapRef, TermRef};
use bytes::Bytes;
pub(crate) use cursor::Cursor;
pub use error::DecodeError;
pub use reader::TermReader;
pub(crate) use token::Token;
pub use token::{AtomRef, FunRef, PidRef, PortRef, RecordRef, ReferenceRef};

use crate::{Atom, Term, tag};

/// What a decoder puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How deep containers may nest; at most [`Limits::DEEPEST`], whatever is set.
    pub depth: usize,
    /// How many bytes the input may have.
    pub size: usize,
    /// How many bytes a compressed term may become.
    pub inflated: usize,
    /// How many terms there may be inside of containers; each character of a list that is sent as
    /// `STRING_EXT` is one. Each takes 32 bytes, though it may come in one.
    pub terms: usize,
}

/// Which atoms and functions are known already: the safe form of decoding, as
/// `binary_to_term(B, [safe])`, refuses all others.
pub trait Known: Send + Sync {
    /// Whether there is such an atom.
    fn atom(&self, text: &str) -> bool;

    /// Whether there is such a function; `fun M:F/A` of others is refused.
    fn export(&self, module: &str, function: &str, arity: u32) -> bool {
        _ = (module, function, arity);
        false
    }
}

/// Decodes terms under chosen limits.
///
/// ```
/// use meshx_etf::{DecodeError, Decoder, Limits};
/// let mut limits = Limits::default();
/// limits.depth = 2;
/// let decoder = Decoder::new().limits(limits);
/// assert!(decoder.term(&[131, 104, 1, 104, 0]).is_ok());
/// let nested = [131, 104, 1, 104, 1, 104, 0];
/// assert_eq!(decoder.term(&nested), Err(DecodeError::Depth { limit: 2 }));
/// ```
#[derive(Clone, Copy, Default)]
pub struct Decoder<'k> {
    limits: Limits,
    known: Option<&'k dyn Known>,
    atoms: &'k [Atom],
}

/// Decodes one term that is the whole input, under the default [`Limits`].
pub fn decode(bytes: &[u8]) -> Result<Term, DecodeError> {
    Decoder::new().term(bytes)
}

/// As [`decode`], borrowing text and bytes from the input. A compressed term is refused, as there
/// is nothing to borrow from.
pub fn decode_ref(bytes: &[u8]) -> Result<TermRef<'_>, DecodeError> {
    Decoder::new().term_ref(bytes)
}

impl Limits {
    /// The deepest nesting that can be allowed. What recurses here takes about 2.5 KiB of stack for
    /// a level where it is not optimised: the default fits a thread of 2 MiB even then, this needs
    /// 4 MiB.
    pub const DEEPEST: usize = 1024;
}

/// Depth 512, input of 1 GiB, inflated 64 MiB, 2²⁶ terms, which are 2 GiB.
impl Default for Limits {
    fn default() -> Self {
        Self { depth: 512, size: 1 << 30, inflated: 64 << 20, terms: 1 << 26 }
    }
}

impl<'k> Decoder<'k> {
    /// A decoder with the default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// With these limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Only with atoms and functions that are known.
    #[must_use]
    pub fn known(mut self, known: &'k dyn Known) -> Self {
        self.known = Some(known);
        self
    }

    /// Inside of a distribution message whose header named these atoms.
    #[must_use]
    pub fn atoms(mut self, atoms: &'k [Atom]) -> Self {
        self.atoms = atoms;
        self
    }

    /// Decodes one term with its version byte, compressed or not, that is the whole input.
    pub fn term(&self, bytes: &[u8]) -> Result<Term, DecodeError> {
        let (term, used) = self.prefix(bytes)?;
        whole(bytes.len(), used)?;
        Ok(term)
    }

    /// Decodes one term with its version byte; whatever comes after it is left alone. Gives also
    /// how many bytes it took.
    pub fn prefix(&self, bytes: &[u8]) -> Result<(Term, usize), DecodeError> {
        let (body, used) = self.body(bytes)?;
        let mut cursor = self.cursor(&body)?;
        let term = owned::term(&mut cursor, None)?;
        let used = match used {
            Some(used) => {
                whole(body.len(), body.len().saturating_sub(cursor.rest().len()))?;
                used
            }
            None => bytes.len().saturating_sub(cursor.rest().len()),
        };
        Ok((term, used))
    }

    /// As [`Decoder::term`]; binaries of more than 64 bytes are slices of the input, not copies.
    pub fn shared(&self, bytes: &Bytes) -> Result<Term, DecodeError> {
        let (body, used) = self.body(bytes)?;
        let body = match (body, used) {
            (Cow::Owned(inflated), Some(used)) => {
                whole(bytes.len(), used)?;
                Bytes::from(inflated)
            }
            _ => bytes.slice(1..),
        };
        let mut cursor = self.cursor(&body)?;
        let term = owned::term(&mut cursor, Some(&body))?;
        cursor.end()?;
        Ok(term)
    }

    /// Decodes one term of a distribution message, which has no version byte; gives what follows.
    pub fn bare<'a>(&self, bytes: &'a [u8]) -> Result<(Term, &'a [u8]), DecodeError>
    where
        'k: 'a,
    {
        let mut cursor = self.cursor(bytes)?;
        let term = owned::term(&mut cursor, None)?;
        Ok((term, cursor.rest()))
    }

    /// Decodes one term of a distribution message that is the whole input; binaries of more than 64
    /// bytes are slices of it, not copies.
    pub fn bare_shared(&self, bytes: &Bytes) -> Result<Term, DecodeError> {
        let mut cursor = self.cursor(bytes)?;
        let term = owned::term(&mut cursor, Some(bytes))?;
        cursor.end()?;
        Ok(term)
    }

    /// As [`Decoder::bare`], borrowing from the input.
    pub fn bare_ref<'a>(&self, bytes: &'a [u8]) -> Result<(TermRef<'a>, &'a [u8]), DecodeError>
    where
        'k: 'a,
    {
        let mut cursor = self.cursor(bytes)?;
        let term = borrowed::term(&mut cursor)?;
        Ok((term, cursor.rest()))
    }

    /// As [`Decoder::term`], borrowing from the input. A compressed term is refused.
    pub fn term_ref<'a>(&self, bytes: &'a [u8]) -> Result<TermRef<'a>, DecodeError>
    where
        'k: 'a,
    {
        let mut cursor = self.versioned(bytes)?;
        let term = borrowed::term(&mut cursor)?;
        cursor.end()?;
        Ok(term)
    }

    /// Checks one term of a distribution message without building it; gives what follows it.
    pub fn skip<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError>
    where
        'k: 'a,
    {
        let mut cursor = self.cursor(bytes)?;
        cursor.skip()?;
        Ok(cursor.rest())
    }

    /// A cursor behind the version byte, for a term that is not compressed.
    pub(crate) fn versioned<'a>(&self, bytes: &'a [u8]) -> Result<Cursor<'a>, DecodeError>
    where
        'k: 'a,
    {
        let (&version, body) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        if version != tag::VERSION {
            return Err(DecodeError::Version { found: version });
        }
        self.cursor(body)
    }

    /// What follows the version byte, inflated if it is compressed; then with the number of bytes
    /// that the compressed form took.
    fn body<'a>(&self, bytes: &'a [u8]) -> Result<(Cow<'a, [u8]>, Option<usize>), DecodeError> {
        match bytes {
            [tag::VERSION, tag::COMPRESSED, rest @ ..] => {
                self.fits(bytes.len())?;
                let (body, used) = inflate::inflate(rest, self.limits.inflated)?;
                Ok((body.into(), Some(used.saturating_add(2))))
            }
            [tag::VERSION, rest @ ..] => Ok((rest.into(), None)),
            [version, ..] => Err(DecodeError::Version { found: *version }),
            [] => Err(DecodeError::Truncated),
        }
    }

    pub(crate) fn cursor<'a>(&self, body: &'a [u8]) -> Result<Cursor<'a>, DecodeError>
    where
        'k: 'a,
    {
        self.fits(body.len())?;
        Ok(Cursor::new(body, self.limits, self.known, self.atoms))
    }

    fn fits(&self, size: usize) -> Result<(), DecodeError> {
        if size > self.limits.size {
            return Err(DecodeError::Size { size, limit: self.limits.size });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Builds the next term.
pub(crate) fn owned(cursor: &mut Cursor<'_>) -> Result<Term, DecodeError> {
    owned::term(cursor, None)
}

fn whole(len: usize, used: usize) -> Result<(), DecodeError> {
    match len.saturating_sub(used) {
        0 => Ok(()),
        left => Err(DecodeError::Trailing { left }),
    }
}
