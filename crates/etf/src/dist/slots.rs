//! The slots of an atom cache.

use super::SLOTS;
use crate::Atom;

/// [`SLOTS`] slots, of which most connections use few: 4 KiB for where their atoms are, once there is
/// one, and then only those.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    /// Places in `atoms`, from 1 on.
    places: Vec<u16>,
    atoms: Vec<Atom>,
}

impl Slots {
    pub(super) fn get(&self, slot: usize) -> Option<&Atom> {
        let place = usize::from(*self.places.get(slot)?);
        self.atoms.get(place.checked_sub(1)?)
    }

    /// Fills a slot, which must be below [`SLOTS`].
    pub(super) fn set(&mut self, slot: usize, atom: Atom) {
        if self.places.is_empty() {
            self.places.resize(SLOTS, 0);
        }
        let Some(place) = self.places.get_mut(slot) else { return };
        let held = usize::from(*place).checked_sub(1).and_then(|at| self.atoms.get_mut(at));
        match held {
            Some(held) => *held = atom,
            None => {
                self.atoms.push(atom);
                *place = u16::try_from(self.atoms.len()).unwrap_or_default();
            }
        }
    }
}
