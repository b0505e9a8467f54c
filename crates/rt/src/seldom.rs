//! What others bring about as often as they like, and operators are to hear of now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Something that is said a few times in a while, however often there is reason to.
#[derive(Debug)]
pub struct Seldom {
    times: u32,
    every: Duration,
    now: Mutex<Option<While>>,
}

#[derive(Debug)]
struct While {
    since: Instant,
    said: u32,
    unsaid: u64,
}

impl Seldom {
    /// So many times in so long, the first of them being when there is first reason to.
    pub const fn new(times: u32, every: Duration) -> Self {
        Self { times, every, now: Mutex::new(None) }
    }

    /// There is reason to say it. `Some` if it is to be said; then with how often there was reason
    /// before and nothing was said, since it was said last.
    pub fn occurs(&self) -> Option<u64> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || While { since: Instant::now(), said: 0, unsaid: 0 };
        let current = now.get_or_insert_with(begin);
        if current.since.elapsed() >= self.every {
            (current.since, current.said) = (Instant::now(), 0);
        }
        if current.said < self.times {
            current.said = current.said.saturating_add(1);
            return Some(std::mem::take(&mut current.unsaid));
        }
        current.unsaid = current.unsaid.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_a_few_times_in_a_while() {
        let seldom = Seldom::new(2, Duration::from_mins(1));
        assert_eq!((seldom.occurs(), seldom.occurs()), (Some(0), Some(0)));
        for _ in 0..1000 {
            assert_eq!(seldom.occurs(), None);
        }
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!((seldom.occurs(), seldom.occurs()), (Some(1000), Some(0)));
        assert_eq!(seldom.occurs(), None);
    }
}
