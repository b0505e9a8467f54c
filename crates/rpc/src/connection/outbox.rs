//! What waits to be written, in which order, and how much of it may be (§7.3, §7.6, §7.7).

use std::collections::{HashMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::pieces::Pieces;
use super::slots::Place;
use crate::proto::v2::{Checksum, Flags, Head, SMALL, Type};

/// How much is given out at a time; a small message that comes meanwhile waits for no more than this.
const BATCH: usize = 512 * 1024;
/// A block that is shared in place of copied has so many bytes at least.
const SHARED: usize = 8 * 1024;
/// §7.6: a message of an exchange counts so many bytes more than it has.
pub(super) const MESSAGE: u64 = 64;
/// How much memory is taken at a time for what is copied.
const TAIL: usize = 64 * 1024;

/// The bytes of one connection, before they are written.
#[derive(Debug)]
pub(super) struct Outbox {
    checksum: Checksum,
    max_block: usize,
    stream_window: u64,
    /// What large messages may have on their way together, before there is room for them (§7.3).
    unasked: u64,
    ready: Pieces,
    tail: BytesMut,
    flows: HashMap<u32, Flow>,
    /// What of `unasked` each stream has, until the peer has made room for its message.
    lent: HashMap<u32, u64>,
    /// How many bytes were put in, ever.
    appended: u64,
    /// Bytes of messages that are not sent in one frame.
    large: usize,
    /// Flows that have something to say and may, in their turn.
    rotation: VecDeque<u32>,
}

/// The messages of one stream that are not sent in one frame.
#[derive(Debug, Default)]
struct Flow {
    queue: VecDeque<Long>,
    queued: usize,
    credit: u64,
    in_rotation: bool,
    /// Whose it is: numbers of streams are used again.
    owner: u64,
    is_exchange: bool,
    /// Nothing follows what is queued.
    ends: bool,
}

/// A message, or what of it is not written yet.
#[derive(Debug)]
struct Long {
    bytes: Bytes,
    zip: bool,
    begun: bool,
    /// The stream ends with it.
    end: bool,
    /// How its first block is sent, if not as DATA.
    opening: Option<Opening>,
}

/// The frame that a large message begins with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) kind: Type,
    pub(super) flags: Flags,
    pub(super) extensions: BytesMut,
    pub(super) payload: BytesMut,
}

/// What a peer said of what it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) max_block: u32,
    pub(super) stream_window: u32,
    pub(super) connection_window: u32,
}

impl Outbox {
    pub(super) fn new(checksum: Checksum, taken: Taken) -> Self {
        Self {
            checksum,
            max_block: usize::try_from(taken.max_block).unwrap_or(usize::MAX),
            stream_window: taken.stream_window.into(),
            unasked: taken.connection_window.into(),
            ready: Pieces::default(),
            tail: BytesMut::new(),
            flows: HashMap::new(),
            lent: HashMap::new(),
            appended: 0,
            large: 0,
            rotation: VecDeque::new(),
        }
    }

    /// A frame that waits for nothing.
    pub(super) fn frame(&mut self, head: Head, extensions: &[u8], payload: &[u8], block: &Bytes) {
        self.room(block.len().min(SHARED));
        let at = self.tail.len();
        if block.len() < SHARED {
            head.whole(&mut self.tail, &self.checksum, extensions, payload, block);
            self.count(self.tail.len().saturating_sub(at));
            return;
        }
        // Its checksum is computed when nobody waits for this.
        self.end_piece();
        head.write(&mut self.tail, &self.checksum, extensions, payload, block.len());
        let head = self.tail.split().freeze();
        let rest = head.len().saturating_add(self.checksum.size());
        self.count(rest.saturating_add(block.len()));
        self.ready.push_open(head, block.clone());
    }

    /// Of what this gives out.
    pub(super) fn checksum(&self) -> &Checksum {
        &self.checksum
    }

