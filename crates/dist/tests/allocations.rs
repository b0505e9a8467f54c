//! What is read, and sent on to a process, allocates nothing beside the buffers that it is read into.
#![allow(clippy::unwrap_used, reason = "tests")]

use allocation_counter::{AllocationInfo, measure};
use bytes::{Buf, BufMut, BytesMut};
use meshx_dist::Payload;
use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, Event, Limits, Outbox, Receiver};
use meshx_etf::dist::Draft;
use meshx_etf::{Binary, Node, Pid, Term, TermRef, decode_ref, encode, term};

fn node(name: &str) -> Node {
    Node::new(name.parse().unwrap(), 77)
}

fn pid(name: &str) -> Pid {
    Pid { node: node(name), id: 1, serial: 0 }
}

/// A binary of a mebibyte is borrowed, with and without a version byte before it.
#[test]
fn a_borrowed_binary_allocates_nothing() {
    let large = Term::from(Binary::from(vec![1; 1 << 20]));
    let bytes = encode(&large).unwrap();
    let payload = Payload::of(&large).unwrap();
    let decoded = measure(|| {
        let Ok(TermRef::Binary(binary)) = decode_ref(&bytes) else { panic!("a binary") };
        assert_eq!(binary.len(), 1 << 20);
        let Ok(TermRef::Binary(binary)) = payload.term_ref() else { panic!("a binary") };
        assert_eq!(binary.len(), 1 << 20);
    });
    assert_eq!(decoded.count_total, 0, "{decoded:?}");
    // What is owned is counted.
    let owned = measure(|| drop(meshx_etf::decode(&bytes).unwrap()));
    assert!(owned.count_total > 0 && owned.bytes_total >= 1 << 20, "{owned:?}");
}

/// So many messages, one after the other, read as a socket gives them; after as many before them.
fn reading(count: usize, control: &Control) -> AllocationInfo {
    let flags = Flags::NODE;
    let mut outbox = Outbox::new(flags);
    let mut bytes = Vec::new();
    for _ in 0..count * 2 {
        let mut draft = Draft::new(outbox.form());
        control.write(flags, None, &mut draft).unwrap();
        draft.payload(&term!(hello)).unwrap();
        outbox.push(1, &mut draft);
        let mut batch = Batch::new();
        outbox.take(&mut batch);
        bytes.put(&mut batch);
    }
    let limits = Limits::default();
    let mut receiver = Receiver::new(flags, node("b@h"), node("a@h"), limits, BytesMut::new());
    let mut left = &bytes[..];
    let mut read = |wanted: usize| {
        let mut messages = 0;
        while messages < wanted {
            while let Some(event) = receiver.event().unwrap() {
                let Event::Message(message) = event else { panic!("a message") };
                // The process that it is for is found by these.
                assert_eq!(message.control, *control);
                messages += 1;
                if messages == wanted {
                    return;
                }
            }
            let mut space = receiver.space();
            let part = space.chunk_mut().len().min(left.len());
            space.put_slice(&left[..part]);
            left.advance(part);
        }
    };
    read(count);
    measure(|| read(count))
}

#[test]
fn messages_are_routed_without_allocations() {
    const COUNT: usize = 1000;
    let send = Control::Send { from: Some(pid("a@h")), to: pid("b@h") };
    let by_name = Control::SendName { from: pid("a@h"), to: "server".parse().unwrap() };
    for control in [send, by_name] {
        let read = reading(COUNT, &control);
        assert!(read.count_total <= 10, "{COUNT} times {control:?}: {read:?}");
    }
}
