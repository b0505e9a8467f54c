//! Messages both ways on one stream (§7.6).

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::outbox::MESSAGE;
use super::slots::Place;
use super::{Connection, lock};
use crate::proto::v2::{Block, Flags};
use crate::{Error, Executed, Kind};

/// A shorter message is copied.
const COPIED: usize = 4096;
/// So much of an exchange waits to be written before its sender waits.
const AHEAD: usize = 64 * 1024;

/// Where what the peer says goes.
#[derive(Debug)]
pub(super) struct Inbox {
    items: mpsc::UnboundedSender<Item>,
    window: Arc<Mutex<Window>>,
    /// The message that is coming, and how long it will be.
    coming: BytesMut,
    announced: Option<usize>,
}

/// A message, or why there are no more; and how many bytes are granted again when it is taken.
#[derive(Debug)]
struct Item {
    message: Result<Bytes, Error>,
    granted: usize,
}

/// What the peer may still send.
#[derive(Debug, Default)]
struct Window {
    size: usize,
    /// What came and was not granted again.
    held: usize,
    /// What was taken, and is granted with the next CREDIT.
    owed: usize,
    /// What came of the message that is not whole.
    part: usize,
    /// Messages that wait to be taken.
    queued: usize,
    /// Somebody waits for the next message.
    wanted: bool,
    /// Nobody wants any: what comes is dropped, and granted again.
    unwanted: bool,
    /// The stream has ended: nothing is granted any more.
    ended: bool,
}

/// What the peer says, for the program.
#[derive(Debug)]
pub(crate) struct Receiving {
    connection: Arc<Connection>,
    place: Place,
    items: mpsc::UnboundedReceiver<Item>,
    window: Arc<Mutex<Window>>,
    is_over: bool,
}

/// What the program says.
#[derive(Debug)]
pub(crate) struct Sending {
    connection: Arc<Connection>,
    place: Place,
    is_over: bool,
}

impl Connection {
    /// Both ends of our side of an exchange.
    pub(super) fn exchange(self: &Arc<Self>, place: Place) -> (Inbox, Receiving, Sending) {
        let (sender, items) = mpsc::unbounded_channel();
        let size = usize::try_from(self.limits.stream_window).unwrap_or(usize::MAX);
        let window = Arc::new(Mutex::new(Window { size, ..Window::default() }));
        let (coming, announced) = (BytesMut::new(), None);
        let inbox = Inbox { items: sender, window: Arc::clone(&window), coming, announced };
        let connection = Arc::clone(self);
        let receiving = Receiving { connection, place, items, window, is_over: false };
        let sending = Sending { connection: Arc::clone(self), place, is_over: false };
        (inbox, receiving, sending)
    }
}

impl Inbox {
    /// Takes a block; gives what is to be granted for it at once. An error is a peer that breaks the
    /// protocol.
    pub(super) fn take(
        &mut self,
        flags: Flags,
        block: &Block,
        limit: u64,
    ) -> Result<usize, String> {
        let first = self.announced.is_none() && self.coming.is_empty();
        if flags.has(Flags::LONG) != (first && flags.has(Flags::MORE)) {
            return Err("a long message without its length, or a length elsewhere".to_owned());
        }
        if let Some(total) = block.total {
            if total > limit {
                return Err(format!("a message of {total} bytes; up to {limit} are taken"));
            }
            self.announced = usize::try_from(total).ok();
        }
        // Each message counts more than its bytes, so that many empty ones are not for nothing.
        let cost = if first { usize::try_from(MESSAGE).unwrap_or(0) } else { 0 };
        let len = block.bytes.len();
        let whole = !flags.has(Flags::MORE);
        let come = self.coming.len().saturating_add(len);
        if self.announced.is_some_and(|total| come > total || (whole && come < total)) {
            return Err("a message is not as long as it was announced".to_owned());
        }
        let mut window = lock(&self.window);
        let counted = len.saturating_add(cost);
        window.held = window.held.saturating_add(counted);
        if window.held > window.size {
            return Err("an exchange has more bytes than it was granted".to_owned());
        }
        window.part = window.part.saturating_add(counted);
        if window.unwanted {
            if whole {
                self.announced = None;
                self.coming.clear();
            } else {
                self.coming.extend_from_slice(&block.bytes);
            }
            let part = std::mem::take(&mut window.part);
            window.held = window.held.saturating_sub(part);
            return Ok(part);
        }
        if !whole {
            self.coming.extend_from_slice(&block.bytes);
            return Ok(window.take_part());
        }
        let message = match self.announced.take() {
            // A short one must not hold what it was read into.
            None if len < COPIED => Bytes::copy_from_slice(&block.bytes),
            None => block.bytes.clone(),
            Some(_) => {
                self.coming.extend_from_slice(&block.bytes);
                self.coming.split().freeze()
            }
        };
        let granted = std::mem::take(&mut window.part);
        window.queued = window.queued.saturating_add(1);
        drop(window);
        // Who does not want it any more has said so, or is about to.
        drop(self.items.send(Item { message: Ok(message), granted }));
        Ok(0)
    }

