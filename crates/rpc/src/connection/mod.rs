//! Connections of version 2 (`docs/protocol/rpc.md`): many calls at a time on each.

mod arguments;
mod assembly;
mod client;
mod clock;
mod exchange;
mod handshake;
mod io;
mod load;
mod opening;
mod outbox;
mod pending;
mod pieces;
mod pings;
mod reading;
mod running;
mod served;
mod server;
mod slots;
mod spares;
mod writing;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::context::Peer;
use crate::event::{Amount, Event, Observers, Side};
use crate::policy::Permits;
use crate::proto::v2::{Checksum, Flags, Head, Type, fail_payload};
use crate::{Body, Error, Executed, Kind};

pub(crate) use assembly::Message;
use assembly::{Budget, Room, is_zipped};
pub(crate) use client::Request;
pub(crate) use exchange::{Receiving, Sending};
pub(crate) use handshake::{Introduction, accept, connect};
use outbox::{Opening, Outbox, is_small};
pub(crate) use pending::Pending;
pub(crate) use server::Service;

/// So long after a server has said that it stops, calls may still come that were on their way.
const LATE: Duration = Duration::from_millis(500);

/// What a connection may hold, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message that is taken.
    pub max_message: u64,
    /// The longest block that is taken.
    pub max_block: u32,
    /// What a peer may send of a large message before there is room for it, and what of an exchange
    /// may wait to be taken.
    pub stream_window: u32,
    /// The same, of all large messages of a connection together.
    pub connection_window: u32,
    /// How many calls a peer may have open on one connection.
    pub max_streams: u32,
    /// Memory for large messages of one connection, until they are used.
    pub large_messages: u64,
    /// How long a peer may take for the handshake.
    pub handshake: Duration,
    /// How long a peer may take for a frame that it has begun.
    pub frame: Duration,
    /// After so long without a word the peer is asked whether it is there.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: 64 << 20,
            max_block: 64 << 10,
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            max_streams: 16_384,
            large_messages: 256 << 20,
            handshake: Duration::from_secs(5),
            frame: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// One connection, seen by both of its tasks and by all calls on it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) side: Side,
    pub(crate) peer: Arc<Peer>,
    /// What program run is at the other end (§4.1, 6).
    pub(crate) instance: [u8; 16],
    limits: Limits,
    budget: Budget,
    /// The longest message that the peer takes.
    max_message: u64,
    /// How many calls the peer lets be open.
    max_streams: u32,
    /// How long the peer wants to hear nothing at most (§9.1); a second at least.
    peer_keep_alive: Duration,
    zip: bool,
    /// Of what the peer says.
    incoming: Checksum,
    out: Mutex<Out>,
    /// Something is to be written.
    work: Notify,
    /// Something was taken out to be written.
    room: Notify,
    /// Everything was written.
    flushed: Notify,
    /// How much waits to be written, for who only asks that.
    waits: Waits,
    written: AtomicU64,
    /// Bytes that came, to see whether any did.
    heard: AtomicU64,
    /// The peer takes no new calls.
    draining: AtomicBool,
    closing: CancellationToken,
    /// The same, for who only asks.
    is_closed: AtomicBool,
    why: Mutex<Option<Error>>,
    calls: client::Calls,
    pings: pings::Pings,
    pen: writing::Pen,
    /// What the peer may call; `None`: all there is.
    permits: Option<Permits>,
    served: served::Served,
    observers: Observers,
}

#[derive(Debug)]
struct Out {
    outbox: Outbox,
    /// What was taken out last is not written yet.
    writing: bool,
    /// How often something was put in since it was taken.
    puts: usize,
    /// More is about to come: it is written with that.
    gathering: bool,
    closed: bool,
}

/// [`Outbox::waiting`], [`Outbox::large`] and [`Outbox::flows`], as they were last.
#[derive(Debug, Default)]
struct Waits {
    small: AtomicUsize,
    large: AtomicUsize,
    flows: AtomicUsize,
}

