//! When a call is made again, and how often at most.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Executed, Kind};

/// When a call that failed is made again. Only if surely no part of it ran, or the call is said to be
/// idempotent; never if the function itself failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// So often at most, besides the first time.
    pub attempts: u32,
    /// The first pause; each is twice the one before, and a random part of that.
    pub pause: Duration,
    /// No pause is longer: a server that asks for more is not called again.
    pub longest: Duration,
    /// All retries of a client together, and its attempts by [`Hedge`](crate::Hedge): this part of its calls,
    /// and ten a second besides.
    pub budget: f64,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(10),
            longest: Duration::from_secs(1),
            budget: 0.2,
        }
    }
}

impl Retries {
    /// Never again.
    pub const NONE: Self =
        Self { attempts: 0, pause: Duration::ZERO, longest: Duration::ZERO, budget: 0.0 };

    /// Whether the same call may be made again.
    pub(crate) fn may(&self, error: &Error, idempotent: bool, made: u32) -> bool {
        let safe = error.executed() == Executed::Never || idempotent;
        // Who is asked to come back later than this waits itself does not come back earlier.
        let soon = error.pause().is_none_or(|pause| pause <= self.longest);
        passes(error.kind()) && safe && soon && made <= self.attempts
    }

    /// How long to wait before the attempt after `made`.
    pub(super) fn pause(&self, error: &Error, made: u32) -> Duration {
        if let Some(pause) = error.pause() {
            return pause;
        }
        // Another connection may be there: the first time costs nothing.
        if made == 1 && matches!(error.kind(), Kind::Transport | Kind::Draining) {
            return Duration::ZERO;
        }
        let doubled = 1_u32.checked_shl(made.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.pause.saturating_mul(doubled).min(self.longest);
        let micros = usize::try_from(longest.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(meshx_rt::random::below(micros.max(1)) as u64)
    }
}

/// Whether it is of the way there, or of the moment: elsewhere, or later, there may be an answer.
pub(super) fn passes(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Transport | Kind::Draining | Kind::Overloaded | Kind::Integrity | Kind::Protocol
    )
}

/// What may be spent on retries.
#[derive(Debug)]
pub(super) struct Budget {
    part: f64,
    /// Calls that are not in `left` yet.
    calls: AtomicU32,
    left: Mutex<(f64, Instant)>,
}

/// Retries a second that are free.
const FREE: f64 = 10.0;
/// What may be saved up.
const MOST: f64 = 100.0;

impl Budget {
    pub(super) fn new(part: f64) -> Self {
        Self { part, calls: AtomicU32::new(0), left: Mutex::new((FREE, Instant::now())) }
    }

    /// A call was made.
    pub(super) fn earn(&self) {
        // It may wrap: so many calls earn what may be saved up many times over.
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more retry is affordable.
    pub(super) fn spend(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = f64::from(self.calls.swap(0, Ordering::Relaxed)) * self.part;
        let passed = now.saturating_duration_since(left.1).as_secs_f64();
        *left = ((left.0 + earned + passed * FREE).min(MOST), now);
        if left.0 < 1.0 {
            return false;
        }
        left.0 -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_did_not_run_is_made_again() {
        let retries = Retries::default();
        let error = |kind, executed| Error::new(kind, executed, "");
        for kind in Kind::ALL {
            let never = retries.may(&error(kind, Executed::Never), false, 1);
            let maybe = retries.may(&error(kind, Executed::Maybe), false, 1);
            let idempotent = retries.may(&error(kind, Executed::Maybe), true, 1);
            let passes = matches!(
                kind,
                Kind::Transport
                    | Kind::Draining
                    | Kind::Overloaded
                    | Kind::Integrity
                    | Kind::Protocol
            );
            assert_eq!((never, maybe, idempotent), (passes, false, passes), "{kind:?}");
        }
        let lost = error(Kind::Transport, Executed::Never);
        assert!(retries.may(&lost, false, 5));
        assert!(!retries.may(&lost, false, 6));
        assert!(!Retries::NONE.may(&lost, true, 1));
        let busy = |pause| error(Kind::Overloaded, Executed::Never).retry_after(pause);
        let longest = retries.longest;
        assert!(retries.may(&busy(longest), false, 1));
        assert_eq!(retries.pause(&busy(longest), 1), longest);
        assert!(!retries.may(&busy(longest + Duration::from_millis(1)), false, 1));
        for made in 1..100 {
            assert!(retries.pause(&lost, made) <= retries.longest);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_part_of_the_calls() {
        let budget = Budget::new(0.2);
        let spent = (0..1000).filter(|_| budget.spend()).count();
        assert_eq!(spent, 10);
        (0..100).for_each(|_| budget.earn());
        let spent = (0..1000).filter(|_| budget.spend()).count();
        assert!((19..=20).contains(&spent), "{spent}");
        tokio::time::advance(Duration::from_secs(1)).await;
        let spent = (0..1000).filter(|_| budget.spend()).count();
        assert!((10..=11).contains(&spent), "{spent}");
    }
}
