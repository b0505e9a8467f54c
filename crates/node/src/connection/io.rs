//! The tasks of a connection: one reads, one writes and watches the clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};
use meshx_dist::link::{Batch, Event, Receiver, Tick};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::incoming::Incoming;
use super::{Connection, lock, now};
use crate::carrier::{ReadHalf, Stream, WriteHalf};
use crate::node::Inner;

/// Starts both tasks; when both have ended, what depends on the connection is told.
pub(crate) fn start(
    node: &Arc<Inner>,
    connection: &Arc<Connection>,
    stream: Stream,
    surplus: BytesMut,
) {
    let receiver = Receiver::new(
        connection.flags,
        node.id.clone(),
        connection.peer.clone(),
        node.config.limits,
        surplus,
    );
    let (connection, inner) = (Arc::clone(connection), Arc::clone(node));
    node.tasks.spawn(async move {
        let reading =
            tokio::spawn(read(Arc::clone(&inner), Arc::clone(&connection), stream.read, receiver));
        write(&connection, stream.write).await;
        // Whatever ended it, both ends close; the reader notices.
        drop(reading.await);
        inner.connection_down(&connection);
    });
}

async fn read(
    node: Arc<Inner>,
    connection: Arc<Connection>,
    mut stream: ReadHalf,
    mut receiver: Receiver,
) {
    let mut incoming = Incoming::new(&node, &connection);
    loop {
        loop {
            match receiver.event() {
                Ok(Some(Event::Message(message))) => match incoming.message(message) {
                    Ok(None) => {}
                    Ok(Some(full)) => {
                        // Its own fault, not the peer's: that one is not to be given up for it.
                        let wait = full.drained.notified();
                        if full.is_full() {
                            tokio::select! {
                                () = wait => {}
                                () = alive_while_waiting(&connection) => {}
                                () = connection.closed() => return,
                            }
                        }
                    }
                    Err(violation) => {
                        return connection.close(&format!("it sent nonsense: {violation}"));
                    }
                },
                Ok(Some(Event::Tick)) => {
                    lock(&connection.ticks).received_tick(now());
                    connection.work.notify_one();
                }
                Ok(None) => break,
                Err(error) => return connection.close(&format!("it sent nonsense: {error}")),
            }
        }
        let mut space = receiver.space();
        tokio::select! {
            count = stream.read_buf(&mut space) => match count {
                Ok(0) => return broke(&node, &connection, "it closed the connection"),
                Ok(count) => {
                    connection.read.fetch_add(count as u64, Ordering::Relaxed);
                    lock(&connection.ticks).received(now());
                }
                Err(error) => return broke(&node, &connection, &format!("reading failed: {error}")),
            },
            () = connection.closed() => return,
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

/// While nothing is read because a mailbox is full, silence is no sign of death.
async fn alive_while_waiting(connection: &Connection) {
    loop {
        lock(&connection.ticks).received(now());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn write(connection: &Connection, mut stream: WriteHalf) {
    let mut batch = Batch::new();
    loop {
        let tick = lock(&connection.ticks).poll(now());
        let until = match tick {
            Tick::Timeout => {
                return connection.close("nothing was heard of it for too long (net_ticktime)");
            }
            Tick::Send if !batch.has_remaining() => {
                lock(&connection.out).outbox.tick();
                None
            }
            // Its bytes wait to be read by it: a tick would, too.
            Tick::Send => {
                lock(&connection.ticks).sent(now());
                None
            }
            Tick::Wait(until) => Some(until),
        };
        if !batch.has_remaining() {
            connection.take(&mut batch);
        }
        let timer = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
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
    drop(stream.shutdown().await);
}

/// Writes once, as much as is taken.
async fn write_some(stream: &mut WriteHalf, batch: &mut Batch) -> std::io::Result<()> {
    match stream.write_buf(batch).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        _ => Ok(()),
    }
}
