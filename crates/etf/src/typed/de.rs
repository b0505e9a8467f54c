//! Bytes to values.

use serde::de::{self, Visitor};

use super::TypedError;
use super::access::{Bytes, Elements, Keywords, List, Pairs, Variant, Walk};
use super::types::{ATOM, RAW};
use crate::decode::{Cursor, Token};
use crate::{AtomRef, BigInt, DecodeError};

pub(super) type Result<T, E = TypedError> = std::result::Result<T, E>;

pub(super) struct Deserializer<'c, 'de> {
    cursor: &'c mut Cursor<'de>,
}

impl<'c, 'de> Deserializer<'c, 'de> {
    pub(super) fn new(cursor: &'c mut Cursor<'de>) -> Self {
        Self { cursor }
    }

    /// An integer or a float.
    #[inline]
    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.cursor.integer() {
            Some(value) => visitor.visit_i64(value),
            None => {
                let (cursor, value) = rare_number(*self.cursor, visitor);
                *self.cursor = cursor;
                value
            }
        }
    }

    /// Goes on behind a list, of which nothing may be left.
    fn end_list(self, walk: Walk<'de>) -> Result<()> {
        let (walk, another) = walk.another();
        if another? {
            return Err(shape("a shorter list", "more elements"));
        }
        *self.cursor = walk.cursor;
        self.cursor.leave();
        Ok(())
    }

    /// An atom that stands for nothing, if the next term is one.
    fn nothing(&mut self) -> Result<bool> {
        let mut ahead = *self.cursor;
        if !ahead.at_atom() {
            return Ok(false);
        }
        let Token::Atom(atom) = ahead.token()? else { return Ok(false) };
        let nothing = atom == "nil" || atom == "undefined";
        if nothing {
            *self.cursor = ahead;
        }
        Ok(nothing)
    }
}

/// It takes and gives the cursor, so that where it is not needed that can stay in registers.
#[inline(never)]
fn rare_number<'de, V: Visitor<'de>>(
    mut cursor: Cursor<'de>,
    visitor: V,
) -> (Cursor<'de>, Result<V::Value>) {
    let value = match cursor.token() {
        Ok(token) => visit_number(token, visitor),
        Err(error) => Err(error.into()),
    };
    (cursor, value)
}

fn visit_number<'de, V: Visitor<'de>>(token: Token<'de>, visitor: V) -> Result<V::Value> {
    match token {
        Token::Integer(value) => visitor.visit_i64(value),
        Token::Float(value) => visitor.visit_f64(value),
        Token::Big { negative, magnitude } => {
            let big = BigInt::new(negative, magnitude);
            if let Some(value) = u128::try_from(&big).ok().and_then(|v| u64::try_from(v).ok()) {
                return visitor.visit_u64(value);
            }
            match i128::try_from(&big) {
                Ok(value) => visitor.visit_i128(value),
                Err(_) => match u128::try_from(&big) {
                    Ok(value) => visitor.visit_u128(value),
                    Err(()) => Err(shape("an integer of at most 128 bits", "a larger one")),
                },
            }
        }
        other => Err(wanted("a number", &other)),
    }
}

pub(super) fn shape(wanted: &'static str, found: &'static str) -> TypedError {
    TypedError::Shape { wanted, found }
}

#[cold]
pub(super) fn wanted(wanted: &'static str, found: &Token<'_>) -> TypedError {
    shape(
        wanted,
        match found {
            Token::Integer(_) | Token::Big { .. } => "an integer",
            Token::Float(_) => "a float",
            Token::Atom(_) => "an atom",
            Token::Binary(_) => "a binary",
            Token::Bits(..) => "a bit string",
            Token::Tuple(_) => "a tuple",
            Token::List(_) | Token::Nil | Token::String(_) => "a list",
            Token::Map(_) => "a map",
            Token::Pid(_) => "a pid",
            Token::Port(_) => "a port",
            Token::Reference(_) => "a reference",
            Token::Fun(_) | Token::Export(_) => "a fun",
            Token::Record(_) => "a record",
        },
    )
}

#[inline]
pub(super) fn visit_atom<'de, V: Visitor<'de>>(atom: AtomRef<'de>, visitor: V) -> Result<V::Value> {
    match atom.as_str() {
        Some(text) => visitor.visit_borrowed_str(text),
        None => visitor.visit_str(&atom.to_atom()),
    }
}

