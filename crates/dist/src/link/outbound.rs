//! The direction away from us.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::num::NonZeroU64;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use meshx_etf::dist::{self, Draft, FRAGMENT, Form, OutCache};

use super::{form, is_large};
use crate::handshake::Flags;

/// How much is given out at a time; a message that comes meanwhile waits for no more than this.
const BATCH: usize = 256 * 1024;
/// A piece that is shared in place of copied has so many bytes at least.
const SHARED: usize = 4 * 1024;
/// How much memory is taken at a time for what is copied.
const TAIL: usize = 64 * 1024;

/// So many senders may have a large message on its way at a time.
pub const LARGE_AT_ONCE: usize = 64;

/// Turns messages into the bytes of one connection.
///
/// The messages of one sender stay in their order. A message of more than [`FRAGMENT`] bytes is cut
/// into fragments where that was negotiated, and messages of other senders pass between them;
/// those of its own sender wait until it is out.
#[derive(Debug)]
pub struct Outbox {
    form: Form,
    flags: Flags,
    cache: OutCache,
    /// Frames that are complete, in pieces; the end of them is in `tail`.
    ready: VecDeque<Bytes>,
    tail: BytesMut,
    ready_bytes: usize,
    /// Messages of which fragments are to follow; the next one is of the first.
    large: VecDeque<Large>,
    large_bytes: usize,
    sequence: u64,
    scratch: Vec<u8>,
}

/// A message of which the first fragment is out.
#[derive(Debug)]
struct Large {
    sender: u64,
    sequence: NonZeroU64,
    parts: VecDeque<Bytes>,
    /// How many bytes these have.
    bytes: usize,
    /// How many fragments are to follow.
    left: u64,
    /// What its sender sent since.
    behind: VecDeque<Draft>,
}

/// Bytes to be written, in pieces.
#[derive(Debug, Default)]
pub struct Batch {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Outbox {
    /// Of a connection with these negotiated flags.
    pub fn new(flags: Flags) -> Self {
        Self {
            form: form(flags),
            flags,
            cache: OutCache::new(),
            ready: VecDeque::new(),
            tail: BytesMut::new(),
            ready_bytes: 0,
            large: VecDeque::new(),
            large_bytes: 0,
            sequence: 0,
            scratch: Vec::new(),
        }
    }

    /// In which form drafts for this connection must be.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Takes a message, which must be in [`Outbox::form`]. `sender` stands for the process that sends
    /// it. The draft is empty afterwards.
    ///
    /// A connection without fragments has no frame for 4 GiB and more; no peer would take that, and the
    /// caller must not give it.
    pub fn push(&mut self, sender: u64, draft: &mut Draft) {
        if let Some(large) = self.large.iter_mut().find(|large| large.sender == sender) {
            self.large_bytes = self.large_bytes.saturating_add(draft.len());
            large.behind.push_back(std::mem::take(draft));
            draft.clear(self.form);
            return;
        }
        if is_large(self.flags, draft) {
            self.begin_large(sender, std::mem::take(draft), VecDeque::new());
        } else {
            self.whole(draft);
        }
        draft.clear(self.form);
    }

    /// Takes an empty frame.
    pub fn tick(&mut self) {
        self.room(4);
        self.tail.put_u32(0);
        self.ready_bytes = self.ready_bytes.saturating_add(4);
    }

    /// How many bytes wait. Who fills the outbox asks, and stops in time.
    pub fn queued(&self) -> usize {
        self.ready_bytes.saturating_add(self.large_bytes)
    }

    /// Whether this sender should wait before it sends more: `limit` bytes wait that are not part of
    /// large messages, or of its own. For one more large message ([`is_large`]) it should also
    /// wait while [`LARGE_AT_ONCE`] are on their way; what others send in fragments holds nobody else up.
    pub fn is_busy(&self, sender: u64, large: bool, limit: usize) -> bool {
        let own = self.large.iter().find(|large| large.sender == sender);
        let behind = |large: &Large| large.behind.iter().map(Draft::len).sum::<usize>();
        self.is_full(limit)
            || (large && self.large.len() >= LARGE_AT_ONCE)
            || own.is_some_and(|large| large.bytes.saturating_add(behind(large)) > limit)
    }

    /// Whether every sender should wait: more than `limit` bytes wait that are not part of large messages.
    pub fn is_full(&self, limit: usize) -> bool {
        self.ready_bytes > limit
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ready_bytes == 0 && self.large.is_empty()
    }

    /// Moves what is ready to `batch`, and fragments until about 256 KiB are there; one at least, so
    /// that small messages never hold up a large one for good.
    pub fn take(&mut self, batch: &mut Batch) {
        if batch.len < BATCH {
            while self.fragment() && batch.len.saturating_add(self.ready_bytes) < BATCH {}
        }
        self.end_piece();
        batch.len = batch.len.saturating_add(self.ready_bytes);
        batch.pieces.append(&mut self.ready);
        self.ready_bytes = 0;
    }

