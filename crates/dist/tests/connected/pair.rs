//! Two nodes on a simulated wire, both sending: nothing is lost, doubled, or out of its order.

use std::collections::{HashMap, VecDeque};

use bytes::{Buf, BytesMut};
use meshx_dist::control::{Control, Target};
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, Limits, Outbox, Receiver};
use meshx_etf::{Binary, Node, Pid, Term};

use crate::common::{Seen, draft, feed, flag_sets, own, peer, pid, reference};
use crate::wire::{Random, Wire, each_seed};

/// One node: what it has sent is expected at the other one.
struct End {
    node: Node,
    flags: Flags,
    outbox: Outbox,
    batch: Batch,
    receiver: Receiver,
    expected: HashMap<u32, VecDeque<(Control, Option<Term>)>>,
    ticks: usize,
    numbers: i64,
}

struct Pair {
    ends: [End; 2],
    /// From each of them.
    wires: [Wire; 2],
    now: u64,
}

impl End {
    fn new(flags: Flags, node: Node, other: Node) -> Self {
        let receiver =
            Receiver::new(flags, node.clone(), other, Limits::default(), BytesMut::new());
        Self {
            node,
            flags,
            outbox: Outbox::new(flags),
            batch: Batch::new(),
            receiver,
            expected: HashMap::new(),
            ticks: 0,
            numbers: 0,
        }
    }

    fn sender(&self, id: u32) -> Pid {
        pid(self.node.clone(), id)
    }

    /// Sends something of this sender, whose pid is its first element or is in the control message.
    fn send(&mut self, id: u32, content: Term, random: &mut Random) {
        let from = self.sender(id);
        let to = pid(if self.node == peer() { own() } else { peer() }, 1);
        self.numbers += 1;
        let payload = Term::Tuple(vec![i64::from(id).into(), self.numbers.into(), content]);
        let control = match random.below(8) {
            0 => Control::Link { from, to },
            1 => Control::Exit { from, to },
            2 => Control::Monitor {
                from,
                to: Target::Name("a_name".parse().unwrap()),
                reference: reference(self.node.clone()),
            },
            3 | 4 => Control::SendName { from, to: "counter".parse().unwrap() },
            _ => {
                Control::Send { from: self.flags.contains(Flags::SEND_SENDER).then_some(from), to }
            }
        };
        self.outbox.push(id.into(), &mut draft(&self.outbox, self.flags, &control, &payload));
        let payload = control.has_payload().then_some(payload);
        self.expected.entry(id).or_default().push_back((control, payload));
    }
}

fn sender_of(control: &Control, payload: Option<&Term>) -> u32 {
    match (control, payload) {
        (Control::Link { from, .. } | Control::Monitor { from, .. }, _) => from.id,
        (_, Some(Term::Tuple(elements))) => elements[0].as_i64().unwrap().try_into().unwrap(),
        other => panic!("{other:?}"),
    }
}

impl Pair {
    fn new(flags: Flags) -> Self {
        let ends = [End::new(flags, peer(), own()), End::new(flags, own(), peer())];
        Self { ends, wires: [Wire::default(), Wire::default()], now: 0 }
    }

    /// A while passes: both write and read, some of it.
    fn step(&mut self, random: &mut Random) {
        self.now += random.below(40) as u64;
        for side in 0..2 {
            self.write(side, random);
            self.read(side, random);
        }
    }

    fn write(&mut self, side: usize, random: &mut Random) {
        let end = &mut self.ends[side];
        if end.batch.remaining() == 0 || random.once_in(4) {
            end.outbox.take(&mut end.batch);
        }
        while end.batch.has_remaining() && self.wires[side].is_writable(self.now) {
            let count = random.size(400_000).min(end.batch.remaining());
            let bytes = end.batch.copy_to_bytes(count);
            self.wires[side].write(self.now, bytes, 200, random);
        }
    }

    fn read(&mut self, side: usize, random: &mut Random) {
        let (arrived, chunk) = (random.size(1 << 20), random.size(100_000));
        let bytes = self.wires[1 - side].read(self.now, arrived);
        let seen = feed(&mut self.ends[side].receiver, &bytes, chunk).unwrap();
        let from = &mut self.ends[1 - side];
        for seen in seen {
            let Seen::Message { control, payload, priority: false } = seen else {
                from.ticks = from.ticks.checked_sub(1).expect("a tick that was sent");
                continue;
            };
            let sender = sender_of(&control, payload.as_ref());
            let expected = from.expected.get_mut(&sender).and_then(VecDeque::pop_front);
            assert!(expected == Some((control, payload)), "not the next of sender {sender}");
        }
    }

