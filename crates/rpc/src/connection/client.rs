//! Calls that wait for answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::assembly::{Assembly, Message, body};
use super::exchange::{Receiving, Sending};
use super::io::common;
use super::outbox::is_small;
use super::slots::{Answer, Place, Slot, Slots, Waiting};
use super::{Connection, lock};
use crate::event::{Amount, Way};
use crate::proto::v2::{Block, Flags, Frame, Head, Type};
use crate::{Body, Error, Executed, Kind, NAME_MAX};

/// A call to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) function: &'a str,
    pub(crate) argument: &'a Body,
    pub(crate) timeout: Option<Duration>,
    pub(crate) way: Way,
    /// Encoded ([`crate::proto::v2::Extensions`]).
    pub(crate) extensions: &'a [u8],
}

/// A call that was sent. Dropping it cancels the call (§7.5).
#[derive(Debug)]
pub(crate) struct Pending {
    connection: Arc<Connection>,
    place: Place,
    answer: oneshot::Receiver<Answer>,
    is_over: bool,
    /// What was sent.
    pub(crate) sent: Amount,
}

/// All calls of one connection. Its lock may be held while something is put into the outbox, never the
/// other way round.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Slots>);

impl Connection {
    /// Sends a call. An error says that it was not sent.
    pub(crate) fn call(self: &Arc<Self>, request: &Request<'_>) -> Result<Pending, Error> {
        let Request { argument, way, extensions, .. } = *request;
        let payload = self.opening(request)?;
        let (sender, answer) = oneshot::channel();
        let begins = lock(&self.out).outbox.appended();
        let waiting = Waiting { answer: sender, assembly: None, room: None, begins };
        let place = self.open_slot(Slot::Waiting(waiting))?;
        let flags = Flags::CAST.when(way == Way::Cast);
        let kind = Type::Open;
        let sent = self.message(kind, flags, place.stream, (extensions, &payload), &argument.bytes);
        let Some(sent) = sent else {
            lock(&self.calls.0).free(place.stream);
            return Err(self.gone());
        };
        Ok(Pending { connection: Arc::clone(self), place, answer, is_over: false, sent })
    }

    /// Sends a cast that is not answered (§2.6, QUIET).
    pub(crate) fn fire(self: &Arc<Self>, request: &Request<'_>) -> Result<Amount, Error> {
        let Request { argument, extensions, .. } = *request;
        if !is_small(argument.bytes.len()) {
            let reason = "a cast that is not answered takes up to 32 KiB";
            return Err(Error::new(Kind::Value, Executed::Never, reason));
        }
        let payload = self.opening(request)?;
        let stream = self.open_slot(Slot::Cancelled)?.stream;
        let flags = Flags::CAST.and(Flags::QUIET);
        let sent = self.message(Type::Open, flags, stream, (extensions, &payload), &argument.bytes);
        // What is small is in its turn already: the number is free.
        lock(&self.calls.0).free(stream);
        sent.ok_or_else(|| self.gone())
    }

    /// Begins an exchange.
    pub(crate) fn open_exchange(
        self: &Arc<Self>,
        request: &Request<'_>,
    ) -> Result<(Receiving, Sending), Error> {
        let payload = self.opening(request)?;
        let place = self.open_slot(Slot::Cancelled)?;
        let (inbox, receiving, sending) = self.exchange(place);
        let head = Head { kind: Type::Open, flags: Flags::EXCHANGE, stream: place.stream };
        let mut slots = lock(&self.calls.0);
        if let Some(slot) = slots.of(place) {
            *slot = Slot::Exchange(inbox);
        }
        let begun = self.push(|outbox| {
            outbox.begin_exchange(place);
            outbox.frame(head, request.extensions, &payload, &Bytes::new());
        });
        drop(slots);
        begun.ok_or_else(|| self.gone())?;
        Ok((receiving, sending))
    }

    /// The program does not want to hear more of an exchange (§7.5).
    pub(super) fn leave(&self, place: Place) {
        let mut slots = lock(&self.calls.0);
        if matches!(slots.of(place), Some(Slot::Exchange(_))) {
            slots.abandon(place);
            self.cancel(place);
        }
    }

    /// Closes the connection if no call is on it; none gets on it then.
    pub(crate) fn close_if_idle(&self, why: Error) -> bool {
        let idle = lock(&self.calls.0).end_if_unused();
        if idle {
            self.close(why);
        }
        idle
    }

    /// Tells the server that a call is not wanted any more. The lock of the slots is held.
    fn cancel(&self, place: Place) {
        self.push(|outbox| {
            outbox.forget(place.stream);
            let head = Head { kind: Type::Cancel, flags: Flags::NONE, stream: place.stream };
            outbox.frame(head, &[], &[], &Bytes::new());
        });
        self.room.notify_waiters();
    }

