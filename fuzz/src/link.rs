//! The target of `meshx-dist` for what travels between connected nodes. `crates/dist/tests/seeds.rs`
//! includes this file.

use bytes::{BufMut, BytesMut};
use meshx_dist::Payload;
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, Event, Limits, Message, Outbox, Receiver};
use meshx_etf::Node;
use meshx_etf::dist::Draft;

const SMALL: usize = 60_000;

/// The bytes of a peer, as a script: the first byte chooses what was negotiated (bits 0 and 1) and
/// into how large pieces the bytes are cut; then a byte below 128 says how many bytes follow, another
/// one how many times 512 bytes of filling belong there. However they are cut, they mean the same;
/// and each message can be written and read again.
pub fn link(data: &[u8]) {
    let Some((&choice, script)) = data.split_first() else { return };
    let plain = Flags::NODE.without(Flags::DIST_HDR_ATOM_CACHE);
    let flags = match choice & 3 {
        0 => Flags::NODE,
        1 => Flags::NODE.without(Flags::FRAGMENTS),
        2 => plain,
        _ => plain.without(Flags::FRAGMENTS),
    };
    let bytes = bytes_of(script);
    let whole = read(flags, &bytes, usize::MAX);
    let pieces = read(flags, &bytes, 7 + 300 * usize::from(choice >> 2));
    let text = |(events, end): &(Vec<Event>, String)| format!("{events:?} {end}");
    assert_eq!(text(&whole), text(&pieces));
    for event in &whole.0 {
        if let Event::Message(message) = event {
            again(message);
        }
    }
}

fn bytes_of(mut script: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some((&control, rest)) = script.split_first() {
        script = rest;
        if control < 128 {
            let (head, tail) = script.split_at(script.len().min(control.into()));
            bytes.extend_from_slice(head);
            script = tail;
        } else {
            // Twice what a message may have is enough to say.
            let len = bytes.len() + usize::from(control - 128) * 512;
            bytes.resize(len.min(2 * SMALL).max(bytes.len()), b'a');
        }
    }
    bytes
}

fn receiver(flags: Flags) -> Receiver {
    let node = |name: &str, creation| Node::new(name.parse().expect("an atom"), creation);
    let mut limits = Limits::default();
    (limits.message, limits.incomplete, limits.held) = (SMALL, 4, 2 * SMALL);
    Receiver::new(flags, node("b@h", 2), node("a@h", 1), limits, BytesMut::new())
}

/// The events, and what ended them.
fn read(flags: Flags, mut bytes: &[u8], piece: usize) -> (Vec<Event>, String) {
    let (mut receiver, mut events) = (receiver(flags), Vec::new());
    loop {
        match receiver.event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) if bytes.is_empty() => return (events, String::new()),
            Ok(None) => {
                let mut space = receiver.space();
                let count = space.chunk_mut().len().min(bytes.len()).min(piece);
                assert!(count > 0, "an empty space looks like the end of a stream");
                space.put_slice(&bytes[..count]);
                bytes = &bytes[count..];
            }
            Err(error) => return (events, error.to_string()),
        }
    }
}

fn again(message: &Message) {
    let flags = Flags::NODE | Flags::ALTACT_SIG;
    let payload = message.payload.as_ref().map(Payload::term);
    // What is no term is not written.
    let Ok(payload) = payload.transpose() else { return };
    let (mut outbox, mut batch) = (Outbox::new(flags), Batch::new());
    let mut draft = Draft::new(outbox.form());
    let wants = message.control.write(flags, None, &mut draft).expect("what was read");
    assert_eq!(wants, payload.is_some());
    if let Some(payload) = &payload {
        draft.payload(payload).expect("what was read");
    }
    outbox.push(1, &mut draft);
    let mut receiver = receiver(flags);
    let mut bytes = Vec::new();
    while !outbox.is_empty() {
        outbox.take(&mut batch);
        bytes.put(&mut batch);
    }
    assert_eq!(outbox.queued(), 0);
    let mut left = &bytes[..];
    loop {
        match receiver.event() {
            Ok(Some(Event::Message(read))) => {
                assert_eq!(read.control, message.control);
                let read = read.payload.map(|payload| payload.term().expect("what was written"));
                return assert_eq!(read, payload);
            }
            Ok(None) if !left.is_empty() => {
                let mut space = receiver.space();
                let count = space.chunk_mut().len().min(left.len());
                space.put_slice(&left[..count]);
                left = &left[count..];
            }
            // As a whole it may be longer than its parts were: then it is not to be read.
            Err(_) if bytes.len() > SMALL => return,
            other => panic!("{other:?}"),
        }
    }
}