    /// A message in one frame.
    fn whole(&mut self, draft: &Draft) {
        self.scratch.clear();
        if self.form != Form::PassThrough {
            dist::begin_whole(&mut self.scratch);
            self.cache.header(draft, &mut self.scratch);
        }
        self.frame_head(draft.len(), draft.len().min(SHARED));
        for (bytes, binary) in draft.parts() {
            match binary {
                Some(binary) => self.piece(binary.clone().into_bytes()),
                None => self.tail.extend_from_slice(bytes),
            }
        }
        self.ready_bytes = self.ready_bytes.saturating_add(draft.len());
    }

    /// The length of a frame, and what is in `scratch`; `len` bytes follow, of which `copied` are
    /// probably not shared.
    fn frame_head(&mut self, len: usize, copied: usize) {
        let len = self.scratch.len().saturating_add(len);
        self.room(self.scratch.len().saturating_add(4).saturating_add(copied));
        self.tail.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        self.tail.extend_from_slice(&self.scratch);
        self.ready_bytes = self.ready_bytes.saturating_add(self.scratch.len()).saturating_add(4);
    }

    /// The first fragment of a message is sent in its turn, as the atoms of its header are known to
    /// the peer from there on.
    fn begin_large(&mut self, sender: u64, mut draft: Draft, behind: VecDeque<Draft>) {
        let control = draft.control_len();
        let payload = draft.len().saturating_sub(control);
        let fragments = u64::try_from(payload.div_ceil(FRAGMENT).max(1)).unwrap_or(u64::MAX);
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = NonZeroU64::new(self.sequence).unwrap_or(NonZeroU64::MIN);
        self.scratch.clear();
        dist::begin_first(sequence, fragments, &mut self.scratch);
        self.cache.header(&draft, &mut self.scratch);
        let first = control.saturating_add(payload.min(FRAGMENT));
        let mut large = Large {
            sender,
            sequence,
            bytes: draft.len(),
            parts: draft.take_parts().into(),
            left: fragments,
            behind,
        };
        self.large_bytes =
            self.large_bytes.saturating_add(control.saturating_add(payload).saturating_sub(first));
        self.frame_head(first, 0);
        self.part(&mut large, first);
        self.end_or_keep(large);
    }

    /// Sends one fragment of the message whose turn it is; false if there is none.
    fn fragment(&mut self) -> bool {
        let Some(mut large) = self.large.pop_front() else { return false };
        let len = large.bytes.min(FRAGMENT);
        self.scratch.clear();
        dist::begin_next(large.sequence, large.left, &mut self.scratch);
        self.frame_head(len, 0);
        self.large_bytes = self.large_bytes.saturating_sub(len);
        self.part(&mut large, len);
        self.end_or_keep(large);
        true
    }

    /// The next `len` bytes of a message.
    fn part(&mut self, large: &mut Large, mut len: usize) {
        self.ready_bytes = self.ready_bytes.saturating_add(len);
        large.bytes = large.bytes.saturating_sub(len);
        while len > 0 {
            let Some(mut piece) = large.parts.pop_front() else { return };
            if piece.len() > len {
                large.parts.push_front(piece.split_off(len));
            }
            len = len.saturating_sub(piece.len());
            self.piece(piece);
        }
    }

    fn end_or_keep(&mut self, mut large: Large) {
        large.left = large.left.saturating_sub(1);
        if large.left > 0 {
            self.large.push_back(large);
            return;
        }
        while let Some(draft) = large.behind.pop_front() {
            self.large_bytes = self.large_bytes.saturating_sub(draft.len());
            if is_large(self.flags, &draft) {
                let behind = large.behind;
                self.begin_large(large.sender, draft, behind);
                return;
            }
            self.whole(&draft);
        }
    }

    /// Room for so many bytes in `tail`, which is not moved for that: it ends and another one begins.
    fn room(&mut self, len: usize) {
        if self.tail.is_empty() {
            // To the front again if nobody holds what was there: that memory is warm.
            _ = self.tail.try_reclaim(TAIL);
        }
        if self.tail.spare_capacity_mut().len() < len {
            self.end_piece();
            self.tail.reserve(len.max(TAIL));
        }
    }

    fn piece(&mut self, piece: Bytes) {
        if piece.len() < SHARED {
            self.tail.extend_from_slice(&piece);
        } else {
            self.end_piece();
            self.ready.push_back(piece);
        }
    }

    fn end_piece(&mut self) {
        if !self.tail.is_empty() {
            let piece = self.tail.split().freeze();
            self.ready.push_back(piece);
        }
    }
}

impl Batch {
    /// An empty one, to be used again and again.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces);
        filled.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count = count.saturating_sub(front.len());
            self.pieces.pop_front();
        }
    }
}
