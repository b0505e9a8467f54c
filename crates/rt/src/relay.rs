//! Copying bytes between two connections, both ways at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A quiet connection holds this much buffer in each direction.
const SMALL: usize = 4 * 1024;
/// A busy one grows to this: the knee measured for TLS on loopback.
const LARGE: usize = 64 * 1024;
/// Reads in a row before the task yields to others on its thread.
const FAIR_SHARE: u32 = 16;

/// One of the two connections of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a relay has two sides")]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// Sees the bytes as they are read: counts them, or follows a handshake.
pub trait Tap {
    /// `bytes` were read from `from` and will be written to the other side.
    fn seen(&mut self, from: Side, bytes: &[u8]);
}

impl Tap for () {
    fn seen(&mut self, _from: Side, _bytes: &[u8]) {}
}

/// How a relay ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The side that closed or failed first.
    pub first: Side,
    /// The error that ended it; `None` when both sides closed in order.
    pub error: Option<io::Error>,
}

/// Copies bytes between `a` and `b` until both have closed or one fails.
///
/// The end of the stream is passed on as a half-close: after `a` has finished sending, `b` may send
/// for as long as it likes. There is no idle time-out; the sockets' keepalive notices a dead peer.
pub async fn relay<A, B, T>(a: &mut A, b: &mut B, tap: &mut T) -> Ended
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
    T: Tap,
{
    let (mut forth, mut back) = (Direction::new(Side::A), Direction::new(Side::B));
    let mut first = None;
    poll_fn(|cx| {
        let there = forth.poll(cx, Pin::new(a), Pin::new(b), tap);
        let here = back.poll(cx, Pin::new(b), Pin::new(a), tap);
        for direction in [&forth, &back] {
            if direction.ended && first.is_none() {
                first = Some(direction.from);
            }
        }
        match (there, here) {
            (Poll::Ready(Err((side, error))), _) | (_, Poll::Ready(Err((side, error)))) => {
                // After an end in order, a failure of the other side is the answer to it.
                Poll::Ready(Ended { first: first.unwrap_or(side), error: Some(error) })
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                Poll::Ready(Ended { first: first.unwrap_or(Side::A), error: None })
            }
            _ => Poll::Pending,
        }
    })
    .await
}

/// One direction: what was read and not yet written.
struct Direction {
    from: Side,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    needs_flush: bool,
    /// The reader has closed.
    ended: bool,
    /// The writer has been told.
    shut: bool,
}

impl Direction {
    fn new(from: Side) -> Self {
        let buffer = vec![0; SMALL];
        Self { from, buffer, start: 0, end: 0, needs_flush: false, ended: false, shut: false }
    }

    /// Moves what can be moved. An error names the side that failed.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut reader: Pin<&mut R>,
        mut writer: Pin<&mut W>,
        tap: &mut impl Tap,
    ) -> Poll<Result<(), (Side, io::Error)>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        let (from, to) = match self.from {
            Side::A => (Side::A, Side::B),
            Side::B => (Side::B, Side::A),
        };
        let mut reads = 0;
        loop {
            while self.start < self.end {
                let pending = self.buffer.get(self.start..self.end).unwrap_or_default();
                match ready!(writer.as_mut().poll_write(cx, pending)) {
                    Ok(0) => return Poll::Ready(Err((to, io::ErrorKind::WriteZero.into()))),
                    Ok(count) => self.start += count,
                    Err(error) => return Poll::Ready(Err((to, error))),
                }
                self.needs_flush = true;
            }
            if self.ended {
                if !self.shut {
                    // A peer that is gone already cannot be told; that is no failure.
                    match ready!(writer.as_mut().poll_shutdown(cx)) {
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err((to, error)));
                        }
                        _ => self.shut = true,
                    }
                }
                return Poll::Ready(Ok(()));
            }
            if reads == FAIR_SHARE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            let mut space = ReadBuf::new(&mut self.buffer);
            match reader.as_mut().poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) => {
                    let filled = space.filled().len();
                    tap.seen(from, space.filled());
                    (self.start, self.end) = (0, filled);
                    self.ended = filled == 0;
                    if filled == self.buffer.len() && filled < LARGE {
                        self.buffer.resize(LARGE, 0);
                    }
                }
                Poll::Ready(Err(error)) => {
                    // Many TLS peers close without close_notify; both ends of this relay carry
                    // protocols that know their own end.
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        self.ended = true;
                        continue;
                    }
                    return Poll::Ready(Err((from, error)));
                }
                Poll::Pending => {
                    if self.needs_flush {
                        match ready!(writer.as_mut().poll_flush(cx)) {
                            Ok(()) => self.needs_flush = false,
                            Err(error) => return Poll::Ready(Err((to, error))),
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[derive(Default)]
    struct Count([usize; 2]);

    impl Tap for Count {
        fn seen(&mut self, from: Side, bytes: &[u8]) {
            self.0[usize::from(from == Side::B)] += bytes.len();
        }
    }

    #[tokio::test]
    async fn half_close_lets_the_answer_through() {
        let (mut client, mut a) = duplex(1024);
        let (mut b, mut server) = duplex(1024);
        let relay = tokio::spawn(async move {
            let mut count = Count::default();
            let ended = relay(&mut a, &mut b, &mut count).await;
            (ended, count.0)
        });
        let server = tokio::spawn(async move {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            server.write_all(&all).await.unwrap();
        });
        let sent = vec![7; 300_000];
        client.write_all(&sent[..1000]).await.unwrap();
        let (mut read, mut write) = tokio::io::split(client);
        let writer = tokio::spawn(async move {
            write.write_all(&vec![7; 299_000]).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        server.await.unwrap();
        assert_eq!(got.len(), sent.len());
        let (ended, counts) = relay.await.unwrap();
        assert_eq!((ended.first, counts), (Side::A, [300_000, 300_000]));
        assert!(ended.error.is_none());
    }
}