    /// A message of more than [`SMALL`] bytes, which goes as there is room for it.
    pub(super) fn long(&mut self, stream: u32, bytes: Bytes, zip: bool, opening: Opening) {
        // §7.3: so much may go before the receiver has made room.
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let credit = size.min(self.stream_window).min(self.unasked);
        self.unasked = self.unasked.saturating_sub(credit);
        self.lent.insert(stream, credit);
        let flow = self.flows.entry(stream).or_default();
        flow.credit = flow.credit.saturating_add(credit);
        flow.ends = true;
        self.large = self.large.saturating_add(bytes.len());
        flow.push(Long { bytes, zip, begun: false, end: true, opening: Some(opening) });
        self.schedule(stream);
    }

    /// §7.6: the stream is an exchange from here on.
    pub(super) fn begin_exchange(&mut self, place: Place) {
        let (credit, owner) = (self.stream_window, place.generation);
        let flow = Flow { credit, owner, is_exchange: true, ..Flow::default() };
        self.flows.insert(place.stream, flow);
    }

    /// A message of an exchange, or with `end` that there are no more; false if it is over.
    pub(super) fn message(&mut self, place: Place, bytes: Bytes, end: bool) -> bool {
        let Place { stream, generation } = place;
        let flow = self.flows.get_mut(&stream);
        let Some(flow) = flow.filter(|flow| flow.owner == generation && !flow.ends) else {
            return false;
        };
        flow.ends = end;
        self.large = self.large.saturating_add(bytes.len());
        flow.push(Long { bytes, zip: false, begun: false, end, opening: None });
        self.schedule(stream);
        true
    }

    /// How much of an exchange waits to be written; `None` if it is over.
    pub(super) fn queued(&self, place: Place) -> Option<usize> {
        let flow = self.flows.get(&place.stream)?;
        (flow.owner == place.generation && !flow.ends).then_some(flow.queued)
    }

    /// §7.4, §7.6: the peer has made room.
    pub(super) fn credit(&mut self, stream: u32, bytes: u32) {
        self.give_back(stream);
        if let Some(flow) = self.flows.get_mut(&stream) {
            flow.credit = flow.credit.saturating_add(bytes.into());
            self.schedule(stream);
        }
    }

    /// Nothing more is said on that stream; true if something was about to be.
    pub(super) fn forget(&mut self, stream: u32) -> bool {
        self.give_back(stream);
        self.rotation.retain(|it| *it != stream);
        let forgotten = self.flows.remove(&stream);
        if let Some(flow) = &forgotten {
            self.large = self.large.saturating_sub(flow.queued);
        }
        forgotten.is_some()
    }

    /// Forgets a message of which nothing was said yet; false if there is none.
    pub(super) fn take_back(&mut self, stream: u32) -> bool {
        let unsaid = |flow: &Flow| flow.queue.front().is_some_and(|it| it.opening.is_some());
        let is_unsaid = self.flows.get(&stream).is_some_and(unsaid);
        is_unsaid && self.forget(stream)
    }

    fn give_back(&mut self, stream: u32) {
        if !self.lent.is_empty() {
            let lent = self.lent.remove(&stream).unwrap_or(0);
            self.unasked = self.unasked.saturating_add(lent);
        }
    }

    /// How many bytes were put in, ever.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    fn count(&mut self, bytes: usize) {
        self.appended = self.appended.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// How much waits that is not part of large messages.
    pub(super) fn waiting(&self) -> usize {
        self.ready.remaining().saturating_add(self.tail.len())
    }

    /// How much waits that is.
    pub(super) fn large(&self) -> usize {
        self.large
    }

    /// How many streams have some of it, or may have yet.
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Whether that one is among them.
    pub(super) fn has_flow(&self, stream: u32) -> bool {
        self.flows.contains_key(&stream)
    }

