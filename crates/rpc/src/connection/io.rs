//! The tasks of a connection: one reads, one writes and watches the clock.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::RuntimeFlavor;
use tokio::time::Instant;

use super::client::LOOK;
use super::pieces::Pieces;
use super::{Connection, Service, lock};
use crate::event::{Event, Side};
use crate::proto::v2::{Flags, Frame, FrameError, Frames, Type};
use crate::{Error, Executed, Kind};

type Read = Box<dyn AsyncRead + Send + Unpin>;
type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// How much is read at a time: of a peer that says little, and as long as all that is asked for comes,
/// twice as much each time, up to the largest.
const READ_LITTLE: usize = 1024;
const READ: usize = 64 * 1024;
const READ_MUCH: usize = 512 * 1024;
/// Of so many writes, one waits for what other tasks send.
const TRY_GATHERING: u32 = 16;
/// After so many frames at most the reader lets others run: the queue of a worker is short.
const MANY: u32 = 128;
/// And after so many at least.
const SOME: u32 = 16;
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
            let mut taking = Reader {
                connection: Arc::clone(&reader),
                service,
                frames,
                buffer: surplus,
                woken: Vec::new(),
                since: 0,
                chunk: MANY,
            };
            if let Err(error) = self::read(&mut taking, read).await {
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

/// One task of a connection: takes what the peer says.
struct Reader {
    connection: Arc<Connection>,
    /// What a server offers.
    service: Option<Arc<Service>>,
    frames: Frames,
    buffer: BytesMut,
    /// Who has an answer, and is not told yet.
    woken: Vec<Waker>,
    /// How many frames came since it was read last.
    since: u32,
    /// After how many of them others run, and what they said is written.
    chunk: u32,
}

/// Why the reader does not go on at once.
enum Pause {
    /// There is no whole frame.
    Nothing,
    /// These were many.
    Many,
    /// Too much waits to be written for the peer.
    Behind,
    /// The connection has ended.
    Closed,
}

async fn read(reader: &mut Reader, mut stream: Read) -> Result<(), Error> {
    let connection = Arc::clone(&reader.connection);
    let mut size = READ_LITTLE;
    // Until when a frame that was begun must be whole.
    let mut due = None;
    loop {
        loop {
            let (pause, frames) = poll_fn(|task| Poll::Ready(reader.take(task))).await;
            if frames > 0 {
                due = None;
            }
            reader.wake().await;
            match pause {
                Pause::Nothing => break,
                Pause::Many => tokio::task::yield_now().await,
                Pause::Behind => connection.not_behind().await,
                Pause::Closed => return Ok(()),
            }
        }
        reader.adapt();
        let Reader { buffer, frames, .. } = reader;
        let begun = !buffer.is_empty();
        let limit = connection.limits.frame;
        let wanted = size.max(frames.missing(buffer).unwrap_or(0)).min(READ_MUCH);
        if buffer.is_empty() {
            _ = buffer.try_reclaim(wanted);
        }
        buffer.reserve(wanted);
        let room = buffer.spare_capacity_mut().len();
        let count = if begun {
            // It counts from the first byte of the frame on.
            let until = *due.get_or_insert_with(|| Instant::now() + limit);
            tokio::select! {
                count = stream.read_buf(buffer) => count,
                () = connection.closing.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(until) => {
                    connection.refuse(Kind::Protocol, &format!("a frame took more than {limit:?}"));
                    return Ok(());
                }
            }
        } else {
            tokio::select! {
                count = stream.read_buf(buffer) => count,
                () = connection.closing.cancelled() => return Ok(()),
            }
        };
        let count = count.map_err(lost)?;
        if count == 0 {
            return Err(match connection.side {
                Side::Client => lost("the server closed it"),
                Side::Server => Error::new(Kind::Draining, Executed::Maybe, "the client left"),
            });
        }
        size = match count {
            _ if count == room => (room * 2).clamp(READ, READ_MUCH),
            _ if count < READ_LITTLE => READ_LITTLE,
            _ => wanted.max(READ),
        };
        connection.heard.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Release);
    }
}

