//! One task of a connection: it writes what others leave to it, and watches the clock.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Waker, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::clock::Clock;
use super::io::lost;
use super::pieces::Pieces;
use super::{Connection, lock};
use crate::proto::v2::Checksum;

pub(super) type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// Of so many writes, one waits for what other tasks send.
const TRY_GATHERING: u32 = 16;
/// How long the last bytes of a connection may take.
const CLOSING: Duration = Duration::from_secs(5);
/// So many pieces go to the transport at a time.
const PARTS: usize = 64;

/// Where to is written, as long as there is a writer. No other lock but that of the outbox is taken
/// while this is held.
#[derive(Default)]
pub(super) struct Pen(Mutex<Option<Held>>);

pub(super) struct Held {
    stream: Write,
    batch: Pieces,
    checksum: Checksum,
    /// The writer waits for the transport, which knows no other waker.
    waits: bool,
}

/// What came of writing.
enum Step {
    Wrote(usize),
    /// There was nothing to write, and the transport keeps nothing back.
    Flushed,
}

/// Writes until the connection ends.
pub(super) async fn write(connection: &Arc<Connection>, stream: Write) {
    connection.take_pen(stream);
    let mut takes = 0_u32;
    let mut several = false;
    let mut clock = Clock::new(connection);
    let mut timer = pin!(tokio::time::sleep_until(clock.due));
    // When the peer took something last.
    let mut taken = Instant::now();
    loop {
        // Where several tasks send, they are about to: one write for all of them.
        if several || takes.is_multiple_of(TRY_GATHERING) {
            meshx_rt::after_others().await;
        }
        takes = takes.wrapping_add(1);
        several = connection.fill() > 1;
        if clock.starts(connection, taken) {
            timer.as_mut().reset(clock.due);
        }
        loop {
            let step = tokio::select! {
                step = std::future::poll_fn(|task| connection.poll_write(task)) => step,
                () = timer.as_mut() => {
                    clock.ticks(connection);
                    timer.as_mut().reset(clock.due);
                    if taken.elapsed() > connection.limits.frame {
                        return connection.close(lost("it takes nothing of what is sent to it"));
                    }
                    continue;
                }
                () = connection.closing.cancelled() => return last(connection).await,
            };
            match step {
                Ok(Step::Wrote(1..)) => taken = Instant::now(),
                Ok(Step::Wrote(_)) => return connection.close(lost("it takes nothing")),
                Ok(Step::Flushed) => break,
                Err(error) => return connection.close(lost(error)),
            }
        }
        if !connection.has_written() {
            continue;
        }
        tokio::select! {
            () = connection.work.notified() => {}
            () = timer.as_mut() => {
                clock.ticks(connection);
                timer.as_mut().reset(clock.due);
            }
            () = connection.closing.cancelled() => return last(connection).await,
        }
        taken = Instant::now();
    }
}

/// What was said before the end, the reason of it above all.
async fn last(connection: &Arc<Connection>) {
    // Nobody else looks at it from here on.
    connection.watch_clock(None);
    let Some(mut held) = connection.give_pen() else { return };
    let last = async {
        loop {
            while held.batch.has_remaining() {
                let Ok(count @ 1..) = held.stream.write_buf(&mut held.batch).await else { return };
                connection.count_written(count);
            }
            held.fill(connection);
            if held.batch.is_empty() {
                break;
            }
        }
        drop(held.stream.shutdown().await);
    };
    drop(tokio::time::timeout(CLOSING, last).await);
}

impl Connection {
    fn take_pen(&self, stream: Write) {
        let checksum = lock(&self.out).outbox.checksum().clone();
        let held = Held { stream, batch: Pieces::default(), checksum, waits: false };
        *lock(&self.pen.0) = Some(held);
    }

    /// Nobody writes any more; what was to be written is in what this gives.
    pub(super) fn give_pen(&self) -> Option<Held> {
        lock(&self.pen.0).take()
    }

    /// Writes what there is from here, without waiting: who does so saves the time of the other task.
    /// That one does what is left.
    pub(super) fn write_now(&self) {
        let held = self.pen.0.try_lock();
        let done =
            held.is_ok_and(|mut held| held.as_mut().is_some_and(|held| held.write_now(self)));
        if !done {
            self.work.notify_one();
        }
    }

    /// What is to be written next. Gives how often something was put in since.
    fn fill(&self) -> usize {
        lock(&self.pen.0).as_mut().map_or(0, |held| held.fill(self))
    }

    fn poll_write(&self, task: &mut task::Context<'_>) -> Poll<io::Result<Step>> {
        let mut held = lock(&self.pen.0);
        let Some(held) = held.as_mut() else { return Poll::Ready(Ok(Step::Flushed)) };
        let step = held.poll(task, self);
        held.waits = step.is_pending();
        step
    }

    /// Whether nothing is left to be written, after all.
    fn has_written(&self) -> bool {
        let mut out = lock(&self.out);
        out.writing = false;
        let done = out.outbox.is_empty() || out.holds_back();
        drop(out);
        self.flushed.notify_waiters();
        // Who waits for what is written, too ([`Self::drained`]).
        self.room.notify_waiters();
        done
    }

    fn count_written(&self, count: usize) {
        self.written.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Release);
    }
}

impl Held {
    fn fill(&mut self, connection: &Connection) -> usize {
        if !self.batch.is_empty() {
            return 0;
        }
        let mut out = lock(&connection.out);
        if out.holds_back() {
            return 0;
        }
        let puts = std::mem::take(&mut out.puts);
        out.outbox.take(&mut self.batch);
        out.writing = !self.batch.is_empty();
        connection.waits.are(&out.outbox);
        drop(out);
        self.batch.seal(&self.checksum);
        connection.room.notify_waiters();
        puts
    }

    fn poll(
        &mut self,
        task: &mut task::Context<'_>,
        connection: &Connection,
    ) -> Poll<io::Result<Step>> {
        let stream = Pin::new(&mut self.stream);
        if self.batch.is_empty() {
            return stream.poll_flush(task).map_ok(|()| Step::Flushed);
        }
        let count = if stream.is_write_vectored() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let filled = self.batch.chunks_vectored(&mut parts);
            ready!(stream.poll_write_vectored(task, parts.get(..filled).unwrap_or_default()))?
        } else {
            ready!(stream.poll_write(task, self.batch.chunk()))?
        };
        self.batch.advance(count);
        connection.count_written(count);
        Poll::Ready(Ok(Step::Wrote(count)))
    }

    /// Whether all that there was is written.
    fn write_now(&mut self, connection: &Connection) -> bool {
        if self.waits || !self.batch.is_empty() {
            return false;
        }
        self.fill(connection);
        let mut task = task::Context::from_waker(Waker::noop());
        loop {
            match self.poll(&mut task, connection) {
                Poll::Ready(Ok(Step::Wrote(1..))) => {}
                Poll::Ready(Ok(Step::Flushed)) => return connection.has_written(),
                // The writer sees what it is.
                Poll::Ready(_) | Poll::Pending => return false,
            }
        }
    }
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pen").finish_non_exhaustive()
    }
}
