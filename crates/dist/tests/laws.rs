//! Laws of the codecs and of the observer, over all values and over arbitrary bytes.

use bytes::BytesMut;
use meshx_dist::epmd::front_door::{Family, Lookup, Origin, Target};
use meshx_dist::epmd::{
    Alive, AliveReply, DumpEntry, DumpReply, EXTRA_MAX, Error, KillReply, NamesReply, NodeType,
    PortReply, REQUEST_MAX, Request, StopReply,
};
use meshx_dist::handshake::{
    self, Accepted, Acceptor, BODY_MAX, Challenge, ChallengeAck, ChallengeReply, Complement,
    Cookie, Failure, Flags, Form, Framing, Initiator, Local, Observer, SendName, Side, Stage,
    Status, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn node() -> impl Strategy<Value = String> {
    "[0-9A-Za-z_-]{1,255}"
}

fn host() -> impl Strategy<Value = String> {
    "[0-9A-Za-z_.:-]{1,127}"
}

fn full() -> impl Strategy<Value = String> {
    "[0-9A-Za-z_-]{1,127}@[0-9A-Za-z_.:-]{1,127}"
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Inet), Just(Family::Inet6)]
}

fn alive() -> impl Strategy<Value = Alive> {
    let fixed = (any::<u16>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<u16>());
    (fixed, node(), vec(any::<u8>(), 0..=EXTRA_MAX)).prop_map(|(fixed, name, extra)| {
        let (port, node_type, protocol, highest, lowest) = fixed;
        Alive { port, node_type: NodeType(node_type), protocol, highest, lowest, name, extra }
    })
}

fn lookup() -> impl Strategy<Value = String> {
    prop_oneof![node(), full(), full().prop_map(|name| name + "/inet6")]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        alive().prop_map(Request::Alive),
        lookup().prop_map(|name| Request::PortPlease { name }),
        Just(Request::Names),
        Just(Request::Dump),
        Just(Request::Kill),
        node().prop_map(|name| Request::Stop { name }),
    ]
}

fn entries() -> impl Strategy<Value = Vec<DumpEntry>> {
    let entry = (node(), any::<u16>(), any::<i32>());
    vec(entry.prop_map(|(name, port, fd)| DumpEntry { name, port, fd }), 0..5)
}

fn written(write: impl FnOnce(&mut BytesMut) -> Result<(), Error>) -> BytesMut {
    let mut out = BytesMut::new();
    write(&mut out).expect("a value that is allowed");
    out
}

/// Decodes to the same however much follows, and to nothing as long as a byte is missing.
fn incremental<T: PartialEq + std::fmt::Debug>(
    mut bytes: BytesMut,
    value: T,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Error>,
) {
    let length = bytes.len();
    for cut in 0..length {
        assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut} of {length}");
    }
    bytes.extend_from_slice(b"what follows");
    assert_eq!(decode(&bytes), Ok(Some((value, length))));
}

proptest! {
    #[test]
    fn epmd_requests(request in request()) {
        let bytes = written(|out| request.encode(out));
        prop_assert!(bytes.len() <= REQUEST_MAX);
        incremental(bytes, request, Request::decode);
    }

    #[test]
    fn epmd_alive_replies(alive in alive(), creation in any::<u32>()) {
        for reply in [AliveReply::granted(&alive, creation), AliveReply::refused(&alive)] {
            let mut bytes = BytesMut::new();
            reply.encode(&mut bytes);
            prop_assert!(bytes.len() <= AliveReply::MAX);
            incremental(bytes, reply, AliveReply::decode);
        }
        let granted = AliveReply::granted(&alive, creation).creation();
        prop_assert!(granted.is_ok());
        prop_assert_eq!(AliveReply::refused(&alive).creation(), Err(1));
    }

    #[test]
    fn epmd_port_replies(alive in alive(), result in 1u8..) {
        for reply in [PortReply::Found(alive), PortReply::NotFound { result }] {
            let bytes = written(|out| reply.encode(out));
            prop_assert!(bytes.len() <= PortReply::MAX);
            incremental(bytes, reply, PortReply::decode);
        }
    }

    #[test]
    fn epmd_texts(
        port in any::<u32>(),
        nodes in vec((node(), any::<u16>()), 0..5),
        active in entries(),
        old in entries(),
    ) {
        let names = NamesReply { port, nodes, ignored: 0 };
        prop_assert_eq!(NamesReply::decode(&written(|out| names.encode(out))), Ok(names));
        let dump = DumpReply { port, active, old };
        prop_assert_eq!(DumpReply::decode(&written(|out| dump.encode(out))), Ok(dump));
    }

    #[test]
    fn front_door_fields(
        text in lookup(),
        family in family(),
        host in proptest::option::of(host()),
        address in any::<std::net::IpAddr>(),
    ) {
        prop_assert_eq!(Lookup::parse(&text).expect("a lookup").to_string(), text);
        let origin = Origin { family, host };
        prop_assert_eq!(Origin::parse(origin.to_string().as_bytes()), Ok(Some(origin)));
        prop_assert_eq!(Target::parse(&Target(address).to_extra()), Ok(Some(Target(address))));
    }

    #[test]
    fn epmd_takes_any_bytes(bytes in vec(any::<u8>(), 0..4000)) {
        if Request::decode(&bytes) == Ok(None) {
            prop_assert!(bytes.len() < REQUEST_MAX);
        }
        // With the right beginning, to come further.
        for start in [b"".as_slice(), b"w\0", b"v", b"\x00\x20x", b"\x00\x08z"] {
            let bytes = [start, &bytes].concat();
            drop((Request::decode(&bytes), AliveReply::decode(&bytes), KillReply::decode(&bytes)));
            drop((NamesReply::decode(&bytes), DumpReply::decode(&bytes)));
            drop((StopReply::decode(&bytes), Origin::parse(&bytes), Target::parse(&bytes)));
            if PortReply::decode(&bytes) == Ok(None) {
                prop_assert!(bytes.len() < PortReply::MAX);
            }
        }
    }
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(Framing::U16), Just(Framing::U32)]
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::New), Just(Form::Old)]
}

