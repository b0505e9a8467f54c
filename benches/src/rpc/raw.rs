//! The raw echo with a task that reads and one that writes at each end, as whoever has several callers
//! needs them. What the writer finds, it writes in one go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use meshx_rt::net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::load::{Cell, Outcome, ROOM, nanoseconds};
use super::single::{READ, frame, missing, whole};

/// What waits for the writer at most, in pieces; a piece is what one read gave.
const PIECES: usize = 1024;

/// Answers everybody until the process ends.
pub(super) async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // An error is the end of the connection, which the client notices.
        tokio::spawn(async move { drop(answer(stream).await) });
    }
}

async fn answer(stream: TcpStream) -> Result<()> {
    net::tune(&stream)?;
    let (mut read, write) = stream.into_split();
    let (pieces, ready) = unbounded_channel();
    tokio::spawn(write_all(ready, write));
    let mut input = BytesMut::new();
    loop {
        input.reserve(missing(&input).max(READ));
        if read.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let (bytes, frames) = whole(&input)?;
        if frames > 0 {
            pieces.send(input.split_to(bytes).freeze())?;
        }
    }
}

/// Keeps so many frames under way on one connection.
pub(super) async fn drive(address: String, cell: Cell, duration: Duration) -> Result<Outcome> {
    tokio::spawn(pump(address, cell, duration)).await?
}

async fn pump(address: String, cell: Cell, duration: Duration) -> Result<Outcome> {
    let stream = net::dial(address.parse()?, Duration::from_secs(5)).await?;
    let (mut read, write) = stream.into_split();
    let (pieces, ready) = unbounded_channel();
    let writer = tokio::spawn(write_all(ready, write));
    // All frames are alike: a piece is a part of this.
    let all = Bytes::from(frame(cell.size)?.repeat(cell.at_once));
    let mut input = BytesMut::new();
    let mut outcome = Outcome { times: Vec::with_capacity(ROOM), ..Outcome::default() };
    let begun = Instant::now();
    let mut under_way: VecDeque<Instant> = std::iter::repeat_n(begun, cell.at_once).collect();
    pieces.send(all.clone())?;
    while !under_way.is_empty() {
        input.reserve(missing(&input).max(READ));
        ensure!(read.read_buf(&mut input).await? > 0, "the server closed");
        let (bytes, frames) = whole(&input)?;
        ensure!(frames <= under_way.len(), "more came back than was sent");
        input.advance(bytes);
        let now = Instant::now();
        for sent in under_way.drain(..frames) {
            if outcome.times.len() < ROOM {
                outcome.times.push(nanoseconds(now - sent));
            }
        }
        outcome.calls += frames;
        if frames > 0 && now < begun + duration {
            pieces.send(all.slice(..bytes))?;
            under_way.extend(std::iter::repeat_n(now, frames));
        }
    }
    outcome.elapsed = begun.elapsed();
    drop(pieces);
    writer.await??;
    Ok(outcome)
}

async fn write_all(mut ready: UnboundedReceiver<Bytes>, mut to: OwnedWriteHalf) -> Result<()> {
    let (mut pieces, mut batch) = (Vec::new(), BytesMut::new());
    while ready.recv_many(&mut pieces, PIECES).await > 0 {
        for piece in pieces.drain(..) {
            if piece.len() <= READ {
                batch.extend_from_slice(&piece);
                continue;
            }
            to.write_all(&batch).await?;
            batch.clear();
            to.write_all(&piece).await?;
        }
        to.write_all(&batch).await?;
        batch.clear();
    }
    Ok(())
}
