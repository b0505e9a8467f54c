//! One connection that is up.

mod incoming;
mod io;
mod outgoing;
mod peers;
mod setup;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Buf;
use meshx_dist::control::{Control, Recipient, write_message};
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, Outbox, Ticks, Ticktime};
use meshx_etf::dist::Draft;
use meshx_etf::{Atom, Node as NodeId, Pid, Reference, Term, TypedError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use io::start;
pub(crate) use peers::{Answering, Peers};
pub(crate) use setup::{accept, ask_name, begin_with, dial};

use crate::process::{LinkProtocol, Table, sender};

/// So much may wait to be written before senders must wait; the same as `+zdbbl` of a VM.
pub(crate) const BUSY: usize = 1 << 20;
/// So much of what cannot wait (exits, replies, links) may gather beyond what is written meanwhile; a
/// peer that takes nothing for so long is given up when there is more of it. How large a signal may be
/// is another matter: one alone has taken nobody's time.
const HOPELESS: usize = 64 << 20;

/// So few processes with relations are not worth looking through for those that have ended.
const CROWDED: usize = 256;

/// A peer may have so many monitors on processes here.
const MONITORS: usize = 1 << 20;

/// A connection to one peer.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Not used again while the node lives.
    pub(crate) id: u64,
    pub(crate) peer: NodeId,
    pub(crate) flags: Flags,
    /// What the peer says it can do.
    pub(crate) offered: Flags,
    pub(crate) since: Instant,
    out: Mutex<Out>,
    /// Every sender is to wait, to be asked before a message is encoded.
    is_full: AtomicBool,
    /// Something is to be written.
    work: Notify,
    /// There is room again for who waited.
    room: Notify,
    closing: CancellationToken,
    /// The same, to be asked for each message.
    is_closing: AtomicBool,
    why: Mutex<Option<String>>,
    relations: Mutex<Relations>,
    ticks: Mutex<Ticks>,
    read: AtomicU64,
    written: AtomicU64,
}

#[derive(Debug)]
struct Out {
    outbox: Outbox,
    /// What was taken out last is not written yet.
    writing: bool,
    /// Bytes of signals, which do not wait for room, that may not be written yet.
    urgent: usize,
    /// How many messages came since something was taken.
    messages: usize,
    closed: bool,
}

/// Who has links and monitors over the connection, so that its end is told to them and no others.
#[derive(Debug, Default)]
struct Relations {
    closed: bool,
    /// By their numbers; some of them have ended.
    processes: HashSet<u32>,
    /// At this length those that have ended are taken out.
    crowded: usize,
    /// Monitors of the peer on processes here.
    monitors: HashMap<Reference, u32>,
}

impl Relations {
    fn add(&mut self, process: u32, all: &Table) {
        if self.closed || !self.processes.insert(process) {
            return;
        }
        if self.processes.len() > self.crowded.max(CROWDED) {
            self.processes.retain(|&process| all.numbered(process).is_some());
            self.crowded = self.processes.len().saturating_mul(2);
        }
    }
}

/// When a message may be put into the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Only if its sender need not wait.
    Room,
    /// Its sender has waited.
    Now,
    /// It cannot wait: what gathers so has a bound ([`HOPELESS`]), and a peer that asks for more such
    /// and takes nothing is given up.
    Urgent,
}

/// Why a message did not get onto a connection.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The sender is to wait for room, and to try again; for a `large` message it takes more.
    Busy {
        node: Atom,
        large: bool,
    },
    Closed {
        node: Atom,
        reason: String,
    },
    Encode(TypedError),
    Incapable {
        node: Atom,
        lacks: Flags,
    },
}

thread_local! {
    /// Where a message is encoded before the connection is locked.
    static DRAFT: RefCell<Draft> = RefCell::default();
}

