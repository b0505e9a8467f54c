//! Ticks in simulated time: who stays connected, who is given up, and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use meshx_dist::link::{Tick, Ticks, Ticktime};

use crate::wire::{Random, each_seed};

/// What one side sends to the other.
#[derive(Clone, Copy, PartialEq)]
enum Sent {
    Tick,
    Data,
}

/// Two nodes and what is on its way between them.
struct Pair {
    ticks: [Ticks; 2],
    steps: [Duration; 2],
    /// To each of them.
    wires: [VecDeque<(Instant, Sent)>; 2],
    written: [Instant; 2],
    /// How many ticks each sent.
    sent: [u32; 2],
    now: Instant,
}

/// How late a timer may be.
const LATE: usize = 50;

impl Pair {
    fn new(times: [Ticktime; 2]) -> Self {
        let now = Instant::now();
        Self {
            ticks: times.map(|time| Ticks::new(time, now)),
            steps: times.map(|time| time.time / time.intensity),
            wires: [VecDeque::new(), VecDeque::new()],
            written: [now; 2],
            sent: [0; 2],
            now,
        }
    }

    fn send(&mut self, side: usize, what: Sent, random: &mut Random) {
        let gap = self.now - self.written[side];
        let late = Duration::from_millis(2 * LATE as u64);
        assert!(gap <= self.steps[side] + late, "nothing written for {gap:?}");
        self.ticks[side].sent(self.now);
        self.written[side] = self.now;
        self.sent[side] += u32::from(what == Sent::Tick);
        let earliest = self.wires[1 - side].back().map_or(self.now, |(at, _)| *at);
        let arrival = self.now + Duration::from_millis(random.below(400) as u64);
        self.wires[1 - side].push_back((arrival.max(earliest), what));
    }

    /// Runs for so long; `data` says how often a side sends something else. Gives who gave up.
    fn run(
        &mut self,
        time: Duration,
        data: [Option<Duration>; 2],
        random: &mut Random,
    ) -> Option<usize> {
        let end = self.now + time;
        let mut next_data = data.map(|every| every.map(|every| self.now + every));
        while self.now < end {
            let mut next = end;
            for side in 0..2 {
                while self.wires[side].front().is_some_and(|(at, _)| *at <= self.now) {
                    match self.wires[side].pop_front().unwrap().1 {
                        Sent::Tick => self.ticks[side].received_tick(self.now),
                        Sent::Data => self.ticks[side].received(self.now),
                    }
                }
                if next_data[side].is_some_and(|at| at <= self.now) {
                    self.send(side, Sent::Data, random);
                    next_data[side] = data[side].map(|every| self.now + every);
                }
                match self.ticks[side].poll(self.now) {
                    Tick::Timeout => return Some(side),
                    Tick::Send => {
                        self.send(side, Sent::Tick, random);
                        next = self.now;
                    }
                    Tick::Wait(until) => {
                        assert!(until > self.now, "a wait that is none");
                        let late = Duration::from_millis(random.below(LATE) as u64);
                        next = next.min(until + late);
                    }
                }
                next = next.min(next_data[side].unwrap_or(end));
            }
            let arrivals = self.wires.iter().filter_map(|wire| wire.front()).map(|(at, _)| *at);
            self.now = arrivals.fold(next, Instant::min).max(self.now);
        }
        None
    }
}

fn seconds(time: u64) -> Ticktime {
    Ticktime { time: Duration::from_secs(time), ..Ticktime::default() }
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn an_idle_pair_stays_connected_at_little_cost() {
    each_seed(4, |random| {
        let mut pair = Pair::new([Ticktime::default(); 2]);
        assert_eq!(pair.run(24 * HOUR, [None; 2], random), None);
        // One in 15 seconds, and no answers to answers.
        for sent in pair.sent {
            assert!((5000..=5800).contains(&sent), "{sent} ticks in a day");
        }
    });
}

#[test]
fn peers_with_different_times_stay_connected() {
    each_seed(20, |random| {
        for times in [[60, 8], [8, 60], [300, 8], [60, 60], [8, 9]] {
            // Nobody sends anything else, or either does, at any rate.
            for talker in [None, Some(0), Some(1)] {
                let every = Duration::from_millis(200 + random.below(20_000) as u64);
                let mut data = [None; 2];
                if let Some(talker) = talker {
                    data[talker] = Some(every);
                }
                let mut pair = Pair::new(times.map(seconds));
                let gave_up = pair.run(HOUR, data, random);
                assert_eq!(gave_up, None, "{times:?}, side {talker:?} talks each {every:?}");
                let most = 3600 / 2 + 10;
                assert!(pair.sent.iter().all(|&sent| sent < most), "{:?}", pair.sent);
            }
        }
    });
}

#[test]
fn a_silent_peer_is_given_up_in_time() {
    each_seed(200, |random| {
        let time = Duration::from_millis(1000 + random.below(120_000) as u64);
        let intensity = 4 + u32::try_from(random.below(20)).unwrap();
        let start = Instant::now();
        let mut ticks = Ticks::new(Ticktime { time, intensity }, start);
        // Something comes for a while, and then nothing any more.
        let mut now = start;
        for _ in 0..random.below(20) {
            now += time.mul_f64(0.09);
            ticks.received(now);
        }
        let last = now;
        let mut sent = 0;
        let given_up = loop {
            match ticks.poll(now) {
                Tick::Wait(until) => now = until + Duration::from_millis(random.below(20) as u64),
                Tick::Send => {
                    sent += 1;
                    ticks.sent(now);
                }
                Tick::Timeout => break now - last,
            }
        };
        assert!(given_up >= time && given_up <= time.mul_f64(1.25), "{given_up:?} of {time:?}");
        assert!(sent <= intensity + 20, "{sent} ticks");
        // It stays given up.
        assert_eq!(ticks.poll(now), Tick::Timeout);
    });
}

#[test]
fn the_second_of_two_unanswered_ticks_is_answered() {
    let start = Instant::now();
    let mut ticks = Ticks::new(Ticktime::default(), start);
    ticks.received_tick(start);
    assert!(matches!(ticks.poll(start), Tick::Wait(_)));
    ticks.received_tick(start);
    assert_eq!(ticks.poll(start), Tick::Send);
    ticks.sent(start);
    assert!(matches!(ticks.poll(start), Tick::Wait(_)));
    // Anything that was written is an answer.
    ticks.received_tick(start);
    ticks.sent(start);
    ticks.received_tick(start);
    assert!(matches!(ticks.poll(start), Tick::Wait(_)));
}

#[test]
fn odd_times_are_put_up_with() {
    let now = Instant::now();
    for (time, intensity) in [(Duration::MAX, 4), (Duration::from_mins(1), 0), (Duration::ZERO, 4)]
    {
        let mut ticks = Ticks::new(Ticktime { time, intensity }, now);
        ticks.received_tick(now);
        ticks.received_tick(now);
        _ = ticks.poll(now);
    }
}
