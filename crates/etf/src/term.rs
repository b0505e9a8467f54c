//! Terms that own what they hold.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use crate::{
    Atom, BigInt, Binary, BitString, Export, Fun, Map, Pid, Port, Record, Reference, order,
};

/// Any Erlang term.
///
/// `==`, `Ord` and `Hash` are those of map keys: `1` and `1.0` are two keys, as for `=:=`; and as
/// since OTP 27 so are `0.0` and `-0.0`. Erlang's `<` and `==` are [`compare`](crate::compare).
///
/// A string in Erlang is a list of integers; text that travels in Elixir is a binary.
/// Whoever builds terms deeper than [`Limits::DEEPEST`](crate::Limits::DEEPEST) by hand must have
/// the stack to drop them.
///
/// [`term!`](crate::term) writes terms down, `Display` prints them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Term {
    /// An integer that fits.
    Integer(i64),
    /// An integer that does not fit an `i64`.
    Big(BigInt),
    /// A float; there is no NaN and no infinity in Erlang, and an encoder refuses them.
    Float(f64),
    /// An atom.
    Atom(Atom),
    /// A tuple.
    Tuple(Vec<Term>),
    /// A proper list; `[]` is the empty one.
    List(Vec<Term>),
    /// A list that does not end in `[]`.
    Improper(Box<Improper>),
    /// A map.
    Map(Map),
    /// Bytes.
    Binary(Binary),
    /// Bits that do not fill their last byte.
    Bits(Box<BitString>),
    /// A process identifier.
    Pid(Pid),
    /// A port identifier.
    Port(Port),
    /// A reference.
    Reference(Box<Reference>),
    /// A fun.
    Fun(Box<Fun>),
    /// `fun Module:Function/Arity`.
    Export(Box<Export>),
    /// A native record (OTP 29).
    Record(Box<Record>),
}

/// `[a, b | c]`: at least one element, and a tail that is not a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Improper {
    elements: Vec<Term>,
    tail: Term,
}

impl Term {
    /// The atom of this text, cut after 255 characters: for text that is known to fit.
    pub fn atom(text: &str) -> Self {
        Self::Atom(Atom::cut(text))
    }

    /// The list of these elements that ends in `tail`, whatever that is.
    pub fn list_ending(mut elements: Vec<Self>, tail: Self) -> Self {
        match tail {
            tail if elements.is_empty() => tail,
            Self::List(rest) => {
                elements.extend(rest);
                Self::List(elements)
            }
            Self::Improper(rest) => {
                elements.extend(rest.elements);
                Self::Improper(Box::new(Improper { elements, tail: rest.tail }))
            }
            tail => Self::Improper(Box::new(Improper { elements, tail })),
        }
    }

    /// The string as a list of its code points, as Erlang writes it.
    pub fn charlist(text: &str) -> Self {
        Self::List(text.chars().map(|c| Self::Integer(u32::from(c).into())).collect())
    }

    /// The empty list.
    pub fn nil() -> Self {
        Self::List(Vec::new())
    }