/// Flags and creation as the form can carry them.
fn said(form: Form, flags: u64, creation: u32) -> (Flags, u32) {
    match form {
        Form::New => (Flags::from_bits(flags), creation),
        Form::Old => (Flags::from_bits(flags & u64::from(u32::MAX)), 0),
    }
}

fn send_name() -> impl Strategy<Value = SendName> {
    (form(), any::<u64>(), any::<u32>(), full()).prop_map(|(form, flags, creation, full)| {
        let (flags, creation) = said(form, flags, creation);
        let hello = SendName { form, flags, creation, name: full };
        if !hello.is_dynamic() {
            return hello;
        }
        let (_, host) = hello.name.split_once('@').expect("a full name");
        SendName { name: host.to_owned(), ..hello }
    })
}

fn challenge() -> impl Strategy<Value = Challenge> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>());
    (form(), numbers, full()).prop_map(|(form, (flags, challenge, creation), name)| {
        let (flags, creation) = said(form, flags, creation);
        Challenge { form, flags, challenge, creation, name }
    })
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Ok),
        Just(Status::OkSimultaneous),
        Just(Status::Nok),
        Just(Status::NotAllowed),
        Just(Status::Alive),
        any::<bool>().prop_map(Status::AliveAnswer),
        (full(), any::<u32>()).prop_map(|(name, creation)| Status::Named { name, creation }),
    ]
}

/// Encodes to one frame, whose body decodes to the same, with a tail if the message may have one.
fn message<T: PartialEq + std::fmt::Debug>(
    framing: Framing,
    value: &T,
    encode: impl Fn(&T, Framing, &mut BytesMut) -> Result<(), handshake::Error>,
    decode: impl Fn(&[u8]) -> Result<T, handshake::Error>,
    tail: bool,
) {
    let mut frame = BytesMut::new();
    encode(value, framing, &mut frame).expect("a value that is allowed");
    for cut in 0..frame.len() {
        assert_eq!(framing.split(&frame[..cut]), Ok(None), "cut at {cut}");
    }
    let (body, used) = framing.split(&frame).expect("a frame").expect("a whole frame");
    assert_eq!(used, frame.len());
    assert_eq!(decode(body).as_ref(), Ok(value));
    let longer = decode(&[body, b"\0tail"].concat());
    assert_eq!(longer.as_ref() == Ok(value), tail, "{longer:?}");
}

