//! The tasks of a connection: one reads, one writes and watches the clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::pieces::Pieces;
use super::{Connection, Service, lock};
use crate::event::{Event, Side};
use crate::proto::v2::{Flags, Frame, FrameError, Frames, Type};
use crate::{Error, Executed, Kind};

type Read = Box<dyn AsyncRead + Send + Unpin>;
type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// How much is read at a time.
const READ: usize = 64 * 1024;
/// How much is read at a time of a peer that says little.
const READ_LITTLE: usize = 1024;
/// Of so many writes, one waits for what other tasks send.
const TRY_GATHERING: u32 = 16;
/// After so many frames the reader lets others run.
const MANY: u32 = 128;
/// A server reads no more of a client for which so much waits to be written.
const BEHIND: usize = 4 << 20;
/// How long the last bytes of a connection may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Starts both tasks. `service` is what a server offers.
pub(super) fn start(
    connection: &Arc<Connection>,
    service: Option<Arc<Service>>,
    (read, frames, surplus): (Read, Frames, BytesMut),
    write: Write,
) {
    let (reading, writing) = (Arc::clone(connection), Arc::clone(connection));
    tokio::spawn(async move {
        let reader = Arc::clone(&reading);
        let reader = tokio::spawn(async move {
            let _ends = Ends(Arc::clone(&reader));
            if let Err(error) = self::read(&reader, service, read, frames, surplus).await {
                reader.close(error);
            }
        });
        let writer = tokio::spawn(async move {
            let _ends = Ends(Arc::clone(&writing));
            self::write(&writing, write).await;
        });
        drop(writer.await);
        drop(reader.await);
        reading.ended();
    });
}

/// Whatever ends one of the tasks, a panic, too, ends the connection.
struct Ends(Arc<Connection>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.close(Error::new(Kind::Transport, Executed::Maybe, "the connection ended"));
    }
}

impl Connection {
    /// Both tasks have ended: whoever waits is told.
    fn ended(&self) {
        let why = self.why();
        self.calls.end(why.as_ref(), self.written.load(Ordering::Acquire));
        self.served.end();
        let error = why.as_ref().filter(|error| error.kind() != Kind::Draining);
        self.tell(&Event::Disconnected { side: self.side, peer: &self.peer, error });
    }
}

fn lost(reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Transport, Executed::Maybe, format!("the connection was lost: {reason}"))
}

async fn read(
    connection: &Arc<Connection>,
    service: Option<Arc<Service>>,
    mut stream: Read,
    frames: Frames,
    mut buffer: BytesMut,
) -> Result<(), Error> {
    let mut quiet = true;
    // Until when a frame that was begun must be whole.
    let mut due = None;
    loop {
        let mut messages = 0_u32;
        loop {
            match frames.next(&mut buffer) {
                Ok(Some(frame)) => {
                    let taken = match &service {
                        Some(service) => {
                            connection.not_behind().await;
                            connection.serve(service, frame).await
                        }
                        None => connection.take(frame),
                    };
                    if let Err(reason) = taken {
                        connection.refuse(Kind::Protocol, &reason);
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let kind = match error {
                        FrameError::Checksum => Kind::Integrity,
                        _ => Kind::Protocol,
                    };
                    connection.refuse(kind, &error.to_string());
                    return Ok(());
                }
            }
            if connection.closing.is_cancelled() {
                return Ok(());
            }
            due = None;
            messages = messages.saturating_add(1);
            if messages.is_multiple_of(MANY) {
                // Who was woken runs now: the queue of a worker is short.
                tokio::task::yield_now().await;
            }
        }
        let begun = !buffer.is_empty();
        let limit = connection.limits.frame;
        // It counts from the first byte of the frame on.
        let until = match begun {
            true => *due.get_or_insert_with(|| Instant::now() + limit),
            false => Instant::now(),
        };
        let size = match frames.missing(&buffer) {
            Some(missing) => missing.max(READ),
            None if quiet && !begun => READ_LITTLE,
            None => READ,
        };
        if buffer.is_empty() {
            _ = buffer.try_reclaim(size);
        }
        buffer.reserve(size.min(2 * READ));
        let count = tokio::select! {
            count = stream.read_buf(&mut buffer) => count.map_err(lost)?,
            () = connection.closing.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(until), if begun => {
                connection.refuse(Kind::Protocol, &format!("a frame took more than {limit:?}"));
                return Ok(());
            }
        };
        if count == 0 {
            return Err(match connection.side {
                Side::Client => lost("the server closed it"),
                Side::Server => Error::new(Kind::Draining, Executed::Maybe, "the client left"),
            });
        }
        quiet = count < READ_LITTLE;
        connection.heard.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Release);
    }
}

