//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;
use crate::context::Protocol;
use crate::error::{Error, Kind};
use crate::event::{Amount, Called, Side, Way};

/// Of a function.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) sides: BySide<Calls>,
    /// Casts that nobody waits for and that did not arrive.
    pub(super) lost: Kinds,
}

/// One for us as the client, one for us as the server.
#[derive(Default)]
pub(super) struct BySide<T> {
    client: T,
    server: T,
}

/// Calls of a function.
#[derive(Default)]
pub(super) struct Calls {
    call: Kinds,
    cast: Kinds,
    stream: Kinds,
    /// All but the idling.
    pub(super) total: Histogram,
    phases: [Histogram; PHASES.len()],
    pub(super) sent: Amounts,
    pub(super) received: Amounts,
    repeated: AtomicU64,
}

/// As they are in [`Times`](crate::event::Times), and in that order in `phases`.
const PHASES: [&str; 7] = ["queue", "ser", "send", "exec", "recv", "dser", "idle"];

/// Bytes and blocks.
#[derive(Default)]
pub(super) struct Amounts {
    bytes: AtomicU64,
    blocks: AtomicU64,
}

/// Of connections.
#[derive(Default)]
pub(super) struct Connections {
    v1: AtomicU64,
    v2: AtomicU64,
    erlang: AtomicU64,
    pub(super) handshakes: Histogram,
    pub(super) ended: Kinds,
    pub(super) failures: Kinds,
}

/// How often each thing happened that can: first that it went well, then the kinds of errors.
#[derive(Default)]
pub(super) struct Kinds([AtomicU64; 1 + Kind::ALL.len()]);

impl Counts {
    /// Adds what another has counted.
    pub(super) fn absorb(&self, other: &Self) {
        for side in super::BOTH {
            self.sides.of(side).absorb(other.sides.of(side));
        }
        self.lost.absorb(&other.lost);
    }
}

impl<T> BySide<T> {
    pub(super) fn of(&self, side: Side) -> &T {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

impl Calls {
    pub(super) fn add(&self, called: &Called<'_>) {
        self.way(called.way).add(called.result);
        let times = called.times;
        self.total.add(times.total());
        let phases =
            [times.queue, times.ser, times.send, times.exec, times.recv, times.dser, times.idle];
        for (histogram, time) in self.phases.iter().zip(phases) {
            if !time.is_zero() {
                histogram.add(time);
            }
        }
        self.sent.add(called.sent);
        self.received.add(called.received);
        if called.attempt > 1 {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Way, result and how often, where it happened at all.
    pub(super) fn results(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [Way::Call, Way::Cast, Way::Stream].into_iter().flat_map(|way| {
            self.way(way).counts().map(move |(result, count)| (way.name(), result, count))
        })
    }

    pub(super) fn phases(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        PHASES.into_iter().zip(&self.phases)
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.results().next().is_none()
    }

    fn way(&self, way: Way) -> &Kinds {
        match way {
            Way::Call => &self.call,
            Way::Cast => &self.cast,
            Way::Stream => &self.stream,
        }
    }

    fn absorb(&self, other: &Self) {
        for way in [Way::Call, Way::Cast, Way::Stream] {
            self.way(way).absorb(other.way(way));
        }
        self.total.absorb(&other.total);
        for (ours, theirs) in self.phases.iter().zip(&other.phases) {
            ours.absorb(theirs);
        }
        for (ours, theirs) in [(&self.sent, &other.sent), (&self.received, &other.received)] {
            ours.bytes.fetch_add(theirs.bytes(), Ordering::Relaxed);
            ours.blocks.fetch_add(theirs.blocks(), Ordering::Relaxed);
        }
        self.repeated.fetch_add(other.repeated(), Ordering::Relaxed);
    }
}

impl Amounts {
    fn add(&self, amount: Amount) {
        if amount.bytes > 0 {
            self.bytes.fetch_add(amount.bytes, Ordering::Relaxed);
        }
        if amount.blocks > 0 {
            self.blocks.fetch_add(amount.blocks.into(), Ordering::Relaxed);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }
}

impl Connections {
    pub(super) fn came_up(&self, protocol: Protocol, took: Duration) {
        let count = match protocol {
            Protocol::V1 => &self.v1,
            Protocol::V2 => &self.v2,
            Protocol::Erlang => &self.erlang,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.handshakes.add(took);
    }

    /// Those that came up, by protocol.
    pub(super) fn connected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Self { v1, v2, erlang, .. } = self;
        [(Protocol::V1, v1), (Protocol::V2, v2), (Protocol::Erlang, erlang)]
            .into_iter()
            .map(move |(protocol, it)| (protocol.name(), count(it)))
            .filter(|(_, count)| *count > 0)
    }

    /// Those that did not end. What ends meanwhile is missed rather than counted twice.
    pub(super) fn up(&self) -> u64 {
        let sum = |sum: u64, count: u64| sum.wrapping_add(count);
        let ended = self.ended.counts().map(|(_, count)| count).fold(0, sum);
        let connected = self.connected().map(|(_, count)| count).fold(0, sum);
        connected.saturating_sub(ended)
    }
}

impl Kinds {
    pub(super) fn add(&self, result: Result<(), &Error>) {
        let at = result.map_or_else(|error| place(error.kind()), |()| 0);
        if let Some(count) = self.0.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What happened and how often, where it happened at all.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let tokens = ["ok"].into_iter().chain(Kind::ALL.into_iter().map(Kind::token));
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        tokens.zip(counts).filter(|(_, count)| *count > 0)
    }

    fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.0.iter().zip(&other.0) {
            ours.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Where a kind is counted: numbers are given from 1 on, in the order of [`Kind::ALL`].
fn place(kind: Kind) -> usize {
    usize::from(kind.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(place(kind), at + 1, "{kind:?}");
        }
    }
}
