//! Values to bytes.

use serde::ser::{self, Serialize};

use super::TypedError;
use super::types::{ATOM, RAW, WIDE};
use crate::encode::{EncodeError, Writer};
use crate::{BigInt, tag};

type Result<T = (), E = TypedError> = std::result::Result<T, E>;

pub(crate) struct Serializer<'s, 'o> {
    writer: &'s mut Writer<'o>,
}

impl<'s, 'o> Serializer<'s, 'o> {
    pub(crate) fn new(writer: &'s mut Writer<'o>) -> Self {
        Self { writer }
    }

    /// `{variant, ...`
    fn variant(self, name: &str, variant: &str, parts: usize) -> Result<Parts<'s, 'o>> {
        self.writer.tuple_head(parts.saturating_add(1))?;
        self.writer.atom_named(variant_name(name, variant));
        Ok(Parts { writer: self.writer })
    }
}

/// What Rust calls `Ok` and `Err` is `ok` and `error` in Erlang.
fn variant_name<'v>(name: &str, variant: &'v str) -> &'v str {
    match (name, variant) {
        ("Result", "Ok") => "ok",
        ("Result", "Err") => "error",
        _ => variant,
    }
}

impl<'s, 'o> ser::Serializer for Serializer<'s, 'o> {
    type Ok = ();
    type Error = TypedError;
    type SerializeSeq = List<'s, 'o>;
    type SerializeTuple = Parts<'s, 'o>;
    type SerializeTupleStruct = Parts<'s, 'o>;
    type SerializeTupleVariant = Parts<'s, 'o>;
    type SerializeMap = Pairs<'s, 'o>;
    type SerializeStruct = Parts<'s, 'o>;
    type SerializeStructVariant = Parts<'s, 'o>;

    fn serialize_bool(self, value: bool) -> Result {
        self.writer.atom_named(if value { "true" } else { "false" });
        Ok(())
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result {
        self.writer.integer(value);
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => Ok(self.writer.big(&value.into())?),
        }
    }

    fn serialize_i128(self, value: i128) -> Result {
        Ok(self.writer.big(&BigInt::from(value))?)
    }

    fn serialize_u128(self, value: u128) -> Result {
        Ok(self.writer.big(&BigInt::from(value))?)
    }