    /// The same term as a VM holds it after it was read: the pairs of every map up to 32 in the order
    /// of their keys. So does it encode to what the VM's `term_to_binary` makes of it; but larger
    /// maps are left in the order in which they came, which in a VM is one of its own.
    ///
    /// ```
    /// use meshx_etf::{decode, encode};
    /// let map = decode(&[131, 116, 0, 0, 0, 2, 97, 2, 106, 97, 1, 106])?;
    /// assert_eq!(encode(&map.settled())?, [131, 116, 0, 0, 0, 2, 97, 1, 106, 97, 2, 106]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn settled(self) -> Self {
        let all = |terms: Vec<Self>| terms.into_iter().map(Self::settled).collect();
        match self {
            Self::Tuple(elements) => Self::Tuple(all(elements)),
            Self::List(elements) => Self::List(all(elements)),
            Self::Improper(list) => {
                let Improper { elements, tail } = *list;
                Self::Improper(Box::new(Improper { elements: all(elements), tail: tail.settled() }))
            }
            Self::Map(map) => {
                let pairs = map.into_iter().map(|(key, value)| (key.settled(), value.settled()));
                Self::Map(Map::from_pairs(pairs.collect()).unwrap_or_default().settled())
            }
            Self::Fun(mut fun) => {
                fun.free = all(fun.free);
                Self::Fun(fun)
            }
            Self::Record(mut record) => {
                let fields = record.fields.into_iter();
                record.fields = fields.map(|(name, value)| (name, value.settled())).collect();
                Self::Record(record)
            }
            leaf => leaf,
        }
    }

    /// The integer, if it is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(value) = self { Some(*value) } else { None }
    }

    /// The atom, if it is one.
    pub fn as_atom(&self) -> Option<&Atom> {
        if let Self::Atom(atom) = self { Some(atom) } else { None }
    }

    /// The elements, if it is a tuple.
    pub fn as_tuple(&self) -> Option<&[Self]> {
        if let Self::Tuple(elements) = self { Some(elements) } else { None }
    }

    /// The elements, if it is a proper list.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(elements) = self { Some(elements) } else { None }
    }

    /// The bytes, if it is a binary.
    pub fn as_binary(&self) -> Option<&[u8]> {
        if let Self::Binary(bytes) = self { Some(bytes) } else { None }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// Whether it is this atom.
    pub fn is_atom(&self, text: &str) -> bool {
        self.as_atom().is_some_and(|atom| *atom == text)
    }
}

impl Improper {
    /// What comes before the tail; at least one.
    pub fn elements(&self) -> &[Term] {
        &self.elements
    }

    /// What comes after the last `|`; never a list.
    pub fn tail(&self) -> &Term {
        &self.tail
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        order::exact(self, other) == Ordering::Equal
    }
}

impl Eq for Term {}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        order::exact(self, other)
    }
}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(order::fingerprint(self));
    }
}

macro_rules! from {
    ($($source:ty => |$value:ident| $term:expr;)*) => {$(
        impl From<$source> for Term {
            fn from($value: $source) -> Self {
                $term
            }
        }
    )*};
}

from! {
    i64 => |value| Self::Integer(value);
    i32 => |value| Self::Integer(value.into());
    u32 => |value| Self::Integer(value.into());
    i16 => |value| Self::Integer(value.into());
    u16 => |value| Self::Integer(value.into());
    i8 => |value| Self::Integer(value.into());
    u8 => |value| Self::Integer(value.into());
    u64 => |value| i64::try_from(value).map_or_else(|_| Self::Big(value.into()), Self::Integer);
    i128 => |value| i64::try_from(value).map_or_else(|_| Self::Big(value.into()), Self::Integer);
    BigInt => |value| value.to_i64().map_or_else(|| Self::Big(value), Self::Integer);
    f64 => |value| Self::Float(value);
    bool => |value| Self::Atom(value.into());
    Atom => |value| Self::Atom(value);
    &str => |value| Self::Binary(value.into());
    String => |value| Self::Binary(value.into());
    &[u8] => |value| Self::Binary(value.into());
    Binary => |value| Self::Binary(value);
    BitString => |value| Self::Bits(Box::new(value));
    Vec<Term> => |value| Self::List(value);
    Map => |value| Self::Map(value);
    Pid => |value| Self::Pid(value);
    Port => |value| Self::Port(value);
    Reference => |value| Self::Reference(Box::new(value));
    Fun => |value| Self::Fun(Box::new(value));
    Export => |value| Self::Export(Box::new(value));
    Record => |value| Self::Record(Box::new(value));
}

impl FromIterator<Term> for Term {
    fn from_iter<I: IntoIterator<Item = Term>>(elements: I) -> Self {
        Self::List(elements.into_iter().collect())
    }
}