proptest! {
    #[test]
    fn handshake_messages(
        framing in framing(),
        name in send_name(),
        status in status(),
        challenge in challenge(),
        (high, number, digest) in (any::<u32>(), any::<u32>(), any::<[u8; 16]>()),
    ) {
        let tail = name.form == Form::New;
        message(framing, &name, SendName::encode, SendName::decode, tail);
        let tail = matches!(status, Status::Named { .. });
        message(framing, &status, Status::encode, Status::decode, tail);
        let tail = challenge.form == Form::New;
        message(framing, &challenge, Challenge::encode, Challenge::decode, tail);
        let complement =
            Complement { flags: Flags::from_bits(u64::from(high) << 32), creation: number };
        message(framing, &complement, Complement::encode, Complement::decode, false);
        let reply = ChallengeReply { challenge: number, digest: digest.into() };
        message(framing, &reply, ChallengeReply::encode, ChallengeReply::decode, false);
        let ack = ChallengeAck { digest: digest.into() };
        message(framing, &ack, ChallengeAck::encode, ChallengeAck::decode, false);
    }

    #[test]
    fn handshake_takes_any_bytes(bytes in vec(any::<u8>(), 0..1500)) {
        for start in [b"".as_slice(), b"N", b"n\0\x05", b"snamed:", b"c", b"r", b"a"] {
            let body = [start, &bytes].concat();
            drop((SendName::decode(&body), Status::decode(&body), Challenge::decode(&body)));
            drop((Complement::decode(&body), ChallengeReply::decode(&body)));
            drop(ChallengeAck::decode(&body));
        }
        for framing in [Framing::U16, Framing::U32] {
            if framing.split(&bytes) == Ok(None) {
                prop_assert!(bytes.len() < BODY_MAX + framing.prefix());
            }
        }
    }

    #[test]
    fn observer_takes_any_bytes_and_keeps_few(
        framing in framing(),
        hello in send_name(),
        chunks in vec((any::<bool>(), vec(any::<u8>(), 0..3000)), 0..20),
        start in any::<bool>(),
    ) {
        let mut observer = Observer::new(framing);
        let mut bytewise = Observer::new(framing);
        if start {
            let mut frame = BytesMut::new();
            hello.encode(framing, &mut frame).expect("a hello");
            observer.sent(Side::Initiator, &frame);
            bytewise.sent(Side::Initiator, &frame);
        }
        for (initiator, chunk) in chunks {
            let side = if initiator { Side::Initiator } else { Side::Acceptor };
            observer.sent(side, &chunk);
            chunk.chunks(1).for_each(|byte| { bytewise.sent(side, byte); });
            prop_assert!(observer.buffered() <= 2 * Observer::BUFFER_MAX);
            prop_assert_eq!(observer.stage(), bytewise.stage());
            for closer in [Side::Initiator, Side::Acceptor] {
                let outcome = observer.diagnosis_at_close(closer);
                prop_assert!(!outcome.to_string().is_empty());
                prop_assert_eq!(outcome, bytewise.diagnosis_at_close(closer));
            }
        }
    }

    /// Our two roles with each other, whatever the pieces in which the bytes travel.
    #[test]
    fn roles_meet(
        framing in framing(),
        (a, b) in (full(), full()),
        cookies in (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20), any::<bool>()),
        challenges in any::<(u32, u32)>(),
        status in prop_oneof![Just(Status::Ok), Just(Status::OkSimultaneous), Just(Status::Alive)],
        piece in 1usize..200,
    ) {
        let (cookie_a, cookie_b) = if cookies.2 { (cookies.0.clone(), cookies.0) } else {
            (cookies.0, cookies.1)
        };
        let same = cookie_a == cookie_b;
        let local = |name: &str, flags, creation, cookie| Local {
            name: name.to_owned(), flags, creation, cookie: Cookie::new(cookie),
        };
        let mut observer = Observer::new(framing).wanting(&b);
        let (mut to_a, mut to_b) = (BytesMut::new(), BytesMut::new());
        let a_local = local(&a, Flags::NODE | Flags::PUBLISHED, 4, cookie_a);
        let mut initiator =
            Initiator::new(framing, a_local, b.clone(), challenges.0, &mut to_b).expect("a hello");
        let b_local = local(&b, Flags::NODE, 5, cookie_b);
        let mut acceptor = Acceptor::new(framing, b_local, challenges.1);
        let (mut link_a, mut link_b) = (None, None);
        let refused = loop {
            prop_assert!(!(to_a.is_empty() && to_b.is_empty()), "both wait");
            let sent = to_b.split_to(to_b.len().min(piece));
            if !sent.is_empty() {
                observer.sent(Side::Initiator, &sent);
                match acceptor.received(&sent, &mut to_a) {
                    Ok(Accepted::Pending) => {}
                    Ok(Accepted::Hello(peer)) => {
                        prop_assert_eq!(peer.name, a.clone());
                        acceptor.answer(status.clone(), &mut to_a).expect("a status");
                    }
                    Ok(Accepted::Up(link)) => link_b = Some(link),
                    Err(failure) => break Some(failure),
                }
            }
            let sent = to_a.split_to(to_a.len().min(piece));
            if !sent.is_empty() {
                observer.sent(Side::Acceptor, &sent);
                link_a = initiator.received(&sent, &mut to_b).expect("no reason to fail");
                if link_a.is_some() {
                    break None;
                }
            }
        };
        if same {
            prop_assert_eq!(refused, None);
            let (link_a, link_b) = (link_a.expect("a link"), link_b.expect("a link"));
            prop_assert_eq!((link_a.peer.name, link_a.peer.creation), (b, Some(5)));
            prop_assert_eq!((link_b.peer.name, link_b.peer.creation), (a, Some(4)));
            prop_assert_eq!((link_a.flags, link_b.flags), (Flags::NODE, Flags::NODE));
            prop_assert_eq!(observer.stage(), &Stage::Up);
        } else {
            prop_assert_eq!(refused, Some(Failure::Cookie));
            prop_assert_eq!(observer.diagnosis_at_close(Side::Acceptor).verdict, Verdict::Cookie);
        }
    }
}