    fn serialize_f32(self, value: f32) -> Result {
        self.serialize_f64(value.into())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result {
        Ok(self.writer.float(value)?)
    }

    fn serialize_char(self, value: char) -> Result {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result {
        Ok(self.writer.binary(value.as_bytes())?)
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result {
        Ok(self.writer.binary(value)?)
    }

    fn serialize_none(self) -> Result {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result {
        self.writer.atom_named("nil");
        Ok(())
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result {
        self.writer.atom_named(name);
        Ok(())
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, variant: &'static str) -> Result {
        self.writer.atom_named(variant_name(name, variant));
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result {
        match name {
            ATOM | RAW | WIDE => {
                self.writer.widen(name == WIDE);
                value.serialize(Special { writer: self.writer })
            }
            _ => value.serialize(self),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        let parts = self.variant(name, variant, 1)?;
        value.serialize(Serializer { writer: parts.writer })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<List<'s, 'o>> {
        let start = self.writer.out.len();
        self.writer.list_head(len.unwrap_or_default())?;
        Ok(List { writer: self.writer, start, count: 0 })
    }

    fn serialize_tuple(self, len: usize) -> Result<Parts<'s, 'o>> {
        self.writer.tuple_head(len)?;
        Ok(Parts { writer: self.writer })
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Parts<'s, 'o>> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'s, 'o>> {
        self.variant(name, variant, len)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Pairs<'s, 'o>> {
        let start = self.writer.out.len();
        self.writer.map_head(len.unwrap_or_default())?;
        Ok(Pairs { writer: self.writer, start, count: 0 })
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Parts<'s, 'o>> {
        self.writer.map_head(len)?;
        Ok(Parts { writer: self.writer })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'s, 'o>> {
        let parts = self.variant(name, variant, 1)?;
        parts.writer.map_head(len)?;
        Ok(parts)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A list whose length is known at its end.
pub(crate) struct List<'s, 'o> {
    writer: &'s mut Writer<'o>,
    start: usize,
    count: usize,
}

impl List<'_, '_> {
    /// Elements that are all small integers are a string, as a VM writes them.
    fn shorten(&mut self) -> bool {
        const HEAD: usize = 5;
        let body = self.start.saturating_add(HEAD);
        let end = self.count.saturating_mul(2).saturating_add(body);
        let Ok(len) = u16::try_from(self.count) else { return false };
        if self.writer.out.len() != end {
            return false;
        }
        let elements = self.writer.out.get(body..).unwrap_or_default();
        // Two bytes that begin with this tag are such an integer, and then so are the next two.
        let (pairs, _) = elements.as_chunks::<2>();
        if !pairs.iter().all(|[tag, _]| *tag == tag::SMALL_INTEGER) {
            return false;
        }
        let characters: Vec<u8> = pairs.iter().map(|[_, byte]| *byte).collect();
        self.writer.out.truncate(self.start);
        self.writer.out.push(tag::STRING);
        self.writer.out.extend_from_slice(&len.to_be_bytes());
        self.writer.out.extend_from_slice(&characters);
        true
    }
}

impl ser::SerializeSeq for List<'_, '_> {
    type Ok = ();
    type Error = TypedError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.count = self.count.saturating_add(1);
        value.serialize(Serializer { writer: self.writer })
    }

    fn end(mut self) -> Result {
        if self.count == 0 {
            self.writer.out.truncate(self.start);
            self.writer.nil();
            return Ok(());
        }
        if !self.shorten() {
            set_count(self.writer, self.start, self.count)?;
            self.writer.nil();
        }
        Ok(())
    }
}

/// A map whose length is known at its end.
pub(crate) struct Pairs<'s, 'o> {
    writer: &'s mut Writer<'o>,
    start: usize,
    count: usize,
}

impl ser::SerializeMap for Pairs<'_, '_> {
    type Ok = ();
    type Error = TypedError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        self.count = self.count.saturating_add(1);
        key.serialize(Serializer { writer: self.writer })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(Serializer { writer: self.writer })
    }

    fn end(self) -> Result {
        set_count(self.writer, self.start, self.count)
    }
}

/// Writes the count behind the tag at `start`.
fn set_count(writer: &mut Writer<'_>, start: usize, count: usize) -> Result {
    let count = u32::try_from(count).map_err(|_| EncodeError::TooLarge)?.to_be_bytes();
    let field = start.saturating_add(1)..start.saturating_add(5);
    if let Some(field) = writer.out.get_mut(field) {
        field.copy_from_slice(&count);
    }
    Ok(())
}

/// A container whose length is known at its beginning.
pub(crate) struct Parts<'s, 'o> {
    writer: &'s mut Writer<'o>,
}

impl Parts<'_, '_> {
    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(Serializer { writer: self.writer })
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result {
        self.writer.atom_named(name);
        self.part(value)
    }
}

macro_rules! parts {
    ($($form:ident::$method:ident($($name:ident)?)),*) => {$(
        impl ser::$form for Parts<'_, '_> {
            type Ok = ();
            type Error = TypedError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result {
                parts!(@call self value $($name)?)
            }

            fn end(self) -> Result {
                Ok(())
            }
        }
    )*};
    (@call $self:ident $value:ident) => { $self.part($value) };
    (@call $self:ident $value:ident $name:ident) => { $self.field($name, $value) };
}

parts! {
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(name),
    SerializeStructVariant::serialize_field(name)
}

/// Text that is an atom, and bytes that are an encoded term.
struct Special<'s, 'o> {
    writer: &'s mut Writer<'o>,
}

macro_rules! refuse {
    ($($method:ident($($type:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $(_: $type),*) -> Result<$ok> {
            Err(TypedError::Message("neither an atom nor an encoded term".to_owned()))
        }
    )*};
}

type No = ser::Impossible<(), TypedError>;

impl ser::Serializer for Special<'_, '_> {
    type Ok = ();
    type Error = TypedError;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    #[inline]
    fn serialize_str(self, text: &str) -> Result {
        self.writer.atom_named(text);
        Ok(())
    }

    fn serialize_bytes(self, term: &[u8]) -> Result {
        self.writer.out.extend_from_slice(term);
        Ok(())
    }

    refuse! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> No;
        serialize_tuple(usize) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No;
        serialize_map(Option<usize>) -> No;
        serialize_struct(&'static str, usize) -> No;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Result {
        v.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result {
        value.serialize(self)
    }
}
