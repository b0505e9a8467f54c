//! Messages that come in blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::outbox::is_small;
use super::spares::Spares;
use crate::proto::v2::{Block, SMALL};
use crate::{Body, Codec, Error, Executed, Kind};

/// Room for large messages is counted in so many bytes.
const UNIT: u64 = 1024;
/// No message is longer, whatever is set: its room is asked for at once, as a `u32` of units.
const MOST: u64 = 0xFFFF_FFFF * UNIT;
/// §4.6: so many times its length at most is what a large message unpacks to.
const RATIO: u64 = 8;
/// What is only announced, and has no room yet, costs no more than this, or than twice of what came.
const AHEAD: usize = 64 * 1024;

/// A large message of which not everything is there.
#[derive(Debug)]
pub(super) struct Assembly {
    total: usize,
    bytes: Vec<u8>,
    spares: Spares,
    blocks: u32,
    zip: bool,
    codec: u8,
    /// There is room for the whole of it.
    room: Option<Room>,
    begun: Instant,
}

/// Holds room for a large message, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room(
    #[expect(dead_code, reason = "it acts when it is dropped")] OwnedSemaphorePermit,
);

/// A message that is whole.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) body: Body,
    /// Given back when the message is not needed any more.
    pub(crate) room: Option<Room>,
    pub(crate) blocks: u32,
    /// From its first block to its last.
    pub(crate) took: Duration,
}

impl Message {
    /// One that came in a frame, or in none.
    pub(crate) fn small(body: Body, blocks: u32) -> Self {
        Self { body, room: None, blocks, took: Duration::ZERO }
    }
}

/// How much there is for large messages of one connection, in the order in which they ask.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    max_message: u64,
    /// Messages may be compressed.
    zip: bool,
    spares: Spares,
}

impl Budget {
    pub(super) fn new(bytes: u64, max_message: u64, zip: bool) -> Self {
        // Up as in `room`, so that the longest message there may be has room.
        let units = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let free = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        let max_message = max_message.min(bytes).min(MOST);
        Self { free, max_message, zip, spares: Spares::default() }
    }

    /// Waits for room: for what a message of that length may unpack to (§4.6), where that can be.
    pub(super) async fn room(&self, total: usize) -> Option<Room> {
        let total = u64::try_from(total).ok()?;
        let unpacked = if self.zip { total.saturating_mul(RATIO).min(self.max_message) } else { 0 };
        let units = total.max(unpacked).div_ceil(UNIT);
        let free = Arc::clone(&self.free);
        free.acquire_many_owned(u32::try_from(units).ok()?).await.ok().map(Room)
    }

    /// Nothing is kept that is not in use.
    pub(super) fn tidy(&self) {
        self.spares.clear();
    }

    /// §7.4: whether a message of that length is taken at all.
    pub(super) fn check(&self, total: u64, executed: Executed) -> Result<usize, Error> {
        let refused = || {
            let reason =
                format!("a message of {total} bytes; up to {} are taken", self.max_message);
            Error::new(Kind::Value, executed, reason)
        };
        if total > self.max_message {
            return Err(refused());
        }
        usize::try_from(total).map_err(|_| refused())
    }
}

impl Assembly {
    /// Of a message of that length, within that budget.
    pub(super) fn new(total: usize, zip: bool, codec: u8, budget: &Budget) -> Self {
        let (bytes, spares) = (budget.spares.take(total), budget.spares.clone());
        let begun = Instant::now();
        Self { total, bytes, spares, blocks: 0, zip, codec, room: None, begun }
    }

    /// Takes the next block; an error is a peer that says more than it announced.
    pub(super) fn add(&mut self, block: &Block) -> Result<(), &'static str> {
        let left = self.total.saturating_sub(self.bytes.len());
        if block.bytes.len() > left {
            return Err("a message is longer than it was announced");
        }
        if self.bytes.capacity().saturating_sub(self.bytes.len()) < block.bytes.len() {
            let ahead = self.bytes.len().max(AHEAD).max(block.bytes.len());
            // Once there is room for it, all of it.
            self.bytes.reserve_exact(if self.has_room() { left } else { left.min(ahead) });
        }
        self.bytes.extend_from_slice(&block.bytes);
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    pub(super) fn set_room(&mut self, room: Room) {
        self.room = Some(room);
    }

    pub(super) fn has_room(&self) -> bool {
        self.room.is_some()
    }

    /// How long it will be.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// How much of it came.
    pub(super) fn received(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() == self.total
    }

    pub(super) fn message(self, limit: u64, executed: Executed) -> Result<Message, Error> {
        let total = u64::try_from(self.total).unwrap_or(u64::MAX);
        let limit = limit.min(total.saturating_mul(RATIO));
        let took = self.begun.elapsed();
        let bytes = self.spares.message(self.bytes);
        let body = read(self.codec, self.zip, bytes, limit, executed)?;
        Ok(Message { body, room: self.room, blocks: self.blocks, took })
    }
}

