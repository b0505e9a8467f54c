//! What waits to be received.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use meshx_dist::Payload;
use meshx_etf::{Atom, Reference, Term};

use super::{Cell, Reply, State};
use crate::process::reply;
use crate::process::signal::{Message, Signal};

/// A process with so many signals waiting is behind: from here on messages do not keep the buffers
/// that they were read into. With fewer, if its limit is less than as many buffers.
const LAGGING: usize = 1024;
/// How much is read into a buffer, of which a short message may be all that is kept.
const BUFFER: usize = 64 * 1024;

/// While it lives, a process waits until it can send.
pub(crate) struct Sending<'c>(&'c Cell);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        // None, if the process has ended meanwhile.
        state.sending = state.sending.saturating_sub(1);
    }
}

impl Cell {
    /// The process waits until it can send.
    pub(crate) fn sending(&self) -> Sending<'_> {
        self.state().sending += 1;
        // Who waits for a full queue need not, for now.
        self.drained.notify_waiters();
        Sending(self)
    }

    /// Queues messages; answers to calls go to their callers instead. True if the queue is over its
    /// limit and who feeds it should wait. A process that waits itself, for an answer or to send, is not
    /// waited for unless there is far too much: the answer may be behind, or who should make room for
    /// what it sends be held back by it.
    pub(crate) fn deliver(&self, messages: impl IntoIterator<Item = Message>) -> bool {
        let mut state = self.state();
        let before = state.queue.len();
        for message in messages {
            self.place(&mut state, message);
        }
        let arrived = state.queue.len() > before;
        let full = arrived && state.is_full(self.limit);
        drop(state);
        if arrived {
            self.arrived.notify_one();
        }
        full
    }

    pub(crate) fn deliver_message(&self, message: Message) -> bool {
        self.deliver([message])
    }

    fn place(&self, state: &mut State, mut message: Message) {
        if !state.callers.is_empty()
            && let Some((reference, reply)) = reply::of_call(&message.body)
            && let Some(caller) = state.callers.remove(&reference)
        {
            state.aliases.remove(&reference);
            // The monitor stays until the caller takes it back, but cannot fire any more.
            if let Some(watch) = state.watching.get_mut(&reference) {
                watch.silent = true;
            }
            // A caller that gave up meanwhile is none.
            drop(caller.send(Reply::Message(reply)));
        } else if !state.only_answers && !self.is_late(state, &message.body) {
            if state.queue.len() > (self.limit / BUFFER).min(LAGGING) {
                message.body = message.body.compact();
            }
            state.push(Signal::Message(message), self.limit);
        }
    }

    /// Whether that is an answer through an alias of this process that is not valid any more, whichever
    /// way it came: some peers answer to the pid.
    fn is_late(&self, state: &State, body: &Payload) -> bool {
        reply::through_alias(body).is_some_and(|alias| {
            let ours = *alias.node() == self.pid.node && alias.words().get(2) == Some(&self.pid.id);
            ours && !state.aliases.contains(&alias)
        })
    }

    /// A message to an alias; to one that is not valid any more it is dropped.
    pub(crate) fn deliver_to_alias(&self, alias: &Reference, message: Message) -> bool {
        if !self.state().aliases.contains(alias) {
            return false;
        }
        self.deliver_message(message)
    }

    /// The next signal, if one is there. What waits is taken over at one go, so that who receives and
    /// who delivers seldom meet; a queue is as long as its limit twice, at most.
    pub(crate) fn take(&self) -> Option<Signal> {
        let mut taken = self.taken();
        if taken.is_empty() {
            self.take_over(&mut taken);
        }
        // An end drops what waited.
        if self.has_ended.load(Ordering::Acquire) {
            taken.clear();
        }
        taken.pop_front()
    }

    fn take_over(&self, taken: &mut VecDeque<Signal>) {
        let mut state = self.state();
        taken.append(&mut state.queue);
        let was_full = state.queued > self.limit;
        state.queued = 0;
        drop(state);
        if was_full {
            self.drained.notify_waiters();
        }
    }

    /// The first signal that `wanted` wants, out of its turn. The first `seen` are not looked at; those
    /// that were, and are not wanted, count as seen afterwards: as long as nothing else is taken.
    pub(crate) fn take_if(
        &self,
        seen: &mut usize,
        mut wanted: impl FnMut(&Signal) -> bool,
    ) -> Option<Signal> {
        let mut taken = self.taken();
        if self.has_ended.load(Ordering::Acquire) {
            return None;
        }
        if let Some(at) = taken.iter().skip(*seen).position(&mut wanted) {
            return taken.remove(seen.saturating_add(at));
        }
        // What is not wanted stays where it counts.
        let mut state = self.state();
        let from = seen.saturating_sub(taken.len()).min(state.queue.len());
        let Some(at) = state.queue.range(from..).position(wanted) else {
            *seen = taken.len().saturating_add(state.queue.len());
            return None;
        };
        let signal = state.queue.remove(from.saturating_add(at))?;
        let was_full = state.is_full(self.limit);
        state.queued = state.queued.saturating_sub(signal.size());
        let drained = was_full && !state.is_full(self.limit);
        drop(state);
        if drained {
            self.drained.notify_waiters();
        }
        Some(signal)
    }

    fn taken(&self) -> MutexGuard<'_, VecDeque<Signal>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.state().is_full(self.limit)
    }

    pub(crate) fn queue_len(&self) -> usize {
        let taken = self.taken().len();
        taken + self.state().queue.len()
    }

    pub(crate) fn ended_with(&self) -> Option<Term> {
        self.state().ended.clone()
    }

    pub(crate) fn trap_exits(&self, trap: bool) {
        self.state().trap_exits = trap;
    }

    /// From now on, messages that answer no call are dropped, and so are exit signals: the process has no
    /// mailbox, and calls of many who know nothing of each other.
    pub(crate) fn only_answers(&self) {
        self.state().only_answers = true;
    }

    /// False if it has a name already, or has ended.
    pub(crate) fn take_name(&self, name: &Atom) -> bool {
        let mut state = self.state();
        if state.name.is_some() || state.ended.is_some() {
            return false;
        }
        state.name = Some(name.clone());
        true
    }

    pub(crate) fn name(&self) -> Option<Atom> {
        self.state().name.clone()
    }

    pub(crate) fn drop_name(&self) {
        self.state().name = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use bytes::Bytes;
    use meshx_etf::{Node, Pid};

    use super::*;

    /// What counts is what messages have, but what they keep is what they were read into.
    #[test]
    fn buffers_that_are_kept_take_no_more_than_the_limit() {
        let node = Node::new(Atom::cut("a@b"), 7);
        for (limit, most) in [(1000, 1), (1 << 20, 17), (64 << 20, 1025), (1 << 30, 1025)] {
            let cell = Cell::new(Pid { node: node.clone(), id: 1, serial: 0 }, limit);
            let read: Vec<Bytes> = (0..2000).map(|_| vec![97; BUFFER].into()).collect();
            for buffer in &read {
                let body = Payload::new(buffer.slice(..2), Arc::default());
                cell.deliver_message(Message { from: None, body });
            }
            assert_eq!(cell.queue_len(), read.len());
            assert_eq!(read.iter().filter(|buffer| !buffer.is_unique()).count(), most);
        }
    }

    /// For a process that waits for an answer the limit is sixteen times as much: who waits for it goes
    /// on below that.
    #[test]
    fn who_waits_for_a_full_queue_goes_on_as_soon_as_it_is_not() {
        let node = Node::new(Atom::cut("a@b"), 7);
        let cell = Cell::new(Pid { node: node.clone(), id: 1, serial: 0 }, 1000);
        let answer = cell.expect_reply(Reference::new(node, &[1, 1, 1]).unwrap());
        let body = Payload::of(&Term::Binary(vec![0; 1000].into())).unwrap();
        let mut waiting = 1;
        while !cell.deliver_message(Message { from: None, body: body.clone() }) {
            waiting += 1;
        }
        assert!(waiting > 10, "{waiting}");
        let mut drained = pin!(cell.drained.notified());
        assert!(!drained.as_mut().enable());
        assert!(cell.take_if(&mut 0, |_| true).is_some());
        assert!(!cell.is_full());
        assert!(drained.as_mut().enable(), "nobody is told");
        drop(answer);
    }
}
