//! The calls of a client, by the numbers of their streams (§7.1).

use std::collections::VecDeque;
use std::task::Waker;

use tokio::time::Instant;
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
    /// The server did something for one of them.
    pub(super) answered: bool,
    /// Their times are looked at ([`super::clock`]); calls that come when they are not do so themselves.
    pub(super) watched: bool,
    ended: bool,
}

#[derive(Debug)]
pub(super) enum Slot {
    Free,
    Waiting(Waiting),
    /// What came of it, until its caller looks; and whether the server has ended it, too (§7.5).
    Answered(Answer, bool),
    /// Messages both ways.
    Exchange(Inbox),
    /// Nobody waits for it, but the server has not ended it (§7.5).
    Cancelled,
}

/// A call that waits for its result.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Who is told, once somebody waits.
    pub(super) waker: Option<Waker>,
    /// When its caller stops waiting.
    pub(super) deadline: Instant,
    /// Its caller watches the clock itself: the deadline is near.
    pub(super) timed: bool,
    pub(super) coming: Option<Box<Coming>>,
    /// Where in all that is written the call begins; nothing of it was written before.
    pub(super) begins: u64,
}

/// A result of which not everything is there.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) assembly: Assembly,
    /// Makes room for it.
    pub(super) _room: AbortOnDropHandle<()>,
}

impl Slots {
    /// How many are in use.
    pub(super) fn used(&self) -> usize {
        self.all.len().saturating_sub(self.free.len())
    }

    /// No more calls: the connection is gone. What came of those that wait is `answer`'s; gives who is
    /// to be told, and the exchanges.
    pub(super) fn end(&mut self, answer: impl Fn(&Waiting) -> Answer) -> (Vec<Waker>, Vec<Inbox>) {
        self.ended = true;
        let (mut wakers, mut exchanges) = (Vec::new(), Vec::new());
        for (_, slot) in &mut self.all {
            match slot {
                Slot::Waiting(waiting) => {
                    wakers.extend(waiting.waker.take());
                    *slot = Slot::Answered(answer(waiting), true);
                }
                Slot::Exchange(_) => {
                    if let Slot::Exchange(inbox) = std::mem::replace(slot, Slot::Cancelled) {
                        exchanges.push(inbox);
                    }
                }
                // Whoever has an answer keeps it.
                Slot::Answered(..) | Slot::Cancelled | Slot::Free => {}
            }
        }
        (wakers, exchanges)
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
            None | Some((_, Slot::Free | Slot::Answered(_, true))) => {
                Err(format!("no call has the number {stream}"))
            }
            Some((_, slot)) => Ok(slot),
        }
    }

    /// A call, if that is not over.
    pub(super) fn of(&mut self, place: Place) -> Option<&mut Slot> {
        let (generation, slot) = self.all.get_mut(slot(place.stream)?)?;
        (*generation == place.generation && !matches!(slot, Slot::Free)).then_some(slot)
    }

    /// The same, if somebody waits for its result.
    pub(super) fn waiting(&mut self, place: Place) -> Option<&mut Waiting> {
        match self.of(place) {
            Some(Slot::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }

    /// The call that has this number now.
    pub(super) fn place(&self, stream: u32) -> Option<Place> {
        let (generation, _) = self.all.get(slot(stream)?)?;
        Some(Place { stream, generation: *generation })
    }

    /// Its number is free.
    pub(super) fn free(&mut self, stream: u32) -> Slot {
        let was = self.put(stream, Slot::Free);
        if !matches!(was, Slot::Free) {
            self.free.push_back(stream / 2);
        }
        was
    }

    /// The server has ended a call, so. Gives who is to be told.
    pub(super) fn answer(&mut self, stream: u32, answer: Answer) -> Option<Waker> {
        let is_waiting = matches!(self.at(stream), Ok(Slot::Waiting(_)));
        if !is_waiting {
            self.over(stream);
            return None;
        }
        match self.put(stream, Slot::Answered(answer, true)) {
            Slot::Waiting(waiting) => waiting.waker,
            _ => None,
        }
    }

    /// The server has ended a call for which nobody waits any more.
    pub(super) fn over(&mut self, stream: u32) {
        match self.at(stream) {
            Ok(Slot::Answered(_, ended)) => *ended = true,
            Ok(_) => drop(self.free(stream)),
            Err(_) => {}
        }
    }

    /// This side has ended a call, so; the server has not. Gives who is to be told.
    pub(super) fn refuse(&mut self, place: Place, answer: Answer) -> Option<Waker> {
        self.waiting(place)?;
        match self.put(place.stream, Slot::Answered(answer, false)) {
            Slot::Waiting(waiting) => waiting.waker,
            _ => None,
        }
    }

    /// What came of it, for its caller, who does not wait any more then.
    pub(super) fn take_answer(&mut self, place: Place) -> Option<Answer> {
        let ended = match self.of(place) {
            Some(Slot::Answered(_, ended)) => *ended,
            _ => return None,
        };
        let was =
            if ended { self.free(place.stream) } else { self.put(place.stream, Slot::Cancelled) };
        match was {
            Slot::Answered(answer, _) => Some(answer),
            _ => None,
        }
    }

    /// Nobody waits for it any more, though the server has not ended it.
    pub(super) fn abandon(&mut self, place: Place) {
        if self.of(place).is_some() {
            self.put(place.stream, Slot::Cancelled);
        }
    }

    /// Whoever's time is over before `soon` is to watch the clock from now on.
    pub(super) fn due(&mut self, soon: Option<Instant>) -> Vec<Waker> {
        let waiting = self.all.iter_mut().filter_map(|(_, slot)| match slot {
            Slot::Waiting(waiting) if !waiting.timed => Some(waiting),
            _ => None,
        });
        let due = waiting.filter(|it| soon.is_none_or(|soon| it.deadline < soon));
        due.filter_map(|waiting| {
            waiting.timed = true;
            waiting.waker.take()
        })
        .collect()
    }

    fn put(&mut self, stream: u32, new: Slot) -> Slot {
        let Some((_, place)) = slot(stream).and_then(|slot| self.all.get_mut(slot)) else {
            return Slot::Free;
        };
        let was = std::mem::replace(place, new);
        if let Slot::Waiting(Waiting { coming: Some(coming), .. }) = &was
            && !coming.assembly.has_room()
        {
            let received = u64::try_from(coming.assembly.received()).unwrap_or(u64::MAX);
            self.unasked = self.unasked.saturating_sub(received);
        }
        was
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Body, Executed, Kind};

    #[test]
    fn an_answer_that_was_not_taken_outlives_the_connection() {
        let mut slots = Slots::default();
        let mut open = || {
            let deadline = Instant::now();
            let waiting = Waiting { waker: None, deadline, timed: false, coming: None, begins: 0 };
            slots.open(Slot::Waiting(waiting), 10).unwrap()
        };
        let (first, second) = (open(), open());
        slots.answer(first.stream, Ok(Message::small(Body::raw("yes"), 1)));
        slots.end(|_| Err(Error::new(Kind::Transport, Executed::Maybe, "gone")));
        assert_eq!(slots.take_answer(first).unwrap().unwrap().body, Body::raw("yes"));
        let error = slots.take_answer(second).unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Transport);
        assert!(slots.take_answer(first).is_none());
    }
}