    /// Whether nothing waits to be written, for credit neither; exchanges do not count.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && self.flows.values().all(|flow| flow.is_exchange)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.tail.is_empty() && self.rotation.is_empty()
    }

    /// Moves what is ready to `batch`, and blocks until about half a MiB is there.
    pub(super) fn take(&mut self, batch: &mut Pieces) {
        self.end_piece();
        batch.append(&mut self.ready);
        while batch.remaining() < BATCH && self.block() {
            self.end_piece();
            batch.append(&mut self.ready);
        }
    }

    /// One block of the stream whose turn it is; false if there is none.
    fn block(&mut self) -> bool {
        let Some(stream) = self.rotation.pop_front() else { return false };
        let Some(mut flow) = self.flows.remove(&stream) else { return true };
        flow.in_rotation = false;
        let cost = flow.cost();
        let credit = usize::try_from(flow.credit.saturating_sub(cost)).unwrap_or(usize::MAX);
        let part = flow.queue.front_mut().map(|long| long.next(credit.min(self.max_block)));
        let Some(Part { opening, flags, total, block }) = part else {
            self.flows.insert(stream, flow);
            return true;
        };
        let sent = u64::try_from(block.len()).unwrap_or(u64::MAX).saturating_add(cost);
        flow.credit = flow.credit.saturating_sub(sent);
        flow.queued = flow.queued.saturating_sub(block.len());
        self.large = self.large.saturating_sub(block.len());
        let (kind, also, extensions, mut payload) = match opening {
            Some(it) => (it.kind, it.flags, it.extensions, it.payload),
            None => (Type::Data, Flags::NONE, BytesMut::new(), BytesMut::new()),
        };
        if let Some(total) = total {
            payload.put_u64_le(total);
        }
        let head = Head { kind, flags: flags.and(also), stream };
        self.frame(head, &extensions, &payload, &block);
        if !flags.has(Flags::MORE) {
            flow.queue.pop_front();
        }
        let over = flow.queue.is_empty() && flow.ends;
        if !over {
            self.flows.insert(stream, flow);
            self.schedule(stream);
        }
        true
    }

    /// Puts a stream into the rotation if it has something to say and may.
    fn schedule(&mut self, stream: u32) {
        let Some(flow) = self.flows.get_mut(&stream) else { return };
        let Some(first) = flow.queue.front() else { return };
        // The announcement of a call needs no credit, and neither does the end of an exchange.
        let free = !first.begun && (first.opening.is_some() || first.end);
        let cost = flow.cost();
        let enough = flow.credit > cost || (flow.credit == cost && first.bytes.is_empty());
        if !flow.in_rotation && (free || enough) {
            flow.in_rotation = true;
            self.rotation.push_back(stream);
        }
    }

    /// Room for a frame with so many bytes of block in `tail`, which is not moved for that.
    fn room(&mut self, block: usize) {
        /// Header, fixed part of a payload, name, trailer, and then some.
        const REST: usize = 512;
        if self.tail.is_empty() {
            // To the front again if nobody holds what was there: that memory is warm.
            _ = self.tail.try_reclaim(TAIL);
        }
        let len = block.saturating_add(REST);
        if self.tail.spare_capacity_mut().len() < len {
            self.end_piece();
            self.tail.reserve(len.max(TAIL));
        }
    }

    fn end_piece(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push(self.tail.split().freeze());
        }
    }
}

/// A block, and how it is sent.
struct Part {
    opening: Option<Opening>,
    flags: Flags,
    total: Option<u64>,
    block: Bytes,
}

impl Flow {
    /// §7.6: what a message of an exchange costs besides its bytes, with its first block.
    fn cost(&self) -> u64 {
        let begins = self.queue.front().is_some_and(|first| !first.begun && !first.end);
        if self.is_exchange && begins { MESSAGE } else { 0 }
    }

    fn push(&mut self, long: Long) {
        self.queued = self.queued.saturating_add(long.bytes.len());
        self.queue.push_back(long);
    }
}

impl Long {
    /// The next block, of `most` bytes.
    fn next(&mut self, most: usize) -> Part {
        let total = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        let block = self.bytes.split_to(self.bytes.len().min(most));
        let more = !self.bytes.is_empty();
        let first = !std::mem::replace(&mut self.begun, true);
        let announces = first && more;
        let flags = Flags::MORE.when(more);
        let flags = flags.and(Flags::LONG.when(announces)).and(Flags::ZIP.when(first && self.zip));
        let flags = flags.and(Flags::END.when(self.end && !more));
        Part { opening: self.opening.take(), flags, total: announces.then_some(total), block }
    }
}

/// Whether a message of a call needs no credit (§7.3).
pub(super) fn is_small(len: usize) -> bool {
    len <= SMALL
}
