//! Tokens to terms that borrow.

use super::{
    AtomRef, Cursor, DecodeError, FunRef, PidRef, PortRef, RecordRef, ReferenceRef, Token,
};
use crate::{
    BigInt, Binary, BitString, Export, Fun, Map, Node, Pid, Port, Record, Reference, Term, tag,
};

/// A term whose text and bytes are those of the input.
///
/// Containers have a vector each, everything else borrows: a binary of any size costs nothing. A
/// map is the pairs as they came; that no key is there twice is found when it becomes an owned
/// one ([`TermRef::to_term`]).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TermRef<'a> {
    /// An integer that fits.
    Integer(i64),
    /// A sign (true for negative) and a little-endian magnitude that does not fit.
    Big(bool, &'a [u8]),
    /// A float.
    Float(f64),
    /// An atom.
    Atom(AtomRef<'a>),
    /// A tuple.
    Tuple(Vec<TermRef<'a>>),
    /// A proper list.
    List(Vec<TermRef<'a>>),
    /// A list of small integers, most likely text (`STRING_EXT`).
    String(&'a [u8]),
    /// Elements, and a tail that is not a list.
    Improper(Box<(Vec<TermRef<'a>>, TermRef<'a>)>),
    /// A map.
    Map(MapRef<'a>),
    /// Bytes.
    Binary(&'a [u8]),
    /// Bytes, and how many bits of the last one are used (1 to 7; the others are arbitrary).
    Bits(&'a [u8], u8),
    /// A process identifier.
    Pid(Box<PidRef<'a>>),
    /// A port identifier.
    Port(Box<PortRef<'a>>),
    /// A reference.
    Reference(Box<ReferenceRef<'a>>),
    /// A fun and the values of its free variables.
    Fun(Box<(FunRef<'a>, Vec<TermRef<'a>>)>),
    /// `fun Module:Function/Arity`.
    Export(Box<(AtomRef<'a>, AtomRef<'a>, u32)>),
    /// A native record and the values of its fields.
    Record(Box<(RecordRef<'a>, Vec<TermRef<'a>>)>),
}

/// The pairs of a map, in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub struct MapRef<'a>(Vec<(TermRef<'a>, TermRef<'a>)>);

// What recurses is kept apart from what does not, for the stack's sake.
pub(super) fn term<'a>(cursor: &mut Cursor<'a>) -> Result<TermRef<'a>, DecodeError> {
    if let Some(value) = cursor.integer() {
        return Ok(TermRef::Integer(value));
    }
    if let Some(text) = cursor.atom_text() {
        return Ok(TermRef::Atom(AtomRef::Text(text)));
    }
    if let Some(bytes) = cursor.binary() {
        return Ok(TermRef::Binary(bytes));
    }
    if let Some(count) = cursor.tuple() {
        return terms(cursor, count).map(TermRef::Tuple);
    }
    other(cursor)
}

#[inline(never)]
fn other<'a>(cursor: &mut Cursor<'a>) -> Result<TermRef<'a>, DecodeError> {
    match cursor.token()? {
        Token::Tuple(count) => terms(cursor, count).map(TermRef::Tuple),
        Token::List(count) => list(cursor, count),
        Token::Map(count) => map(cursor, count),
        Token::Fun(fun) => {
            let free = terms(cursor, fun.free)?;
            Ok(TermRef::Fun(Box::new((*fun, free))))
        }
        Token::Record(record) => {
            let values = terms(cursor, record.fields.len())?;
            Ok(TermRef::Record(Box::new((*record, values))))
        }
        token => Ok(leaf(token)),
    }
}

#[inline]
fn leaf(token: Token<'_>) -> TermRef<'_> {
    match token {
        Token::Integer(value) => TermRef::Integer(value),
        Token::Atom(atom) => TermRef::Atom(atom),
        Token::Binary(bytes) => TermRef::Binary(bytes),
        Token::Float(value) => TermRef::Float(value),
        Token::String(characters) => TermRef::String(characters),
        Token::Big { negative, magnitude } => TermRef::Big(negative, magnitude),
        Token::Bits(bytes, bits) => TermRef::Bits(bytes, bits),
        Token::Pid(pid) => TermRef::Pid(Box::new(pid)),
        Token::Port(port) => TermRef::Port(Box::new(port)),
        Token::Reference(reference) => TermRef::Reference(reference),
        Token::Export(export) => TermRef::Export(export),
        // The heads of containers are taken before.
        _ => TermRef::List(Vec::new()),
    }
}

#[inline(never)]
fn map<'a>(cursor: &mut Cursor<'a>, count: usize) -> Result<TermRef<'a>, DecodeError> {
    cursor.enter()?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        pairs.push((term(cursor)?, term(cursor)?));
    }
    cursor.leave();
    Ok(TermRef::Map(MapRef(pairs)))
}

fn terms<'a>(cursor: &mut Cursor<'a>, count: usize) -> Result<Vec<TermRef<'a>>, DecodeError> {
    cursor.enter()?;
    let mut terms = Vec::with_capacity(count);
    for _ in 0..count {
        // The commonest kind without a call.
        terms.push(match cursor.integer() {
            Some(value) => TermRef::Integer(value),
            None => term(cursor)?,
        });
    }
    cursor.leave();
    Ok(terms)
}

fn list<'a>(cursor: &mut Cursor<'a>, count: usize) -> Result<TermRef<'a>, DecodeError> {
    let mut elements = terms(cursor, count)?;
    cursor.enter()?;
    let tail = loop {
        match cursor.peek() {
            Some(tag::LIST) => {
                let Token::List(more) = cursor.token()? else { break None };
                elements.reserve(more);
                for _ in 0..more {
                    elements.push(term(cursor)?);
                }
            }
            Some(tag::NIL) => {
                cursor.token()?;
                break None;
            }
            _ => break Some(term(cursor)?),
        }
    };
    cursor.leave();
    Ok(match tail {
        Some(tail) if elements.is_empty() => tail,
        Some(TermRef::String(characters)) => {
            elements.extend(characters.iter().map(|&c| TermRef::Integer(c.into())));
            TermRef::List(elements)
        }
        None | Some(TermRef::List(_)) => TermRef::List(elements),
        Some(tail) => TermRef::Improper(Box::new((elements, tail))),
    })
}

