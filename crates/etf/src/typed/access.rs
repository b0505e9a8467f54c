//! The parts of containers, one after the other.

use serde::de::value::U8Deserializer;
use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::TypedError;
use super::de::{Deserializer, Result, shape, tuple, visit_atom, wanted};
use crate::AtomRef;
use crate::decode::{Cursor, Token};

/// The elements of a tuple.
pub(super) struct Elements<'c, 'de> {
    pub(super) cursor: &'c mut Cursor<'de>,
    pub(super) left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = TypedError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left = self.left.saturating_sub(1);
        seed.deserialize(Deserializer::new(self.cursor)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// How far a list was read, whose tail may be a list again.
#[derive(Clone, Copy)]
pub(super) struct Walk<'de> {
    pub(super) cursor: Cursor<'de>,
    left: usize,
    /// The tail is a string, of which this is left.
    string: &'de [u8],
    /// The tail that ends it was read.
    ended: bool,
}

impl<'de> Walk<'de> {
    pub(super) fn new(cursor: Cursor<'de>, left: usize) -> Self {
        Self { cursor, left, string: &[], ended: false }
    }

    /// Whether there is one more element; reads tails. It takes and gives the whole, so that in a
    /// loop over integers all of it can stay in registers.
    #[cold]
    #[inline(never)]
    pub(super) fn another(mut self) -> (Self, Result<bool>) {
        let another = self.read_tails();
        (self, another)
    }

    fn read_tails(&mut self) -> Result<bool> {
        loop {
            if self.left > 0 || !self.string.is_empty() {
                return Ok(true);
            }
            if self.ended {
                return Ok(false);
            }
            match self.cursor.token()? {
                Token::List(count) => self.left = count,
                Token::Nil => self.ended = true,
                Token::String(characters) => {
                    self.string = characters;
                    self.ended = true;
                }
                other => return Err(wanted("the end of a list", &other)),
            }
        }
    }
}

/// The elements of a list. It works on a copy, for the same reason, and gives it back at its end.
pub(super) struct List<'w, 'de> {
    walk: Walk<'de>,
    home: &'w mut Walk<'de>,
}

impl<'w, 'de> List<'w, 'de> {
    #[inline]
    pub(super) fn new(home: &'w mut Walk<'de>) -> Self {
        Self { walk: *home, home }
    }
}

impl Drop for List<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        *self.home = self.walk;
    }
}

impl<'de> SeqAccess<'de> for List<'_, 'de> {
    type Error = TypedError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.walk.left == 0 {
            let (walk, another) = self.walk.another();
            self.walk = walk;
            if !another? {
                return Ok(None);
            }
            if let Some((&first, rest)) = self.walk.string.split_first() {
                self.walk.string = rest;
                return small(first, seed).map(Some);
            }
        }
        self.walk.left = self.walk.left.saturating_sub(1);
        seed.deserialize(Deserializer::new(&mut self.walk.cursor)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.walk.left)
    }
}

fn small<'de, T: DeserializeSeed<'de>>(byte: u8, seed: T) -> Result<T::Value> {
    let element: U8Deserializer<TypedError> = byte.into_deserializer();
    seed.deserialize(element)
}

/// A list of small integers.
pub(super) struct Bytes<'de>(pub(super) &'de [u8]);

impl<'de> SeqAccess<'de> for Bytes<'de> {
    type Error = TypedError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some((&first, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        small(first, seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The pairs of a map.
pub(super) struct Pairs<'c, 'de> {
    pub(super) cursor: &'c mut Cursor<'de>,
    pub(super) left: usize,
}

impl<'de> MapAccess<'de> for Pairs<'_, 'de> {
    type Error = TypedError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left = self.left.saturating_sub(1);
        seed.deserialize(Deserializer::new(self.cursor)).map(Some)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value> {
        seed.deserialize(Deserializer::new(self.cursor))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The pairs of a keyword list.
pub(super) struct Keywords<'w, 'de>(pub(super) &'w mut Walk<'de>);

impl<'de> MapAccess<'de> for Keywords<'_, 'de> {
    type Error = TypedError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.0.read_tails()? {
            return Ok(None);
        }
        if !self.0.string.is_empty() {
            return Err(shape("a pair", "an integer"));
        }
        self.0.left = self.0.left.saturating_sub(1);
        match self.0.cursor.token()? {
            Token::Tuple(2) => {}
            // As in a property list: an atom alone is one that is true. serde cannot be given that.
            other => return Err(wanted("a pair", &other)),
        }
        seed.deserialize(Deserializer::new(&mut self.0.cursor)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value> {
        seed.deserialize(Deserializer::new(&mut self.0.cursor))
    }
}

/// A variant whose name was read, and whose parts were not.
pub(super) struct Variant<'c, 'de> {
    pub(super) cursor: &'c mut Cursor<'de>,
    pub(super) tag: AtomRef<'de>,
    pub(super) parts: usize,
    pub(super) is_result: bool,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = TypedError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        let name: Tag<'de> = match (self.is_result, self.tag.as_str()) {
            (true, Some("ok")) => Tag(AtomRef::Text("Ok")),
            (true, Some("error")) => Tag(AtomRef::Text("Err")),
            _ => Tag(self.tag),
        };
        Ok((seed.deserialize(name)?, self))
    }
}

/// The name of a variant.
struct Tag<'de>(AtomRef<'de>);

impl<'de> de::Deserializer<'de> for Tag<'de> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visit_atom(self.0, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl Variant<'_, '_> {
    fn has(&self, parts: usize) -> Result<()> {
        if self.parts == parts { Ok(()) } else { Err(shape("a variant", "one of another size")) }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = TypedError;

    fn unit_variant(self) -> Result<()> {
        self.has(0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        if self.parts == 0 && self.is_result {
            // `ok` alone.
            return seed.deserialize(().into_deserializer());
        }
        self.has(1)?;
        seed.deserialize(Deserializer::new(self.cursor))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.has(len)?;
        tuple(self.cursor, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.has(1)?;
        de::Deserializer::deserialize_map(Deserializer::new(self.cursor), visitor)
    }
}
