//! The distribution header: atom cache and fragments (`erl_ext_dist`, "Distribution Header").
//!
//! A connection in header mode carries `131, 68, header, control [, payload]`, cut into fragments
//! `131, 69` and `131, 70` where that was negotiated; without it, `112, 131 control [, 131 payload]`.
//! Each direction of a connection has a cache of [`SLOTS`] atoms. Its state depends on every header
//! before, so headers are read in the order of arrival ([`Frame::parse`]); what follows a header
//! may be decoded anywhere, given the at most [`REFERENCES`] atoms that the header named.
//!
//! ```
//! use meshx_etf::dist::{Frame, InCache, OutCache};
//! use meshx_etf::{Decoder, term};
//!
//! let (mut ours, mut theirs) = (OutCache::new(), InCache::new());
//! let (mut body, mut wire, mut atoms) = (Vec::new(), Vec::new(), Vec::new());
//! let mut message = ours.message(&mut body);
//! message.control(&term!({6, a_sender, "", counter}))?;
//! message.payload(&term!({next, 1}))?;
//! message.finish(&mut wire);
//!
//! let Frame::Whole { body } = Frame::parse(&wire, &mut theirs, &mut atoms)? else { panic!() };
//! let decoder = Decoder::new().atoms(&atoms);
//! let (control, rest) = decoder.bare(body)?;
//! let (payload, rest) = decoder.bare(rest)?;
//! assert_eq!((payload, rest), (term!({next, 1}), &[][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::num::NonZeroU64;

use crate::encode::{EncodeError, Encoder, Writer};
use crate::wire::Reader;
use crate::{Atom, Term, tag};

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

/// A shorter atom takes no less room as a reference.
const WORTH_CACHING: usize = 3;

const NEW: u8 = 8;

pub(crate) type Refs = OutCache;

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

/// The atoms that a peer told us.
#[derive(Debug, Clone, Default)]
pub struct InCache {
    slots: Vec<Option<Atom>>,
}

/// The atoms that we told a peer.
#[derive(Debug, Clone, Default)]
pub struct OutCache {
    slots: Vec<Option<Atom>>,
    /// Of each slot: the message that used it last, and its number in that.
    marks: Vec<(u32, u8)>,
    message: u32,
    references: Vec<Used>,
}

#[derive(Debug, Clone)]
struct Used {
    slot: u16,
    change: Change,
}

/// What this message did to a slot.
#[derive(Debug, Clone)]
enum Change {
    Kept,
    Filled,
    Replaced(Atom),
}

/// A message on its way out. Dropped without [`Message::finish`], it leaves the cache as it was.
#[derive(Debug)]
pub struct Message<'c> {
    cache: &'c mut OutCache,
    body: &'c mut Vec<u8>,
    control: usize,
    finished: bool,
}