// A loop, as all that recurses here: adapters would take several times the stack.
fn owned(terms: &[TermRef<'_>]) -> Result<Vec<Term>, DecodeError> {
    let mut owned = Vec::with_capacity(terms.len());
    for term in terms {
        owned.push(term.to_term()?);
    }
    Ok(owned)
}

impl TermRef<'_> {
    /// The same term, owned. Fails only for a map with the same key twice.
    pub fn to_term(&self) -> Result<Term, DecodeError> {
        match self {
            Self::Tuple(elements) => owned(elements).map(Term::Tuple),
            Self::List(elements) => owned(elements).map(Term::List),
            Self::Improper(list) => Ok(Term::list_ending(owned(&list.0)?, list.1.to_term()?)),
            Self::Map(map) => map.to_term(),
            Self::Fun(fun) => {
                let free = owned(&fun.1)?;
                Ok(fun.0.with(free))
            }
            Self::Record(record) => {
                let values = owned(&record.1)?;
                Ok(record.0.with(values))
            }
            leaf => leaf.leaf_to_term(),
        }
    }

    #[inline(never)]
    fn leaf_to_term(&self) -> Result<Term, DecodeError> {
        Ok(match self {
            Self::Integer(value) => Term::Integer(*value),
            Self::Big(negative, magnitude) => Term::Big(BigInt::new(*negative, magnitude)),
            Self::Float(value) => Term::Float(*value),
            Self::Atom(atom) => Term::Atom(atom.to_atom()),
            Self::String(characters) => {
                Term::List(characters.iter().map(|&c| Term::Integer(c.into())).collect())
            }
            Self::Binary(bytes) => Term::Binary(Binary::copy(bytes)),
            Self::Bits(bytes, bits) => {
                BitString::new(bytes, *bits).ok_or(DecodeError::Bits { bits: *bits })?.into()
            }
            Self::Pid(pid) => pid.to_pid().into(),
            Self::Port(port) => {
                Port { node: Node::new(port.node.to_atom(), port.creation), id: port.id }.into()
            }
            Self::Reference(reference) => {
                let node = Node::new(reference.node.to_atom(), reference.creation);
                Reference::new(node, reference.words())
                    .ok_or(DecodeError::Malformed { what: "reference" })?
                    .into()
            }
            Self::Export(export) => {
                Export { module: export.0.to_atom(), function: export.1.to_atom(), arity: export.2 }
                    .into()
            }
            // The containers are taken before.
            _ => Term::nil(),
        })
    }
}

impl FunRef<'_> {
    #[inline(never)]
    fn with(&self, free: Vec<Term>) -> Term {
        Term::Fun(Box::new(Fun {
            arity: self.arity,
            uniq: *self.uniq,
            index: self.index,
            module: self.module.to_atom(),
            old_index: self.old_index,
            old_uniq: self.old_uniq,
            pid: self.pid.to_pid(),
            free,
        }))
    }
}

impl RecordRef<'_> {
    #[inline(never)]
    fn with(&self, values: Vec<Term>) -> Term {
        let names = self.fields.iter().map(|name| name.to_atom());
        Term::Record(Box::new(Record {
            exported: self.exported,
            module: self.module.to_atom(),
            name: self.name.to_atom(),
            fields: names.zip(values).collect(),
        }))
    }
}

impl<'a> MapRef<'a> {
    /// The pairs.
    pub fn pairs(&self) -> &[(TermRef<'a>, TermRef<'a>)] {
        &self.0
    }

    #[inline(never)]
    fn to_term(&self) -> Result<Term, DecodeError> {
        let mut pairs = Vec::with_capacity(self.0.len());
        for (key, value) in &self.0 {
            pairs.push((key.to_term()?, value.to_term()?));
        }
        Ok(Term::Map(Map::from_pairs(pairs)?))
    }

    /// The value of an atom as key: the first such pair.
    pub fn get_atom(&self, key: &str) -> Option<&TermRef<'a>> {
        let is = |found: &TermRef<'_>| matches!(found, TermRef::Atom(atom) if *atom == key);
        self.0.iter().find(|(found, _)| is(found)).map(|(_, value)| value)
    }
}

impl PidRef<'_> {
    /// The same, owned.
    pub fn to_pid(&self) -> Pid {
        Pid {
            node: Node::new(self.node.to_atom(), self.creation),
            id: self.id,
            serial: self.serial,
        }
    }
}