/// A message that came in one frame. There is no room for more than it may have unpacked, too (§4.6).
pub(super) fn body(
    codec: u8,
    zip: bool,
    bytes: Bytes,
    limit: u64,
    executed: Executed,
) -> Result<Body, Error> {
    let small = u64::try_from(SMALL).unwrap_or(u64::MAX);
    read(codec, zip, bytes, limit.min(small), executed)
}

fn read(codec: u8, zip: bool, bytes: Bytes, limit: u64, executed: Executed) -> Result<Body, Error> {
    let failed = |reason: String| Error::new(Kind::Value, executed, reason);
    let codec =
        Codec::from_number(codec).ok_or_else(|| failed(format!("the codec {codec} is unknown")))?;
    let bytes = if zip { unzip(&bytes, limit).map_err(failed)? } else { bytes };
    Ok(Body { codec, bytes })
}

/// §4.6.
fn unzip(bytes: &[u8], limit: u64) -> Result<Bytes, String> {
    let (len, packed) = bytes.split_first_chunk().ok_or("compressed bytes are cut short")?;
    let len = u32::from_le_bytes(*len);
    if u64::from(len) > limit {
        return Err(format!("a message of {len} bytes, unpacked; up to {limit} are taken"));
    }
    let len = usize::try_from(len).map_err(|error| error.to_string())?;
    // No LZ4 block grows more than that: what is only claimed costs nothing.
    if len / 255 > packed.len() {
        return Err("compressed bytes are too few for what they should become".to_owned());
    }
    let unpacked = lz4_flex::block::decompress(packed, len);
    unpacked.map(Bytes::from).map_err(|error| format!("it cannot be unpacked: {error}"))
}

/// §4.6: packed, if that is worth it, and the receiver takes it so.
pub(super) fn is_zipped(bytes: &Bytes) -> Option<Bytes> {
    let len = u32::try_from(bytes.len()).ok()?;
    let mut packed = Vec::with_capacity(bytes.len() / 2);
    packed.extend_from_slice(&len.to_le_bytes());
    packed.extend_from_slice(&lz4_flex::block::compress(bytes));
    // In one frame only what needs no room, and otherwise what has enough.
    let is_taken = match is_small(packed.len()) {
        true => is_small(bytes.len()),
        false => u64::from(len) / RATIO <= u64::try_from(packed.len()).unwrap_or(u64::MAX),
    };
    (is_taken && packed.len() < bytes.len() / 8 * 7).then(|| packed.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// As a peer would that keeps to nothing.
    fn packed(len: usize) -> Bytes {
        let mut packed = u32::try_from(len).unwrap().to_le_bytes().to_vec();
        packed.extend_from_slice(&lz4_flex::block::compress(&vec![7; len]));
        packed.into()
    }

    /// §4.6.
    #[test]
    fn nothing_unpacks_to_more_than_there_is_room_for() {
        let small = |len| body(0, true, packed(len), 1 << 30, Executed::Never);
        assert_eq!(small(SMALL).unwrap().bytes.len(), SMALL);
        let error = small(SMALL + 1).unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
        let large = |bytes: Bytes| {
            let budget = Budget::new(1 << 20, 1 << 20, true);
            let mut assembly = Assembly::new(bytes.len(), true, 0, &budget);
            assembly.add(&Block { total: None, bytes }).unwrap();
            assembly.message(1 << 30, Executed::Yes)
        };
        assert_eq!(large(packed(20_000_000)).unwrap_err().kind(), Kind::Value);
        // Words in no order, so that it becomes about a third.
        let words: Vec<u8> = (0..40_000_u64)
            .flat_map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58).to_be_bytes())
            .map(|byte| byte.wrapping_mul(37))
            .collect();
        let taken = is_zipped(&Bytes::from(words.clone())).unwrap();
        assert_eq!(large(taken).unwrap().body.bytes, words);
    }

    /// What would be refused is sent as it is.
    #[test]
    fn only_what_is_taken_is_compressed() {
        let is = |len| is_zipped(&vec![7; len].into()).is_some();
        assert!(is(1000) && is(SMALL));
        assert!(!is(SMALL + 1) && !is(20_000_000));
    }

    #[tokio::test]
    async fn room_is_for_what_a_message_unpacks_to() {
        let budget = Budget::new(1 << 20, 1 << 20, true);
        let first = budget.room(100_000).await.unwrap();
        let second = budget.room(100_000);
        assert!(tokio::time::timeout(Duration::ZERO, second).await.is_err());
        drop(first);
        assert!(budget.room(1 << 20).await.is_some());
        let budget = Budget::new(1 << 20, 1 << 20, false);
        let rooms = [budget.room(1 << 19).await, budget.room(1 << 19).await];
        assert!(rooms.iter().all(Option::is_some));
    }
}