async fn write(connection: &Arc<Connection>, mut stream: Write) {
    let mut batch = Pieces::default();
    let mut takes = 0_u32;
    let mut several = false;
    let mut alive = KeepAlive::new(connection.limits.keep_alive.min(connection.peer_keep_alive));
    // When the peer took something last.
    let mut taken = Instant::now();
    loop {
        if batch.is_empty() {
            // Where several tasks send, they are about to: one write for all of them.
            if several || takes.is_multiple_of(TRY_GATHERING) {
                meshx_rt::after_others().await;
            }
            takes = takes.wrapping_add(1);
            several = connection.take_out(&mut batch) > 1;
        }
        if !batch.is_empty() {
            tokio::select! {
                done = stream.write_buf(&mut batch) => match done {
                    Ok(count @ 1..) => {
                        connection.count_written(count);
                        taken = Instant::now();
                    }
                    Ok(0) => return connection.close(lost("it takes nothing")),
                    Err(error) => return connection.close(lost(error)),
                },
                () = tokio::time::sleep_until(alive.due) => {
                    alive.look(connection);
                    if taken.elapsed() > connection.limits.frame {
                        return connection.close(lost("it takes nothing of what is sent to it"));
                    }
                }
                () = connection.closing.cancelled() => break,
            }
            continue;
        }
        // Whatever the transport keeps back.
        tokio::select! {
            flushed = stream.flush() => if let Err(error) = flushed {
                return connection.close(lost(error));
            },
            () = connection.closing.cancelled() => break,
        }
        taken = Instant::now();
        connection.flushed.notify_waiters();
        tokio::select! {
            () = connection.work.notified() => {}
            () = tokio::time::sleep_until(alive.due) => alive.look(connection),
            () = connection.closing.cancelled() => break,
        }
    }
    // What was said before the end, the reason of it above all.
    let last = async {
        loop {
            while batch.has_remaining() {
                let Ok(count @ 1..) = stream.write_buf(&mut batch).await else { return };
                connection.count_written(count);
            }
            if connection.take_out(&mut batch) == 0 {
                break;
            }
        }
        drop(stream.shutdown().await);
    };
    drop(tokio::time::timeout(CLOSING, last).await);
}

impl Connection {
    fn count_written(&self, count: usize) {
        self.written.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Release);
    }

    /// A client that takes no answers is not read: what waits for it has a bound.
    async fn not_behind(&self) {
        loop {
            let room = self.room.notified();
            if lock(&self.out).outbox.waiting() <= BEHIND {
                return;
            }
            tokio::select! {
                () = room => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// What is to be written next. Gives how many frames came since.
    fn take_out(&self, batch: &mut Pieces) -> usize {
        let mut out = lock(&self.out);
        let frames = std::mem::take(&mut out.frames);
        out.outbox.take(batch);
        out.writing = !batch.is_empty();
        drop(out);
        self.room.notify_waiters();
        frames
    }
}

/// §9.1.
struct KeepAlive {
    every: Duration,
    due: Instant,
    heard: u64,
    asked: bool,
}

impl KeepAlive {
    fn new(every: Duration) -> Self {
        Self { every, due: Instant::now() + every, heard: 0, asked: false }
    }

    fn look(&mut self, connection: &Connection) {
        let heard = connection.heard.load(Ordering::Acquire);
        let silent = heard == self.heard;
        if silent && self.asked {
            return connection.close(lost("nothing was heard of the peer for too long"));
        }
        self.asked = silent;
        if silent {
            connection.frame(Type::Ping, Flags::NONE, 0, &[0; 8], &Bytes::new());
        }
        self.heard = heard;
        self.due = Instant::now() + self.every;
    }
}

/// What both sides understand; the rest is given back.
pub(super) fn common(connection: &Connection, frame: Frame) -> Result<Option<Frame>, String> {
    match frame {
        Frame::Ping(payload) => {
            connection.frame(Type::Pong, Flags::NONE, 0, &payload, &Bytes::new());
        }
        Frame::Credit { stream, bytes } => {
            connection.push(|outbox| outbox.credit(stream, bytes));
        }
        Frame::Goaway { .. } => {
            connection.draining.store(true, Ordering::Release);
            let reason = "the peer takes no new calls";
            if connection.side == Side::Client {
                let why = Error::new(Kind::Draining, Executed::Never, reason);
                connection.close_if_idle(why);
            }
        }
        Frame::Fail { stream: 0, error } => {
            let reason = format!("the peer ended the connection: {}", error.reason());
            connection.close(Error::new(error.kind(), Executed::Maybe, reason));
        }
        Frame::Pong(_) | Frame::Unknown => {}
        Frame::Hello(_) | Frame::Auth(_) => {
            return Err("a second handshake on one connection".to_owned());
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}
