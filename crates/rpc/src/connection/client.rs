//! Calls that wait for answers.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::assembly::{Assembly, Message, body};
use super::exchange::{Receiving, Sending};
use super::io::common;
use super::opening::OpenPayload;
use super::outbox::is_small;
use super::pending::Pending;
use super::slots::{Answer, Coming, Place, Slot, Slots, Waiting};
use super::{Connection, lock};
use crate::event::{Amount, Way};
use crate::patience::Patience;
use crate::proto::v2::{Block, Flags, Frame, Head, Type};
use crate::{Body, Error, Executed, Kind};

/// A call of whose time no more than this is left has a timer of its own. Most calls end before that.
const SOON: Duration = Duration::from_millis(200);
/// So often the calls of a connection are looked through for those ([`Connection::watch_clock`]).
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A call to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) function: &'a str,
    pub(crate) argument: &'a Body,
    /// What the server is told of how long it may take.
    pub(crate) timeout: Option<Duration>,
    pub(crate) way: Way,
    /// Encoded ([`crate::proto::v2::Extensions`]).
    pub(crate) extensions: &'a [u8],
}

/// All calls of one connection. Its lock may be held while something is put into the outbox, never the
/// other way round.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Mutex<Slots>,
    /// How many are in use, for who only asks that.
    used: AtomicUsize,
}

/// Its lock.
pub(super) struct Locked<'c> {
    slots: MutexGuard<'c, Slots>,
    used: &'c AtomicUsize,
}

impl Connection {
    /// Sends a call. An error says that it was not sent.
    pub(crate) fn call(
        self: &Arc<Self>,
        request: &Request<'_>,
        (patience, now): (Patience, Instant),
    ) -> Result<Pending, Error> {
        let Request { argument, way, extensions, .. } = *request;
        let payload = self.opening(request)?;
        let flags = Flags::CAST.when(way == Way::Cast);
        let message = self.zipped(&argument.bytes);
        let mut slots = self.calls.lock();
        let (deadline, watched) = (patience.until, slots.watched);
        let timed = !watched || patience.left(now) < SOON;
        let waiting = Waiting { waker: None, deadline, timed, coming: None, begins: 0 };
        let place = slots.open(Slot::Waiting(waiting), self.max_streams);
        let place = place.ok_or_else(|| self.full())?;
        let opening = (extensions, payload.bytes());
        let Some(sent) = self.message(Type::Open, flags, place.stream, opening, message) else {
            slots.free(place.stream);
            return Err(self.gone());
        };
        if let Some(waiting) = slots.waiting(place) {
            waiting.begins = sent.begins;
        }
        let alone = slots.used() == 1;
        drop(slots);
        match sent.wakes {
            true if alone && watched => self.write_now(),
            true => self.work.notify_one(),
            false => {}
        }
        let connection = Arc::clone(self);
        Ok(Pending { connection, place, patience, timer: None, is_over: false, sent: sent.amount })
    }

    /// Sends a cast that is not answered (§2.6, QUIET).
    pub(crate) fn fire(self: &Arc<Self>, request: &Request<'_>) -> Result<Amount, Error> {
        let Request { argument, extensions, .. } = *request;
        if !is_small(argument.bytes.len()) {
            let reason = "a cast that is not answered takes up to 32 KiB";
            return Err(Error::new(Kind::Value, Executed::Never, reason));
        }
        let payload = self.opening(request)?;
        let flags = Flags::CAST.and(Flags::QUIET);
        let message = self.zipped(&argument.bytes);
        let mut slots = self.calls.lock();
        let place = slots.open(Slot::Cancelled, self.max_streams).ok_or_else(|| self.full())?;
        let opening = (extensions, payload.bytes());
        let sent = self.message(Type::Open, flags, place.stream, opening, message);
        // What is small is in its turn already: the number is free.
        slots.free(place.stream);
        drop(slots);
        let sent = sent.ok_or_else(|| self.gone())?;
        if sent.wakes {
            self.work.notify_one();
        }
        Ok(sent.amount)
    }

    /// Begins an exchange.
    pub(crate) fn open_exchange(
        self: &Arc<Self>,
        request: &Request<'_>,
    ) -> Result<(Receiving, Sending), Error> {
        let payload = self.opening(request)?;
        let mut slots = self.calls.lock();
        let place = slots.open(Slot::Cancelled, self.max_streams).ok_or_else(|| self.full())?;
        let (inbox, receiving, sending) = self.exchange(place);
        let head = Head { kind: Type::Open, flags: Flags::EXCHANGE, stream: place.stream };
        if let Some(slot) = slots.of(place) {
            *slot = Slot::Exchange(inbox);
        }
        let begun = self.push(|outbox| {
            outbox.begin_exchange(place);
            outbox.frame(head, request.extensions, payload.bytes(), &Bytes::new());
        });
        drop(slots);
        begun.ok_or_else(|| self.gone())?;
        Ok((receiving, sending))
    }

