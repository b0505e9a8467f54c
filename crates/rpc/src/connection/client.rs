//! Calls that wait for answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::assembly::{Assembly, Message, body};
use super::exchange::{Inbox, Receiving, Sending};
use super::io::common;
use super::outbox::is_small;
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

/// What comes of it.
pub(super) type Answer = Result<Message, Error>;

/// A call that was sent. Dropping it cancels the call (§7.5).
#[derive(Debug)]
pub(crate) struct Pending {
    connection: Arc<Connection>,
    stream: u32,
    answer: oneshot::Receiver<Answer>,
    is_over: bool,
    /// What was sent.
    pub(crate) sent: Amount,
}

/// All calls of one connection, by the numbers of their streams.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    ended: bool,
}

#[derive(Debug)]
enum Slot {
    Free,
    Waiting {
        answer: oneshot::Sender<Answer>,
        assembly: Option<Assembly>,
        /// Where in all that is written the call begins; nothing of it was written before.
        begins: u64,
    },
    /// Messages both ways.
    Exchange {
        /// `None`: the server says no more.
        inbox: Option<Inbox>,
        /// We do not, either.
        said_all: bool,
    },
    /// Nobody waits for it, but the server has not ended it (§7.5).
    Cancelled,
}

/// The stream of a slot (§7.1).
fn stream(slot: u32) -> u32 {
    slot.saturating_mul(2).saturating_add(1)
}

/// The slot of a stream.
fn slot(stream: u32) -> Option<usize> {
    (stream % 2 == 1).then(|| usize::try_from(stream / 2).ok()).flatten()
}

impl Connection {
    /// Sends a call. An error says that it was not sent.
    pub(crate) fn call(self: &Arc<Self>, request: &Request<'_>) -> Result<Pending, Error> {
        let never = |kind, reason: String| Err(Error::new(kind, Executed::Never, reason));
        let Request { argument, way, extensions, .. } = *request;
        let size = u64::try_from(argument.bytes.len()).unwrap_or(u64::MAX);
        if size > self.max_message {
            let limit = self.max_message;
            return never(Kind::Value, format!("an argument of {size} bytes; {limit} are taken"));
        }
        if !self.is_open() {
            return Err(self.gone());
        }
        let payload = open_payload(request)?;
        let (sender, answer) = oneshot::channel();
        let begins = lock(&self.out).outbox.appended();
        let slot = Slot::Waiting { answer: sender, assembly: None, begins };
        let Some(stream) = lock(&self.calls.0).open(slot, self.max_streams) else {
            if !self.is_open() {
                return Err(self.gone());
            }
            let limit = self.max_streams;
            return never(Kind::Overloaded, format!("{limit} calls wait on this connection"));
        };
        let flags = Flags::CAST.when(way == Way::Cast);
        let sent = self.message(Type::Open, flags, stream, (extensions, &payload), &argument.bytes);
        let Some(sent) = sent else {
            lock(&self.calls.0).free(stream);
            return Err(self.gone());
        };
        Ok(Pending { connection: Arc::clone(self), stream, answer, is_over: false, sent })
    }

    /// Sends a cast that is not answered (§2.6, QUIET).
    pub(crate) fn fire(self: &Arc<Self>, request: &Request<'_>) -> Result<Amount, Error> {
        // Its number is free when all of it is written; for a small one that is at once.
        let Request { argument, extensions, .. } = *request;
        if !is_small(argument.bytes.len()) {
            let reason = "a cast that is not answered takes up to 32 KiB";
            return Err(Error::new(Kind::Value, Executed::Never, reason));
        }
        let payload = open_payload(request)?;
        let slot = Slot::Cancelled;
        let opened = lock(&self.calls.0).open(slot, self.max_streams);
        let stream = opened.ok_or_else(|| self.gone())?;
        let flags = Flags::CAST.and(Flags::QUIET);
        let sent = self.message(Type::Open, flags, stream, (extensions, &payload), &argument.bytes);
        lock(&self.calls.0).free(stream);
        sent.ok_or_else(|| self.gone())
    }

