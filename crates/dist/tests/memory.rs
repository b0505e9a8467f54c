//! How much memory a connection takes: in proportion to what came, whatever was announced, and not
//! for longer than it is needed. One test, as nothing else may run beside it in its process.
#![cfg(target_os = "linux")]

use bytes::{Buf, BufMut, BytesMut};
use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, Event, Limits, Outbox, Receiver};
use meshx_etf::dist::Draft;
use meshx_etf::{Binary, Encoder, Node, Pid, Term};

const MIB: usize = 1 << 20;

fn node(name: &str) -> Node {
    Node::new(name.parse().expect("an atom"), 77)
}

fn receiver(flags: Flags) -> Receiver {
    Receiver::new(flags, node("b@h"), node("a@h"), Limits::default(), BytesMut::new())
}

/// What the process has reserved, and what of it is really there, in bytes.
fn memory() -> (usize, usize) {
    let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let mut pages = text.split_whitespace().map(|field| field.parse::<usize>().expect("a number"));
    let page = 4096;
    (pages.next().expect("size") * page, pages.next().expect("resident") * page)
}

fn send() -> Control {
    let pid = |name| Pid { node: node(name), id: 1, serial: 0 };
    Control::Send { from: Some(pid("a@h")), to: pid("b@h") }
}

/// A message of so many bytes, as it is sent.
fn message(flags: Flags, len: usize) -> Vec<u8> {
    let mut outbox = Outbox::new(flags);
    let mut draft = Draft::new(outbox.form());
    send().write(flags, None, &mut draft).expect("a control message");
    draft.payload(&Term::from(Binary::from(vec![1; len]))).expect("a payload");
    outbox.push(1, &mut draft);
    let (mut batch, mut bytes) = (Batch::new(), Vec::new());
    while !outbox.is_empty() {
        outbox.take(&mut batch);
        bytes.put(&mut batch);
    }
    bytes
}

/// Reads in pieces as a socket gives them; messages are dropped.
fn feed(receiver: &mut Receiver, mut bytes: &[u8]) -> usize {
    let mut messages = 0;
    while bytes.has_remaining() {
        let mut space = receiver.space();
        let count = space.chunk_mut().len().min(bytes.len()).min(100_000);
        space.put_slice(&bytes[..count]);
        bytes.advance(count);
        while let Some(event) = receiver.event().expect("a message") {
            messages += usize::from(matches!(event, Event::Message(_)));
        }
    }
    messages
}

#[test]
fn memory_follows_what_came() {
    let plain = Flags::NODE.without(Flags::DIST_HDR_ATOM_CACHE | Flags::FRAGMENTS);
    let large = (message(plain, 48 * MIB), message(Flags::NODE, 48 * MIB));
    let (start, _) = memory();

    // Lengths, and numbers of fragments, that are only announced.
    let mut announced = receiver(plain);
    feed(&mut announced, &[0x3f, 0xff, 0xff, 0xff, 112, 131]);
    _ = announced.space();
    let mut open = receiver(Flags::NODE);
    let mut control = Vec::new();
    let from = Pid { node: node("a@h"), id: 1, serial: 0 };
    let elements = vec![22.into(), from.clone().into(), from.into()];
    Encoder::new().bare(&Term::Tuple(elements), &mut control).expect("a control message");
    for sequence in 1..=1000_u64 {
        let numbers = [sequence.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
        let body = [&[131, 69][..], &numbers, &[0], &control].concat();
        let len = u32::try_from(body.len()).expect("short").to_be_bytes();
        feed(&mut open, &[&len[..], &body].concat());
        _ = open.space();
    }
    let (reserved, _) = memory();
    assert!(reserved - start < 8 * MIB, "{} for announcements", reserved - start);
    drop((announced, open));

    // A large message is gone when nobody has it any more, though its connection stays.
    let (mut whole, mut fragments) = (receiver(plain), receiver(Flags::NODE));
    let (_, before) = memory();
    for _ in 0..3 {
        assert_eq!(feed(&mut whole, &large.0), 1);
        assert_eq!(feed(&mut fragments, &large.1), 1);
    }
    let (_, after) = memory();
    assert!(after.saturating_sub(before) < 4 * MIB, "{} kept", after - before);
    drop(large);

    // Connections with little to say, both ways.
    let (_, before) = memory();
    let small = message(Flags::NODE, 100);
    let mut idle: Vec<_> =
        (0..300).map(|_| (receiver(Flags::NODE), Outbox::new(Flags::NODE), Batch::new())).collect();
    for _ in 0..2000 {
        for (receiver, outbox, batch) in &mut idle {
            feed(receiver, &[0; 4]);
            outbox.tick();
            outbox.take(batch);
            batch.advance(batch.remaining());
        }
    }
    for (receiver, ..) in &mut idle {
        assert_eq!(feed(receiver, &small), 1);
    }
    let (_, after) = memory();
    let each = (after - before) / idle.len();
    assert!(each < 20 * 1024, "{each} bytes for each idle connection");
}
