//! The atoms that a peer told us.

use std::sync::Arc;

use super::slots::Slots;
use super::{FrameError, NEW};
use crate::Atom;
use crate::wire::Reader;

/// The atom cache of the direction towards us.
///
/// A program sends the same few shapes of messages again and again, so the header of a message is
/// mostly that of the message before: then its atoms are shared with it and nothing is allocated.
#[derive(Debug, Clone, Default)]
pub struct InCache {
    slots: Slots,
    atoms: Arc<[Atom]>,
    /// The bytes of the header that `atoms` came from, if it would mean the same again.
    same: Vec<u8>,
}

impl InCache {
    /// An empty cache, for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// The atoms that the header read last named, in its order.
    pub fn atoms(&self) -> &Arc<[Atom]> {
        &self.atoms
    }

    pub(super) fn no_header(&mut self) {
        if !self.atoms.is_empty() {
            self.atoms = Arc::default();
            self.same.clear();
        }
    }

    pub(super) fn header(&mut self, reader: &mut Reader<'_>) -> Result<(), FrameError> {
        let whole = reader.rest();
        if !self.same.is_empty() && whole.starts_with(&self.same) {
            reader.take(self.same.len());
            return Ok(());
        }
        self.same.clear();
        let count = reader.u8().ok_or(FrameError::Truncated)?;
        if count == 0 {
            self.no_header();
            return Ok(());
        }
        let flags = reader.take(usize::from(count / 2).saturating_add(1));
        let flags = flags.ok_or(FrameError::Truncated)?;
        let nibble = |number: u8| {
            let byte = flags.get(usize::from(number / 2)).copied().unwrap_or_default();
            if number.is_multiple_of(2) { byte & 15 } else { byte >> 4 }
        };
        let long = nibble(count) & 1 == 1;
        let mut any_new = false;
        let mut atoms = Vec::with_capacity(count.into());
        for number in 0..count {
            let flags = nibble(number);
            let index = reader.u8().ok_or(FrameError::Truncated)?;
            let slot = (usize::from(flags & 7) << 8) | usize::from(index);
            if flags & NEW != 0 {
                any_new = true;
                let len = if long { reader.u16() } else { reader.u8().map(u16::from) };
                let len = usize::from(len.ok_or(FrameError::Truncated)?);
                let text = reader.take(len).ok_or(FrameError::Truncated)?;
                let text = std::str::from_utf8(text).map_err(|_| FrameError::Atom)?;
                self.slots.set(slot, Atom::new(text).map_err(|_| FrameError::Atom)?);
            }
            atoms.push(self.slots.get(slot).cloned().ok_or(FrameError::EmptySlot { slot })?);
        }
        self.atoms = atoms.into();
        if !any_new {
            let used = whole.len().saturating_sub(reader.rest().len());
            self.same.extend_from_slice(whole.get(..used).unwrap_or_default());
        }
        Ok(())
    }
}
