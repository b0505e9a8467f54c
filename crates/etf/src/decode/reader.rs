//! A term read part by part, without building anything.

use super::{AtomRef, Cursor, DecodeError, PidRef, ReferenceRef, Token};
use crate::{Decoder, tag};

/// Reads a term part by part, for who knows what must be there: a control message of the
/// distribution, say, which is routed before its payload is decoded. Allocates nothing, except to skip
/// a fun, an export or a record.
///
/// ```
/// use meshx_etf::{Decoder, Node, Pid, encode, term};
/// let pid = Pid { node: Node::new("a@b".parse()?, 1), id: 5, serial: 0 };
/// let bytes = encode(&term!({6, (pid), "", counter}))?;
///
/// let mut reader = Decoder::new().reader(&bytes[1..])?;
/// let (size, operation) = (reader.tuple()?, reader.integer()?);
/// assert_eq!((size, operation), (4, 6));
/// let from = reader.pid()?;
/// reader.skip()?;
/// let to = reader.atom()?;
/// assert!(from.node == "a@b" && to == "counter" && reader.rest().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TermReader<'a>(Cursor<'a>);

impl<'k> Decoder<'k> {
    /// A reader of terms without version bytes.
    pub fn reader<'a>(&self, bytes: &'a [u8]) -> Result<TermReader<'a>, DecodeError>
    where
        'k: 'a,
    {
        self.cursor(bytes).map(TermReader)
    }
}

impl<'a> TermReader<'a> {
    /// The head of a tuple: how many elements follow.
    #[inline]
    pub fn tuple(&mut self) -> Result<usize, DecodeError> {
        if let Some(count) = self.0.tuple() {
            return Ok(count);
        }
        match self.0.token()? {
            Token::Tuple(count) => Ok(count),
            _ => Err(DecodeError::Kind { wanted: "a tuple" }),
        }
    }

    /// The head of a proper list of which the elements follow, and then one `[]`, to be read with
    /// [`TermReader::skip`], unless the list is empty.
    pub fn list(&mut self) -> Result<usize, DecodeError> {
        match self.0.token()? {
            Token::List(count) => Ok(count),
            Token::Nil => Ok(0),
            _ => Err(DecodeError::Kind { wanted: "a list" }),
        }
    }

    /// An integer that fits.
    #[inline]
    pub fn integer(&mut self) -> Result<i64, DecodeError> {
        if let Some(value) = self.0.integer() {
            return Ok(value);
        }
        match self.0.token()? {
            Token::Integer(value) => Ok(value),
            _ => Err(DecodeError::Kind { wanted: "an integer of 64 bits" }),
        }
    }

    /// An atom.
    #[inline]
    pub fn atom(&mut self) -> Result<AtomRef<'a>, DecodeError> {
        self.0.only_atom()
    }

    /// A pid.
    #[inline]
    pub fn pid(&mut self) -> Result<PidRef<'a>, DecodeError> {
        self.0.only_pid()
    }

    /// A reference.
    pub fn reference(&mut self) -> Result<ReferenceRef<'a>, DecodeError> {
        self.0.unboxed_reference()?.ok_or(DecodeError::Kind { wanted: "a reference" })
    }

    /// Checks a term of any kind and reads over it; gives its bytes.
    #[inline]
    pub fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let before = self.0.rest();
        self.0.skip()?;
        let used = before.len().saturating_sub(self.0.rest().len());
        Ok(before.get(..used).unwrap_or_default())
    }

    /// Whether the next term is an atom.
    #[inline]
    pub fn at_atom(&self) -> bool {
        self.0.at_atom()
    }

    /// Whether the next term is a reference.
    pub fn at_reference(&self) -> bool {
        matches!(self.0.peek(), Some(tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE))
    }

    /// Whether the next term is a list that is not empty, nor one of small integers.
    pub fn at_list(&self) -> bool {
        self.0.peek() == Some(tag::LIST)
    }

    /// Whether the next term is a pid.
    pub fn at_pid(&self) -> bool {
        matches!(self.0.peek(), Some(tag::NEW_PID | tag::PID))
    }

    /// What was not read.
    pub fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }
}

impl std::fmt::Debug for TermReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TermReader").field("left", &self.rest().len()).finish_non_exhaustive()
    }
}
