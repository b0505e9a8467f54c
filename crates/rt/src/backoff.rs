//! Waiting between tries.

use std::time::Duration;

use crate::random;

/// Exponential backoff with full jitter between half and all of the step.
///
/// ```
/// use std::time::Duration;
/// use meshx_rt::Backoff;
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// for _ in 0..20 {
///     let wait = backoff.step();
///     assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_secs(2));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits of about `first`, then twice that, up to `limit`.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// How long to wait now; the next wait is longer.
    pub fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.limit);
        let half = step / 2;
        half + half.mul_f64(f64::from(random::u32()) / f64::from(u32::MAX))
    }

    /// The last try succeeded: begin again with short waits.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
