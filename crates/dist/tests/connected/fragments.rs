//! Large messages among small ones: who waits for whom, and for how much.

use bytes::{Buf, BufMut, BytesMut};
use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, LARGE_AT_ONCE, Limits, Outbox, Receiver};
use meshx_etf::dist::FRAGMENT;
use meshx_etf::{Binary, Term};

use crate::common::{Seen, draft, drain, feed, own, peer, pid, receiver};

/// The most that [`Outbox::take`] gives beside what small messages brought.
const BATCH: usize = 256 * 1024 + FRAGMENT + 100;

fn push(outbox: &mut Outbox, sender: u32, content: &Term) {
    let control = Control::Send { from: Some(pid(peer(), sender)), to: pid(own(), 1) };
    outbox.push(sender.into(), &mut draft(outbox, Flags::NODE, &control, content));
}

fn large(len: usize) -> Term {
    Term::from(Binary::from(vec![9; len]))
}

/// The senders of the messages in these bytes, in the order of their ends.
fn senders(receiver: &mut Receiver, batch: &mut Batch) -> Vec<u32> {
    let mut bytes = Vec::new();
    bytes.put(batch);
    let seen = feed(receiver, &bytes, usize::MAX).unwrap();
    let sender = |seen| match seen {
        Seen::Message { control: Control::Send { from: Some(from), .. }, .. } => from.id,
        other => panic!("{other:?}"),
    };
    seen.into_iter().map(sender).collect()
}

#[test]
fn a_small_message_waits_for_one_batch_at_most() {
    let (mut outbox, mut receiver) = (Outbox::new(Flags::NODE), receiver(Flags::NODE));
    for sender in 1..=3 {
        push(&mut outbox, sender, &large(20 << 20));
    }
    let (mut batch, mut done, mut number) = (Batch::new(), Vec::new(), 1000);
    while !outbox.is_empty() {
        outbox.take(&mut batch);
        assert!(batch.remaining() <= BATCH, "{} bytes at a time", batch.remaining());
        let before = done.len();
        done.extend(senders(&mut receiver, &mut batch));
        // What was pushed while the one before was on its way is in this one, before its fragments.
        assert!(number == 1000 || done[before] == number, "{number} waited for more");
        if done.contains(&1) {
            break;
        }
        number += 1;
        push(&mut outbox, number, &Term::atom("small"));
    }
    assert!(number > 1200, "only {number} in between");
    // They took turns: when the first one is out, the others are nearly.
    let left = outbox.queued();
    assert!(left <= 2 * FRAGMENT + 1000, "{left} bytes are left");
}

/// So many large messages at a time are enough; who sends small ones need not know.
#[test]
fn many_large_messages_hold_up_large_ones_only() {
    const LIMIT: usize = 1 << 20;
    let (mut outbox, mut receiver) = (Outbox::new(Flags::NODE), receiver(Flags::NODE));
    let mut batch = Batch::new();
    let many = u32::try_from(LARGE_AT_ONCE).unwrap();
    for sender in 1..=many {
        assert!(
            !outbox.is_busy(sender.into(), true, LIMIT),
            "{sender} large ones are not too many"
        );
        push(&mut outbox, sender, &large(3 << 20));
        outbox.take(&mut batch);
        senders(&mut receiver, &mut batch);
    }
    let (other, one) = (1000, 64);
    assert!(outbox.is_busy(other, true, LIMIT), "one more large one is too many");
    assert!(!outbox.is_busy(other, false, LIMIT), "a small one waits for large ones");
    assert!(
        outbox.is_busy(one, false, LIMIT),
        "a small one waits behind a large one of its sender"
    );
}

/// However much else there is to send, large messages get on.
#[test]
fn a_large_message_is_not_held_up_by_small_ones() {
    let (mut outbox, mut receiver) = (Outbox::new(Flags::NODE), receiver(Flags::NODE));
    push(&mut outbox, 1, &large(6 << 20));
    let (mut batch, mut rounds) = (Batch::new(), 0);
    loop {
        for _ in 0..150 {
            push(&mut outbox, 2, &large(2000));
        }
        outbox.take(&mut batch);
        rounds += 1;
        if senders(&mut receiver, &mut batch).contains(&1) {
            break;
        }
        assert!(rounds <= 100, "a large message waits for good");
    }
}

#[test]
fn the_messages_of_one_sender_stay_in_order() {
    let (mut outbox, mut receiver) = (Outbox::new(Flags::NODE), receiver(Flags::NODE));
    // Three large ones with small ones behind and between, and another sender's beside them.
    let sizes = [500_000, 10, FRAGMENT + 1, 300_000, 20, FRAGMENT, 30];
    for len in sizes {
        push(&mut outbox, 1, &large(len));
        push(&mut outbox, 2, &large(5));
    }
    let seen = feed(&mut receiver, &drain(&mut outbox), 10_000).unwrap();
    let mut of_first = Vec::new();
    for seen in &seen {
        let Seen::Message { control: Control::Send { from: Some(from), .. }, payload, .. } = seen
        else {
            panic!("{seen:?}");
        };
        let Some(Term::Binary(bytes)) = payload else { panic!("{payload:?}") };
        if from.id == 1 {
            of_first.push(bytes.len());
        }
    }
    assert_eq!((of_first, seen.len()), (sizes.to_vec(), 14));
}

