//! The workers of the story E4, and what they count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::e4_squares::SquaresClient;
use super::stage::Stage;
use crate::failure::Failure;

/// So many failures are told in words.
const TOLD: usize = 5;
/// Numbers that are squared, again and again.
const NUMBERS: u32 = 1000;

/// Workers that call as fast as they can.
pub(super) struct Load {
    workers: JoinSet<Tally>,
    signs: Arc<Signs>,
    begun: Instant,
}

/// What workers are told.
#[derive(Debug, Default)]
struct Signs {
    /// Calls that begin now count as after the kill.
    is_after: AtomicBool,
    is_over: AtomicBool,
}

/// What they did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By which instance calls were answered that began before the kill was over, and after that.
    pub(super) before: BTreeMap<String, u64>,
    pub(super) after: BTreeMap<String, u64>,
    pub(super) failed: u64,
    /// The first failures.
    pub(super) failures: Vec<String>,
    pub(super) longest: Duration,
    pub(super) took: Duration,
}

impl Load {
    /// So many workers begin.
    pub(super) fn start(client: &SquaresClient, workers: u32) -> Self {
        let signs = Arc::new(Signs::default());
        let work = |worker| work(client.clone(), worker, Arc::clone(&signs));
        let workers = (0..workers).map(work).collect();
        Self { workers, signs, begun: Instant::now() }
    }

    /// The server is dead.
    pub(super) fn is_after(&self) {
        self.signs.is_after.store(true, Ordering::Release);
    }

    /// Waits for the last answers.
    pub(super) async fn stop(mut self) -> Result<Tally, Failure> {
        self.signs.is_over.store(true, Ordering::Release);
        let mut all = Tally::default();
        while let Some(worker) = self.workers.join_next().await {
            all.add(worker.map_err(|error| Stage::failed(&format!("a worker ended: {error}")))?);
        }
        all.took = self.begun.elapsed();
        Ok(all)
    }
}

async fn work(client: SquaresClient, worker: u32, signs: Arc<Signs>) -> Tally {
    let mut tally = Tally::default();
    let mut number = worker;
    while !signs.is_over.load(Ordering::Acquire) {
        number = (number + 1) % NUMBERS;
        let is_after = signs.is_after.load(Ordering::Acquire);
        let begun = Instant::now();
        let result = client.square(number).await;
        tally.longest = tally.longest.max(begun.elapsed());
        match result {
            Ok(square) if square.value == u64::from(number) * u64::from(number) => {
                tally.count(is_after, square.instance, 1);
            }
            Ok(wrong) => tally.fail(format!("square of {number}: {wrong:?}")),
            Err(error) => tally.fail(error.to_string()),
        }
    }
    tally
}

impl Tally {
    /// Calls that were made.
    pub(super) fn calls(&self) -> u64 {
        self.before.values().chain(self.after.values()).sum::<u64>() + self.failed
    }

    fn count(&mut self, is_after: bool, instance: String, calls: u64) {
        let counts = if is_after { &mut self.after } else { &mut self.before };
        *counts.entry(instance).or_default() += calls;
    }

    fn fail(&mut self, failure: String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(failure);
        }
    }

    fn add(&mut self, other: Self) {
        let Self { before, after, failed, failures, longest, took: _ } = other;
        for (is_after, counts) in [(false, before), (true, after)] {
            for (name, calls) in counts {
                self.count(is_after, name, calls);
            }
        }
        self.failed += failed;
        self.failures.extend(failures);
        self.failures.truncate(TOLD);
        self.longest = self.longest.max(longest);
    }

    /// What is not as it should be: no call fails, both instances answer, and after the kill only the
    /// one that lives.
    pub(super) fn verdict(&self, killed: &str, lives: &str) -> Result<(), String> {
        let of = |counts: &BTreeMap<String, u64>, name| counts.get(name).copied().unwrap_or(0);
        if self.failed > 0 {
            return Err(format!("{} calls failed; {}", self.failed, self.failures.join("; ")));
        }
        for name in [killed, lives] {
            if of(&self.before, name) == 0 {
                return Err(format!("{name} answered no call before the kill"));
            }
        }
        match (of(&self.after, killed), of(&self.after, lives)) {
            (1.., _) => Err(format!("{killed} answered after it was killed")),
            (_, 0) => Err(format!("{lives} answered nothing after the kill")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(before: [u64; 2], after: [u64; 2]) -> Tally {
        let counts = |[one, two]: [u64; 2]| {
            BTreeMap::from([("one".to_owned(), one), ("two".to_owned(), two)])
        };
        Tally { before: counts(before), after: counts(after), ..Tally::default() }
    }

    #[test]
    fn only_what_was_promised_passes() {
        assert_eq!(tally([5, 5], [0, 9]).verdict("one", "two"), Ok(()));
        for wrong in [tally([5, 5], [1, 9]), tally([5, 0], [0, 9]), tally([5, 5], [0, 0])] {
            assert!(wrong.verdict("one", "two").is_err(), "{wrong:?}");
        }
        let mut one = tally([5, 5], [0, 9]);
        one.fail("no answer".to_owned());
        let mut all = Tally::default();
        all.add(one);
        assert_eq!(all.calls(), 20);
        assert!(all.verdict("one", "two").unwrap_err().contains("1 calls failed; no answer"));
    }
}