/// Text: a binary, an atom, or a list of characters.
#[inline]
fn visit_text<'de, V: Visitor<'de>>(cursor: &mut Cursor<'de>, visitor: V) -> Result<V::Value> {
    if let Some(text) = cursor.atom_text() {
        return visitor.visit_borrowed_str(text);
    }
    if let Some(bytes) = cursor.binary() {
        return match std::str::from_utf8(bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => Err(shape("text", "a binary that is not UTF-8")),
        };
    }
    visit_other_text(cursor, visitor)
}

#[inline(never)]
fn visit_other_text<'de, V: Visitor<'de>>(
    cursor: &mut Cursor<'de>,
    visitor: V,
) -> Result<V::Value> {
    match cursor.token()? {
        Token::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => Err(shape("text", "a binary that is not UTF-8")),
        },
        Token::Atom(atom) => visit_atom(atom, visitor),
        Token::Nil => visitor.visit_borrowed_str(""),
        Token::String(characters) => {
            visitor.visit_string(characters.iter().copied().map(char::from).collect())
        }
        Token::List(count) => {
            let mut text = String::new();
            for _ in 0..count {
                let character = match cursor.token()? {
                    Token::Integer(value) => u32::try_from(value).ok().and_then(char::from_u32),
                    other => return Err(wanted("a character", &other)),
                };
                text.push(character.ok_or(shape("a character", "another integer"))?);
            }
            match cursor.token()? {
                Token::Nil => visitor.visit_string(text),
                other => Err(wanted("the end of a list", &other)),
            }
        }
        other => Err(wanted("text", &other)),
    }
}

