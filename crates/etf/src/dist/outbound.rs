//! The atoms that we told a peer, and the heads of frames.

use std::num::NonZeroU64;

use super::slots::Slots;
use super::{Draft, FIRST, Form, HEADER, NEW, NEXT};
use crate::tag;

/// The atom cache of the direction away from us.
#[derive(Debug, Clone, Default)]
pub struct OutCache {
    slots: Slots,
    nibbles: Vec<u8>,
}

/// Begins the payload of a frame that is a whole message; the header follows.
pub fn begin_whole(out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag::VERSION, HEADER]);
}

/// Begins the first of `fragments` fragments; header, control message and the first part of the
/// payload follow.
pub fn begin_first(sequence: NonZeroU64, fragments: u64, out: &mut Vec<u8>) {
    numbered(FIRST, sequence, fragments, out);
}

/// Begins a later fragment, of which there are `left` with this one; the next part of the payload
/// follows.
pub fn begin_next(sequence: NonZeroU64, left: u64, out: &mut Vec<u8>) {
    numbered(NEXT, sequence, left, out);
}

fn numbered(tag: u8, sequence: NonZeroU64, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag::VERSION, tag]);
    out.extend_from_slice(&sequence.get().to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
}

impl OutCache {
    /// An empty cache, for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the header of a message. Headers must be sent in the order in which they were made;
    /// this one is not to be made unless its message is sent.
    pub fn header(&mut self, draft: &Draft, out: &mut Vec<u8>) {
        let count = draft.refs.len();
        out.push(count);
        if count == 0 || draft.form() != Form::Cached {
            return;
        }
        self.nibbles.clear();
        let mut long = false;
        for (slot, atom) in draft.refs.iter() {
            let segment = u8::try_from(slot >> 8).unwrap_or_default();
            if self.slots.get(slot.into()) == Some(atom) {
                self.nibbles.push(segment);
            } else {
                self.slots.set(slot.into(), atom.clone());
                long |= atom.as_bytes().len() > 255;
                self.nibbles.push(segment | NEW);
            }
        }
        self.nibbles.push(u8::from(long));
        for pair in self.nibbles.chunks(2) {
            let low = pair.first().copied().unwrap_or_default();
            let high = pair.get(1).copied().unwrap_or_default();
            out.push(low | (high << 4));
        }
        for ((slot, atom), flags) in draft.refs.iter().zip(&self.nibbles) {
            out.push(u8::try_from(slot & 255).unwrap_or_default());
            if flags & NEW != 0 {
                let len = u16::try_from(atom.as_bytes().len()).unwrap_or(u16::MAX);
                match u8::try_from(len) {
                    Ok(short) if !long => out.push(short),
                    _ => out.extend_from_slice(&len.to_be_bytes()),
                }
                out.extend_from_slice(atom.as_bytes());
            }
        }
    }
}