impl Reader {
    /// Takes the frames that are there, and counts them. Answers to them are gathered meanwhile.
    fn take(&mut self, task: &mut task::Context<'_>) -> (Pause, u32) {
        let Self { connection, service, frames, buffer, woken, since, chunk } = self;
        let mut count = 0;
        let pause = loop {
            if connection.is_closed.load(Ordering::Acquire) {
                break Pause::Closed;
            }
            if count == *chunk {
                break Pause::Many;
            }
            if service.is_some() && connection.is_behind() {
                break Pause::Behind;
            }
            let taken = match frames.next(buffer) {
                Ok(Some(frame)) => {
                    if count == 0 {
                        connection.gather();
                    }
                    count = count.saturating_add(1);
                    let taken = match service {
                        Some(service) => connection.serve(task, service, frame),
                        None => connection.take(frame, woken),
                    };
                    taken.map_err(|reason| (Kind::Protocol, reason))
                }
                Ok(None) => break Pause::Nothing,
                Err(error @ FrameError::Checksum) => Err((Kind::Integrity, error.to_string())),
                Err(error) => Err((Kind::Protocol, error.to_string())),
            };
            if let Err((kind, reason)) = taken {
                connection.refuse(kind, &reason);
                break Pause::Closed;
            }
        };
        *since = since.saturating_add(count);
        (pause, count)
    }

    /// Everything that came is taken. On one thread, a quarter of that is handed over at a time from now
    /// on: this side and the peer work at the same time then, and not in turns. With more threads to
    /// call up, each time costs more than that gains.
    fn adapt(&mut self) {
        let quarter = (std::mem::take(&mut self.since) / 4).clamp(SOME, MANY);
        let flavor = tokio::runtime::Handle::current().runtime_flavor();
        self.chunk = if flavor == RuntimeFlavor::CurrentThread { quarter } else { MANY };
    }

    /// Wakes whoever has an answer. They run before anything is written: what they send next goes out
    /// in one piece.
    async fn wake(&mut self) {
        if self.woken.len() > 1 {
            meshx_rt::wake_together(&mut self.woken).await;
        }
        self.connection.gathered();
        self.woken.drain(..).for_each(Waker::wake);
    }
}

async fn write(connection: &Arc<Connection>, mut stream: Write) {
    let mut batch = Pieces::default();
    let mut takes = 0_u32;
    let mut several = false;
    let mut clock = Clock::new(connection);
    let mut timer = pin!(tokio::time::sleep_until(clock.due));
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
            if clock.starts(connection, taken) {
                timer.as_mut().reset(clock.due);
            }
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
                () = timer.as_mut() => {
                    clock.ticks(connection);
                    timer.as_mut().reset(clock.due);
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
        connection.flushed.notify_waiters();
        tokio::select! {
            () = connection.work.notified() => {}
            () = timer.as_mut() => {
                clock.ticks(connection);
                timer.as_mut().reset(clock.due);
            }
            () = connection.closing.cancelled() => break,
        }
        taken = Instant::now();
    }
    // Nobody else looks at it from here on.
    connection.watch_clock(None);
    // What was said before the end, the reason of it above all.
    let last = async {
        loop {
            while batch.has_remaining() {
                let Ok(count @ 1..) = stream.write_buf(&mut batch).await else { return };
                connection.count_written(count);
            }
            connection.take_out(&mut batch);
            if batch.is_empty() {
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
    fn is_behind(&self) -> bool {
        self.waits.small.load(Ordering::Acquire) > BEHIND
    }

    async fn not_behind(&self) {
        loop {
            let room = self.room.notified();
            if !self.is_behind() {
                return;
            }
            tokio::select! {
                () = room => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// What is to be written next, unless more of it is gathered. Gives how many frames came since.
    fn take_out(&self, batch: &mut Pieces) -> usize {
        let mut out = lock(&self.out);
        if out.holds_back() {
            return 0;
        }
        let frames = std::mem::take(&mut out.frames);
        out.outbox.take(batch);
        out.writing = !batch.is_empty();
        self.waits.are(&out.outbox);
        drop(out);
        self.room.notify_waiters();
        frames
    }
}

/// What a connection looks at from time to time.
struct Clock {
    alive: KeepAlive,
    /// When, next.
    due: Instant,
}

impl Clock {
    fn new(connection: &Connection) -> Self {
        let keep_alive = connection.limits.keep_alive.min(connection.peer_keep_alive);
        let alive = KeepAlive::new(keep_alive);
        Self { due: alive.due, alive }
    }

    /// Whether there are calls now, whose times are looked at, and were not.
    fn starts(&mut self, connection: &Connection, now: Instant) -> bool {
        let starts = self.due > now + LOOK && connection.in_flight() > 0;
        if starts {
            self.due = now + LOOK;
        }
        starts
    }

    fn ticks(&mut self, connection: &Connection) {
        let now = Instant::now();
        if self.alive.due <= now {
            self.alive.look(connection);
        }
        self.due = self.alive.due;
        if connection.in_flight() > 0 {
            connection.watch_clock(Some(now));
            self.due = self.due.min(now + LOOK);
        }
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
        Frame::Pong(payload) => connection.ponged(payload),
        Frame::Unknown => {}
        Frame::Hello(_) | Frame::Auth(_) => {
            return Err("a second handshake on one connection".to_owned());
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}