/// What was put into the outbox.
struct Sent {
    amount: Amount,
    /// Where in all that is written it begins.
    begins: u64,
    /// The writer is to be told.
    wakes: bool,
}

impl Connection {
    /// Whether new calls can be made.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire) && !self.draining.load(Ordering::Acquire)
    }

    /// How many calls wait for answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.in_flight()
    }

    /// Resolves when it is closed.
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Why it was closed, if it was.
    pub(crate) fn why(&self) -> Option<Error> {
        lock(&self.why).clone()
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn close(&self, why: Error) {
        lock(&self.why).get_or_insert(why.at(&self.peer.address));
        lock(&self.out).closed = true;
        self.is_closed.store(true, Ordering::Release);
        self.closing.cancel();
    }

    /// Tells the peer why, and ends the connection when that is written (§2.7).
    fn refuse(&self, kind: Kind, reason: &str) {
        let error = Error::new(kind, Executed::Maybe, reason);
        self.frame(Type::Fail, Flags::NONE, 0, &fail_payload(&error), &Bytes::new());
        // Nothing more is read; the writer writes what is there and ends.
        self.close(error);
    }

    /// Sends a frame that waits for nothing; false if the connection is closed.
    fn frame(&self, kind: Type, flags: Flags, stream: u32, payload: &[u8], block: &Bytes) -> bool {
        self.push(|outbox| outbox.frame(Head { kind, flags, stream }, &[], payload, block))
            .is_some()
    }

    /// Puts something into the outbox, for the writer; `None` if the connection is closed.
    fn push<T>(&self, put: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let (done, wakes) = self.put(put)?;
        if wakes {
            self.work.notify_one();
        }
        Some(done)
    }

    /// The same; and whether the writer does not know yet.
    fn put<T>(&self, put: impl FnOnce(&mut Outbox) -> T) -> Option<(T, bool)> {
        let mut out = lock(&self.out);
        if out.closed {
            return None;
        }
        let idle = out.outbox.is_empty();
        let done = put(&mut out.outbox);
        out.puts = out.puts.saturating_add(1);
        let wakes = idle && !out.holds_back() && !out.outbox.is_empty();
        self.waits.are(&out.outbox);
        Some((done, wakes))
    }

    /// From here on what is put into the outbox waits for the end of this, and is written together.
    fn gather(&self) {
        lock(&self.out).gathering = true;
    }

    /// What was gathered is written: a single frame at once, and several by the writer, since more may
    /// come until that has its turn.
    fn gathered(&self) {
        let mut out = lock(&self.out);
        let gathering = std::mem::take(&mut out.gathering);
        let any = gathering && !out.outbox.is_empty();
        let single = out.puts == 1 && out.outbox.large() == 0;
        drop(out);
        match any {
            true if single => self.write_now(),
            true => self.work.notify_one(),
            false => {}
        }
    }

    /// Puts the message of a call into the outbox, as [`Self::zipped`] gives it: it goes at once if it is
    /// small, or else as there is room for it. `payload` is what the first frame says before it. The
    /// writer is not told yet.
    fn message(
        &self,
        kind: Type,
        flags: Flags,
        stream: u32,
        (extensions, payload): (&[u8], &[u8]),
        (bytes, zip): (Bytes, bool),
    ) -> Option<Sent> {
        let len = bytes.len();
        let amount = |blocks| Amount { bytes: len as u64, blocks };
        if is_small(len) {
            let flags = flags.and(Flags::END).and(Flags::ZIP.when(zip));
            let head = Head { kind, flags, stream };
            let (begins, wakes) = self.put(|outbox| {
                let begins = outbox.appended();
                outbox.frame(head, extensions, payload, &bytes);
                begins
            })?;
            return Some(Sent { amount: amount(1), begins, wakes });
        }
        let opening = Opening {
            kind,
            flags,
            extensions: extensions.into(),
            payload: BytesMut::from(payload),
        };
        let amount = amount(u32::try_from(len.div_ceil(65_536)).unwrap_or(u32::MAX));
        let (begins, wakes) = self.put(|outbox| {
            let begins = outbox.appended();
            outbox.long(stream, bytes, zip, opening);
            begins
        })?;
        Some(Sent { amount, begins, wakes })
    }

    /// §4.6, where it was agreed on and is worth it.
    fn zipped(&self, bytes: &Bytes) -> (Bytes, bool) {
        /// What is shorter is not worth it.
        const WORTH: usize = 1024;
        match self.zip.then_some(bytes).filter(|bytes| bytes.len() >= WORTH).and_then(is_zipped) {
            Some(packed) => (packed, true),
            None => (bytes.clone(), false),
        }
    }

    /// Makes room for a large message in its turn (§7.4), unless what is given back is dropped before.
    fn make_room(
        self: &Arc<Self>,
        total: usize,
        placed: impl FnOnce(&Arc<Self>, Room) + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let connection = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let room = tokio::select! {
                room = connection.budget.room(total) => room,
                () = connection.closed() => None,
            };
            if let Some(room) = room {
                placed(&connection, room);
            }
        }))
    }

    /// Lets the peer say so much more on a stream.
    fn grant(&self, stream: u32, mut bytes: usize) {
        while bytes > 0 {
            let part = u32::try_from(bytes).unwrap_or(u32::MAX);
            let head = part.to_le_bytes();
            self.frame(Type::Credit, Flags::NONE, stream, &head, &Bytes::new());
            bytes = bytes.saturating_sub(usize::try_from(part).unwrap_or(usize::MAX));
        }
    }

    /// §7.3: what a peer may send of one large message, and of all, before there is room for it.
    fn check_windows(&self, received: usize, unasked: u64) -> Result<(), String> {
        let received = u64::try_from(received).unwrap_or(u64::MAX);
        let Limits { stream_window, connection_window, .. } = self.limits;
        if received > stream_window.into() || unasked > connection_window.into() {
            return Err("more of a large message than there is room for".to_owned());
        }
        Ok(())
    }

    /// Says that no new calls are taken; waits until those that are open have ended, `grace` at most,
    /// and closes (§9.2).
    pub(crate) async fn drain(self: &Arc<Self>, grace: Duration) {
        let ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let payload = [&ms.to_le_bytes()[..], b"the peer stops"].concat();
        self.served.drain();
        self.frame(Type::Goaway, Flags::NONE, 0, &payload, &Bytes::new());
        let ended = async {
            self.served.idle().await;
            self.flushed().await;
            // What was on its way is answered, too; a client that has nothing open closes.
            tokio::time::sleep(LATE).await;
            self.served.idle().await;
            self.flushed().await;
        };
        tokio::select! {
            ended = tokio::time::timeout(grace, ended) => drop(ended),
            () = self.closed() => {}
        }
        self.close(Error::new(Kind::Draining, Executed::Maybe, "this side stops"));
    }

    /// Waits until everything is written.
    async fn flushed(&self) {
        loop {
            let flushed = self.flushed.notified();
            {
                let out = lock(&self.out);
                if (out.outbox.is_done() && !out.writing) || out.closed {
                    return;
                }
            }
            flushed.await;
        }
    }

    fn tell(&self, event: &Event<'_>) {
        self.observers.tell(event);
    }
}

impl Out {
    /// Whether what is there waits for what is about to come. Large messages do not.
    fn holds_back(&self) -> bool {
        self.gathering && !self.closed && self.outbox.large() == 0
    }
}

impl Waits {
    fn are(&self, outbox: &Outbox) {
        self.small.store(outbox.waiting(), Ordering::Release);
        self.large.store(outbox.large(), Ordering::Release);
        self.flows.store(outbox.flows(), Ordering::Release);
    }
}

/// The reply of a function as frames.
fn reply_payload(body: &Body) -> [u8; 1] {
    [body.codec.number()]
}

/// Whatever panicked meanwhile, the tables are whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
