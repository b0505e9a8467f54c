//! How long a caller waits.

use std::time::Duration;

use tokio::time::Instant;

use crate::context::Context;
use crate::{Error, Executed, Kind};

/// How long a call may take, all of it together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) begun: Instant,
    pub(crate) until: Instant,
}

impl Patience {
    /// From now on, but §7.8: no longer than what is left of the call that this is a part of.
    pub(crate) fn new(timeout: Duration, above: Option<&Context>) -> Self {
        let begun = Instant::now();
        let own = begun.checked_add(timeout).unwrap_or(begun + Duration::from_hours(24));
        let inherited = above.and_then(Context::deadline);
        Self { begun, until: inherited.map_or(own, |inherited| own.min(inherited)) }
    }

    /// All of it, in whole milliseconds.
    pub(crate) fn whole(self) -> Duration {
        let whole = self.until.saturating_duration_since(self.begun).as_millis();
        Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
    }

    /// What is left of it at some time.
    pub(crate) fn left(self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// §7.8, at the caller: the time is over.
    pub(crate) fn over(self) -> Error {
        let reason = format!("no answer came within {:?}", self.whole());
        Error::new(Kind::Deadline, Executed::Maybe, reason)
    }
}