    /// What an OPEN says, if it may be said.
    fn opening(&self, request: &Request<'_>) -> Result<BytesMut, Error> {
        let size = u64::try_from(request.argument.bytes.len()).unwrap_or(u64::MAX);
        if size > self.max_message {
            let reason = format!("an argument of {size} bytes; {} are taken", self.max_message);
            return Err(Error::new(Kind::Value, Executed::Never, reason));
        }
        if !self.is_open() {
            return Err(self.gone());
        }
        open_payload(request)
    }

    fn open_slot(&self, slot: Slot) -> Result<Place, Error> {
        let place = lock(&self.calls.0).open(slot, self.max_streams);
        place.ok_or_else(|| {
            if !self.is_open() {
                return self.gone();
            }
            let reason = format!("{} calls wait on this connection", self.max_streams);
            Error::new(Kind::Overloaded, Executed::Never, reason)
        })
    }

    /// Why no call can be made here.
    fn gone(&self) -> Error {
        let error = match self.why() {
            Some(why) => Error::new(Kind::Transport, Executed::Never, why.to_string()),
            None => Error::new(Kind::Draining, Executed::Never, "the peer takes no new calls"),
        };
        error.at(&self.peer.address)
    }

    /// Takes what the server says.
    pub(super) fn take(self: &Arc<Self>, frame: Frame) -> Result<(), String> {
        let Some(frame) = common(self, frame)? else { return Ok(()) };
        match frame {
            Frame::Reply { stream, flags, codec, block } => {
                self.reply(stream, flags, Some(codec), &block)
            }
            Frame::Data { stream, flags, block } => self.reply(stream, flags, None, &block),
            Frame::Ack { stream } => {
                let nothing = Body::raw(Bytes::new());
                self.answer(stream, Ok(Message { body: nothing, room: None, blocks: 0 }))
            }
            Frame::Fail { stream, error } => self.answer(stream, Err(error.at(&self.peer.address))),
            other => Err(format!("a server does not say {}", other.name())),
        }
    }

    /// A block of a result, or of an exchange.
    fn reply(
        self: &Arc<Self>,
        stream: u32,
        flags: Flags,
        codec: Option<u8>,
        block: &Block,
    ) -> Result<(), String> {
        if let Some(codec) = codec.filter(|_| !flags.has(Flags::MORE)) {
            let (zip, limit) = (flags.has(Flags::ZIP), self.limits.max_message);
            let body = body(codec, zip, block.bytes.clone(), limit, Executed::Yes);
            return self.answer(stream, body.map(|body| Message { body, room: None, blocks: 1 }));
        }
        let mut slots = lock(&self.calls.0);
        match slots.at(stream)? {
            Slot::Waiting(_) => self.block(&mut slots, stream, flags, codec, block),
            // The server's end is that of both directions.
            Slot::Exchange(_) if flags.has(Flags::END) => {
                slots.free(stream);
                self.push(|outbox| outbox.forget(stream));
                self.room.notify_waiters();
                Ok(())
            }
            Slot::Exchange(inbox) => {
                let grant = inbox.take(flags, block, self.limits.max_message)?;
                self.grant(stream, grant);
                Ok(())
            }
            // What still comes does not matter, but for its end.
            Slot::Cancelled | Slot::Free => {
                if flags.has(Flags::END) {
                    slots.free(stream);
                }
                Ok(())
            }
        }
    }

    /// A block of a long result.
    fn block(
        self: &Arc<Self>,
        slots: &mut Slots,
        stream: u32,
        flags: Flags,
        codec: Option<u8>,
        block: &Block,
    ) -> Result<(), String> {
        let place = slots.place(stream).ok_or("no call has that number")?;
        let Some(Slot::Waiting(waiting)) = slots.of(place) else { return Ok(()) };
        match (codec, &mut waiting.assembly) {
            (Some(codec), None) => {
                let total = block.total.ok_or("a long message without its length")?;
                let total = match self.budget.check(total, Executed::Yes) {
                    Ok(total) => total,
                    Err(error) => {
                        if let Slot::Waiting(waiting) = slots.abandon(place) {
                            // Who waits may have gone.
                            drop(waiting.answer.send(Err(error.at(&self.peer.address))));
                        }
                        self.cancel(place);
                        return Ok(());
                    }
                };
                let mut begun = Assembly::new(total, flags.has(Flags::ZIP), codec);
                begun.add(block)?;
                waiting.assembly = Some(begun);
                let room = self.make_room(total, move |connection, room| {
                    connection.placed(place, room);
                });
                waiting.room = Some(room);
            }
            (None, Some(going)) => going.add(block)?,
            _ => return Err("a block of a message that was not begun, or twice".to_owned()),
        }
        let Some(going) = &waiting.assembly else { return Ok(()) };
        if going.is_whole() != flags.has(Flags::END) {
            return Err("a long result ends elsewhere than it was announced".to_owned());
        }
        let (has_room, received) = (going.has_room(), going.received());
        if !has_room {
            let len = u64::try_from(block.bytes.len()).unwrap_or(u64::MAX);
            slots.unasked = slots.unasked.saturating_add(len);
            self.check_windows(received, slots.unasked)?;
        } else if flags.has(Flags::END) {
            self.whole(slots, stream);
        }
        Ok(())
    }

