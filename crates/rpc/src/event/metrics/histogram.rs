//! Times by powers of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a time was at most 2¹⁰, 2¹¹ … 2³⁶ nanoseconds, or more.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// 1.024 µs to 68.7 s, and all above.
const BUCKETS: usize = 28;

/// The smallest bound is two to the power of this.
const FIRST: u32 = 10;

/// The counts at one moment.
pub(super) struct Snapshot {
    /// Bounds in nanoseconds (the last has none), each with the number of times up to it.
    pub(super) cumulative: Vec<(Option<u64>, u64)>,
    /// How many in all.
    pub(super) count: u64,
    /// Nanoseconds in all.
    pub(super) nanos: u64,
}

impl Histogram {
    pub(super) fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // The power of two that is not below it.
        let power = u64::BITS.saturating_sub(nanos.saturating_sub(1).leading_zeros());
        let at = usize::try_from(power.saturating_sub(FIRST)).unwrap_or(usize::MAX);
        if let Some(bucket) = self.buckets.get(at.min(BUCKETS - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Adds what another has counted.
    pub(super) fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.buckets.iter().zip(&other.buckets) {
            ours.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.nanos.fetch_add(other.nanos.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let bounds = (FIRST..).map(|power| Some(1_u64 << power)).take(BUCKETS - 1).chain([None]);
        let mut count = 0_u64;
        let cumulative = bounds
            .zip(&self.buckets)
            .map(|(bound, bucket)| {
                count = count.wrapping_add(bucket.load(Ordering::Relaxed));
                (bound, count)
            })
            .collect();
        Snapshot { cumulative, count, nanos: self.nanos.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The bound of the bucket that a time falls into.
    fn bound(nanos: u64) -> Option<u64> {
        let histogram = Histogram::default();
        histogram.add(Duration::from_nanos(nanos));
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count, snapshot.nanos), (1, nanos));
        snapshot.cumulative.into_iter().find(|(_, count)| *count == 1).unwrap().0
    }

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        for nanos in [0, 1, 1023, 1024] {
            assert_eq!(bound(nanos), Some(1024));
        }
        for power in 10..36 {
            assert_eq!(bound(1 << power), Some(1 << power));
            assert_eq!(bound((1 << power) + 1), Some(2 << power));
        }
        assert_eq!(bound((1 << 36) + 1), None);
        assert_eq!(bound(u64::MAX), None);
    }

    #[test]
    fn two_are_added_up() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.add(Duration::from_nanos(5));
        two.add(Duration::from_nanos(5));
        two.add(Duration::from_secs(100));
        one.absorb(&two);
        let snapshot = one.snapshot();
        assert_eq!((snapshot.count, snapshot.nanos), (3, 100_000_000_010));
        assert_eq!(snapshot.cumulative[0], (Some(1024), 2));
        assert_eq!(snapshot.cumulative[BUCKETS - 1], (None, 3));
    }
}
