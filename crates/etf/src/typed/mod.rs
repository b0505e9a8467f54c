//! serde: Rust types straight to bytes and back.
//!
//! | Rust | Erlang | read from, too |
//! |---|---|---|
//! | `bool` | `true`, `false` | |
//! | integers, `f32`, `f64` | integer, float | an integer where a float is wanted |
//! | `str`, `String`, `char` | binary | atom, list of characters |
//! | bytes (`serde_bytes`, [`Binary`](crate::Binary)) | binary | list of bytes |
//! | [`Atom`](crate::Atom) | atom | |
//! | `None` and `()` | `nil` | `undefined`; for `()` also `ok` |
//! | `Some(v)` | as `v` | |
//! | sequence | list | |
//! | tuple, tuple struct | tuple | |
//! | map | map with keys as they are | keyword list |
//! | struct | map with atoms as keys | map with binaries as keys, keyword list |
//! | unit variant | atom | |
//! | other variants | `{variant, v}`, `{variant, a, b}`, `{variant, #{...}}` | |
//! | `Result` | `{ok, v}`, `{error, e}` | `ok` for `Ok(())` |
//! | [`Pid`](crate::Pid), [`Port`](crate::Port), [`Reference`](crate::Reference), [`Term`] | themselves | |
//!
//! `Some` of something that is `nil` itself reads back as `None`. [`undefined`] is for peers that
//! want `undefined`. A map with the same key twice is not noticed by a map type of Rust; read a
//! [`Map`](crate::Map) where that matters.

mod access;
mod de;
mod error;
mod ser;
mod types;

use ::serde::de::{Deserialize, DeserializeOwned};
use ::serde::ser::Serialize;
pub use error::TypedError;
pub(crate) use ser::Serializer;
#[doc(hidden)]
pub use types::private;
pub use types::undefined;

use crate::decode::Decoder;
use crate::{Encoder, Term, tag};

/// Encodes a value with a version byte. See [`typed`](crate::typed) for what becomes what.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
/// struct User<'a> {
///     name: &'a str,
///     age: Option<u8>,
/// }
/// let bytes = meshx_etf::to_bytes(&User { name: "Ann", age: None })?;
/// assert_eq!(meshx_etf::decode(&bytes)?, meshx_etf::term!(#{name => "Ann", age => nil}));
/// assert_eq!(meshx_etf::from_bytes::<User>(&bytes)?, User { name: "Ann", age: None });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, TypedError> {
    let mut out = Vec::with_capacity(128);
    out.push(tag::VERSION);
    Encoder::new().bare_typed(value, &mut out)?;
    Ok(out)
}

/// Decodes a value that is the whole input, under the default limits; without building a term, and
/// borrowing text and bytes where the type does. A compressed term is refused: decode a [`Term`]
/// and use [`from_term`].
pub fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, TypedError> {
    Decoder::new().typed(bytes)
}

/// The term that a value is.
pub fn to_term<T: Serialize + ?Sized>(value: &T) -> Result<Term, TypedError> {
    let mut bytes = Vec::new();
    Encoder::new().bare_typed(value, &mut bytes)?;
    Ok(Decoder::new().bare(&bytes)?.0)
}

/// The value that a term is.
pub fn from_term<T: DeserializeOwned>(term: &Term) -> Result<T, TypedError> {
    let mut bytes = Vec::new();
    Encoder::new().bare(term, &mut bytes)?;
    Ok(Decoder::new().bare_typed(&bytes)?.0)
}

impl Encoder {
    /// Appends a value without a version byte. The order of maps is that of the value.
    pub fn bare_typed<T: Serialize + ?Sized>(
        &self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), TypedError> {
        value.serialize(Serializer::new(&mut self.writer(out)))
    }
}

impl<'k> Decoder<'k> {
    /// Decodes a value with its version byte that is the whole input.
    pub fn typed<'a, T: Deserialize<'a>>(&self, bytes: &'a [u8]) -> Result<T, TypedError>
    where
        'k: 'a,
    {
        let mut cursor = self.versioned(bytes)?;
        let value = T::deserialize(de::Deserializer::new(&mut cursor))?;
        cursor.end()?;
        Ok(value)
    }

    /// Decodes a value of a distribution message, which has no version byte; gives what follows.
    pub fn bare_typed<'a, T: Deserialize<'a>>(
        &self,
        bytes: &'a [u8],
    ) -> Result<(T, &'a [u8]), TypedError>
    where
        'k: 'a,
    {
        let mut cursor = self.cursor(bytes)?;
        let value = T::deserialize(de::Deserializer::new(&mut cursor))?;
        Ok((value, cursor.rest()))
    }
}
