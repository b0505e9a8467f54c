//! Messages out of a byte stream.

use bytes::{Buf, Bytes, BytesMut};

use super::HANDSHAKE_MAX;

/// How much room is made at least for what comes.
const READ: usize = 8 * 1024;
/// How much more memory a long frame gets at a time, or as much again as came of it: what is only
/// announced costs nothing.
const GROWTH: usize = 64 * 1024;

/// Cuts a byte stream into messages.
///
/// Who reads puts bytes into [`Frames::space`] and then asks [`Frames::message`] until it gives `None`.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    limit: usize,
    handshake: bool,
}

/// A message is announced to be longer than what is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {size} bytes; the limit is {limit}")]
pub struct FrameTooLong {
    /// What was announced.
    pub size: usize,
    /// The limit.
    pub limit: usize,
}

impl Frames {
    /// Of a stream that began with these bytes, in its handshake. Later frames may be `limit` bytes
    /// long.
    pub fn new(first: BytesMut, limit: usize) -> Self {
        Self { buffer: first, limit, handshake: true }
    }

    /// The handshake is over: from now on, four bytes of length.
    pub fn shook(&mut self) {
        self.handshake = false;
    }

    /// The next message, without its length; `None`: more bytes are needed.
    pub fn message(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let Some((size, prefix)) = self.announced() else { return Ok(None) };
        let limit = if self.handshake { HANDSHAKE_MAX } else { self.limit };
        if size > limit {
            return Err(FrameTooLong { size, limit });
        }
        if self.buffer.len().saturating_sub(prefix) < size {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        Ok(Some(self.buffer.split_to(size).freeze()))
    }

    /// Where the next bytes belong, behind what is there. Never without room.
    pub fn space(&mut self) -> &mut BytesMut {
        let held = self.buffer.len();
        let announced = self.announced().map_or(0, |(size, prefix)| size.saturating_add(prefix));
        let missing = announced.saturating_sub(held);
        if self.buffer.capacity().saturating_sub(held) < missing.clamp(1, READ / 4) {
            self.buffer.reserve(missing.clamp(READ, held.max(GROWTH)));
        }
        &mut self.buffer
    }

    /// Bytes that belong to no message yet.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// How long the next message is, and how long its length.
    fn announced(&self) -> Option<(usize, usize)> {
        if self.handshake {
            return self.buffer.first_chunk().map(|&it| (usize::from(u16::from_be_bytes(it)), 2));
        }
        let size = u32::from_be_bytes(*self.buffer.first_chunk()?);
        Some((usize::try_from(size).unwrap_or(usize::MAX), 4))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn however_they_come_the_messages_are_the_same() {
        let bytes = [&[0, 2, 7, 8, 0, 0][..], &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 0]].concat();
        for piece in 1..=bytes.len() {
            let mut frames = Frames::new(BytesMut::new(), 10);
            let mut messages = Vec::new();
            for piece in bytes.chunks(piece) {
                frames.space().extend_from_slice(piece);
                while let Some(message) = frames.message().unwrap() {
                    messages.push(message.to_vec());
                    if messages.len() == 2 {
                        frames.shook();
                    }
                }
            }
            assert_eq!(messages, [vec![7, 8], vec![], vec![1, 2, 3], vec![]], "{piece}");
            assert_eq!(frames.held(), 0);
        }
    }

    #[test]
    fn what_is_only_announced_takes_no_memory() {
        let mut frames = Frames::new(BytesMut::from(&[4, 0][..]), 1 << 30);
        assert_eq!(frames.message(), Err(FrameTooLong { size: 1024, limit: HANDSHAKE_MAX }));
        let mut frames = Frames::new(BytesMut::from(&[0x40, 0, 0, 0, 1][..]), 1 << 30);
        frames.shook();
        assert_eq!(frames.message(), Ok(None));
        assert!(frames.space().capacity() <= 2 * GROWTH);
        let mut frames = Frames::new(BytesMut::from(&[0x40, 0, 0, 1][..]), 1 << 30);
        frames.shook();
        assert_eq!(frames.message(), Err(FrameTooLong { size: 0x4000_0001, limit: 0x4000_0000 }));
    }
}
