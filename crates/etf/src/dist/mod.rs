//! The distribution header: atom cache and fragments (`erl_ext_dist`, "Distribution Header").
//!
//! A connection in header mode carries `131, 68, header, control [, payload]`, cut into fragments
//! `131, 69` and `131, 70` where that was negotiated; without it, `112, 131 control [, 131 payload]`.
//! Each direction of a connection has a cache of [`SLOTS`] atoms. Its state depends on every header
//! before, so headers are read in the order of arrival ([`Frame::parse`]); what follows a header
//! may be decoded anywhere, given the at most [`REFERENCES`] atoms that the header named.
//!
//! The same holds on the way out: a [`Draft`] is encoded anywhere, as it only numbers the atoms that
//! it has; [`OutCache::header`] then turns these numbers into slots, in the order of sending.
//!
//! ```
//! use meshx_etf::dist::{self, Draft, Form, Frame, InCache, OutCache};
//! use meshx_etf::{Decoder, term};
//!
//! let (mut ours, mut theirs) = (OutCache::new(), InCache::new());
//! let mut draft = Draft::new(Form::Cached);
//! draft.term(&term!({6, a_sender, "", counter}))?;
//! draft.end_control();
//! draft.payload(&term!({next, 1}))?;
//!
//! let mut wire = Vec::new();
//! dist::begin_whole(&mut wire);
//! ours.header(&draft, &mut wire);
//! draft.slices().for_each(|slice| wire.extend_from_slice(slice));
//!
//! let Frame::Whole { body } = Frame::parse(&wire, &mut theirs)? else { panic!() };
//! let decoder = Decoder::new().atoms(theirs.atoms());
//! let (control, rest) = decoder.bare(body)?;
//! let (payload, rest) = decoder.bare(rest)?;
//! assert_eq!((payload, rest), (term!({next, 1}), &[][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod draft;
mod inbound;
mod outbound;
mod slots;

pub(crate) use draft::Refs;
pub use draft::{Draft, Form};
pub use inbound::InCache;
pub use outbound::{OutCache, begin_first, begin_next, begin_whole};

use crate::tag;
use crate::wire::Reader;

/// Atoms in the cache of one direction.
pub const SLOTS: usize = 2048;

/// The most atoms that one header names.
pub const REFERENCES: usize = 255;

/// How much of a message a VM puts into one fragment, in bytes.
pub const FRAGMENT: usize = 64 * 1024;

const PASS_THROUGH: u8 = 112;
const HEADER: u8 = 68;
const FIRST: u8 = 69;
const NEXT: u8 = 70;

const NEW: u8 = 8;

/// The payload of a frame that is not a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// Terms with version bytes, without a header.
    PassThrough {
        /// Control message, and perhaps a payload.
        body: &'a [u8],
    },
    /// A whole message; its atoms were read.
    Whole {
        /// Control message, and perhaps a payload, without version bytes.
        body: &'a [u8],
    },
    /// The first fragment of a message; its atoms were read.
    First {
        /// Which message.
        sequence: u64,
        /// How many fragments there are, with this one. A peer may say anything.
        fragments: u64,
        /// The control message, and the beginning of the payload.
        body: &'a [u8],
    },
    /// A later fragment.
    Next {
        /// Which message.
        sequence: u64,
        /// How many fragments there are from this one on; 1 is the last.
        left: u64,
        /// The next part of the payload.
        body: &'a [u8],
    },
}

/// Why a frame is not one. The connection cannot go on after that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It ends inside of its header.
    #[error("the frame ends inside of its header")]
    Truncated,
    /// It begins with other bytes than a distribution message does.
    #[error("the frame is neither a distribution message nor a fragment of one")]
    Form,
    /// A new atom that is not UTF-8 or longer than 255 characters.
    #[error("the header has an atom that is not UTF-8 or longer than 255 characters")]
    Atom,
    /// A reference to a slot that was never filled.
    #[error("the header refers to slot {slot} of the atom cache, which is empty")]
    EmptySlot {
        /// The slot.
        slot: usize,
    },
    /// Sequence or fragment number zero.
    #[error("a fragment with the number zero")]
    Zero,
}

impl<'a> Frame<'a> {
    /// Reads the payload of a frame; the header's atoms are then in [`InCache::atoms`]. Frames of one
    /// connection must come in their order; after an error the cache is of no use.
    pub fn parse(payload: &'a [u8], cache: &mut InCache) -> Result<Self, FrameError> {
        let mut reader = Reader::new(payload);
        match reader.u8().ok_or(FrameError::Truncated)? {
            PASS_THROUGH => {
                cache.no_header();
                return Ok(Self::PassThrough { body: reader.rest() });
            }
            tag::VERSION => {}
            _ => return Err(FrameError::Form),
        }
        match reader.u8().ok_or(FrameError::Truncated)? {
            HEADER => {
                cache.header(&mut reader)?;
                Ok(Self::Whole { body: reader.rest() })
            }
            FIRST => {
                let (sequence, fragments) = numbers(&mut reader)?;
                cache.header(&mut reader)?;
                Ok(Self::First { sequence, fragments, body: reader.rest() })
            }
            NEXT => {
                let (sequence, left) = numbers(&mut reader)?;
                Ok(Self::Next { sequence, left, body: reader.rest() })
            }
            _ => Err(FrameError::Form),
        }
    }
}

fn numbers(reader: &mut Reader<'_>) -> Result<(u64, u64), FrameError> {
    let mut number = || match reader.u64() {
        Some(0) => Err(FrameError::Zero),
        Some(number) => Ok(number),
        None => Err(FrameError::Truncated),
    };
    Ok((number()?, number()?))
}
