//! Two nodes, their flags, and the short way from a message to bytes and back.

use bytes::{Buf, BufMut, BytesMut};
use meshx_dist::Payload;
use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_dist::link::{Batch, Event, Limits, LinkError, Outbox, Receiver};
use meshx_etf::dist::Draft;
use meshx_etf::{Encoder, Node, Pid, Reference, Term};

/// A message as it came, its payload decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Tick,
    Message { control: Control, payload: Option<Term>, priority: bool },
}

pub(crate) fn node(name: &str) -> Node {
    let creation = if name.starts_with('a') { 77 } else { 78 };
    Node::new(name.parse().unwrap(), creation)
}

/// The node whose messages are read.
pub(crate) fn peer() -> Node {
    node("a@host1")
}

/// The node that reads.
pub(crate) fn own() -> Node {
    node("b@host2")
}

pub(crate) fn pid(node: Node, id: u32) -> Pid {
    Pid { node, id, serial: 3 }
}

pub(crate) fn reference(node: Node) -> Reference {
    Reference::new(node, &[1, 2, 3]).unwrap()
}

/// Each form, with and without each flag that changes how control messages are written.
pub(crate) fn flag_sets() -> Vec<Flags> {
    let optional = [Flags::EXIT_PAYLOAD, Flags::SEND_SENDER, Flags::ALTACT_SIG];
    let mut sets = Vec::new();
    for form in forms() {
        for bits in 0..8 {
            let chosen = optional.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 0);
            let without = chosen.fold(Flags::NONE, |all, (_, flag)| all | flag);
            sets.push((form | Flags::ALTACT_SIG).without(without));
        }
    }
    sets
}

/// With an atom cache, with a header only, and without.
pub(crate) fn forms() -> [Flags; 3] {
    let plain = Flags::NODE.without(Flags::DIST_HDR_ATOM_CACHE);
    [Flags::NODE, plain, plain.without(Flags::FRAGMENTS)]
}

pub(crate) fn draft(outbox: &Outbox, flags: Flags, control: &Control, payload: &Term) -> Draft {
    let mut draft = Draft::new(outbox.form());
    if control.write(flags, Some(payload), &mut draft).unwrap() {
        draft.payload(payload).unwrap();
    }
    draft
}

/// Everything that waits, as bytes.
pub(crate) fn drain(outbox: &mut Outbox) -> Vec<u8> {
    let (mut batch, mut bytes) = (Batch::new(), Vec::new());
    while !outbox.is_empty() {
        outbox.take(&mut batch);
        bytes.put(&mut batch);
    }
    assert_eq!((outbox.queued(), batch.remaining()), (0, 0));
    bytes
}

pub(crate) fn receiver(flags: Flags) -> Receiver {
    Receiver::new(flags, own(), peer(), Limits::default(), BytesMut::new())
}

/// Reads as a socket would, in pieces of at most `chunk`.
pub(crate) fn feed(
    receiver: &mut Receiver,
    bytes: &[u8],
    chunk: usize,
) -> Result<Vec<Seen>, LinkError> {
    let (mut left, mut all) = (bytes, Vec::new());
    loop {
        while let Some(event) = receiver.event()? {
            all.push(seen(event));
        }
        if left.is_empty() {
            return Ok(all);
        }
        let mut space = receiver.space();
        let len = space.chunk_mut().len().min(left.len()).min(chunk);
        assert!(len > 0, "an empty space looks like the end of a stream");
        space.put_slice(&left[..len]);
        left = &left[len..];
    }
}

pub(crate) fn seen(event: Event) -> Seen {
    match event {
        Event::Tick => Seen::Tick,
        Event::Message(message) => {
            assert_eq!(message.control.has_payload(), message.payload.is_some());
            let payload = message.payload.map(|payload| payload.term().unwrap());
            Seen::Message { control: message.control, payload, priority: message.priority }
        }
    }
}

/// A frame of a connection without header: a control message, and perhaps a payload.
pub(crate) fn pass_through(control: &Term, payload: Option<&Term>) -> Vec<u8> {
    let mut body = vec![112, 131];
    Encoder::new().bare(control, &mut body).unwrap();
    if let Some(payload) = payload {
        body.push(131);
        Encoder::new().bare(payload, &mut body).unwrap();
    }
    frame(&body)
}

/// A frame of these bytes.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// What a node without header makes of these bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Seen>, LinkError> {
    feed(&mut receiver(forms()[2]), bytes, usize::MAX)
}

/// The bytes of a payload that cannot be decoded are of interest, too.
pub(crate) fn payload_of(event: Option<Event>) -> Payload {
    match event {
        Some(Event::Message(message)) => message.payload.unwrap(),
        other => panic!("{other:?}"),
    }
}