    /// There is room for a result: the server is told, and who waits if it is whole.
    fn placed(&self, place: Place, room: super::Room) {
        let mut slots = lock(&self.calls.0);
        let Some(Slot::Waiting(Waiting { assembly: Some(going), .. })) = slots.of(place) else {
            return;
        };
        let (received, total) = (going.received(), going.total());
        going.set_room(room);
        let whole = going.is_whole();
        let received = u64::try_from(received).unwrap_or(u64::MAX);
        slots.unasked = slots.unasked.saturating_sub(received);
        self.grant(place.stream, total);
        if whole {
            self.whole(&mut slots, place.stream);
        }
    }

    /// A result in blocks is whole, and its room is there.
    fn whole(&self, slots: &mut Slots, stream: u32) {
        let Slot::Waiting(waiting) = slots.free(stream) else { return };
        let Waiting { answer, assembly: Some(assembly), .. } = waiting else { return };
        let message = assembly.message(self.limits.max_message, Executed::Yes);
        // Who waits may have gone.
        drop(answer.send(message.map_err(|error| error.at(&self.peer.address))));
    }

    /// A call has ended.
    fn answer(&self, stream: u32, message: Answer) -> Result<(), String> {
        let mut slots = lock(&self.calls.0);
        slots.at(stream)?;
        let was = slots.free(stream);
        if message.is_err() {
            self.push(|outbox| outbox.forget(stream));
        }
        drop(slots);
        // Who waits may have gone.
        match (was, message) {
            (Slot::Waiting(waiting), message) => {
                drop(waiting.answer.send(message.map_err(|error| error.at(&self.peer.address))));
            }
            (Slot::Exchange(inbox), Err(error)) => {
                inbox.fail(error);
                self.room.notify_waiters();
            }
            _ => {}
        }
        Ok(())
    }
}

impl Pending {
    /// Waits for what comes of it.
    pub(crate) async fn answer(&mut self) -> Answer {
        let lost = || Error::new(Kind::Transport, Executed::Maybe, "the connection ended");
        let answer = (&mut self.answer).await.unwrap_or_else(|_| Err(lost()));
        self.is_over = true;
        answer
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (connection, place) = (&self.connection, self.place);
        let mut slots = lock(&connection.calls.0);
        let Some(Slot::Waiting(waiting)) = slots.of(place) else { return };
        if waiting.assembly.as_ref().is_some_and(Assembly::is_whole) {
            // The server has ended it; only room was missing. It is told that there is some.
            let total = waiting.assembly.as_ref().map_or(0, Assembly::total);
            slots.free(place.stream);
            connection.grant(place.stream, total);
        } else if connection.push(|outbox| outbox.take_back(place.stream)) == Some(true) {
            // Not a byte of it was said.
            slots.free(place.stream);
        } else {
            slots.abandon(place);
            connection.cancel(place);
        }
    }
}

impl Calls {
    pub(super) fn in_flight(&self) -> usize {
        lock(&self.0).used()
    }

    /// The connection is gone: whoever waits is told so, and whether the call can have run (§8.4).
    pub(super) fn end(&self, why: Option<&Error>, written: u64) {
        let all = lock(&self.0).end();
        let reason = why.map_or("the connection ended", Error::reason);
        let kind = why.map_or(Kind::Transport, Error::kind);
        for slot in all {
            match slot {
                Slot::Waiting(Waiting { answer, begins, .. }) => {
                    let executed =
                        if begins >= written { Executed::Never } else { Executed::Maybe };
                    drop(answer.send(Err(Error::new(kind, executed, reason))));
                }
                Slot::Exchange(inbox) => inbox.fail(Error::new(kind, Executed::Maybe, reason)),
                Slot::Free | Slot::Cancelled => {}
            }
        }
    }
}

/// What an OPEN says before its block.
fn open_payload(request: &Request<'_>) -> Result<BytesMut, Error> {
    let name = request.function;
    let Some(len) = u8::try_from(name.len()).ok().filter(|&len| len > 0) else {
        let reason = format!("names of functions have 1 to {NAME_MAX} bytes");
        return Err(Error::new(Kind::UnknownFunction, Executed::Never, reason));
    };
    let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX).max(1);
    let mut payload = BytesMut::with_capacity(16 + NAME_MAX);
    payload.put_u64_le(request.timeout.map_or(0, micros));
    payload.put_u8(request.argument.codec.number());
    payload.put_u8(len);
    payload.put_slice(name.as_bytes());
    Ok(payload)
}
