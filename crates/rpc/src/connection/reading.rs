//! One task of a connection: it takes what the peer says.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::RuntimeFlavor;
use tokio::time::Instant;

use super::io::lost;
use super::{Connection, Service};
use crate::event::Side;
use crate::proto::v2::{FrameError, Frames};
use crate::{Error, Executed, Kind};

pub(super) type Read = Box<dyn AsyncRead + Send + Unpin>;

/// How much is read at a time: of a peer that says little, and as long as all that is asked for comes,
/// twice as much each time, up to the largest.
const READ_LITTLE: usize = 1024;
const READ: usize = 64 * 1024;
const READ_MUCH: usize = 512 * 1024;
/// After so many frames at most the reader lets others run: the queue of a worker is short.
pub(super) const MANY: u32 = 128;
/// And after so many at least.
const SOME: u32 = 16;
/// A server reads no more of a client for which so much waits to be written.
const BEHIND: usize = 4 << 20;
/// The task, and what it knows.
pub(super) struct Reader {
    pub(super) connection: Arc<Connection>,
    /// What a server offers.
    pub(super) service: Option<Arc<Service>>,
    pub(super) frames: Frames,
    pub(super) buffer: BytesMut,
    /// Who has an answer, and is not told yet.
    pub(super) woken: Vec<Waker>,
    /// How many frames came since it was read last.
    pub(super) since: u32,
    /// After how many of them others run, and what they said is written.
    pub(super) chunk: u32,
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

/// Reads until the connection ends; an error is why.
pub(super) async fn read(reader: &mut Reader, mut stream: Read) -> Result<(), Error> {
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
        if buffer.is_empty() && size == READ_LITTLE && frames.apart {
            // Large ones were long ago.
            *buffer = BytesMut::new();
            frames.apart = false;
        }
        let begun = !buffer.is_empty();
        let limit = connection.limits.frame;
        let wanted = size.max(frames.missing(buffer).unwrap_or(0)).min(READ_MUCH);
        if buffer.is_empty() {
            _ = buffer.try_reclaim(wanted);
        }
        buffer.reserve(wanted);
        // A small message that somebody keeps is not to hold a large buffer.
        frames.apart |= buffer.capacity() > 2 * READ;
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

impl Connection {
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
}
