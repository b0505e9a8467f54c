//! A stream that does everything a stream may do: short reads, short writes, waits, and bytes that
//! stay inside until they are flushed, as TLS keeps them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Wraps one end of a pipe; `moods` is walked round and decides the size of each step. It only
/// makes its user wait where it could go on, so that a test's clock stands still for no longer.
pub(crate) struct Fickle {
    inner: DuplexStream,
    moods: Vec<usize>,
    turn: usize,
    /// Read, not yet given out.
    came: VecDeque<u8>,
    /// Taken, not yet written.
    held: VecDeque<u8>,
}

/// Bytes that are kept before a write has to wait for room.
const HELD_MAX: usize = 1024;

impl Fickle {
    pub(crate) fn new(inner: DuplexStream, moods: Vec<usize>) -> Self {
        Self { inner, moods, turn: 0, came: VecDeque::new(), held: VecDeque::new() }
    }

    /// How many bytes this step moves; `None`: come back later.
    fn step(&mut self, cx: &Context<'_>) -> Option<usize> {
        self.turn += 1;
        let mood = self.moods[self.turn % self.moods.len()];
        if mood == 0 && !self.turn.is_multiple_of(3) {
            cx.waker().wake_by_ref();
            return None;
        }
        Some(mood.max(1))
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let first = self.held.as_slices().0;
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, first))?;
            self.held.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Fickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.came.is_empty() {
            let mut bytes = [0; 4096];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
            self.came.extend(part.filled());
            if self.came.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let Some(most) = self.step(cx) else { return Poll::Pending };
        let count = most.min(space.remaining()).min(self.came.len());
        space.put_slice(&self.came.drain(..count).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Fickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= HELD_MAX {
            ready!(self.drain(cx))?;
        }
        let Some(most) = self.step(cx) else { return Poll::Pending };
        let count = most.min(bytes.len());
        self.held.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