impl<'a> Frame<'a> {
    /// Reads the payload of a frame, the header's atoms into `atoms`. Frames of one connection must
    /// come in their order; after an error the cache is of no use.
    pub fn parse(
        payload: &'a [u8],
        cache: &mut InCache,
        atoms: &mut Vec<Atom>,
    ) -> Result<Self, FrameError> {
        atoms.clear();
        let mut reader = Reader::new(payload);
        match reader.u8().ok_or(FrameError::Truncated)? {
            PASS_THROUGH => return Ok(Self::PassThrough { body: reader.rest() }),
            tag::VERSION => {}
            _ => return Err(FrameError::Form),
        }
        match reader.u8().ok_or(FrameError::Truncated)? {
            HEADER => {
                cache.header(&mut reader, atoms)?;
                Ok(Self::Whole { body: reader.rest() })
            }
            FIRST => {
                let (sequence, fragments) = numbers(&mut reader)?;
                cache.header(&mut reader, atoms)?;
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

impl InCache {
    /// An empty cache, for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    fn header(&mut self, reader: &mut Reader<'_>, atoms: &mut Vec<Atom>) -> Result<(), FrameError> {
        let count = reader.u8().ok_or(FrameError::Truncated)?;
        if count == 0 {
            return Ok(());
        }
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let flags = reader.take(usize::from(count / 2).saturating_add(1));
        let flags = flags.ok_or(FrameError::Truncated)?;
        let nibble = |number: u8| {
            let byte = flags.get(usize::from(number / 2)).copied().unwrap_or_default();
            if number.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
        };
        let long = nibble(count) & 1 == 1;
        for number in 0..count {
            let flags = nibble(number);
            let index = reader.u8().ok_or(FrameError::Truncated)?;
            let slot = (usize::from(flags & 7) << 8) | usize::from(index);
            let held = self.slots.get_mut(slot).ok_or(FrameError::Truncated)?;
            if flags & NEW != 0 {
                let len = if long { reader.u16() } else { reader.u8().map(u16::from) };
                let len = usize::from(len.ok_or(FrameError::Truncated)?);
                let text = reader.take(len).ok_or(FrameError::Truncated)?;
                let text = std::str::from_utf8(text).map_err(|_| FrameError::Atom)?;
                *held = Some(Atom::new(text).map_err(|_| FrameError::Atom)?);
            }
            atoms.push(held.clone().ok_or(FrameError::EmptySlot { slot })?);
        }
        Ok(())
    }
}

impl Used {
    fn is_new(&self) -> bool {
        !matches!(self.change, Change::Kept)
    }
}

impl OutCache {
    /// An empty cache, for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a message, which is built in `body` (emptied before).
    pub fn message<'c>(&'c mut self, body: &'c mut Vec<u8>) -> Message<'c> {
        body.clear();
        self.references.clear();
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
            self.marks.resize(SLOTS, (0, 0));
        }
        self.message = self.message.wrapping_add(1);
        if self.message == 0 {
            // The numbers begin anew: no mark may look like one of this message.
            self.marks.fill((0, 0));
            self.message = 1;
        }
        Message { cache: self, body, control: 0, finished: false }
    }

    /// The number of an atom in the header of this message, if it has or can get one.
    pub(crate) fn index(&mut self, text: &[u8]) -> Option<u8> {
        if text.len() < WORTH_CACHING {
            return None;
        }
        let slot = slot_of(text);
        let held = self.slots.get_mut(usize::from(slot))?;
        let mark = self.marks.get_mut(usize::from(slot))?;
        let same = held.as_ref().is_some_and(|atom| atom.as_bytes() == text);
        if mark.0 == self.message {
            return same.then_some(mark.1);
        }
        let number = u8::try_from(self.references.len()).ok().filter(|&number| number < 255)?;
        let change = match held {
            Some(_) if same => Change::Kept,
            Some(before) => Change::Replaced(std::mem::replace(before, Atom::of_bytes(text))),
            None => {
                *held = Some(Atom::of_bytes(text));
                Change::Filled
            }
        };
        *mark = (self.message, number);
        self.references.push(Used { slot, change });
        Some(number)
    }

    fn write_header(&self, out: &mut Vec<u8>) {
        let count = self.references.len();
        out.push(u8::try_from(count).unwrap_or(u8::MAX));
        if count == 0 {
            return;
        }
        let text = |used: &Used| {
            let new = used.is_new();
            self.slots.get(usize::from(used.slot)).and_then(Option::as_ref).filter(|_| new)
        };
        let long = self.references.iter().filter_map(text).any(|atom| atom.as_bytes().len() > 255);
        let nibble = |used: &Used| {
            let segment = u8::try_from(used.slot >> 8).unwrap_or_default();
            if used.is_new() { segment | NEW } else { segment }
        };
        let last = u8::from(long);
        let nibbles: Vec<u8> = self.references.iter().map(nibble).chain([last]).collect();
        for pair in nibbles.chunks(2) {
            let low = pair.first().copied().unwrap_or_default();
            let high = pair.get(1).copied().unwrap_or_default();
            out.push(low | (high << 4));
        }
        for used in &self.references {
            out.push(u8::try_from(used.slot & 255).unwrap_or_default());
            if let Some(atom) = text(used) {
                let len = u16::try_from(atom.as_bytes().len()).unwrap_or(u16::MAX);
                match u8::try_from(len) {
                    Ok(short) if !long => out.push(short),
                    _ => out.extend_from_slice(&len.to_be_bytes()),
                }
                out.extend_from_slice(atom.as_bytes());
            }
        }
    }

    fn forget(&mut self) {
        for used in self.references.drain(..).rev() {
            if let Some(slot) = self.slots.get_mut(usize::from(used.slot)) {
                match used.change {
                    Change::Kept => {}
                    Change::Filled => *slot = None,
                    Change::Replaced(before) => *slot = Some(before),
                }
            }
        }
    }
}

/// FNV-1a, folded to a slot. A peer that chooses its atoms can only make its own cache useless.
fn slot_of(text: &[u8]) -> u16 {
    let hash = text
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u16::try_from((hash ^ (hash >> 11) ^ (hash >> 22)) & 0x7ff).unwrap_or_default()
}

impl Message<'_> {
    /// Writes the control message; first, and once.
    pub fn control(&mut self, term: &Term) -> Result<(), EncodeError> {
        self.writer().term(term)?;
        self.control = self.body.len();
        Ok(())
    }

    /// Writes the payload.
    pub fn payload(&mut self, term: &Term) -> Result<(), EncodeError> {
        self.writer().term(term)
    }

    /// How many bytes control message and payload have so far.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Appends the message as the payload of one frame.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[tag::VERSION, HEADER]);
        self.cache.write_header(out);
        out.extend_from_slice(self.body);
        self.finished = true;
    }

    /// The message as the payloads of one or more frames, none with more than `size` bytes of the
    /// payload term. The control message is in the first of them.
    pub fn finish_in_fragments(mut self, sequence: NonZeroU64, size: usize) -> Vec<Vec<u8>> {
        self.finished = true;
        let (control, payload) = self.body.split_at_checked(self.control).unwrap_or_default();
        let mut parts = payload.chunks(size.max(1));
        let mut left = u64::try_from(parts.len().max(1)).unwrap_or(u64::MAX);
        let numbered = |tag: u8, left: u64| {
            let mut frame = vec![tag::VERSION, tag];
            frame.extend_from_slice(&sequence.get().to_be_bytes());
            frame.extend_from_slice(&left.to_be_bytes());
            frame
        };
        let mut first = numbered(FIRST, left);
        self.cache.write_header(&mut first);
        first.extend_from_slice(control);
        first.extend_from_slice(parts.next().unwrap_or_default());
        let mut frames = vec![first];
        for part in parts {
            left = left.saturating_sub(1);
            let mut frame = numbered(NEXT, left);
            frame.extend_from_slice(part);
            frames.push(frame);
        }
        frames
    }

    pub(crate) fn writer(&mut self) -> Writer<'_> {
        Writer { out: self.body, form: Encoder::new(), refs: Some(self.cache), large: None }
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.cache.forget();
        }
    }
}