    /// There are no more, for this reason.
    pub(super) fn fail(&self, error: Error) {
        drop(self.items.send(Item { message: Err(error), granted: 0 }));
    }
}

impl Window {
    /// What of a message that is not whole can be granted again: all of it, if it is waited for.
    fn take_part(&mut self) -> usize {
        if !self.wanted || self.queued > 0 {
            return 0;
        }
        let part = std::mem::take(&mut self.part);
        self.held = self.held.saturating_sub(part);
        part
    }
}

impl Receiving {
    /// The next message; `None` after the last one. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.is_over {
            return None;
        }
        self.grant(|window| {
            window.wanted = true;
            window.take_part()
        });
        let wants = Wants(&self.window);
        let item = self.items.recv().await;
        drop(wants);
        let granted = item.as_ref().map_or(0, |item| item.granted);
        self.grant(|window| {
            window.queued = window.queued.saturating_sub(1);
            window.held = window.held.saturating_sub(granted);
            window.owed = window.owed.saturating_add(granted);
            // Not for each small message.
            if window.owed >= window.size / 4 { std::mem::take(&mut window.owed) } else { 0 }
        });
        match item {
            Some(Item { message: Ok(message), .. }) => Some(Ok(message)),
            Some(Item { message: Err(error), .. }) => {
                self.is_over = true;
                Some(Err(error))
            }
            None => {
                self.is_over = true;
                None
            }
        }
    }

    /// Whether there is nothing more to hear.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// At a client: nothing more is wanted (§7.5).
    pub(crate) fn leave(&self) {
        self.connection.leave(self.place);
    }

    /// Grants what `take` finds, unless the stream has ended: its number may be another's by now.
    fn grant(&self, take: impl FnOnce(&mut Window) -> usize) {
        let mut window = lock(&self.window);
        let bytes = take(&mut window);
        if !window.ended {
            self.connection.grant(self.place.stream, bytes);
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // At a server the function may go on without it: the client is not held back.
        self.grant(|window| {
            window.unwanted = true;
            let held = std::mem::take(&mut window.held);
            window.part = 0;
            held.saturating_add(std::mem::take(&mut window.owed))
        });
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        lock(&self.window).ended = true;
    }
}

/// Somebody waits for a message while this lives.
struct Wants<'w>(&'w Mutex<Window>);

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        lock(self.0).wanted = false;
    }
}

impl Sending {
    /// Sends a message, when there is not too much that waits already.
    pub(crate) async fn send(&mut self, message: Bytes) -> Result<(), Error> {
        let over = || Error::new(Kind::Cancelled, Executed::Maybe, "the exchange is over");
        let size = u64::try_from(message.len()).unwrap_or(u64::MAX);
        if size > self.connection.max_message {
            let limit = self.connection.max_message;
            let reason = format!("a message of {size} bytes; the peer takes {limit}");
            return Err(Error::new(Kind::Value, Executed::Never, reason));
        }
        loop {
            let room = self.connection.room.notified();
            let queued = self.connection.push(|outbox| outbox.queued(self.place));
            match queued.ok_or_else(|| self.lost())?.ok_or_else(over)? {
                ..=AHEAD => break,
                _ => tokio::select! {
                    () = room => {}
                    () = self.connection.closed() => return Err(self.lost()),
                },
            }
        }
        let sent = self.connection.push(|outbox| outbox.message(self.place, message, false));
        sent.ok_or_else(|| self.lost())?.then_some(()).ok_or_else(over)
    }

    /// There are no more.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.connection.push(|outbox| outbox.message(self.place, Bytes::new(), true));
        }
    }

    fn lost(&self) -> Error {
        let lost = || Error::new(Kind::Transport, Executed::Maybe, "the connection ended");
        self.connection.why().unwrap_or_else(lost)
    }
}