    /// Begins an exchange.
    pub(crate) fn open_exchange(
        self: &Arc<Self>,
        request: &Request<'_>,
    ) -> Result<(Receiving, Sending), Error> {
        if !self.is_open() {
            return Err(self.gone());
        }
        let stream = lock(&self.calls.0).open(Slot::Cancelled, self.max_streams);
        let limit = self.max_streams;
        let reason = format!("{limit} calls wait on this connection");
        let stream = stream.ok_or_else(|| Error::new(Kind::Overloaded, Executed::Never, reason))?;
        let (inbox, receiving, sending) = self.exchange(stream);
        lock(&self.calls.0).set(stream, Slot::Exchange { inbox: Some(inbox), said_all: false });
        let payload = open_payload(request).inspect_err(|_| {
            lock(&self.calls.0).free(stream);
        })?;
        let head = Head { kind: Type::Open, flags: Flags::EXCHANGE, stream };
        let begun = self.push(|outbox| {
            outbox.begin_exchange(stream);
            outbox.frame(head, request.extensions, &payload, &Bytes::new());
        });
        begun.ok_or_else(|| self.gone())?;
        Ok((receiving, sending))
    }

    /// The program does not want to hear more of an exchange.
    pub(crate) fn leave(&self, stream: u32) {
        let mut slots = lock(&self.calls.0);
        if !matches!(slots.at(stream), Ok(Slot::Exchange { .. })) {
            return;
        }
        slots.set(stream, Slot::Cancelled);
        drop(slots);
        self.push(|outbox| outbox.forget(stream));
        self.frame(Type::Cancel, Flags::NONE, stream, &[], &Bytes::new());
    }

    /// The program says no more in an exchange; its number is free if the server does not, either.
    pub(crate) fn said_all(&self, stream: u32) {
        let mut slots = lock(&self.calls.0);
        match slots.at(stream) {
            Ok(Slot::Exchange { inbox: None, .. }) => drop(slots.free(stream)),
            Ok(Slot::Exchange { said_all, .. }) => *said_all = true,
            _ => {}
        }
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
            Frame::Fail { stream, error } => {
                self.push(|outbox| outbox.forget(stream));
                self.answer(stream, Err(error.at(&self.peer.address)))
            }
            other => Err(format!("a server does not say {other:?}")),
        }
    }

    /// A block of a result.
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
        let assembly = match slots.at(stream)? {
            Slot::Waiting { assembly, .. } => assembly,
            Slot::Exchange { .. } => {
                drop(slots);
                return self.item(stream, flags, block);
            }
            // What still comes does not matter, but for its end.
            Slot::Cancelled | Slot::Free => {
                if flags.has(Flags::END) {
                    slots.free(stream);
                }
                return Ok(());
            }
        };
        match (codec, &mut *assembly) {
            (Some(codec), None) => {
                let total = block.total.ok_or("a long message without its length")?;
                match self.budget.check(total, Executed::Yes) {
                    Ok(total) => {
                        let mut begun = Assembly::new(total, flags.has(Flags::ZIP), codec);
                        begun.add(block)?;
                        *assembly = Some(begun);
                        drop(slots);
                        self.make_room(stream, total, move |connection, room| {
                            connection.placed(stream, room);
                        });
                    }
                    Err(error) => {
                        if let Some(answer) = slots.cancel(stream) {
                            // Who waits may have gone.
                            drop(answer.send(Err(error.at(&self.peer.address))));
                        }
                        drop(slots);
                        self.frame(Type::Cancel, Flags::NONE, stream, &[], &Bytes::new());
                    }
                }
                return Ok(());
            }
            (None, Some(going)) => going.add(block)?,
            _ => return Err("a block of a message that was not begun, or twice".to_owned()),
        }
        let whole = assembly.as_ref().is_some_and(|it| it.is_whole() && it.has_room());
        if whole {
            self.whole(&mut slots, stream);
        }
        Ok(())
    }

    /// A block of an exchange.
    fn item(&self, stream: u32, flags: Flags, block: &Block) -> Result<(), String> {
        let mut slots = lock(&self.calls.0);
        let Slot::Exchange { inbox, said_all } = slots.at(stream)? else { return Ok(()) };
        if flags.has(Flags::END) {
            *inbox = None;
            if *said_all {
                slots.free(stream);
            }
            return Ok(());
        }
        let Some(inbox) = inbox else { return Err("more after the end of an exchange".to_owned()) };
        let grant = inbox.take(flags, block, self.limits.max_message)?;
        drop(slots);
        self.grant(stream, grant);
        Ok(())
    }

    /// There is room for a result.
    fn placed(&self, stream: u32, room: super::Room) {
        let mut slots = lock(&self.calls.0);
        if let Ok(Slot::Waiting { assembly: Some(assembly), .. }) = slots.at(stream) {
            assembly.set_room(room);
            if assembly.is_whole() {
                self.whole(&mut slots, stream);
            }
        }
    }

    /// A result in blocks is whole, and its room is there.
    fn whole(&self, slots: &mut Slots, stream: u32) {
        if let Slot::Waiting { answer, assembly: Some(assembly), .. } = slots.free(stream) {
            let message = assembly.message(self.limits.max_message, Executed::Yes);
            // Who waits may have gone.
            drop(answer.send(message.map_err(|error| error.at(&self.peer.address))));
        }
    }

    /// A call has ended.
    fn answer(&self, stream: u32, message: Answer) -> Result<(), String> {
        let mut slots = lock(&self.calls.0);
        slots.at(stream)?;
        let was = slots.free(stream);
        drop(slots);
        // Who waits may have gone.
        match (was, message) {
            (Slot::Waiting { answer, .. }, message) => {
                drop(answer.send(message.map_err(|error| error.at(&self.peer.address))));
            }
            (Slot::Exchange { inbox: Some(inbox), .. }, Err(error)) => inbox.fail(error),
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
        if self.is_over || lock(&self.connection.calls.0).cancel(self.stream).is_none() {
            return;
        }
        self.connection.push(|outbox| outbox.forget(self.stream));
        self.connection.frame(Type::Cancel, Flags::NONE, self.stream, &[], &Bytes::new());
    }
}