impl Connection {
    /// `flags` are what both can do, and what the peer says that it can.
    pub(crate) fn new(
        id: u64,
        peer: NodeId,
        (flags, offered): (Flags, Flags),
        ticktime: Ticktime,
    ) -> Self {
        Self {
            id,
            peer,
            flags,
            offered,
            since: Instant::now(),
            out: Mutex::new(Out {
                outbox: Outbox::new(flags),
                writing: false,
                urgent: 0,
                messages: 0,
                closed: false,
            }),
            is_full: AtomicBool::new(false),
            work: Notify::new(),
            room: Notify::new(),
            closing: CancellationToken::new(),
            is_closing: AtomicBool::new(false),
            why: Mutex::default(),
            relations: Mutex::default(),
            ticks: Mutex::new(Ticks::new(ticktime, now())),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    pub(crate) fn name(&self) -> &Atom {
        self.peer.name()
    }

    pub(crate) fn is_hidden(&self) -> bool {
        !self.flags.contains(Flags::PUBLISHED)
    }

    /// Bytes read and written.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    /// A message that its sender sends when there is room for it, with [`Connection::send`].
    pub(crate) fn draft(&self, control: &Control, payload: &Term) -> Result<Draft, Unsent> {
        let mut draft = DRAFT.take();
        self.encode(&mut draft, |draft| {
            control.write(self.flags, None, draft)?;
            Ok(draft.payload(payload)?)
        })?;
        Ok(draft)
    }

    /// Sends what was drafted, as the process number `sender`.
    pub(crate) fn send(&self, sender: u64, mut draft: Draft) -> Result<(), Unsent> {
        let sent = self.put(sender, Turn::Now, &mut draft);
        DRAFT.set(draft);
        sent
    }

    /// Sends a message, encoded by `payload`.
    pub(crate) fn send_to(
        &self,
        from: &Pid,
        to: Recipient<'_>,
        turn: Turn,
        payload: impl FnOnce(&mut Draft) -> Result<(), TypedError>,
    ) -> Result<(), Unsent> {
        // Either is enough: what carries messages to aliases is another thing since OTP 28.
        if matches!(to, Recipient::Alias(_)) && !self.takes_aliases() {
            return Err(self.incapable(Flags::ALIAS));
        }
        self.push(sender(from), turn, |draft| {
            write_message(from, to, self.flags, draft)?;
            payload(draft)
        })
    }

    /// Sends a signal without a payload. A connection that is gone says so by other ways.
    pub(crate) fn signal(&self, sender: u64, control: &Control) {
        let pushed = self.push(sender, Turn::Urgent, |draft| {
            control.write(self.flags, None, draft)?;
            Ok(())
        });
        self.check(pushed);
    }

    /// Sends a signal with a reason. If the peer cannot read the reason, it gets `unreadable` for one:
    /// the signal itself must not be lost.
    pub(crate) fn signal_reason(&self, sender: u64, control: &Control, reason: &Term) {
        let push = |reason: &Term| {
            self.push(sender, Turn::Urgent, |draft| {
                if control.write(self.flags, Some(reason), draft)? {
                    draft.payload(reason)?;
                }
                Ok(())
            })
        };
        let pushed = match push(reason) {
            Err(Unsent::Incapable { .. }) => push(&Term::atom("unreadable")),
            pushed => pushed,
        };
        self.check(pushed);
    }

    fn push(
        &self,
        sender: u64,
        turn: Turn,
        write: impl FnOnce(&mut Draft) -> Result<(), TypedError>,
    ) -> Result<(), Unsent> {
        if turn == Turn::Room && self.is_full.load(Ordering::Relaxed) && !self.is_closing() {
            return Err(Unsent::Busy { node: self.name().clone(), large: false });
        }
        DRAFT.with_borrow_mut(|draft| {
            self.encode(draft, write)?;
            self.put(sender, turn, draft)
        })
    }

    fn encode(
        &self,
        draft: &mut Draft,
        write: impl FnOnce(&mut Draft) -> Result<(), TypedError>,
    ) -> Result<(), Unsent> {
        draft.clear(meshx_dist::link::form(self.flags));
        write(draft).map_err(Unsent::Encode)?;
        if draft.is_wide() && !self.flags.contains(Flags::V4_NC) {
            return Err(self.incapable(Flags::V4_NC));
        }
        Ok(())
    }

    fn put(&self, sender: u64, turn: Turn, draft: &mut Draft) -> Result<(), Unsent> {
        let mut out = lock(&self.out);
        if out.closed {
            drop(out);
            return Err(Unsent::Closed { node: self.name().clone(), reason: self.why() });
        }
        if turn == Turn::Room {
            let large = self.is_large(draft);
            if out.outbox.is_busy(sender, large, BUSY) {
                return Err(Unsent::Busy { node: self.name().clone(), large });
            }
        }
        let idle = out.outbox.is_empty();
        let mut hopeless = false;
        if turn == Turn::Urgent {
            hopeless = out.urgent > HOPELESS;
            out.urgent = out.urgent.saturating_add(draft.len());
        }
        out.outbox.push(sender, draft);
        out.messages = out.messages.saturating_add(1);
        if out.outbox.is_full(BUSY) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        drop(out);
        if idle {
            self.work.notify_one();
        }
        if hopeless {
            self.close("it takes nothing of what is sent to it");
        }
        Ok(())
    }

    /// A signal cannot fail to be encoded but by a fault of ours, or a reason that no term may be.
    fn check(&self, pushed: Result<(), Unsent>) {
        match pushed {
            Err(Unsent::Encode(error)) => {
                tracing::error!(peer = %self.name(), %error, "a signal could not be encoded");
                self.close("a signal to it could not be encoded");
            }
            // It would be about a process of which the peer cannot know.
            Err(Unsent::Incapable { node, lacks }) => {
                tracing::warn!(peer = %node, %lacks, "a signal was not sent: it cannot be read there");
            }
            Ok(()) | Err(Unsent::Closed { .. } | Unsent::Busy { .. }) => {}
        }
    }

    pub(crate) fn incapable(&self, lacks: Flags) -> Unsent {
        Unsent::Incapable { node: self.name().clone(), lacks }
    }

    /// Whether the peer can read that: before OTP 24 only pids of 15 and 13 bits.
    pub(crate) fn reads(&self, pid: &Pid) -> bool {
        pid.is_narrow() || self.flags.contains(Flags::V4_NC)
    }

    /// Whether messages can be sent to aliases of the peer.
    pub(crate) fn takes_aliases(&self) -> bool {
        !(self.flags & (Flags::ALIAS | Flags::ALTACT_SIG)).is_empty()
    }

    /// Whether the peer answers an unlink. Before OTP 23.3 nobody does.
    pub(crate) fn link_protocol(&self) -> LinkProtocol {
        if self.flags.contains(Flags::UNLINK_ID) {
            LinkProtocol::Answered
        } else {
            LinkProtocol::Unanswered
        }
    }

    /// Whether it is one of the large messages, for which it takes more room.
    pub(crate) fn is_large(&self, draft: &Draft) -> bool {
        meshx_dist::link::is_large(self.flags, draft)
    }

    /// Whether this sender should wait before it sends a message, which may be a large one.
    pub(crate) fn is_busy(&self, sender: u64, large: bool) -> bool {
        lock(&self.out).outbox.is_busy(sender, large, BUSY)
    }

    /// Waits until there is room for this sender's message, or the connection is closed. For a `large`
    /// one there is only while not too many of them are on their way.
    pub(crate) async fn room(&self, sender: u64, large: bool) {
        // Mostly there is.
        if !self.is_busy(sender, large) {
            return;
        }
        loop {
            let room = self.room.notified();
            if self.closing.is_cancelled() || !self.is_busy(sender, large) {
                return;
            }
            tokio::select! {
                () = room => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Waits until everything is written, or the connection is closed.
    pub(crate) async fn flushed(&self) {
        loop {
            let room = self.room.notified();
            if self.is_flushed() || self.closing.is_cancelled() {
                return;
            }
            tokio::select! {
                () = room => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    fn is_flushed(&self) -> bool {
        let out = lock(&self.out);
        out.outbox.is_empty() && !out.writing
    }

    /// What is to be written next; nothing if nothing waits. Gives how many messages came since.
    fn take(&self, batch: &mut Batch) -> usize {
        let mut out = lock(&self.out);
        let messages = std::mem::take(&mut out.messages);
        out.outbox.take(batch);
        self.is_full.store(false, Ordering::Relaxed);
        out.writing = batch.has_remaining();
        // Whatever it was that could be written: the peer takes something. What else there is waits for
        // room, and is little.
        out.urgent =
            if out.outbox.is_empty() { 0 } else { out.urgent.saturating_sub(batch.remaining()) };
        drop(out);
        self.room.notify_waiters();
        messages
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn close(&self, why: &str) {
        lock(&self.why).get_or_insert_with(|| why.to_owned());
        lock(&self.out).closed = true;
        self.is_closing.store(true, Ordering::Release);
        self.closing.cancel();
    }

    /// Whether it has ended or is about to.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Why it was closed.
    pub(crate) fn why(&self) -> String {
        lock(&self.why).clone().unwrap_or_default()
    }

    /// Resolves when it is closed.
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// A process here has a relation over the connection; false if it is gone: then the relation is to
    /// be ended by who made it. `all` are those that live.
    pub(crate) fn relate(&self, process: u32, all: &Table) -> bool {
        let mut relations = lock(&self.relations);
        relations.add(process, all);
        !relations.closed
    }

    /// The peer monitors a process here; false if it does so with too many, and the connection ends.
    pub(crate) fn monitored(&self, reference: Reference, process: u32, all: &Table) -> bool {
        let mut relations = lock(&self.relations);
        if relations.monitors.len() >= MONITORS {
            drop(relations);
            self.close("it made too many monitors");
            return false;
        }
        if !relations.closed {
            relations.add(process, all);
            relations.monitors.insert(reference, process);
        }
        true
    }

    pub(crate) fn demonitored(&self, reference: &Reference) -> Option<u32> {
        lock(&self.relations).monitors.remove(reference)
    }

    /// No relation is made over it any more; gives those that have one.
    fn end_relations(&self) -> HashSet<u32> {
        let mut relations = lock(&self.relations);
        relations.closed = true;
        relations.monitors.clear();
        std::mem::take(&mut relations.processes)
    }
}

/// The clock of the runtime, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use meshx_etf::{Pid, term};

    use super::*;

    fn connection() -> (Connection, Pid) {
        let node = NodeId::new(Atom::cut("a@b"), 7);
        let pid = Pid { node: node.clone(), id: 1, serial: 0 };
        (Connection::new(1, node, (Flags::NODE, Flags::NODE), Ticktime::default()), pid)
    }

    fn exit(connection: &Connection, pid: &Pid, size: usize) {
        let control = Control::Exit { from: pid.clone(), to: pid.clone() };
        let reason = term!({ (Term::Binary(vec![0; size].into())) });
        connection.signal_reason(2, &control, &reason);
    }

    #[test]
    fn many_large_messages_hold_up_large_ones_only() {
        let (connection, pid) = connection();
        let mut batch = Batch::default();
        let send = |sender: u32, term: &Term| {
            let from = Pid { id: sender, ..pid.clone() };
            connection
                .send_to(&from, Recipient::Pid(&pid), Turn::Room, |draft| Ok(draft.payload(term)?))
        };
        let (small, large) = (term!(small), Term::Binary(vec![0; 3 << 20].into()));
        for sender in 1..=64 {
            send(sender, &large).unwrap();
            connection.take(&mut batch);
            batch.advance(batch.remaining());
        }
        assert!(matches!(send(100, &large), Err(Unsent::Busy { large: true, .. })));
        send(100, &small).unwrap();
        assert!(matches!(send(1, &small), Err(Unsent::Busy { large: false, .. })));
    }

    #[test]
    fn one_signal_may_be_larger_than_what_may_gather() {
        let (connection, pid) = connection();
        let mut batch = Batch::default();
        for _ in 0..2 {
            exit(&connection, &pid, HOPELESS + 1);
            // Nor does a message make it too much, which could wait.
            let send = Control::Send { from: Some(pid.clone()), to: pid.clone() };
            connection.send(1, connection.draft(&send, &term!(small)).unwrap()).unwrap();
            assert!(!connection.closing.is_cancelled());
            while !lock(&connection.out).outbox.is_empty() {
                connection.take(&mut batch);
                batch.advance(batch.remaining());
            }
        }
        exit(&connection, &pid, HOPELESS + 1);
        exit(&connection, &pid, 1);
        assert!(connection.closing.is_cancelled());
    }

    #[test]
    fn a_peer_that_takes_all_is_not_given_up_for_what_it_took() {
        let (connection, pid) = connection();
        let large = Term::Binary(vec![0; 200 << 20].into());
        let send = Control::Send { from: Some(pid.clone()), to: pid.clone() };
        connection.send(1, connection.draft(&send, &large).unwrap()).unwrap();
        let mut batch = Batch::default();
        // More than may wait, all the while that the large one is on its way.
        for _ in 0..700 {
            exit(&connection, &pid, 60_000);
            exit(&connection, &pid, 60_000);
            connection.take(&mut batch);
            batch.advance(batch.remaining());
        }
        assert!(!lock(&connection.out).outbox.is_empty());
        assert!(!connection.closing.is_cancelled());
        // Nothing more is taken.
        for _ in 0..1200 {
            exit(&connection, &pid, 60_000);
        }
        assert!(connection.closing.is_cancelled());
    }
}
