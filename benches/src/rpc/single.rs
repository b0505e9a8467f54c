//! Frames with their length first, echoed by hand: one task at each end that writes what it has, then
//! reads. The rate varies a lot, as it depends on how many frames each read finds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use meshx_rt::net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::load::{Cell, LARGE, Outcome, ROOM, nanoseconds};

/// Bytes that are read at a time, at least.
pub(super) const READ: usize = 64 << 10;
/// Bytes of a length.
const HEAD: usize = 4;

/// Answers everybody until the process ends.
pub(super) async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // An error is the end of the connection, which the client notices.
        tokio::spawn(async move { drop(answer(stream).await) });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    net::tune(&stream)?;
    let (mut read, mut write) = stream.split();
    let mut input = BytesMut::new();
    let mut output: VecDeque<Bytes> = VecDeque::new();
    loop {
        input.reserve(missing(&input).max(READ));
        let front = output.front().cloned();
        tokio::select! {
            biased;
            written = write.write(front.as_deref().unwrap_or_default()), if front.is_some() => {
                let written = written?;
                if let Some(front) = output.front_mut() {
                    front.advance(written);
                    if front.is_empty() {
                        output.pop_front();
                    }
                }
            }
            got = read.read_buf(&mut input) => {
                if got? == 0 {
                    return Ok(());
                }
                let (bytes, frames) = whole(&input)?;
                if frames > 0 {
                    output.push_back(input.split_to(bytes).freeze());
                }
            }
        }
    }
}

/// Keeps so many frames under way on one connection.
pub(super) async fn drive(address: String, cell: Cell, duration: Duration) -> Result<Outcome> {
    tokio::spawn(pump(address, cell, duration)).await?
}

async fn pump(address: String, cell: Cell, duration: Duration) -> Result<Outcome> {
    let mut stream = net::dial(address.parse()?, Duration::from_secs(5)).await?;
    let (mut read, mut write) = stream.split();
    // All frames are alike: what is owed is a part of this, from `at` on.
    let all = frame(cell.size)?.repeat(cell.at_once);
    let (mut at, mut owed) = (0, all.len());
    let mut input = BytesMut::new();
    let mut outcome = Outcome { times: Vec::with_capacity(ROOM), ..Outcome::default() };
    let begun = Instant::now();
    let mut under_way: VecDeque<Instant> = std::iter::repeat_n(begun, cell.at_once).collect();
    while !under_way.is_empty() {
        input.reserve(missing(&input).max(READ));
        let next = &all[at..all.len().min(at + owed)];
        tokio::select! {
            biased;
            written = write.write(next), if owed > 0 => {
                let written = written?;
                owed -= written;
                at = (at + written) % all.len();
            }
            got = read.read_buf(&mut input) => {
                ensure!(got? > 0, "the server closed");
                let (bytes, frames) = whole(&input)?;
                input.advance(bytes);
                let now = Instant::now();
                for sent in under_way.drain(..frames.min(under_way.len())) {
                    if outcome.times.len() < ROOM {
                        outcome.times.push(nanoseconds(now - sent));
                    }
                }
                outcome.calls += frames;
                if now < begun + duration {
                    owed += bytes;
                    under_way.extend(std::iter::repeat_n(now, frames));
                }
            }
        }
    }
    outcome.elapsed = begun.elapsed();
    Ok(outcome)
}

/// One with a body of so many bytes.
pub(super) fn frame(size: usize) -> Result<Vec<u8>> {
    let mut frame = u32::try_from(size)?.to_le_bytes().to_vec();
    frame.resize(HEAD + size, 1);
    Ok(frame)
}

/// Bytes and number of the frames that are all there.
pub(super) fn whole(input: &[u8]) -> Result<(usize, usize)> {
    let (mut bytes, mut frames) = (0, 0);
    while let Some(length) = length(&input[bytes..]) {
        if length > LARGE {
            bail!("a frame of {length} bytes");
        }
        if input.len() - bytes < HEAD + length {
            break;
        }
        bytes += HEAD + length;
        frames += 1;
    }
    Ok((bytes, frames))
}

/// What is missing of the frame that has begun, where its length is known.
pub(super) fn missing(input: &[u8]) -> usize {
    length(input).map_or(0, |length| (HEAD + length.min(LARGE)).saturating_sub(input.len()))
}

fn length(input: &[u8]) -> Option<usize> {
    let head = input.first_chunk::<HEAD>()?;
    usize::try_from(u32::from_le_bytes(*head)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_when_all_of_them_is_there() {
        let two = [2, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1];
        assert_eq!(whole(&two).unwrap(), (11, 2));
        assert_eq!(whole(&two[..10]).unwrap(), (6, 1));
        assert_eq!((missing(&two[6..10]), missing(&two[6..])), (1, 0));
        assert!(whole(&[0xFF; 8]).is_err());
    }
}
