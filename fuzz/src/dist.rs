//! Targets of `meshx-dist`. `crates/dist/tests/seeds.rs` includes this file.

use bytes::BytesMut;
use meshx_dist::epmd::front_door::{Lookup, Origin, Target};
use meshx_dist::epmd::{
    AliveReply, DumpReply, KillReply, NamesReply, PortReply, REQUEST_MAX, Request, StopReply,
};
use meshx_dist::handshake::{
    BODY_MAX, Challenge, ChallengeAck, ChallengeReply, Complement, Error, Framing, Observer,
    SendName, Side, Status,
};

/// The bytes that a stranger sends to EPMD's port.
pub fn epmd_request(data: &[u8]) {
    match Request::decode(data) {
        Ok(Some((request, used))) => {
            assert!(used <= data.len() && used <= REQUEST_MAX);
            for cut in 0..used {
                assert_eq!(Request::decode(&data[..cut]), Ok(None), "cut at {cut}");
            }
            let mut again = BytesMut::new();
            request.encode(&mut again).expect("what was decoded can be encoded");
            let length = again.len();
            assert_eq!(Request::decode(&again), Ok(Some((request, length))));
        }
        Ok(None) => assert!(data.len() < REQUEST_MAX, "nobody needs to hold more"),
        Err(_) => {}
    }
}

/// The bytes that a daemon, or somebody in its place, answers.
pub fn epmd_reply(data: &[u8]) {
    let mut again = BytesMut::new();
    match PortReply::decode(data) {
        Ok(Some((reply, used))) => {
            assert!(used <= data.len() && used <= PortReply::MAX);
            reply.encode(&mut again).expect("what was decoded can be encoded");
            assert_eq!(again, data[..used]);
            if let PortReply::Found(alive) = reply {
                if let Ok(Some(origin)) = Origin::parse(&alive.extra) {
                    assert_eq!(origin.to_string().as_bytes(), alive.extra);
                }
                if let Ok(Some(target)) = Target::parse(&alive.extra) {
                    assert_eq!(Target::parse(&target.to_extra()), Ok(Some(target)));
                }
            }
        }
        Ok(None) => assert!(data.len() < PortReply::MAX, "nobody needs to hold more"),
        Err(_) => {}
    }
    if let Ok(Some((reply, used))) = AliveReply::decode(data) {
        again.clear();
        reply.encode(&mut again);
        assert_eq!(again, data[..used]);
    }
    if let Ok(mut names) = NamesReply::decode(data) {
        again.clear();
        names.encode(&mut again).expect("what was decoded can be encoded");
        names.ignored = 0;
        assert_eq!(NamesReply::decode(&again), Ok(names));
    }
    if let Ok(dump) = DumpReply::decode(data) {
        again.clear();
        dump.encode(&mut again).expect("what was decoded can be encoded");
        assert_eq!(DumpReply::decode(&again), Ok(dump));
    }
    drop((KillReply::decode(data), StopReply::decode(data)));
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(lookup) = Lookup::parse(text)
    {
        assert_eq!(Lookup::parse(&lookup.to_string()), Ok(lookup));
    }
}

/// The first frame that a stranger sends to a distribution port, read as each message.
pub fn handshake_name(data: &[u8]) {
    for framing in [Framing::U16, Framing::U32] {
        match framing.split(data) {
            Ok(Some((body, used))) => {
                assert!(body.len() <= BODY_MAX && used == body.len() + framing.prefix());
                every_message(framing, body);
            }
            Ok(None) => assert!(data.len() < BODY_MAX + framing.prefix()),
            Err(_) => {}
        }
    }
    every_message(Framing::U16, data);
}

fn every_message(framing: Framing, body: &[u8]) {
    law(framing, body, SendName::decode, SendName::encode);
    law(framing, body, Status::decode, Status::encode);
    law(framing, body, Challenge::decode, Challenge::encode);
    law(framing, body, Complement::decode, Complement::encode);
    law(framing, body, ChallengeReply::decode, ChallengeReply::encode);
    law(framing, body, ChallengeAck::decode, ChallengeAck::encode);
}

fn law<T: std::fmt::Debug + PartialEq>(
    framing: Framing,
    body: &[u8],
    decode: fn(&[u8]) -> Result<T, Error>,
    encode: fn(&T, Framing, &mut BytesMut) -> Result<(), Error>,
) {
    let Ok(message) = decode(body) else { return };
    let mut frame = BytesMut::new();
    encode(&message, framing, &mut frame).expect("what was decoded can be encoded");
    let (again, used) = framing.split(&frame).expect("a frame").expect("a whole frame");
    assert_eq!(used, frame.len());
    assert!(again.len() <= body.len(), "only a tail is left out");
    assert_eq!(decode(again), Ok(message));
}

/// A conversation. The first byte chooses the framing; then a byte says who speaks (bit 0) and how
/// many bytes follow (the other bits).
pub fn handshake_observer(data: &[u8]) {
    let Some((&framing, data)) = data.split_first() else { return };
    let framing = if framing & 1 == 0 { Framing::U16 } else { Framing::U32 };
    let mut whole = Observer::new(framing);
    let mut bytewise = Observer::new(framing);
    let mut rest = data;
    while let Some((&control, tail)) = rest.split_first() {
        let side = if control & 1 == 0 { Side::Initiator } else { Side::Acceptor };
        let (said, tail) = tail.split_at(tail.len().min(usize::from(control >> 1)));
        rest = tail;
        whole.sent(side, said);
        for byte in said {
            bytewise.sent(side, std::slice::from_ref(byte));
        }
        assert_eq!(whole.stage(), bytewise.stage());
        assert!(whole.buffered() <= 2 * Observer::BUFFER_MAX);
        assert!(!whole.is_finished() || whole.buffered() == 0);
        for closer in [Side::Initiator, Side::Acceptor] {
            let outcome = whole.diagnosis_at_close(closer);
            assert_eq!(outcome, bytewise.diagnosis_at_close(closer));
            assert!(!outcome.to_string().is_empty() && !outcome.token().is_empty());
        }
    }
}