    /// The program does not want to hear more of an exchange (§7.5).
    pub(super) fn leave(&self, place: Place) {
        let mut slots = self.calls.lock();
        if matches!(slots.of(place), Some(Slot::Exchange(_))) {
            slots.abandon(place);
            self.cancel(place);
        }
    }

    /// Whether a call or an exchange on it came to what its server made of it.
    pub(crate) fn has_answered(&self) -> bool {
        self.calls.lock().answered
    }

    /// Closes the connection if no call is on it; none gets on it then.
    pub(crate) fn close_if_idle(&self, why: Error) -> bool {
        let idle = self.calls.lock().end_if_unused();
        if idle {
            self.close(why);
        }
        idle
    }

    /// Tells the server that a call is not wanted any more. The lock of the slots is held.
    pub(super) fn cancel(&self, place: Place) {
        self.push(|outbox| {
            outbox.forget(place.stream);
            let head = Head { kind: Type::Cancel, flags: Flags::NONE, stream: place.stream };
            outbox.frame(head, &[], &[], &Bytes::new());
        });
        self.room.notify_waiters();
    }

    /// What an OPEN says, if it may be said.
    fn opening(&self, request: &Request<'_>) -> Result<OpenPayload, Error> {
        let size = u64::try_from(request.argument.bytes.len()).unwrap_or(u64::MAX);
        if size > self.max_message {
            let reason = format!("an argument of {size} bytes; {} are taken", self.max_message);
            return Err(Error::new(Kind::Value, Executed::Never, reason));
        }
        if !self.is_open() {
            return Err(self.gone());
        }
        OpenPayload::new(request)
    }

    /// There is no number for a call.
    fn full(&self) -> Error {
        if !self.is_open() {
            return self.gone();
        }
        let reason = format!("{} calls wait on this connection", self.max_streams);
        Error::new(Kind::Overloaded, Executed::Never, reason)
    }

    /// Why no call can be made here.
    fn gone(&self) -> Error {
        let error = match self.why() {
            Some(why) => Error::new(Kind::Transport, Executed::Never, why.to_string()),
            None => Error::new(Kind::Draining, Executed::Never, "the peer takes no new calls"),
        };
        error.at(&self.peer.address)
    }

    /// Takes what the server says; who is to be told of it goes to `woken`.
    pub(super) fn take(
        self: &Arc<Self>,
        frame: Frame,
        woken: &mut Vec<Waker>,
    ) -> Result<(), String> {
        let waker = match frame {
            Frame::Reply { stream, flags, codec, block } => {
                self.reply(stream, flags, Some(codec), block)?
            }
            Frame::Data { stream, flags, block } => self.reply(stream, flags, None, block)?,
            Frame::Ack { stream } => {
                let nothing = Body::raw(Bytes::new());
                self.answer(stream, Ok(Message::small(nothing, 0)))?
            }
            Frame::Fail { stream: stream @ 1.., error } => {
                self.answer(stream, Err(error.at(&self.peer.address)))?
            }
            other => match common(self, other)? {
                Some(other) => return Err(format!("a server does not say {}", other.name())),
                None => None,
            },
        };
        woken.extend(waker);
        Ok(())
    }

    /// A block of a result, or of an exchange.
    fn reply(
        self: &Arc<Self>,
        stream: u32,
        flags: Flags,
        codec: Option<u8>,
        block: Block,
    ) -> Result<Option<Waker>, String> {
        if let Some(codec) = codec.filter(|_| !flags.has(Flags::MORE)) {
            let (zip, limit) = (flags.has(Flags::ZIP), self.limits.max_message);
            let body = body(codec, zip, block.bytes, limit, Executed::Yes);
            return self.answer(stream, body.map(|body| Message::small(body, 1)));
        }
        let mut slots = self.calls.lock();
        match slots.at(stream)? {
            Slot::Waiting(_) => return self.block(&mut slots, stream, flags, codec, &block),
            // The server's end is that of both directions.
            Slot::Exchange(_) if flags.has(Flags::END) => {
                slots.answered = true;
                slots.free(stream);
                self.push(|outbox| outbox.forget(stream));
                self.room.notify_waiters();
            }
            Slot::Exchange(inbox) => {
                let grant = inbox.take(flags, &block, self.limits.max_message)?;
                self.grant(stream, grant);
                slots.answered = true;
            }
            // What still comes does not matter, but for its end.
            // `Slots::at` gives none that is free.
            Slot::Cancelled | Slot::Answered(..) | Slot::Free => {
                if flags.has(Flags::END) {
                    slots.over(stream);
                }
            }
        }
        Ok(None)
    }