    fn settle(&mut self, random: &mut Random) {
        while self.ends.iter().any(|end| !end.outbox.is_empty() || end.batch.has_remaining())
            || self.wires.iter().any(|wire| !wire.is_empty())
        {
            self.step(random);
        }
        for end in &self.ends {
            assert_eq!((end.outbox.queued(), end.ticks), (0, 0));
            assert!(end.expected.values().all(VecDeque::is_empty), "something is missing");
        }
    }
}

/// Anything from nothing to half a megabyte; of bytes that are shared, and of those that are not.
fn content(random: &mut Random) -> Term {
    let size = random.size(500_000);
    match random.below(20) {
        0 => bytes_of(7, size),
        1 => (0..size / 8).map(|n| Term::from(i64::try_from(n).unwrap() << 20)).collect(),
        2 => (0..=size / 6000).map(|_| bytes_of(1, 6000)).collect(),
        3 => Term::Tuple(vec![Term::nil(); size / 5]),
        4..8 => bytes_of(3, size.min(3000)),
        _ => atoms(random),
    }
}

/// A few atoms of several thousand, a few of them long.
fn atoms(random: &mut Random) -> Term {
    let atom = |random: &mut Random| match random.below(6000) {
        long @ ..20 => Term::atom(&format!("{long}{}", "å".repeat(200))),
        number => Term::atom(&format!("atom_{number}")),
    };
    (0..random.below(8)).map(|_| atom(random)).collect()
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    each_seed(16, |random| {
        let sets = flag_sets();
        let mut pair = Pair::new(sets[random.below(sets.len())]);
        for _ in 0..60 {
            for _ in 0..random.below(12) {
                let end = &mut pair.ends[random.below(2)];
                if random.once_in(10) {
                    end.outbox.tick();
                    end.ticks += 1;
                }
                let (id, content) = (u32::try_from(random.below(6)).unwrap(), content(random));
                end.send(id, content, random);
            }
            pair.step(random);
        }
        pair.settle(random);
    });
}

/// Many more atoms than there are slots, so that each slot is given to others again and again.
#[test]
fn caches_agree_for_thousands_of_messages() {
    each_seed(3, |random| {
        let mut pair = Pair::new(Flags::NODE);
        for _ in 0..4000 {
            for side in 0..2 {
                let (id, content) = (u32::try_from(random.below(50)).unwrap(), atoms(random));
                pair.ends[side].send(id, content, random);
            }
            if random.once_in(20) {
                // A large one whose atoms count from its first fragment on.
                let large = vec![atoms(random), bytes_of(1, 200_000), atoms(random)];
                pair.ends[random.below(2)].send(99, Term::Tuple(large), random);
            }
            if random.once_in(10) {
                pair.step(random);
            }
        }
        pair.settle(random);
    });
}

/// What is shared and what is copied makes no difference to how much waits.
#[test]
fn what_waits_is_counted_exactly() {
    each_seed(30, |random| {
        let mut end = End::new(Flags::NODE, peer(), own());
        let mut before = 0;
        for _ in 0..40 {
            let (id, content) = (u32::try_from(random.below(3)).unwrap(), content(random));
            end.send(id, content, random);
            assert!(end.outbox.queued() > before, "a message that takes no room");
            before = end.outbox.queued();
        }
        let mut written = 0;
        while !end.outbox.is_empty() {
            end.outbox.take(&mut end.batch);
            written += end.batch.remaining();
            end.batch.advance(end.batch.remaining());
            assert!(end.outbox.queued() < before);
            before = end.outbox.queued();
        }
        assert_eq!(end.outbox.queued(), 0);
        assert!(written > 0);
    });
}

/// A payload that is a slice of what was read outlives the receiver and what comes after it.
#[test]
fn payloads_are_independent_of_what_follows() {
    let flags = Flags::NODE;
    let mut end = End::new(flags, peer(), own());
    let from = end.sender(1);
    let mut payloads = Vec::new();
    let mut receiver = Receiver::new(flags, own(), peer(), Limits::default(), BytesMut::new());
    for number in 0..2000_i64 {
        let content = Term::Tuple(vec![number.into(), Term::from(Binary::from(vec![5; 300]))]);
        let control = Control::SendName { from: from.clone(), to: "x".parse().unwrap() };
        end.outbox.push(1, &mut draft(&end.outbox, flags, &control, &content));
        end.outbox.take(&mut end.batch);
        let bytes = end.batch.copy_to_bytes(end.batch.remaining());
        bytes::BufMut::put_slice(&mut receiver.space(), &bytes);
        payloads.push((content, crate::common::payload_of(receiver.event().unwrap())));
    }
    drop(receiver);
    for (content, payload) in payloads {
        assert_eq!(payload.term().as_ref(), Ok(&content));
    }
}

fn bytes_of(byte: u8, len: usize) -> Term {
    Term::from(Binary::from(vec![byte; len]))
}
