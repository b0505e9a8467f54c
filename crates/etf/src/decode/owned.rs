//! Tokens to owned terms.

use bytes::Bytes;

use super::{AtomRef, Cursor, DecodeError, FunRef, PidRef, RecordRef, Token};
use crate::{
    Atom, BigInt, Binary, BitString, Export, Fun, Map, Node, Pid, Port, Record, Reference, Term,
    tag,
};

/// Above so many bytes a binary is a slice of the input, when that is shared; below, a slice would
/// keep a large buffer alive for little.
const WORTH_SHARING: usize = 64;

/// Builds the next term; `input` is what the cursor reads, if slices of it may be held.
pub(super) fn term(cursor: &mut Cursor<'_>, input: Option<&Bytes>) -> Result<Term, DecodeError> {
    Builder { input, node: None }.term(cursor)
}

struct Builder<'b> {
    input: Option<&'b Bytes>,
    /// The node of the last identifier: most likely that of the next one too.
    node: Option<Node>,
}

impl Builder<'_> {
    // What recurses is kept apart from what does not, for the stack's sake.
    fn term(&mut self, cursor: &mut Cursor<'_>) -> Result<Term, DecodeError> {
        if let Some(value) = cursor.integer() {
            return Ok(Term::Integer(value));
        }
        if let Some(text) = cursor.atom_text() {
            return Ok(Term::Atom(Atom::cut(text)));
        }
        if let Some(bytes) = cursor.binary() {
            return Ok(Term::Binary(self.binary(bytes)));
        }
        if let Some(count) = cursor.tuple() {
            return self.tuple(cursor, count);
        }
        self.other(cursor)
    }

    #[inline]
    fn tuple(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Result<Term, DecodeError> {
        cursor.enter()?;
        let elements = self.terms(cursor, count)?;
        cursor.leave();
        Ok(Term::Tuple(elements))
    }

    #[inline(never)]
    fn other(&mut self, cursor: &mut Cursor<'_>) -> Result<Term, DecodeError> {
        match cursor.token()? {
            Token::Tuple(count) => self.tuple(cursor, count),
            Token::List(count) => self.list(cursor, count),
            Token::Map(count) => self.map(cursor, count),
            Token::Fun(fun) => self.fun(cursor, &fun),
            Token::Record(record) => self.record(cursor, &record),
            leaf => self.leaf(leaf),
        }
    }

    #[inline]
    fn leaf(&mut self, token: Token<'_>) -> Result<Term, DecodeError> {
        Ok(match token {
            Token::Integer(value) => Term::Integer(value),
            Token::Atom(atom) => Term::Atom(atom.to_atom()),
            Token::Binary(bytes) => Term::Binary(self.binary(bytes)),
            Token::Float(value) => Term::Float(value),
            Token::Nil => Term::nil(),
            Token::String(characters) => {
                Term::List(characters.iter().map(|&c| Term::Integer(c.into())).collect())
            }
            Token::Pid(pid) => self.pid(&pid).into(),
            Token::Port(port) => {
                Port { node: self.node(port.node, port.creation), id: port.id }.into()
            }
            other => self.rare(other)?,
        })
    }

    #[inline(never)]
    fn rare(&mut self, token: Token<'_>) -> Result<Term, DecodeError> {
        Ok(match token {
            Token::Big { negative, magnitude } => Term::Big(BigInt::new(negative, magnitude)),
            Token::Bits(bytes, bits) => {
                BitString::new(bytes, bits).ok_or(DecodeError::Bits { bits })?.into()
            }
            Token::Reference(reference) => {
                let node = self.node(reference.node, reference.creation);
                Reference::new(node, reference.words())
                    .ok_or(DecodeError::Malformed { what: "reference" })?
                    .into()
            }
            Token::Export(export) => {
                let (module, function) = (export.0.to_atom(), export.1.to_atom());
                Export { module, function, arity: export.2 }.into()
            }
            // All others are taken before.
            _ => return Err(DecodeError::Truncated),
        })
    }

    fn pid(&mut self, pid: &PidRef<'_>) -> Pid {
        Pid { node: self.node(pid.node, pid.creation), id: pid.id, serial: pid.serial }
    }

    #[inline(never)]
    fn map(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Result<Term, DecodeError> {
        cursor.enter()?;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((self.term(cursor)?, self.term(cursor)?));
        }
        cursor.leave();
        Ok(Term::Map(Map::from_pairs(pairs)?))
    }

    #[inline(never)]
    fn fun(&mut self, cursor: &mut Cursor<'_>, fun: &FunRef<'_>) -> Result<Term, DecodeError> {
        cursor.enter()?;
        let free = self.terms(cursor, fun.free)?;
        cursor.leave();
        Ok(Term::Fun(Box::new(Fun {
            arity: fun.arity,
            uniq: *fun.uniq,
            index: fun.index,
            module: fun.module.to_atom(),
            old_index: fun.old_index,
            old_uniq: fun.old_uniq,
            pid: self.pid(&fun.pid),
            free,
        })))
    }

    #[inline(never)]
    fn record(
        &mut self,
        cursor: &mut Cursor<'_>,
        record: &RecordRef<'_>,
    ) -> Result<Term, DecodeError> {
        cursor.enter()?;
        let mut fields = Vec::with_capacity(record.fields.len());
        for name in &record.fields {
            fields.push((name.to_atom(), self.term(cursor)?));
        }
        cursor.leave();
        Ok(Term::Record(Box::new(Record {
            exported: record.exported,
            module: record.module.to_atom(),
            name: record.name.to_atom(),
            fields,
        })))
    }

    fn terms(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Term>, DecodeError> {
        let mut terms = Vec::with_capacity(count);
        for _ in 0..count {
            // The commonest kind without a call.
            terms.push(match cursor.integer() {
                Some(value) => Term::Integer(value),
                None => self.term(cursor)?,
            });
        }
        Ok(terms)
    }

    /// A list whose tail is a list again is one list, and not deeper for it.
    fn list(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Result<Term, DecodeError> {
        cursor.enter()?;
        let mut elements = self.terms(cursor, count)?;
        let tail = loop {
            match cursor.peek() {
                Some(tag::LIST) => {
                    let Token::List(more) = cursor.token()? else { break None };
                    elements.reserve(more);
                    for _ in 0..more {
                        elements.push(self.term(cursor)?);
                    }
                }
                Some(tag::NIL) => {
                    cursor.token()?;
                    break None;
                }
                // A string is taken apart again by `list_ending`.
                _ => break Some(self.term(cursor)?),
            }
        };
        cursor.leave();
        Ok(match tail {
            None => Term::List(elements),
            Some(tail) => Term::list_ending(elements, tail),
        })
    }

    fn binary(&self, bytes: &[u8]) -> Binary {
        match self.input {
            Some(input) if bytes.len() > WORTH_SHARING => Binary::shared(input.slice_ref(bytes)),
            _ => Binary::copy(bytes),
        }
    }

    fn node(&mut self, name: AtomRef<'_>, creation: u32) -> Node {
        if let Some(node) = &self.node
            && node.creation() == creation
            && name.with(|text| *node.name() == text)
        {
            return node.clone();
        }
        let node = Node::new(name.to_atom(), creation);
        self.node = Some(node.clone());
        node
    }
}
