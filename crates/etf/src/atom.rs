//! Atoms.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use smol_str::SmolStr;

/// An atom: at most [`Atom::MAX`] characters of UTF-8.
///
/// Short text is held inside the value; longer text is shared between clones and freed with
/// the last of them. There is no table of atoms, so a peer cannot fill one. Atoms order and hash
/// as their UTF-8 bytes, which is Erlang's order.
///
/// ```
/// use meshx_etf::Atom;
/// let node: Atom = "shop@10.0.0.9".parse()?;
/// assert_eq!(node, "shop@10.0.0.9");
/// assert!("x".repeat(256).parse::<Atom>().is_err());
/// # Ok::<(), meshx_etf::AtomTooLong>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atom(SmolStr);

/// More than [`Atom::MAX`] characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an atom has at most {max} characters", max = Atom::MAX)]
pub struct AtomTooLong;

impl Atom {
    /// The longest atom, in characters (`erl_ext_dist`; at most 1020 bytes of UTF-8).
    pub const MAX: usize = 255;

    /// An atom of this text.
    pub fn new(text: &str) -> Result<Self, AtomTooLong> {
        if text.len() > Self::MAX && text.chars().count() > Self::MAX {
            return Err(AtomTooLong);
        }
        Ok(Self::cut(text))
    }

    /// An atom of this text, cut after [`Atom::MAX`] characters: for text that is known to fit.
    pub fn cut(text: &str) -> Self {
        if text.len() <= Self::MAX {
            return Self(SmolStr::new(text));
        }
        let end = text.char_indices().nth(Self::MAX).map_or(text.len(), |(at, _)| at);
        Self(SmolStr::new(text.get(..end).unwrap_or(text)))
    }

    /// An atom of these Latin-1 characters, which must be at most [`Atom::MAX`].
    pub(crate) fn latin1(characters: &[u8]) -> Self {
        let text: String = characters.iter().copied().map(char::from).collect();
        Self::cut(&text)
    }

    /// Its text.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its text as UTF-8 bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<bool> for Atom {
    fn from(value: bool) -> Self {
        Self::cut(if value { "true" } else { "false" })
    }
}

impl FromStr for Atom {
    type Err = AtomTooLong;

    fn from_str(text: &str) -> Result<Self, AtomTooLong> {
        Self::new(text)
    }
}

impl Deref for Atom {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Atom {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Atom {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Atom {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Atom {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// The text as Erlang would write it, quoted where it must be.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::text::atom(f, self, false)
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::text::atom(f, self, true)
    }
}
