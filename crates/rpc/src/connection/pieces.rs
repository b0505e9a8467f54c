//! Bytes to be written, in pieces.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Pieces in their order.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        self.len = self.len.saturating_add(piece.len());
        self.pieces.push_back(piece);
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        self.len = self.len.saturating_add(std::mem::take(&mut other.len));
        self.pieces.append(&mut other.pieces);
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