impl Calls {
    pub(super) fn in_flight(&self) -> usize {
        let slots = lock(&self.0);
        slots.all.len().saturating_sub(slots.free.len())
    }

    /// The connection is gone: whoever waits is told so, and whether the call can have run (§8.4).
    pub(super) fn end(&self, why: Option<&Error>, written: u64) {
        let mut slots = lock(&self.0);
        slots.ended = true;
        let all = std::mem::take(&mut slots.all);
        drop(slots);
        for slot in all {
            let reason = why.map_or("the connection ended", Error::reason);
            let kind = why.map_or(Kind::Transport, Error::kind);
            match slot {
                Slot::Waiting { answer, begins, .. } => {
                    let executed =
                        if begins >= written { Executed::Never } else { Executed::Maybe };
                    drop(answer.send(Err(Error::new(kind, executed, reason))));
                }
                Slot::Exchange { inbox: Some(inbox), .. } => {
                    inbox.fail(Error::new(kind, Executed::Maybe, reason));
                }
                Slot::Exchange { .. } | Slot::Free | Slot::Cancelled => {}
            }
        }
    }
}

impl Slots {
    fn open(&mut self, slot: Slot, limit: u32) -> Option<u32> {
        if self.ended {
            return None;
        }
        if let Some(free) = self.free.pop() {
            *self.all.get_mut(usize::try_from(free).ok()?)? = slot;
            return Some(stream(free));
        }
        let next = u32::try_from(self.all.len()).ok().filter(|&next| next < limit)?;
        self.all.push(slot);
        Some(stream(next))
    }

    fn at(&mut self, stream: u32) -> Result<&mut Slot, String> {
        let slot = slot(stream).and_then(|slot| self.all.get_mut(slot));
        match slot {
            None | Some(Slot::Free) => Err(format!("no call has the number {stream}")),
            Some(slot) => Ok(slot),
        }
    }

    fn set(&mut self, stream: u32, to: Slot) {
        if let Some(place) = slot(stream).and_then(|slot| self.all.get_mut(slot)) {
            *place = to;
        }
    }

    fn free(&mut self, stream: u32) -> Slot {
        let place = slot(stream).and_then(|slot| self.all.get_mut(slot));
        let Some(place) = place else { return Slot::Free };
        let was = std::mem::replace(place, Slot::Free);
        if !matches!(was, Slot::Free) {
            self.free.push(stream / 2);
        }
        was
    }

    /// Nobody waits for it any more; gives who did.
    fn cancel(&mut self, stream: u32) -> Option<oneshot::Sender<Answer>> {
        let place = slot(stream).and_then(|slot| self.all.get_mut(slot))?;
        if !matches!(place, Slot::Waiting { .. }) {
            return None;
        }
        match std::mem::replace(place, Slot::Cancelled) {
            Slot::Waiting { answer, .. } => Some(answer),
            Slot::Exchange { .. } | Slot::Free | Slot::Cancelled => None,
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
