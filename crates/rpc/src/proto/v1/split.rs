//! How much of a message goes into which block.

use std::ops::Range;

/// The pieces of a message, in the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    len: usize,
    first: usize,
    other: usize,
    count: usize,
}

/// The blocks have no room for anything but their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("blocks of {block_size} bytes have no room behind a header of {header}")]
pub struct TooSmall {
    /// How long a header is.
    pub header: u64,
    /// How long a block may be.
    pub block_size: u64,
}

/// Cuts `len` bytes for blocks of `block_size` bytes, whose headers are so long.
///
/// The sizes are those of the Elixir package. Where its formula gives a piece of nothing or less
/// (there the Elixir program fails), the pieces are as large as they can be.
pub fn split(len: usize, first: u64, other: u64, block_size: u64) -> Result<Split, TooSmall> {
    let header = first.max(other);
    if header >= block_size {
        return Err(TooSmall { header, block_size });
    }
    let room =
        |header: u64| usize::try_from(block_size.saturating_sub(header)).unwrap_or(usize::MAX);
    let (first_room, other_room) = (room(first), room(other));
    if len <= first_room {
        return Ok(Split { len, first: len, other: 1, count: 1 });
    }
    let greedy = Split {
        len,
        first: first_room,
        other: other_room,
        count: len.saturating_sub(first_room).div_ceil(other_room).saturating_add(1),
    };
    // At least as many as if all blocks had the header of the later ones.
    let count = greedy.count.max(len.div_ceil(other_room));
    let even = even(len, count, i128::from(first).saturating_sub(i128::from(other)));
    Ok(even.unwrap_or(greedy))
}

/// Pieces so that all blocks are about as long; `excess` is how much longer the first header is.
fn even(len: usize, count: usize, excess: i128) -> Option<Split> {
    let (whole, pieces) = (i128::try_from(len).ok()?, i128::try_from(count).ok()?);
    let (base, share) = (ceil(whole, pieces)?, ceil(excess, pieces)?);
    let first = base.checked_sub(excess)?.checked_add(share)?;
    let other = base.checked_add(share)?;
    let between = other.checked_mul(pieces.checked_sub(2)?)?;
    let last = whole.checked_sub(first)?.checked_sub(between)?;
    if first < 1 || other < 1 || last < 1 || last > other {
        return None;
    }
    let (first, other) = (usize::try_from(first).ok()?, usize::try_from(other).ok()?);
    Some(Split { len, first, other, count })
}

/// Division, rounded up also below zero.
fn ceil(what: i128, by: i128) -> Option<i128> {
    let rest = what.checked_rem_euclid(by)?;
    what.checked_div_euclid(by)?.checked_add(i128::from(rest > 0))
}

impl Split {
    /// How many pieces.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the pieces are, by their number from 1 on, in the order in which they are sent: the last
    /// one first.
    pub fn pieces(self) -> impl Iterator<Item = (usize, Range<usize>)> {
        (1..=self.count).rev().map(move |number| {
            let begin = number.saturating_sub(2).saturating_mul(self.other);
            let begin = if number == 1 { 0 } else { self.first.saturating_add(begin) };
            let len = if number == 1 { self.first } else { self.other };
            (number, begin.min(self.len)..begin.saturating_add(len).min(self.len))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths(len: usize, first: u64, other: u64, block_size: u64) -> Vec<usize> {
        let mut lengths: Vec<_> = split(len, first, other, block_size)
            .unwrap()
            .pieces()
            .map(|(_, it)| it.len())
            .collect();
        lengths.reverse();
        lengths
    }

    #[test]
    fn sizes_are_those_that_were_recorded() {
        // Requests with a conn_ref of 4 bytes and a name of 4, and their answers.
        assert_eq!(lengths(500, 29, 30, 200), [168, 167, 165]);
        assert_eq!(lengths(500, 23, 30, 200), [172, 165, 163]);
        assert_eq!(lengths(300, 29, 30, 200), [151, 149]);
        assert_eq!(lengths(40_000, 29, 30, 16384), [13335, 13334, 13331]);
        assert_eq!(lengths(171, 29, 30, 200), [171]);
        assert_eq!(lengths(0, 29, 30, 200), [0]);
    }

    #[test]
    fn where_the_formula_fails_the_pieces_are_full() {
        // A name so long that the first block has room for one byte only.
        assert_eq!(lengths(10, 199, 30, 200), [1, 9]);
        assert_eq!(lengths(400, 199, 30, 200), [1, 170, 170, 59]);
    }

    #[test]
    fn headers_without_room_are_an_error() {
        let error = split(1, 200, 30, 200).unwrap_err();
        assert_eq!(error, TooSmall { header: 200, block_size: 200 });
        assert_eq!(split(0, 20, 300, 200).unwrap_err().header, 300);
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole(
            len in 0_usize..100_000,
            first in 19_u64..500,
            other in 26_u64..300,
            block_size in 200_u64..20_000,
        ) {
            let Ok(split) = split(len, first, other, block_size) else {
                prop_assert!(first.max(other) >= block_size);
                return Ok(());
            };
            let mut end = len;
            let mut expected = split.count();
            for (number, piece) in split.pieces() {
                prop_assert_eq!(number, expected);
                prop_assert_eq!(piece.end, end);
                prop_assert!(len == 0 || !piece.is_empty());
                // The Elixir package may exceed the size by one byte.
                let header = if number == 1 { first } else { other };
                prop_assert!(piece.len() as u64 + header <= block_size + 1);
                (end, expected) = (piece.start, expected - 1);
            }
            prop_assert_eq!((end, expected), (0, 0));
        }
    }
}
