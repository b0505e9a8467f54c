//! What terms are made of, as it is in the input.

use super::DecodeError;
use crate::{Atom, Reference};

/// An atom of the input.
#[derive(Debug, Clone, Copy)]
pub enum AtomRef<'a> {
    /// Its text is in the input.
    Text(&'a str),
    /// Legacy Latin-1 with characters above 127.
    Latin1(&'a [u8]),
    /// Its text was in the message's header.
    Cached(&'a Atom),
}

/// A process identifier of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidRef<'a> {
    /// Its node's name.
    pub node: AtomRef<'a>,
    /// See [`crate::Pid::id`].
    pub id: u32,
    /// See [`crate::Pid::serial`].
    pub serial: u32,
    /// See [`crate::Node::creation`].
    pub creation: u32,
}

/// A port identifier of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRef<'a> {
    /// Its node's name.
    pub node: AtomRef<'a>,
    /// See [`crate::Port::id`].
    pub id: u64,
    /// See [`crate::Node::creation`].
    pub creation: u32,
}

/// A reference of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferenceRef<'a> {
    /// Its node's name.
    pub node: AtomRef<'a>,
    /// See [`crate::Node::creation`].
    pub creation: u32,
    pub(crate) words: [u32; Reference::MAX],
    pub(crate) len: u8,
}

/// The head of a fun of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunRef<'a> {
    /// See [`crate::Fun::arity`].
    pub arity: u8,
    /// See [`crate::Fun::uniq`].
    pub uniq: &'a [u8; 16],
    /// See [`crate::Fun::index`].
    pub index: u32,
    /// See [`crate::Fun::module`].
    pub module: AtomRef<'a>,
    /// See [`crate::Fun::old_index`].
    pub old_index: i32,
    /// See [`crate::Fun::old_uniq`].
    pub old_uniq: i32,
    /// See [`crate::Fun::pid`].
    pub pid: PidRef<'a>,
    pub(crate) free: usize,
}

/// The head of a native record of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// See [`crate::Record::exported`].
    pub exported: bool,
    /// See [`crate::Record::module`].
    pub module: AtomRef<'a>,
    /// See [`crate::Record::name`].
    pub name: AtomRef<'a>,
    /// The names of its fields.
    pub fields: Vec<AtomRef<'a>>,
}

/// A term, or the head of one whose parts follow as tokens.
#[derive(Debug, Clone)]
pub(crate) enum Token<'a> {
    Integer(i64),
    /// Does not fit an `i64`.
    Big {
        negative: bool,
        magnitude: &'a [u8],
    },
    Float(f64),
    Atom(AtomRef<'a>),
    Binary(&'a [u8]),
    /// The last number is 1 to 7.
    Bits(&'a [u8], u8),
    Tuple(usize),
    /// So many elements, and then a tail.
    List(usize),
    Nil,
    /// A list of small integers.
    String(&'a [u8]),
    Map(usize),
    Pid(PidRef<'a>),
    Port(PortRef<'a>),
    Reference(Box<ReferenceRef<'a>>),
    /// The values of its free variables follow.
    Fun(Box<FunRef<'a>>),
    /// Module, function, arity.
    Export(Box<(AtomRef<'a>, AtomRef<'a>, u32)>),
    /// The values of its fields follow.
    Record(Box<RecordRef<'a>>),
}

impl<'a> AtomRef<'a> {
    /// The atom of this text in UTF-8, of at most 255 characters.
    #[inline]
    pub(super) fn utf8(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Atom)?;
        if text.len() > Atom::MAX && text.chars().count() > Atom::MAX {
            return Err(DecodeError::Atom);
        }
        Ok(Self::Text(text))
    }

    /// The atom of these characters of Latin-1, at most 255.
    pub(super) fn latin1(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > Atom::MAX {
            return Err(DecodeError::Atom);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if text.is_ascii() => Ok(Self::Text(text)),
            _ => Ok(Self::Latin1(bytes)),
        }
    }

    /// The atom, owned.
    pub fn to_atom(self) -> Atom {
        match self {
            Self::Text(text) => Atom::cut(text),
            Self::Latin1(characters) => Atom::latin1(characters),
            Self::Cached(atom) => atom.clone(),
        }
    }

    /// Its text, unless it is legacy Latin-1 that has to be converted.
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Cached(atom) => Some(atom),
            Self::Latin1(_) => None,
        }
    }

    /// What `use_text` makes of its text.
    pub(crate) fn with<T>(self, use_text: impl FnOnce(&str) -> T) -> T {
        match self.as_str() {
            Some(text) => use_text(text),
            None => use_text(&self.to_atom()),
        }
    }
}

impl PartialEq for AtomRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.with(|text| *other == text)
    }
}

impl Eq for AtomRef<'_> {}

impl PartialEq<&str> for AtomRef<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.with(|text| text == *other)
    }
}

impl ReferenceRef<'_> {
    /// See [`Reference::words`].
    pub fn words(&self) -> &[u32] {
        self.words.get(..usize::from(self.len)).unwrap_or_default()
    }
}
