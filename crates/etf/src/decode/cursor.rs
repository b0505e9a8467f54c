//! One token of a term after the other; everything that is checked is checked here, or in the
//! constructors of [`AtomRef`].

use super::token::{AtomRef, FunRef, PidRef, PortRef, RecordRef, ReferenceRef, Token};
use super::{DecodeError, Known, Limits};
use crate::wire::{Reader, size};
use crate::{Atom, Reference, bigint, tag};

/// Reads tokens.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    reader: Reader<'a>,
    /// Terms that the containers read so far still owe. Each takes a byte at least, so a container
    /// may be believed when its parts and these fit what is left: then all memory ever reserved is
    /// in proportion to the input.
    promised: usize,
    /// How many more terms there may be.
    terms: usize,
    depth: usize,
    limits: Limits,
    known: Option<&'a dyn Known>,
    atoms: &'a [Atom],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        body: &'a [u8],
        limits: Limits,
        known: Option<&'a dyn Known>,
        atoms: &'a [Atom],
    ) -> Self {
        let (reader, terms) = (Reader::new(body), limits.terms);
        Self { reader, promised: 1, terms, depth: 0, limits, known, atoms }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// That nothing is left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.reader.rest().len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }

    /// Into a container; every `enter` has its `leave`, unless there is an error.
    #[inline]
    pub(crate) fn enter(&mut self) -> Result<(), DecodeError> {
        self.depth = self.depth.saturating_add(1);
        let limit = self.limits.depth.min(Limits::DEEPEST);
        if self.depth > limit {
            return Err(DecodeError::Depth { limit });
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// The tag of the next token.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.reader.rest().first().copied()
    }

    /// The next token, if it is an integer of at most 32 bits; nothing is taken otherwise. Most of
    /// what a program sends are such integers, and a token is large.
    #[inline]
    pub(crate) fn integer(&mut self) -> Option<i64> {
        let (value, rest) = match *self.reader.rest() {
            [tag::SMALL_INTEGER, byte, ref rest @ ..] => (byte.into(), rest),
            [tag::INTEGER, a, b, c, d, ref rest @ ..] => {
                (i32::from_be_bytes([a, b, c, d]).into(), rest)
            }
            _ => return None,
        };
        self.reader = Reader::new(rest);
        self.promised = self.promised.saturating_sub(1);
        Some(value)
    }

    /// The number of elements of the next token, if it is a small tuple; nothing is taken otherwise.
    #[inline]
    pub(crate) fn tuple(&mut self) -> Option<usize> {
        let [tag::SMALL_TUPLE, count, ref rest @ ..] = *self.reader.rest() else { return None };
        let promised = self.promised.saturating_sub(1).saturating_add(count.into());
        if promised > rest.len() {
            return None;
        }
        self.terms = self.terms.checked_sub(count.into())?;
        self.reader = Reader::new(rest);
        self.promised = promised;
        Some(count.into())
    }

    /// The next token, if it is a list of small integers; nothing is taken otherwise.
    #[inline]
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let [tag::STRING, a, b, ref rest @ ..] = *self.reader.rest() else { return None };
        let (characters, rest) = rest.split_at_checked(u16::from_be_bytes([a, b]).into())?;
        self.terms = self.terms.checked_sub(characters.len())?;
        self.reader = Reader::new(rest);
        self.promised = self.promised.saturating_sub(1);
        Some(characters)
    }

    /// The next token, if it is a binary; nothing is taken otherwise.
    #[inline]
    pub(crate) fn binary(&mut self) -> Option<&'a [u8]> {
        let [tag::BINARY, a, b, c, d, ref rest @ ..] = *self.reader.rest() else { return None };
        let (bytes, rest) = rest.split_at_checked(size(u32::from_be_bytes([a, b, c, d])))?;
        self.reader = Reader::new(rest);
        self.promised = self.promised.saturating_sub(1);
        Some(bytes)
    }

    /// The next token, if it is an atom in the form of today; nothing is taken otherwise.
    #[inline]
    pub(crate) fn atom_text(&mut self) -> Option<&'a str> {
        let [tag::SMALL_ATOM_UTF8, len, ref rest @ ..] = *self.reader.rest() else { return None };
        let (text, rest) = rest.split_at_checked(len.into())?;
        let text = std::str::from_utf8(text).ok()?;
        if self.known.is_some() {
            return None;
        }
        self.reader = Reader::new(rest);
        self.promised = self.promised.saturating_sub(1);
        Some(text)
    }

    #[inline]
    pub(crate) fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        self.promised = self.promised.saturating_sub(1);
        let tag = self.reader.u8().ok_or(DecodeError::Truncated)?;
        Ok(match tag {
            tag::SMALL_INTEGER => Token::Integer(self.u8()?.into()),
            tag::INTEGER => Token::Integer(self.u32()?.cast_signed().into()),
            tag::SMALL_ATOM_UTF8
            | tag::ATOM_UTF8
            | tag::SMALL_ATOM
            | tag::ATOM
            | tag::ATOM_CACHE_REF => Token::Atom(self.atom_of(tag)?),
            tag::BINARY => {
                let len = self.count()?;
                Token::Binary(self.take(len)?)
            }
            tag::SMALL_TUPLE => Token::Tuple(self.u8().map(usize::from).and_then(|n| self.owe(n))?),
            tag::NIL => Token::Nil,
            tag::LIST => {
                let count = self.count()?;
                self.owe(count.saturating_add(1))?;
                Token::List(count)
            }
            tag::STRING => {
                let len = self.reader.u16().ok_or(DecodeError::Truncated)?;
                self.spend(len.into())?;
                match self.take(len.into())? {
                    [] => Token::Nil,
                    characters => Token::String(characters),
                }
            }
            tag::MAP => {
                let count = self.count()?;
                self.owe(count.saturating_mul(2))?;
                Token::Map(count)
            }
            tag::NEW_FLOAT => Token::Float(self.float()?),
            _ => self.rare(tag)?,
        })
    }

    #[cold]
    #[inline(never)]
    fn rare_tag(tag: u8) -> DecodeError {
        if tag == tag::COMPRESSED { DecodeError::CompressedHere } else { DecodeError::Tag { tag } }
    }

    #[inline(never)]
    fn rare(&mut self, tag: u8) -> Result<Token<'a>, DecodeError> {
        Ok(match tag {
            tag::LARGE_TUPLE => Token::Tuple(self.count().and_then(|n| self.owe(n))?),
            tag::SMALL_BIG => {
                let len = self.u8()?;
                self.big(len.into())?
            }
            tag::LARGE_BIG => {
                let len = self.count()?;
                self.big(len)?
            }
            tag::FLOAT => Token::Float(text_float(self.take(31)?)?),
            tag::BIT_BINARY => self.bits()?,
            tag::NEW_PID | tag::PID => Token::Pid(self.pid(tag)?),
            tag::V4_PORT | tag::NEW_PORT | tag::PORT => Token::Port(self.port(tag)?),
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE => {
                Token::Reference(Box::new(self.reference(tag)?))
            }
            tag::NEW_FUN => Token::Fun(Box::new(self.fun()?)),
            tag::EXPORT => self.export()?,
            tag::RECORD => Token::Record(Box::new(self.record()?)),
            _ => return Err(Self::rare_tag(tag)),
        })
    }

    /// Whether an atom comes next.
    #[inline]
    pub(crate) fn at_atom(&self) -> bool {
        self.peek().is_some_and(is_atom)
    }

    /// The next token, if it is a reference, without a box around it.
    pub(super) fn unboxed_reference(&mut self) -> Result<Option<ReferenceRef<'a>>, DecodeError> {
        let Some(tag @ (tag::NEWER_REFERENCE | tag::NEW_REFERENCE | tag::REFERENCE)) = self.peek()
        else {
            return Ok(None);
        };
        self.tag()?;
        self.reference(tag).map(Some)
    }

    /// The next token, which must be a pid.
    #[inline]
    pub(super) fn only_pid(&mut self) -> Result<PidRef<'a>, DecodeError> {
        match self.tag()? {
            tag @ (tag::NEW_PID | tag::PID) => self.pid(tag),
            _ => Err(DecodeError::Kind { wanted: "a pid" }),
        }
    }

    /// The next token, which must be an atom.
    #[inline]
    pub(super) fn only_atom(&mut self) -> Result<AtomRef<'a>, DecodeError> {
        match self.tag()? {
            tag if is_atom(tag) => self.atom_of(tag),
            _ => Err(DecodeError::Kind { wanted: "an atom" }),
        }
    }

    /// The tag of a token.
    #[inline]
    fn tag(&mut self) -> Result<u8, DecodeError> {
        self.promised = self.promised.saturating_sub(1);
        self.u8()
    }

    /// Whether it is inside of a distribution message.
    pub(crate) fn has_atoms(&self) -> bool {
        !self.atoms.is_empty()
    }

    /// Reads over a term.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        if self.integer().is_some() || self.binary().is_some() {
            return Ok(());
        }
        if self.at_atom() {
            return self.only_atom().map(|_| ());
        }
        if self.unboxed_reference()?.is_some() {
            return Ok(());
        }
        let parts = match self.token()? {
            Token::Tuple(count) => count,
            Token::List(count) => count.saturating_add(1),
            Token::Map(count) => count.saturating_mul(2),
            Token::Fun(fun) => fun.free,
            Token::Record(record) => record.fields.len(),
            _ => return Ok(()),
        };
        self.enter()?;
        for _ in 0..parts {
            self.skip()?;
        }
        self.leave();
        Ok(())
    }

    #[inline]
    fn owe(&mut self, count: usize) -> Result<usize, DecodeError> {
        self.promised = self.promised.saturating_add(count);
        if self.promised > self.reader.rest().len() {
            return Err(DecodeError::Truncated);
        }
        self.spend(count)?;
        Ok(count)
    }

    /// So many terms more, that somebody may build.
    #[inline]
    fn spend(&mut self, count: usize) -> Result<(), DecodeError> {
        let limit = self.limits.terms;
        self.terms = self.terms.checked_sub(count).ok_or(DecodeError::Terms { limit })?;
        Ok(())
    }

    #[inline]
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.reader.u8().ok_or(DecodeError::Truncated)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.reader.u32().ok_or(DecodeError::Truncated)
    }

    #[inline]
    fn count(&mut self) -> Result<usize, DecodeError> {
        self.u32().map(size)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        self.reader.take(len).ok_or(DecodeError::Truncated)
    }

    #[inline]
    fn float(&mut self) -> Result<f64, DecodeError> {
        let value = f64::from_bits(self.reader.u64().ok_or(DecodeError::Truncated)?);
        if value.is_finite() { Ok(value) } else { Err(DecodeError::Float) }
    }

    fn big(&mut self, len: usize) -> Result<Token<'a>, DecodeError> {
        let negative = self.u8()? != 0;
        let magnitude = self.take(len)?;
        Ok(match bigint::small(negative, magnitude) {
            Some(value) => Token::Integer(value),
            None => Token::Big { negative, magnitude },
        })
    }

    fn bits(&mut self) -> Result<Token<'a>, DecodeError> {
        let len = self.count()?;
        let bits = self.u8()?;
        let bytes = self.take(len)?;
        match (bits, bytes.is_empty()) {
            (8, false) | (0, true) => Ok(Token::Binary(bytes)),
            (1..=7, false) => Ok(Token::Bits(bytes, bits)),
            _ => Err(DecodeError::Bits { bits }),
        }
    }

    #[inline]
    fn atom(&mut self) -> Result<AtomRef<'a>, DecodeError> {
        let tag = self.u8()?;
        self.atom_of(tag)
    }

    #[inline]
    fn atom_of(&mut self, tag: u8) -> Result<AtomRef<'a>, DecodeError> {
        let short = |len: Option<u8>| len.map(usize::from).ok_or(DecodeError::Truncated);
        let long = |len: Option<u16>| len.map(usize::from).ok_or(DecodeError::Truncated);
        let atom = match tag {
            tag::SMALL_ATOM_UTF8 => {
                let len = short(self.reader.u8())?;
                AtomRef::utf8(self.take(len)?)?
            }
            tag::ATOM_UTF8 => {
                let len = long(self.reader.u16())?;
                AtomRef::utf8(self.take(len)?)?
            }
            tag::SMALL_ATOM => {
                let len = short(self.reader.u8())?;
                AtomRef::latin1(self.take(len)?)?
            }
            tag::ATOM => {
                let len = long(self.reader.u16())?;
                AtomRef::latin1(self.take(len)?)?
            }
            tag::ATOM_CACHE_REF => {
                let index = self.u8()?;
                let atom = self.atoms.get(usize::from(index));
                AtomRef::Cached(atom.ok_or(DecodeError::AtomReference { index })?)
            }
            _ => return Err(Self::rare_tag(tag)),
        };
        if let Some(known) = self.known
            && !atom.with(|text| known.atom(text))
        {
            return Err(DecodeError::Unknown);
        }
        Ok(atom)
    }

    #[inline]
    fn pid(&mut self, tag: u8) -> Result<PidRef<'a>, DecodeError> {
        let (node, id, serial) = (self.atom()?, self.u32()?, self.u32()?);
        let creation = if tag == tag::NEW_PID { self.u32()? } else { self.old_creation()? };
        Ok(PidRef { node, id, serial, creation })
    }

    fn port(&mut self, tag: u8) -> Result<PortRef<'a>, DecodeError> {
        let node = self.atom()?;
        let id = match tag {
            tag::V4_PORT => self.reader.u64().ok_or(DecodeError::Truncated)?,
            _ => self.u32()?.into(),
        };
        let creation = if tag == tag::PORT { self.old_creation()? } else { self.u32()? };
        Ok(PortRef { node, id, creation })
    }

    fn reference(&mut self, tag: u8) -> Result<ReferenceRef<'a>, DecodeError> {
        let malformed = DecodeError::Malformed { what: "reference" };
        if tag == tag::REFERENCE {
            let (node, id) = (self.atom()?, self.u32()?);
            let creation = self.old_creation()?;
            return Ok(ReferenceRef { node, creation, words: [id, 0, 0, 0, 0], len: 1 });
        }
        let len = self.reader.u16().ok_or(DecodeError::Truncated)?;
        let node = self.atom()?;
        let creation = match tag {
            tag::NEWER_REFERENCE => self.u32()?,
            _ if len == 0 => return Err(malformed),
            _ => self.old_creation()?,
        };
        let mut words = [0; Reference::MAX];
        for word in words.get_mut(..usize::from(len)).ok_or(malformed)? {
            *word = self.u32()?;
        }
        Ok(ReferenceRef { node, creation, words, len: u8::try_from(len).unwrap_or_default() })
    }

    /// One byte, of which two bits count.
    fn old_creation(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from(self.u8()?) & 3)
    }

    fn fun(&mut self) -> Result<FunRef<'a>, DecodeError> {
        const MOST_FREE: usize = 255;
        let malformed = DecodeError::Malformed { what: "fun" };
        self.u32()?; // its size, which the VM does not look at either
        let arity = self.u8()?;
        let uniq = self.take(16)?.first_chunk().ok_or(DecodeError::Truncated)?;
        let index = self.u32()?;
        let free = self.count()?;
        if free > MOST_FREE {
            return Err(malformed);
        }
        let module = self.atom()?;
        let (old_index, old_uniq) = (self.small(&malformed)?, self.small(&malformed)?);
        let pid = match self.u8()? {
            tag @ (tag::NEW_PID | tag::PID) => self.pid(tag)?,
            _ => return Err(malformed),
        };
        self.owe(free)?;
        Ok(FunRef { arity, uniq, index, module, old_index, old_uniq, pid, free })
    }

    /// A small integer inside of another token.
    fn small(&mut self, otherwise: &DecodeError) -> Result<i32, DecodeError> {
        match self.u8()? {
            tag::SMALL_INTEGER => Ok(self.u8()?.into()),
            tag::INTEGER => Ok(self.u32()?.cast_signed()),
            _ => Err(otherwise.clone()),
        }
    }

    fn export(&mut self) -> Result<Token<'a>, DecodeError> {
        let malformed = DecodeError::Malformed { what: "export" };
        let (module, function) = (self.atom()?, self.atom()?);
        let arity = self.small(&malformed)?;
        let arity = u32::try_from(arity).map_err(|_| malformed)?;
        if let Some(known) = self.known
            && !module.with(|m| function.with(|f| known.export(m, f, arity)))
        {
            return Err(DecodeError::Unknown);
        }
        Ok(Token::Export(Box::new((module, function, arity))))
    }

    fn record(&mut self) -> Result<RecordRef<'a>, DecodeError> {
        let malformed = DecodeError::Malformed { what: "record" };
        let count = self.count()?;
        let exported = match self.u8()? {
            0 => false,
            1 => true,
            _ => return Err(malformed),
        };
        let (module, name) = (self.atom()?, self.atom()?);
        // A name takes two bytes at least and a value one.
        self.owe(count.saturating_mul(3))?;
        let fields = (0..count).map(|_| self.atom()).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<Atom> = fields.iter().map(|name| name.to_atom()).collect();
        names.sort_unstable();
        if names.array_windows().any(|[a, b]| a == b) {
            return Err(malformed);
        }
        self.promised = self.promised.saturating_sub(count.saturating_mul(2));
        Ok(RecordRef { exported, module, name, fields })
    }
}

/// `%.20e` of C, filled up with zeros.
fn text_float(field: &[u8]) -> Result<f64, DecodeError> {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| DecodeError::Float)?;
    // `inf` and `nan` are floats to Rust.
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) {
        return Err(DecodeError::Float);
    }
    let value: f64 = text.parse().map_err(|_| DecodeError::Float)?;
    if value.is_finite() { Ok(value) } else { Err(DecodeError::Float) }
}

#[inline]
fn is_atom(tag: u8) -> bool {
    matches!(
        tag,
        tag::SMALL_ATOM_UTF8 | tag::ATOM_UTF8 | tag::SMALL_ATOM | tag::ATOM | tag::ATOM_CACHE_REF
    )
}
