//! Is the peer still there, and does it know that we are?

use std::time::{Duration, Instant};

/// How long a silence is too long (`kernel`'s `net_ticktime` and `net_tickintensity`). Each node
/// decides for itself; nothing of it is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticktime {
    /// A peer of which nothing was read for so long is gone; default 60 s.
    pub time: Duration,
    /// How many steps the time has, 4 to 1000; default 4. Something is written at least once a step.
    pub intensity: u32,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Nothing, until then.
    Wait(Instant),
    /// Send an empty frame, say so by [`Ticks::sent`], and ask again.
    Send,
    /// Nothing was read for too long: close.
    Timeout,
}

/// The ticks of one connection.
///
/// Any bytes count as a sign of life, in both directions. Two peers need not have the same time: a
/// tick that comes in while nothing was written since the one before is answered, and one is sent
/// for a step without a sign of life, too, even if other things were written. So the one with the
/// shorter time gets what it asks for at every second of its steps, whoever else is silent.
#[derive(Debug, Clone)]
pub struct Ticks {
    time: Duration,
    step: Duration,
    read: Instant,
    written: Instant,
    /// When the last tick was due.
    asked: Instant,
    /// A tick came and nothing was written since.
    unanswered: bool,
    answer: bool,
}

impl Default for Ticktime {
    fn default() -> Self {
        Self { time: Duration::from_mins(1), intensity: 4 }
    }
}

impl Ticks {
    /// Of a connection that came up now.
    pub fn new(ticktime: Ticktime, now: Instant) -> Self {
        let step = ticktime.time.checked_div(ticktime.intensity.clamp(4, 1000)).unwrap_or_default();
        let step = step.max(Duration::from_millis(1));
        Self {
            time: ticktime.time,
            step,
            read: now,
            written: now,
            asked: now,
            unanswered: false,
            answer: false,
        }
    }

    /// Something was read.
    pub fn received(&mut self, now: Instant) {
        self.read = now;
    }

    /// What was read was a tick.
    pub fn received_tick(&mut self, now: Instant) {
        self.received(now);
        self.answer |= self.unanswered;
        self.unanswered = true;
    }

    /// Something was written, or is being written: a peer that does not read what waits for it would
    /// not read a tick either.
    pub fn sent(&mut self, now: Instant) {
        self.written = now;
        self.unanswered = false;
        self.answer = false;
    }

    /// What to do now. To be asked again after anything else was called.
    pub fn poll(&mut self, now: Instant) -> Tick {
        let given_up = self.read.checked_add(self.time);
        if given_up.is_some_and(|at| now >= at) {
            return Tick::Timeout;
        }
        let since = self.written.min(self.read.max(self.asked));
        let due = since.checked_add(self.step).filter(|_| !self.answer).unwrap_or(now);
        if now >= due {
            self.asked = now;
            return Tick::Send;
        }
        Tick::Wait(given_up.map_or(due, |at| at.min(due)))
    }
}