impl<'de> de::Deserializer<'de> for Deserializer<'_, 'de> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        if self.nothing()? {
            return visitor.visit_unit();
        }
        let mut ahead = *self.cursor;
        match ahead.token()? {
            Token::Integer(_) | Token::Big { .. } | Token::Float(_) => self.number(visitor),
            Token::Atom(atom) => {
                *self.cursor = ahead;
                match atom.as_str() {
                    Some("true") => visitor.visit_bool(true),
                    Some("false") => visitor.visit_bool(false),
                    _ => visit_atom(atom, visitor),
                }
            }
            Token::Binary(bytes) => {
                *self.cursor = ahead;
                match std::str::from_utf8(bytes) {
                    Ok(text) => visitor.visit_borrowed_str(text),
                    Err(_) => visitor.visit_borrowed_bytes(bytes),
                }
            }
            Token::Tuple(count) => self.deserialize_tuple(count, visitor),
            Token::List(_) | Token::Nil | Token::String(_) => self.deserialize_seq(visitor),
            Token::Map(_) => self.deserialize_map(visitor),
            other => Err(wanted("data", &other)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.cursor.token()? {
            Token::Atom(atom) if atom == "true" => visitor.visit_bool(true),
            Token::Atom(atom) if atom == "false" => visitor.visit_bool(false),
            other => Err(wanted("true or false", &other)),
        }
    }

    #[inline]
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.number(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visit_text(self.cursor, visitor)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visit_text(self.cursor, visitor)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visit_text(self.cursor, visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if let Some(bytes) = self.cursor.binary() {
            return visitor.visit_borrowed_bytes(bytes);
        }
        match self.cursor.token()? {
            Token::Binary(bytes) | Token::String(bytes) => visitor.visit_borrowed_bytes(bytes),
            Token::Nil => visitor.visit_borrowed_bytes(&[]),
            other => Err(wanted("a binary", &other)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        if self.nothing()? { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.cursor.token()? {
            Token::Atom(atom) if atom == "nil" || atom == "undefined" || atom == "ok" => {
                visitor.visit_unit()
            }
            other => Err(wanted("nil, undefined or ok", &other)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        match self.cursor.token()? {
            Token::Atom(atom) if atom == name => visitor.visit_unit(),
            other => Err(wanted(name, &other)),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        match name {
            ATOM => match self.cursor.token()? {
                Token::Atom(atom) => visit_atom(atom, visitor),
                other => Err(wanted("an atom", &other)),
            },
            RAW => visit_raw(self.cursor, visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if let Some(characters) = self.cursor.string() {
            return visit_string(characters, visitor);
        }
        match self.cursor.token()? {
            Token::List(count) => {
                self.cursor.enter()?;
                let mut walk = Walk::new(*self.cursor, count);
                let value = visitor.visit_seq(List::new(&mut walk))?;
                self.end_list(walk)?;
                Ok(value)
            }
            Token::Nil => visitor.visit_seq(Bytes(&[])),
            Token::String(characters) => visit_string(characters, visitor),
            other => Err(wanted("a list", &other)),
        }
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        if self.cursor.tuple_of(len) {
            return tuple(self.cursor, len, visitor);
        }
        match self.cursor.token()? {
            Token::Tuple(count) if count == len => tuple(self.cursor, count, visitor),
            Token::Tuple(_) => Err(shape("a tuple", "one of another size")),
            other => Err(wanted("a tuple", &other)),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.cursor.token()? {
            Token::Map(count) => {
                self.cursor.enter()?;
                let mut pairs = Pairs { cursor: self.cursor, left: count };
                let value = visitor.visit_map(&mut pairs)?;
                if pairs.left > 0 {
                    return Err(shape("a smaller map", "more pairs"));
                }
                self.cursor.leave();
                Ok(value)
            }
            Token::List(count) => {
                self.cursor.enter()?;
                let mut walk = Walk::new(*self.cursor, count);
                let value = visitor.visit_map(Keywords(&mut walk))?;
                self.end_list(walk)?;
                Ok(value)
            }
            Token::Nil => visitor.visit_map(Pairs { cursor: self.cursor, left: 0 }),
            other => Err(wanted("a map or a keyword list", &other)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let is_result = name == "Result";
        match self.cursor.token()? {
            Token::Atom(tag) => {
                visitor.visit_enum(Variant { cursor: self.cursor, tag, parts: 0, is_result })
            }
            Token::Tuple(count) if count > 0 => {
                self.cursor.enter()?;
                let tag = match self.cursor.token()? {
                    Token::Atom(tag) => tag,
                    other => return Err(wanted("the name of a variant", &other)),
                };
                let parts = count.saturating_sub(1);
                let variant = Variant { cursor: &mut *self.cursor, tag, parts, is_result };
                let value = visitor.visit_enum(variant)?;
                self.cursor.leave();
                Ok(value)
            }
            other => Err(wanted("an atom, or a tuple that begins with one", &other)),
        }
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visit_text(self.cursor, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.cursor.skip()?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

#[inline]
fn visit_string<'de, V: Visitor<'de>>(characters: &'de [u8], visitor: V) -> Result<V::Value> {
    let mut bytes = Bytes(characters);
    let value = visitor.visit_seq(&mut bytes)?;
    match bytes.0 {
        [] => Ok(value),
        _ => Err(shape("a shorter list", "more elements")),
    }
}

/// The bytes of the next term; with the atoms of a header written out, where there is one.
fn visit_raw<'de, V: Visitor<'de>>(cursor: &mut Cursor<'de>, visitor: V) -> Result<V::Value> {
    if cursor.has_atoms() {
        let term = cursor.owned()?;
        let mut bytes = Vec::new();
        crate::Encoder::new().bare(&term, &mut bytes)?;
        return visitor.visit_byte_buf(bytes);
    }
    let before = cursor.rest();
    cursor.skip()?;
    let used = before.len().saturating_sub(cursor.rest().len());
    visitor.visit_borrowed_bytes(before.get(..used).unwrap_or_default())
}

pub(super) fn tuple<'de, V: Visitor<'de>>(
    cursor: &mut Cursor<'de>,
    count: usize,
    visitor: V,
) -> Result<V::Value> {
    cursor.enter()?;
    let mut elements = Elements { cursor, left: count };
    let value = visitor.visit_seq(&mut elements)?;
    if elements.left > 0 {
        return Err(shape("a smaller tuple", "more elements"));
    }
    cursor.leave();
    Ok(value)
}

impl Cursor<'_> {
    /// Reads the head of a small tuple of this size, if that is what comes next.
    #[inline]
    fn tuple_of(&mut self, len: usize) -> bool {
        let mut ahead = *self;
        let found = ahead.tuple() == Some(len);
        if found {
            *self = ahead;
        }
        found
    }

    fn owned(&mut self) -> Result<crate::Term, DecodeError> {
        crate::decode::owned(self)
    }
}
