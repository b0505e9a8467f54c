//! Messages over a connection.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::wire::{FrameTooLong, Frames};

/// So long a peer may take to close its end, after it was told why we close ours.
const LINGER: Duration = Duration::from_secs(1);

/// The direction towards us.
pub(super) struct Reader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    frames: Frames,
    over: bool,
}

/// The direction away from us.
pub(super) struct Sender(Box<dyn AsyncWrite + Send + Unpin>);

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    #[error("it closed the connection in the middle of a message")]
    Cut,
    #[error(transparent)]
    TooLong(#[from] FrameTooLong),
}

impl Reader {
    /// Of a stream that began with these bytes.
    pub(super) fn new(
        stream: Box<dyn AsyncRead + Send + Unpin>,
        first: BytesMut,
        limit: usize,
    ) -> Self {
        Self { stream, frames: Frames::new(first, limit), over: false }
    }

    /// The handshake is over.
    pub(super) fn shook(&mut self) {
        self.frames.shook();
    }

    /// The next message; `None`: the peer has closed. What has come is kept if this is dropped.
    pub(super) async fn message(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(message) = self.frames.message()? {
                return Ok(Some(message));
            }
            if !self.more().await? {
                return if self.frames.held() == 0 { Ok(None) } else { Err(ReadError::Cut) };
            }
        }
    }

    /// Waits until something has come; `false`: the peer has closed.
    pub(super) async fn begun(&mut self) -> Result<bool, ReadError> {
        Ok(self.frames.held() > 0 || self.more().await?)
    }

    /// Reads what nobody wants, so that the peer can read what we said: a connection that is closed
    /// with bytes unread is reset, and what was said last is lost.
    pub(super) async fn linger(mut self, mut sender: Sender) {
        let rest = async {
            sender.0.shutdown().await?;
            let mut nothing = [0; 4096];
            while self.stream.read(&mut nothing).await? > 0 {}
            io::Result::Ok(())
        };
        // If that fails, the peer is gone.
        drop(timeout(LINGER, rest).await);
    }

    async fn more(&mut self) -> io::Result<bool> {
        if !self.over {
            self.over = self.stream.read_buf(self.frames.space()).await? == 0;
        }
        Ok(!self.over)
    }
}

impl Sender {
    pub(super) fn new(stream: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self(stream)
    }

    /// Writes what is left of the bytes. If this is dropped or fails, what is left was not written.
    pub(super) async fn write(&mut self, left: &mut Bytes) -> io::Result<()> {
        while !left.is_empty() {
            self.part(left).await?;
        }
        self.0.flush().await
    }

    /// The same, if the peer takes something again and again within `limit`.
    pub(super) async fn write_within(
        &mut self,
        mut left: Bytes,
        limit: Duration,
    ) -> io::Result<()> {
        let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "it takes nothing");
        while !left.is_empty() {
            timeout(limit, self.part(&mut left)).await.map_err(slow)??;
        }
        timeout(limit, self.0.flush()).await.map_err(slow)?
    }

    async fn part(&mut self, left: &mut Bytes) -> io::Result<()> {
        match self.0.write_buf(left).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }
}