/// The fragments of a VM are those of the documentation: at most 64 KiB of payload in each.
#[test]
fn fragments_have_the_size_that_a_vm_gives_them() {
    for (len, count) in [(FRAGMENT, 1), (FRAGMENT + 1, 2), (2 * FRAGMENT, 2), (3 * FRAGMENT + 1, 4)]
    {
        let mut outbox = Outbox::new(Flags::NODE);
        // The binary has a head of five bytes.
        push(&mut outbox, 1, &large(len - 5));
        let bytes = drain(&mut outbox);
        let (mut left, mut frames) = (&bytes[..], Vec::new());
        while left.has_remaining() {
            let size = left.get_u32() as usize;
            frames.push(&left[..size]);
            left.advance(size);
        }
        assert_eq!(frames.len(), count);
        let kind = |frame: &[u8]| frame[1];
        match &frames[..] {
            [whole] => assert_eq!(kind(whole), 68),
            [first, later @ ..] => {
                assert_eq!((kind(first), &first[10..18]), (69, &(count as u64).to_be_bytes()[..]));
                for (at, frame) in later.iter().enumerate() {
                    let left = (count - 1 - at) as u64;
                    assert_eq!((kind(frame), &frame[10..18]), (70, &left.to_be_bytes()[..]));
                    assert!(frame.len() <= FRAGMENT + 18);
                }
            }
            [] => panic!("nothing"),
        }
    }
}

/// A connection that has no fragments sends a large message in one frame.
#[test]
fn without_fragments_there_are_none() {
    for flags in [Flags::NODE.without(Flags::FRAGMENTS), crate::common::forms()[2]] {
        let mut outbox = Outbox::new(flags);
        push(&mut outbox, 1, &large(300_000));
        let bytes = drain(&mut outbox);
        let size = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
        assert_eq!(size, bytes.len() - 4);
        assert_eq!(feed(&mut receiver(flags), &bytes, 5000).unwrap().len(), 1);
    }
}

/// Whole messages of any size between those in fragments, cut anywhere; the ends of both meet the
/// sizes at which a receiver changes how it reads.
#[test]
fn any_sizes_and_any_cuts() {
    let sizes = [1, 4000, 16_380, 65_500, 65_536, 65_560, 70_000, 131_072, 131_100, 1_000_000];
    for chunk in [1, 7, 4096, 16_384, 65_536, 1 << 20] {
        let (mut outbox, mut receiver) = (Outbox::new(Flags::NODE), receiver(Flags::NODE));
        let plain = Flags::NODE.without(Flags::FRAGMENTS);
        let mut unfragmented = Outbox::new(plain);
        let mut whole = Receiver::new(plain, own(), peer(), Limits::default(), BytesMut::new());
        let sizes = if chunk < 8 { &sizes[..6] } else { &sizes[..] };
        for (sender, &len) in (1..).zip(sizes) {
            push(&mut outbox, sender, &large(len));
            push(&mut unfragmented, sender, &large(len));
            outbox.tick();
        }
        let seen = feed(&mut receiver, &drain(&mut outbox), chunk).unwrap();
        let messages = seen.iter().filter(|it| **it != Seen::Tick).count();
        assert_eq!((messages, seen.len()), (sizes.len(), 2 * sizes.len()));
        let seen = feed(&mut whole, &drain(&mut unfragmented), chunk).unwrap();
        assert_eq!(seen.len(), sizes.len());
    }
}

/// A peer that says little gets little room, one that says much gets much, until it rests.
#[test]
fn room_follows_what_a_peer_says() {
    let mut outbox = Outbox::new(Flags::NODE);
    let mut receiver = receiver(Flags::NODE);
    let room = |receiver: &mut Receiver| receiver.space().remaining_mut();
    for _ in 0..100 {
        push(&mut outbox, 1, &large(100));
        assert_eq!(feed(&mut receiver, &drain(&mut outbox), usize::MAX).unwrap().len(), 1);
        assert!(room(&mut receiver) <= 1024);
    }
    for _ in 0..100 {
        push(&mut outbox, 1, &large(100));
    }
    assert_eq!(feed(&mut receiver, &drain(&mut outbox), usize::MAX).unwrap().len(), 100);
    assert!(room(&mut receiver) >= 32 * 1024);
    receiver.rest();
    assert!(room(&mut receiver) <= 1024);
}
