//! What a bench counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshx_rpc::{Error, Kind};

/// What all callers count together.
#[derive(Debug)]
pub(super) struct Tally {
    /// How many calls took how long: see [`place`].
    times: Vec<AtomicU64>,
    longest: AtomicU64,
    answered: AtomicU64,
    received: AtomicU64,
    failed: [AtomicU64; Kind::ALL.len()],
}

/// Each doubling of the time is so many steps: a time is known to 1.6 %.
const STEPS: u64 = 64;

impl Tally {
    pub(super) fn new() -> Self {
        let places = place(u64::MAX).saturating_add(1);
        Self {
            times: std::iter::repeat_with(AtomicU64::default).take(places).collect(),
            longest: AtomicU64::default(),
            answered: AtomicU64::default(),
            received: AtomicU64::default(),
            failed: Default::default(),
        }
    }

    /// A call has its result, of so many bytes.
    pub(super) fn answered(&self, took: Duration, bytes: usize) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.times.get(place(nanos)) {
            add(count, 1);
        }
        self.longest.fetch_max(nanos, Ordering::Relaxed);
        add(&self.received, bytes as u64);
        add(&self.answered, 1);
    }

    /// A call has none.
    pub(super) fn failed(&self, error: &Error) {
        let kinds = Kind::ALL.iter().zip(&self.failed);
        kinds.filter(|(kind, _)| **kind == error.kind()).for_each(|(_, count)| add(count, 1));
    }

    /// How many have their result.
    pub(super) fn calls(&self) -> u64 {
        get(&self.answered)
    }

    /// Bytes of all results.
    pub(super) fn received(&self) -> u64 {
        get(&self.received)
    }

    /// How many failed, by kind, where any did.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Kind, u64)> {
        let counts = self.failed.iter().map(get);
        Kind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// The time that this part of the calls, in thousandths, did not exceed.
    pub(super) fn time(&self, permille: u64) -> Duration {
        let counts: Vec<u64> = self.times.iter().map(get).collect();
        let all: u64 = counts.iter().sum();
        let wanted = all.saturating_mul(permille).div_ceil(1000).max(1);
        let mut seen = 0_u64;
        for (place, count) in counts.into_iter().enumerate() {
            seen = seen.saturating_add(count);
            if seen >= wanted {
                return Duration::from_nanos(highest(place)).min(self.longest());
            }
        }
        self.longest()
    }

    /// The longest time of a call.
    pub(super) fn longest(&self) -> Duration {
        Duration::from_nanos(get(&self.longest))
    }
}

/// Where a time is counted: exactly up to [`STEPS`] nanoseconds, then in steps that double in width with
/// the time.
fn place(nanos: u64) -> usize {
    let shift = nanos.checked_ilog2().unwrap_or(0).saturating_sub(STEPS.ilog2());
    let place = u64::from(shift) * STEPS + (nanos >> shift);
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// The longest time that is counted there.
fn highest(place: usize) -> u64 {
    let place = u64::try_from(place).unwrap_or(u64::MAX);
    let shift = (place / STEPS).saturating_sub(1);
    let step = place - shift * STEPS;
    let next = u128::from(step + 1) << shift;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use meshx_rpc::Executed;

    use super::*;

    #[test]
    fn a_time_is_known_to_its_64th_part() {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        for nanos in (0..100_000).chain(powers).chain([u64::MAX]) {
            let highest = highest(place(nanos));
            assert!(highest >= nanos && highest - nanos <= nanos / 64, "{nanos}: {highest}");
        }
        for nanos in 1..100_000 {
            let step = place(nanos) - place(nanos - 1);
            assert!(step <= 1, "no place is left out: {nanos}");
        }
    }

    #[test]
    fn times_are_those_of_parts_of_the_calls() {
        let tally = Tally::new();
        assert_eq!((tally.time(500), tally.longest()), (Duration::ZERO, Duration::ZERO));
        for micros in 1..=1000 {
            tally.answered(Duration::from_micros(micros), 3);
        }
        for (permille, micros) in [(0, 1), (500, 500), (990, 990), (999, 999), (1000, 1000)] {
            let (time, exact) = (tally.time(permille), Duration::from_micros(micros));
            assert!(time >= exact && time <= exact + exact / 64, "{permille}: {time:?}");
        }
        assert_eq!(tally.longest(), Duration::from_millis(1));
        assert_eq!((tally.calls(), tally.received()), (1000, 3000));
        for kind in [Kind::Overloaded, Kind::Deadline, Kind::Overloaded] {
            tally.failed(&Error::new(kind, Executed::Never, ""));
        }
        let failures: Vec<_> = tally.failures().collect();
        assert_eq!(failures, [(Kind::Deadline, 1), (Kind::Overloaded, 2)]);
    }
}
