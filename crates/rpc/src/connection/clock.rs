//! What a connection looks at from time to time: its peer (§9.1), and whose time is over (§7.8).

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Connection;
use super::client::LOOK;
use super::io::lost;
use crate::proto::v2::{Flags, Type};

/// What a connection looks at from time to time.
pub(super) struct Clock {
    alive: KeepAlive,
    /// When, next.
    pub(super) due: Instant,
}

impl Clock {
    pub(super) fn new(connection: &Connection) -> Self {
        let keep_alive = connection.limits.keep_alive.min(connection.peer_keep_alive);
        let alive = KeepAlive::new(keep_alive);
        Self { due: alive.due, alive }
    }

    /// Whether there are calls now, whose times are looked at, and were not.
    pub(super) fn starts(&mut self, connection: &Connection, now: Instant) -> bool {
        let starts = self.due > now + LOOK && connection.in_flight() > 0;
        if starts {
            self.due = now + LOOK;
            connection.calls.lock().watched = true;
        }
        starts
    }

    pub(super) fn ticks(&mut self, connection: &Connection) {
        let now = Instant::now();
        if self.alive.due <= now {
            self.alive.look(connection);
        }
        self.due = self.alive.due;
        let mut slots = connection.calls.lock();
        slots.watched = slots.used() > 0;
        if slots.watched {
            drop(slots);
            connection.watch_clock(Some(now));
            self.due = self.due.min(now + LOOK);
        }
    }
}

/// §9.1.
struct KeepAlive {
    every: Duration,
    due: Instant,
    heard: u64,
    asked: bool,
}

impl KeepAlive {
    fn new(every: Duration) -> Self {
        Self { every, due: Instant::now() + every, heard: 0, asked: false }
    }

    fn look(&mut self, connection: &Connection) {
        let heard = connection.heard.load(Ordering::Acquire);
        let silent = heard == self.heard;
        if silent && self.asked {
            return connection.close(lost("nothing was heard of the peer for too long"));
        }
        self.asked = silent;
        connection.budget.tidy();
        if silent {
            connection.frame(Type::Ping, Flags::NONE, 0, &[0; 8], &Bytes::new());
        }
        self.heard = heard;
        self.due = Instant::now() + self.every;
    }
}
