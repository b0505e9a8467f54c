//! The tasks of a connection: one reads, one writes and watches the clock.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use meshx_dist::link::{Batch, Event, Receiver, Tick};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::incoming::Incoming;
use super::{Connection, lock, now};
use crate::carrier::{ReadHalf, Stream, WriteHalf};
use crate::node::Inner;
use crate::process::Cell;

/// A connection over which less than [`LITTLE`] bytes came for so long gives memory back.
const IDLE: Duration = Duration::from_secs(10);
const LITTLE: u64 = 4096;
/// After so many messages the reader lets others run.
const MANY: u32 = 32;
/// Of so many writes, one waits for what other processes send.
const TRY_GATHERING: u32 = 16;
/// How long a peer may take for the last of the handshake, and for the end of its stream.
const CLOSING: Duration = Duration::from_secs(5);

/// Starts both tasks; when both have ended, what depends on the connection is told. `last` is what is
/// still to be said of the handshake.
pub(crate) fn start(
    node: &Arc<Inner>,
    connection: &Arc<Connection>,
    stream: Stream,
    surplus: BytesMut,
    last: BytesMut,
) {
    let receiver = Receiver::new(
        connection.flags,
        node.id.clone(),
        connection.peer.clone(),
        node.config.limits,
        surplus,
    );
    let (connection, inner) = (Arc::clone(connection), Arc::clone(node));
    let unread = Unread(Arc::clone(&connection));
    node.tasks.spawn(async move {
        let (reader, peer) = (Arc::clone(&inner), Arc::clone(&connection));
        let reading = tokio::spawn(async move {
            read(&reader, &peer, stream.read, receiver).await;
            drop(unread);
        });
        // In a task of its own: also if it ends by a panic, all are told.
        let writer = Arc::clone(&connection);
        let writing = tokio::spawn(async move { write(&writer, stream.write, last).await });
        if writing.await.is_err() {
            connection.close("it is not written to any more");
        }
        // Whatever ended it, both ends close; the reader notices.
        drop(reading.await);
        inner.connection_down(&connection);
    });
}

/// A connection that is not read any more ends, also if its reader did so by a panic.
struct Unread(Arc<Connection>);

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.close("it is not read any more");
    }
}

async fn read(
    node: &Arc<Inner>,
    connection: &Arc<Connection>,
    mut stream: ReadHalf,
    mut receiver: Receiver,
) {
    let mut incoming = Incoming::new(node, connection);
    let mut closed = pin!(connection.closed());
    let mut idle = pin!(tokio::time::sleep(IDLE));
    let mut read_before = 0;
    let mut messages = 0;
    loop {
        loop {
            messages += 1;
            let full = match receiver.event() {
                Ok(Some(Event::Message(message))) => match incoming.message(message) {
                    Ok(full) => full,
                    Err(violation) => {
                        return connection.close(&format!("it sent nonsense: {violation}"));
                    }
                },
                Ok(Some(Event::Tick)) => {
                    lock(&connection.ticks).received_tick(now());
                    connection.work.notify_one();
                    None
                }
                Ok(None) => break,
                Err(error) => {
                    // What came before that was right.
                    incoming.flush();
                    return connection.close(&format!("it sent nonsense: {error}"));
                }
            };
            if let Some(full) = full {
                drained(&full, connection).await;
            }
        }
        if let Some(full) = incoming.flush() {
            drained(&full, connection).await;
        }
        if messages > MANY {
            messages = 0;
            // Who got them reads them while they are at hand, and is not run after.
            tokio::task::yield_now().await;
        }
        let mut space = receiver.space();
        tokio::select! {
            count = stream.read_buf(&mut space) => match count {
                Ok(0) => return broke(node, connection, "it closed the connection"),
                Ok(count) => {
                    connection.read.fetch_add(count as u64, Ordering::Relaxed);
                    lock(&connection.ticks).received(now());
                }
                Err(error) => return broke(node, connection, &format!("reading failed: {error}")),
            },
            () = &mut closed => return,
            () = &mut idle => {
                let read = connection.read.load(Ordering::Relaxed);
                if read.saturating_sub(read_before) < LITTLE {
                    receiver.rest();
                }
                read_before = read;
                idle.as_mut().reset(tokio::time::Instant::now() + IDLE);
            }
        }
    }
}

/// The stream is at its end: a carrier may know why.
fn broke(node: &Inner, connection: &Connection, seen: &str) {
    let mut carriers = node.config.carriers.iter();
    let why = carriers.find_map(|carrier| carrier.why_closed(connection.name()));
    let why = why.map(|why| why.to_string());
    connection.close(why.as_deref().unwrap_or(seen));
}

/// Waits until a mailbox is no longer full, or the connection is closed. That is the process's own
/// fault, not the peer's: that one is not to be given up for it.
async fn drained(full: &Cell, connection: &Connection) {
    let wait = full.drained.notified();
    if full.is_full() {
        tokio::select! {
            () = wait => {}
            () = alive_while_waiting(connection) => {}
            () = connection.closed() => {}
        }
    }
}

/// While nothing is read because a mailbox is full, silence is no sign of death.
async fn alive_while_waiting(connection: &Connection) {
    loop {
        lock(&connection.ticks).received(now());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn write(connection: &Connection, mut stream: WriteHalf, mut last: BytesMut) {
    let said = async {
        stream.write_all_buf(&mut last).await?;
        stream.flush().await
    };
    tokio::select! {
        said = said => if let Err(error) = said {
            return connection.close(&format!("writing failed: {error}"));
        },
        () = connection.closed() => return,
        () = tokio::time::sleep(CLOSING) => return connection.close("it takes nothing"),
    }
    let mut batch = Batch::new();
    let mut takes = 0_u32;
    let mut several = false;
    loop {
        let until = loop {
            match lock(&connection.ticks).poll(now()) {
                Tick::Timeout => {
                    return connection.close("nothing was heard of it for too long (net_ticktime)");
                }
                Tick::Send => {}
                Tick::Wait(until) => break until,
            }
            // Where bytes wait to be read by it, a tick would, too.
            if !batch.has_remaining() {
                lock(&connection.out).outbox.tick();
            }
            lock(&connection.ticks).sent(now());
        };
        if !batch.has_remaining() {
            // Where several processes send, they are about to: one write for all of them is worth more
            // than the first message at once. From time to time it is tried out.
            if several || takes.is_multiple_of(TRY_GATHERING) {
                meshx_rt::after_others().await;
            }
            takes = takes.wrapping_add(1);
            several = connection.take(&mut batch) > 1;
        }
        let timer = tokio::time::sleep_until(until.into());
        if batch.has_remaining() {
            let size = batch.remaining();
            tokio::select! {
                done = write_some(&mut stream, &mut batch) => match done {
                    Ok(()) => {
                        let written = size - batch.remaining();
                        connection.written.fetch_add(written as u64, Ordering::Relaxed);
                        lock(&connection.ticks).sent(now());
                    }
                    Err(error) => return connection.close(&format!("writing failed: {error}")),
                },
                () = timer => {}
                () = connection.closed() => break,
            }
        } else {
            connection.room.notify_waiters();
            tokio::select! {
                () = connection.work.notified() => {}
                () = timer => {}
                () = connection.closed() => break,
            }
        }
    }
    drop(tokio::time::timeout(CLOSING, stream.shutdown()).await);
}

/// Writes once, as much as is taken.
async fn write_some(stream: &mut WriteHalf, batch: &mut Batch) -> std::io::Result<()> {
    match stream.write_buf(batch).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        _ => Ok(()),
    }
}
