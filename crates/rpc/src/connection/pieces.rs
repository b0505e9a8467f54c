//! Bytes to be written, in pieces.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::proto::v2::Checksum;

/// Pieces in their order.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    all: VecDeque<Bytes>,
    len: usize,
    /// Which of them are trailers of the two before, and empty yet.
    open: Vec<usize>,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        self.len = self.len.saturating_add(piece.len());
        self.all.push_back(piece);
    }

    /// A frame of which the checksum is still to be computed ([`Self::seal`]).
    pub(super) fn push_open(&mut self, head: Bytes, block: Bytes) {
        self.push(head);
        self.push(block);
        self.open.push(self.all.len());
        self.push(Bytes::new());
    }

    /// Computes the checksums that are missing. That takes a while: no lock is held.
    pub(super) fn seal(&mut self, checksum: &Checksum) {
        for at in std::mem::take(&mut self.open) {
            let part = |before| at.checked_sub(before).and_then(|at| self.all.get(at));
            let (Some(head), Some(block)) = (part(2), part(1)) else { continue };
            let trailer = Bytes::copy_from_slice(checksum.of(head, block).as_ref());
            self.len = self.len.saturating_add(trailer.len());
            if let Some(open) = self.all.get_mut(at) {
                *open = trailer;
            }
        }
    }

    /// `other` behind it; nothing was taken from this that is not sealed.
    pub(super) fn append(&mut self, other: &mut Self) {
        let behind = self.all.len();
        self.open.extend(other.open.drain(..).map(|at| at.saturating_add(behind)));
        self.len = self.len.saturating_add(std::mem::take(&mut other.len));
        self.all.append(&mut other.all);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.all.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.all);
        filled.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        // Empty ones go, too: what is left begins with a byte.
        while let Some(front) = self.all.front_mut() {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count = count.saturating_sub(front.len());
            self.all.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_sealed_wherever_they_come() {
        let checksum = Checksum::Crc32c(7);
        let frame = |head: &'static [u8], block: &'static [u8]| {
            [head, block, checksum.of(head, block).as_ref()].concat()
        };
        let (mut batch, mut ready) = (Pieces::default(), Pieces::default());
        batch.push(Bytes::from_static(b"before"));
        ready.push_open(Bytes::from_static(b"one"), Bytes::from_static(b"1"));
        batch.append(&mut ready);
        ready.push(Bytes::from_static(b"between"));
        ready.push_open(Bytes::from_static(b"two"), Bytes::from_static(b"2"));
        batch.append(&mut ready);
        assert!(ready.is_empty());
        batch.seal(&checksum);
        let all =
            [b"before".to_vec(), frame(b"one", b"1"), b"between".to_vec(), frame(b"two", b"2")];
        assert_eq!(batch.remaining(), all.concat().len());
        assert_eq!(batch.copy_to_bytes(batch.remaining()), all.concat());
        assert!(batch.is_empty());
    }

    #[test]
    fn what_is_left_begins_with_a_byte() {
        let (mut batch, part) = (Pieces::default(), Bytes::from_static(b"12345678"));
        for _ in 0..3 {
            batch.push_open(part.clone(), part.clone());
        }
        batch.seal(&Checksum::None);
        while batch.has_remaining() {
            let len = batch.chunk().len();
            assert_eq!(len, 8);
            batch.advance(len);
        }
    }
}
