//! Types of this crate in serde, and what `#[derive(Etf)]` is made of.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::{Atom, Binary, BitString, Decoder, Encoder, Map, Pid, Port, Reference, Term};

/// A newtype of this name is text that is an atom.
pub(super) const ATOM: &str = "$meshx_etf::Atom";

/// A newtype of this name is bytes that are an encoded term, without a version byte.
pub(super) const RAW: &str = "$meshx_etf::Raw";

/// As [`RAW`], with identifiers that not every release can read.
pub(super) const WIDE: &str = "$meshx_etf::Wide";

/// `#[serde(with = "meshx_etf::undefined")]`: `None` is written as `undefined`, as most of Erlang
/// wants it, and not as `nil`.
///
/// ```
/// #[derive(serde::Serialize)]
/// struct Child {
///     #[serde(with = "meshx_etf::undefined")]
///     pid: Option<meshx_etf::Pid>,
/// }
/// let term = meshx_etf::to_term(&Child { pid: None })?;
/// assert_eq!(term.to_string(), "#{pid => undefined}");
/// # Ok::<(), meshx_etf::TypedError>(())
/// ```
pub mod undefined {
    use super::{Deserialize, Deserializer, Serialize, Serializer, private};

    /// Writes `None` as `undefined`.
    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => private::Name("undefined".into()).serialize(serializer),
        }
    }

    /// As every `Option`: both `nil` and `undefined` are `None`.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Option::deserialize(deserializer)
    }
}

/// For the code that `#[derive(Etf)]` writes; not for people.
#[doc(hidden)]
pub mod private {
    pub use serde;

    use super::{
        ATOM, Cow, Deserialize, Deserializer, PhantomData, Serialize, Serializer, Visitor,
    };
    use super::{de, fmt};

    /// The text of an atom, or of a key.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Name<'a>(pub Cow<'a, str>);

    impl Serialize for Name<'_> {
        #[inline]
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_newtype_struct(ATOM, &*self.0)
        }
    }

    impl<'de> Deserialize<'de> for Name<'de> {
        #[inline]
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_identifier(NameVisitor)
        }
    }

    pub(super) struct NameVisitor;

    impl<'de> Visitor<'de> for NameVisitor {
        type Value = Name<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an atom")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Name<'de>, E> {
            Ok(Name(text.to_owned().into()))
        }

        #[inline]
        fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Name<'de>, E> {
            Ok(Name(text.into()))
        }
    }

    /// The atom that must be there.
    #[derive(Debug)]
    pub struct Tag(pub &'static str);

    impl<'de> de::DeserializeSeed<'de> for Tag {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            let found = deserializer.deserialize_newtype_struct(ATOM, NameVisitor)?;
            if found.0 == self.0 {
                return Ok(());
            }
            Err(de::Error::custom(format_args!(
                "`{}` was wanted, and there is `{}`",
                self.0, found.0
            )))
        }
    }

    /// The parts of a variant, as a tuple.
    #[derive(Debug)]
    pub struct Parts<T>(pub PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the parts of a variant")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, parts: A) -> Result<T, A::Error> {
            T::deserialize(de::value::SeqAccessDeserializer::new(parts))
        }
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(ATOM, self.as_str())
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtomVisitor;

        impl Visitor<'_> for AtomVisitor {
            type Value = Atom;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an atom")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Atom, E> {
                Atom::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_newtype_struct(ATOM, AtomVisitor)
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BinaryVisitor;

        impl Visitor<'_> for BinaryVisitor {
            type Value = Binary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a binary")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Binary, E> {
                Ok(Binary::copy(bytes))
            }
        }

        deserializer.deserialize_bytes(BinaryVisitor)
    }
}

impl Serialize for Term {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut bytes, mut wide) = (Vec::new(), false);
        let mut writer = Encoder::new().writer(&mut bytes);
        writer.wide = Some(&mut wide);
        writer.term(self).map_err(serde::ser::Error::custom)?;
        let name = if wide { WIDE } else { RAW };
        serializer.serialize_newtype_struct(name, &Raw(&bytes))
    }
}

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TermVisitor;

        impl Visitor<'_> for TermVisitor {
            type Value = Term;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a term")
            }

            /// Of an element of a list that travels as a string.
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Term, E> {
                Ok(Term::from(value))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Term, E> {
                // Depth and size were checked where the bytes come from.
                let (term, _) = Decoder::new().bare(bytes).map_err(E::custom)?;
                Ok(term)
            }
        }

        deserializer.deserialize_newtype_struct(RAW, TermVisitor)
    }
}

struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

macro_rules! through_term {
    ($($type:ident: $wanted:literal, $pattern:pat => $value:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Term::from(self.clone()).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Term::deserialize(deserializer)? {
                    $pattern => Ok($value),
                    _ => Err(de::Error::custom(concat!($wanted, " was wanted"))),
                }
            }
        }
    )*};
}

through_term! {
    Pid: "a pid", Term::Pid(pid) => pid;
    Port: "a port", Term::Port(port) => port;
    Reference: "a reference", Term::Reference(reference) => *reference;
    BitString: "a bit string", Term::Bits(bits) => *bits;
    Map: "a map", Term::Map(map) => map;
}
