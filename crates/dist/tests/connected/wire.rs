//! A wire in simulated time: it delays, cuts and stalls what two nodes send each other, and loses
//! nothing.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bytes::Bytes;

/// `SplitMix64`: another course for each seed, the same for the same.
pub(crate) struct Random(u64);

/// One direction.
#[derive(Default)]
pub(crate) struct Wire {
    /// When it arrives, and what.
    in_flight: VecDeque<(u64, Bytes)>,
    /// Nothing is taken before.
    stalled: u64,
}

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Mostly small, sometimes up to the limit.
    pub(crate) fn size(&mut self, limit: usize) -> usize {
        let bits = self.below(limit.ilog2() as usize + 1);
        1 + self.below((1 << bits).min(limit))
    }
}

/// Runs with this many seeds, and says which one it was if it fails.
pub(crate) fn each_seed(count: u64, run: impl Fn(&mut Random)) {
    for seed in 0..count {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut Random(seed))));
        if let Err(panic) = outcome {
            eprintln!("with seed {seed}");
            resume_unwind(panic);
        }
    }
}

impl Wire {
    /// Whether a socket would take anything now.
    pub(crate) fn is_writable(&self, now: u64) -> bool {
        now >= self.stalled
    }

    /// Takes bytes, which arrive within so many milliseconds, and perhaps nothing more for a while.
    pub(crate) fn write(&mut self, now: u64, bytes: Bytes, latency: usize, random: &mut Random) {
        let earliest = self.in_flight.back().map_or(now, |(at, _)| *at);
        let arrival = now + random.below(latency) as u64;
        self.in_flight.push_back((arrival.max(earliest), bytes));
        if random.once_in(50) {
            self.stalled = now + random.below(500) as u64;
        }
    }

    /// At most so many of the bytes that have arrived.
    pub(crate) fn read(&mut self, now: u64, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((at, piece)) = self.in_flight.front_mut() {
            if *at > now || bytes.len() == most {
                break;
            }
            let count = piece.len().min(most - bytes.len());
            bytes.extend_from_slice(&piece.split_to(count));
            if piece.is_empty() {
                self.in_flight.pop_front();
            }
        }
        bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}
