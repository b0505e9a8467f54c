//! A message, encoded for no connection in particular.

use bytes::Bytes;
use serde::ser::Serialize;

use super::{PASS_THROUGH, REFERENCES};
use crate::encode::{EncodeError, Encoder, Writer};
use crate::typed::Serializer;
use crate::{Atom, Binary, Pid, Reference, Term, TypedError, tag};

/// A shorter atom takes no less room as a reference.
const WORTH_CACHING: usize = 3;

/// How the terms of a message are written; the flags of the connection decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Under a header, atoms as references to it.
    #[default]
    Cached,
    /// Under a header without atoms.
    Plain,
    /// Without a header, each term with its version byte.
    PassThrough,
}

/// A message on its way out: control message, and perhaps a payload, encoded but for the header.
///
/// Binaries of 4 KiB and more are not copied but shared. A draft can be used again
/// ([`Draft::clear`]), and then allocates nothing.
///
/// A draft of which a term could not be encoded must be cleared: it holds half of it.
#[derive(Debug, Default)]
pub struct Draft {
    bytes: Vec<u8>,
    large: Vec<(usize, Binary)>,
    large_bytes: usize,
    control: usize,
    wide: bool,
    form: Form,
    pub(super) refs: Refs,
}

/// The atoms of one message, numbered in the order of their first use.
///
/// A sender's messages mostly have the same atoms in the same order, so those of the message before
/// are kept behind `len`: an atom that is found there need be neither hashed nor copied.
#[derive(Debug, Default)]
pub(crate) struct Refs {
    slots: Vec<u16>,
    atoms: Vec<Atom>,
    len: usize,
}

impl Draft {
    /// An empty draft.
    pub fn new(form: Form) -> Self {
        let mut draft = Self::default();
        draft.clear(form);
        draft
    }

    /// Makes it empty, for another message.
    pub fn clear(&mut self, form: Form) {
        self.bytes.clear();
        self.large.clear();
        self.large_bytes = 0;
        self.control = 0;
        self.wide = false;
        self.form = form;
        self.refs.len = 0;
        if form == Form::PassThrough {
            self.bytes.extend_from_slice(&[PASS_THROUGH, tag::VERSION]);
        }
    }

    /// How its terms are written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Writes the head of a tuple of the control message.
    pub fn tuple(&mut self, len: u8) {
        self.bytes.extend_from_slice(&[tag::SMALL_TUPLE, len]);
    }

    /// Writes an integer of the control message.
    pub fn integer(&mut self, value: i64) {
        self.writer().integer(value);
    }

    /// Writes an integer of the control message.
    pub fn unsigned(&mut self, value: u64) -> Result<(), EncodeError> {
        self.writer().big(&value.into())
    }

    /// Writes an atom of this text, cut after 255 characters, of the control message.
    pub fn atom_named(&mut self, text: &str) {
        self.writer().atom_named(text);
    }

    /// Writes an atom of the control message.
    pub fn atom(&mut self, atom: &Atom) {
        self.writer().atom(atom);
    }

    /// Writes a pid of the control message.
    pub fn pid(&mut self, pid: &Pid) {
        self.writer().pid(pid);
    }

    /// Writes a reference of the control message.
    pub fn reference(&mut self, reference: &Reference) -> Result<(), EncodeError> {
        self.writer().reference(reference)
    }

    /// Writes a term of the control message.
    pub fn term(&mut self, term: &Term) -> Result<(), EncodeError> {
        self.writer().term(term)
    }

    /// The control message is complete.
    pub fn end_control(&mut self) {
        self.control = self.len();
    }

    /// Writes the payload.
    pub fn payload(&mut self, term: &Term) -> Result<(), EncodeError> {
        self.version();
        self.writer().term(term)
    }

    /// Writes a value as the payload.
    pub fn payload_typed<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TypedError> {
        self.version();
        value.serialize(Serializer::new(&mut self.writer()))
    }

    /// How many bytes control message and payload have so far.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_add(self.large_bytes)
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a pid, port or reference of it is one that only releases with `DFLAG_V4_NC` (OTP 24)
    /// can read; others drop the connection.
    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// How many bytes the control message has.
    pub fn control_len(&self) -> usize {
        self.control
    }

    /// Control message and payload, in pieces of which none is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts().map(|(bytes, _)| bytes)
    }

    /// As [`Draft::slices`]; beside each piece that need not be copied, the binary that it is.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], Option<&Binary>)> {
        crate::pieces::parts(&self.bytes, &self.large)
    }

    /// Moves control message and payload out, in pieces.
    pub fn take_parts(&mut self) -> Vec<Bytes> {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let (mut parts, mut at) = (Vec::new(), 0);
        for (place, binary) in std::mem::take(&mut self.large) {
            parts.push(bytes.slice(at..place));
            parts.push(binary.into_bytes());
            at = place;
        }
        parts.push(bytes.slice(at..));
        parts.retain(|part| !part.is_empty());
        self.clear(self.form);
        parts
    }

    fn version(&mut self) {
        if self.form == Form::PassThrough {
            self.bytes.push(tag::VERSION);
        }
    }

    fn writer(&mut self) -> Writer<'_> {
        let refs = (self.form == Form::Cached).then_some(&mut self.refs);
        let large = Some((&mut self.large, &mut self.large_bytes));
        let wide = Some(&mut self.wide);
        Writer { out: &mut self.bytes, form: Encoder::new(), refs, large, wide }
    }
}

impl Refs {
    /// The number of an atom in the header of this message, if it has or can get one: not when
    /// another atom of the message has the slot, or when there are 255.
    pub(crate) fn index(&mut self, text: &str) -> Option<u8> {
        if text.len() < WORTH_CACHING {
            return None;
        }
        let same = |atom: Option<&Atom>| atom.is_some_and(|atom| atom.as_str() == text);
        // As in the message before. All slots that are held differ.
        if same(self.atoms.get(self.len)) {
            return self.next();
        }
        let slot = slot_of(text.as_bytes());
        if let Some(at) = self.used().iter().position(|&held| held == slot) {
            return same(self.atoms.get(at)).then(|| u8::try_from(at).ok()).flatten();
        }
        if self.len >= REFERENCES {
            return None;
        }
        self.slots.truncate(self.len);
        self.atoms.truncate(self.len);
        self.slots.push(slot);
        self.atoms.push(Atom::cut(text));
        self.next()
    }

    fn next(&mut self) -> Option<u8> {
        let number =
            u8::try_from(self.len).ok().filter(|&number| usize::from(number) < REFERENCES)?;
        self.len = self.len.saturating_add(1);
        Some(number)
    }

    fn used(&self) -> &[u16] {
        self.slots.get(..self.len).unwrap_or_default()
    }

    pub(super) fn len(&self) -> u8 {
        u8::try_from(self.len).unwrap_or(u8::MAX)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &Atom)> {
        self.used().iter().copied().zip(&self.atoms)
    }
}

/// FNV-1a, folded to a slot. A peer that chooses its atoms can only make its own cache useless.
fn slot_of(text: &[u8]) -> u16 {
    let hash = text
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u16::try_from((hash ^ (hash >> 11) ^ (hash >> 22)) & 0x7ff).unwrap_or_default()
}