    /// A block of a long result.
    fn block(
        self: &Arc<Self>,
        slots: &mut Slots,
        stream: u32,
        flags: Flags,
        codec: Option<u8>,
        block: &Block,
    ) -> Result<Option<Waker>, String> {
        let place = slots.place(stream).ok_or("no call has that number")?;
        let Some(waiting) = slots.waiting(place) else { return Ok(None) };
        match (codec, &mut waiting.coming) {
            (Some(codec), None) => {
                let total = block.total.ok_or("a long message without its length")?;
                let total = match self.budget.check(total, Executed::Yes) {
                    Ok(total) => total,
                    Err(error) => {
                        let waker = slots.refuse(place, Err(error.at(&self.peer.address)));
                        self.cancel(place);
                        return Ok(waker);
                    }
                };
                let mut assembly = Assembly::new(total, flags.has(Flags::ZIP), codec, &self.budget);
                assembly.add(block)?;
                let room = self.make_room(total, move |connection, room| {
                    connection.placed(place, room);
                });
                waiting.coming = Some(Box::new(Coming { assembly, _room: room }));
            }
            (None, Some(coming)) => coming.assembly.add(block)?,
            _ => return Err("a block of a message that was not begun, or twice".to_owned()),
        }
        let Some(coming) = &waiting.coming else { return Ok(None) };
        if coming.assembly.is_whole() != flags.has(Flags::END) {
            return Err("a long result ends elsewhere than it was announced".to_owned());
        }
        let (has_room, received) = (coming.assembly.has_room(), coming.assembly.received());
        if !has_room {
            let len = u64::try_from(block.bytes.len()).unwrap_or(u64::MAX);
            slots.unasked = slots.unasked.saturating_add(len);
            self.check_windows(received, slots.unasked)?;
        } else if flags.has(Flags::END) {
            return Ok(self.whole(slots, place));
        }
        Ok(None)
    }

    /// There is room for a result: the server is told, and who waits if it is whole.
    fn placed(&self, place: Place, room: super::Room) {
        let mut slots = self.calls.lock();
        let Some(coming) = slots.waiting(place).and_then(|it| it.coming.as_mut()) else { return };
        let assembly = &mut coming.assembly;
        assembly.set_room(room);
        let (received, total, whole) = (assembly.received(), assembly.total(), assembly.is_whole());
        let received = u64::try_from(received).unwrap_or(u64::MAX);
        slots.unasked = slots.unasked.saturating_sub(received);
        self.grant(place.stream, total);
        let waker = if whole { self.whole(&mut slots, place) } else { None };
        drop(slots);
        waker.into_iter().for_each(Waker::wake);
    }

    /// A result in blocks is whole, and its room is there.
    fn whole(&self, slots: &mut Slots, place: Place) -> Option<Waker> {
        let coming = slots.waiting(place)?.coming.take()?;
        let message = coming.assembly.message(self.limits.max_message, Executed::Yes);
        slots.answered = true;
        slots.answer(place.stream, message.map_err(|error| error.at(&self.peer.address)))
    }

    /// A call has ended.
    fn answer(&self, stream: u32, message: Answer) -> Result<Option<Waker>, String> {
        let mut slots = self.calls.lock();
        let is_exchange = matches!(slots.at(stream)?, Slot::Exchange(_));
        slots.answered |=
            message.as_ref().map_or_else(|error| error.executed() != Executed::Never, |_| true);
        // Also of an argument that the server did not wait for.
        if message.is_err() || self.waits.flows.load(Ordering::Acquire) > 0 {
            self.push(|outbox| outbox.forget(stream));
        }
        if !is_exchange {
            let message = message.map_err(|error| error.at(&self.peer.address));
            return Ok(slots.answer(stream, message));
        }
        let was = slots.free(stream);
        drop(slots);
        if let (Slot::Exchange(inbox), Err(error)) = (was, message) {
            inbox.fail(error);
            self.room.notify_waiters();
        }
        Ok(None)
    }

    /// Those of whose time little is left watch the clock themselves from here on; with `None`
    /// everybody does.
    pub(super) fn watch_clock(&self, now: Option<Instant>) {
        let due = self.calls.lock().due(now.map(|now| now + SOON));
        due.into_iter().for_each(Waker::wake);
    }
}

impl Calls {
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked { slots: lock(&self.slots), used: &self.used }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The connection is gone: whoever waits is told so, and whether the call can have run (§8.4).
    pub(super) fn end(&self, why: Option<&Error>, written: u64) {
        let reason = why.map_or("the connection ended", Error::reason);
        let kind = why.map_or(Kind::Transport, Error::kind);
        let (wakers, exchanges) = self.lock().end(|waiting| {
            let never = waiting.begins >= written;
            let executed = if never { Executed::Never } else { Executed::Maybe };
            Err(Error::new(kind, executed, reason))
        });
        wakers.into_iter().for_each(Waker::wake);
        for inbox in exchanges {
            inbox.fail(Error::new(kind, Executed::Maybe, reason));
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Slots;

    fn deref(&self) -> &Slots {
        &self.slots
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.used.store(self.slots.used(), Ordering::Relaxed);
    }
}
