//! Why bytes are not a term.

use crate::DuplicateKey;

/// Why bytes are not a term, or not one that is wanted. The fault is always with who sent them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside of a term, or promises more terms than it has bytes left.
    #[error("the term is cut short")]
    Truncated,
    /// There is something behind the term.
    #[error("{left} bytes follow the term")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// The first byte is not 131.
    #[error("a term begins with byte 131, this one with {found}")]
    Version {
        /// The first byte.
        found: u8,
    },
    /// No such tag, or not there.
    #[error("tag {tag} has no place here")]
    Tag {
        /// The tag.
        tag: u8,
    },
    /// Containers nest too deep.
    #[error("nesting deeper than {limit} levels")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// Containers hold more terms than allowed.
    #[error("more than {limit} terms")]
    Terms {
        /// The limit.
        limit: usize,
    },
    /// The input is larger than allowed.
    #[error("{size} bytes, of which {limit} are allowed")]
    Size {
        /// What there is.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// An atom that is not UTF-8, or longer than 255 characters.
    #[error("an atom is not UTF-8 or longer than 255 characters")]
    Atom,
    /// An atom or function that is not known, in safe decoding.
    #[error("an atom, function or node that is not known here")]
    Unknown,
    /// An atom cache reference that the message's header does not have.
    #[error("atom {index} of the message's header, which does not have it")]
    AtomReference {
        /// Its number.
        index: u8,
    },
    /// NaN, infinity, or text that is no float.
    #[error("a float that is none")]
    Float,
    /// A number of bits that no last byte has.
    #[error("a bit string with {bits} bits in its last byte")]
    Bits {
        /// The number.
        bits: u8,
    },
    /// A pid, port, reference, fun, export or record with a part out of its range.
    #[error("a malformed {what}")]
    Malformed {
        /// Which of them.
        what: &'static str,
    },
    /// A map has the same key twice.
    #[error(transparent)]
    DuplicateKey(#[from] DuplicateKey),
    /// Another kind of term than the one that must be there.
    #[error("{wanted} was wanted, and there is another term")]
    Kind {
        /// What must be there.
        wanted: &'static str,
    },
    /// A compressed term whose stream is damaged, or not of the promised size.
    #[error("a compressed term is damaged or not of the size that it promises")]
    Compressed,
    /// A compressed term, where it cannot be used.
    #[error("a compressed term has no place here")]
    CompressedHere,
}
