//! The calls of a client, by the numbers of their streams (§7.1).

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::assembly::{Assembly, Message};
use super::exchange::Inbox;
use crate::Error;

/// What comes of a call.
pub(super) type Answer = Result<Message, Error>;

/// A call's place. Numbers are used again; a `generation` is not, so that what was said of a call that
/// is over never means the one that has its number now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: u32,
    pub(super) generation: u64,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<(u64, Slot)>,
    /// The one that was free first is used first.
    free: VecDeque<u32>,
    generation: u64,
    /// What came of results for which there is no room yet.
    pub(super) unasked: u64,
    ended: bool,
}

#[derive(Debug)]
pub(super) enum Slot {
    Free,
    Waiting(Waiting),
    /// Messages both ways.
    Exchange(Inbox),
    /// Nobody waits for it, but the server has not ended it (§7.5).
    Cancelled,
}

/// A call that waits for its result.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) assembly: Option<Assembly>,
    /// Makes room for the result.
    pub(super) room: Option<AbortOnDropHandle<()>>,
    /// Where in all that is written the call begins; nothing of it was written before.
    pub(super) begins: u64,
}

impl Slots {
    /// How many are in use.
    pub(super) fn used(&self) -> usize {
        self.all.len().saturating_sub(self.free.len())
    }

    /// No more calls: the connection is gone, or about to be. Gives those that there are.
    pub(super) fn end(&mut self) -> Vec<Slot> {
        self.ended = true;
        std::mem::take(&mut self.all).into_iter().map(|(_, slot)| slot).collect()
    }

    /// Refuses calls from now on, if there is none.
    pub(super) fn end_if_unused(&mut self) -> bool {
        self.ended |= self.used() == 0;
        self.ended
    }

    /// `None`: the connection has ended, or `limit` calls are open.
    pub(super) fn open(&mut self, slot: Slot, limit: u32) -> Option<Place> {
        if self.ended {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        if let Some(free) = self.free.pop_front() {
            *self.all.get_mut(usize::try_from(free).ok()?)? = (generation, slot);
            return Some(Place { stream: stream(free), generation });
        }
        let next = u32::try_from(self.all.len()).ok().filter(|&next| next < limit)?;
        self.all.push((generation, slot));
        Some(Place { stream: stream(next), generation })
    }

    /// What the server speaks of; an error is a server that breaks the protocol.
    pub(super) fn at(&mut self, stream: u32) -> Result<&mut Slot, String> {
        match slot(stream).and_then(|slot| self.all.get_mut(slot)) {
            None | Some((_, Slot::Free)) => Err(format!("no call has the number {stream}")),
            Some((_, slot)) => Ok(slot),
        }
    }

    /// A call, if that is not over.
    pub(super) fn of(&mut self, place: Place) -> Option<&mut Slot> {
        let (generation, slot) = self.all.get_mut(slot(place.stream)?)?;
        (*generation == place.generation && !matches!(slot, Slot::Free)).then_some(slot)
    }

    /// The call that has this number now.
    pub(super) fn place(&self, stream: u32) -> Option<Place> {
        let (generation, _) = self.all.get(slot(stream)?)?;
        Some(Place { stream, generation: *generation })
    }

    /// Its number is free.
    pub(super) fn free(&mut self, stream: u32) -> Slot {
        let Some((_, place)) = slot(stream).and_then(|slot| self.all.get_mut(slot)) else {
            return Slot::Free;
        };
        let was = std::mem::replace(place, Slot::Free);
        if !matches!(was, Slot::Free) {
            self.free.push_back(stream / 2);
        }
        if let Slot::Waiting(Waiting { assembly: Some(assembly), .. }) = &was {
            self.no_longer_unasked(assembly);
        }
        was
    }

    /// Nobody waits for it any more, though the server has not ended it.
    pub(super) fn abandon(&mut self, place: Place) -> Slot {
        let Some(slot) = self.of(place) else { return Slot::Free };
        let was = std::mem::replace(slot, Slot::Cancelled);
        if let Slot::Waiting(Waiting { assembly: Some(assembly), .. }) = &was {
            self.no_longer_unasked(assembly);
        }
        was
    }

    fn no_longer_unasked(&mut self, assembly: &Assembly) {
        if !assembly.has_room() {
            let received = u64::try_from(assembly.received()).unwrap_or(u64::MAX);
            self.unasked = self.unasked.saturating_sub(received);
        }
    }
}

/// The stream of a slot.
fn stream(slot: u32) -> u32 {
    slot.saturating_mul(2).saturating_add(1)
}

/// The slot of a stream.
fn slot(stream: u32) -> Option<usize> {
    (stream % 2 == 1).then(|| usize::try_from(stream / 2).ok()).flatten()
}
