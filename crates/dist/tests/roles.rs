//! How our two roles fail, and the old form of the hello. Successes are in `laws.rs` and `erl.rs`.

use bytes::BytesMut;
use meshx_dist::handshake::{
    Accepted, Acceptor, Challenge, ChallengeReply, Complement, Cookie, Error, Failure, Flags, Form,
    Framing, Initiator, Link, Local, SendName, Status, digest,
};

const FRAMING: Framing = Framing::U16;
const A: &str = "a@h1";
const B: &str = "b@h2";

fn local(name: &str, flags: Flags) -> Local {
    Local { name: name.into(), flags, creation: 7, cookie: Cookie::new("c") }
}

fn frame(encode: impl FnOnce(Framing, &mut BytesMut) -> Result<(), Error>) -> BytesMut {
    let mut out = BytesMut::new();
    encode(FRAMING, &mut out).expect("a message");
    out
}

/// An initiator that has sent its hello and gets these messages.
fn initiator_gets(
    flags: Flags,
    messages: &[BytesMut],
) -> (Result<Option<Link>, Failure>, BytesMut) {
    let name = if flags.contains(Flags::NAME_ME) { "h1" } else { A };
    let mut out = BytesMut::new();
    let mut initiator =
        Initiator::new(FRAMING, local(name, flags), B, 1, &mut out).expect("a hello");
    out.clear();
    (initiator.received(&messages.concat(), &mut out), out)
}

fn challenge(name: &str, flags: Flags) -> BytesMut {
    let challenge =
        Challenge { form: Form::New, flags, challenge: 2, creation: 5, name: name.into() };
    frame(|framing, out| challenge.encode(framing, out))
}

fn status(status: &Status) -> BytesMut {
    frame(|framing, out| status.encode(framing, out))
}

/// An acceptor that has read this hello.
fn acceptor_of(hello: &SendName) -> (Acceptor, Result<Accepted, Failure>, BytesMut) {
    let mut acceptor = Acceptor::new(FRAMING, local(B, Flags::NODE), 2);
    let mut out = BytesMut::new();
    let accepted = acceptor.received(&frame(|f, o| hello.encode(f, o)), &mut out);
    (acceptor, accepted, out)
}

fn hello(form: Form, flags: Flags) -> SendName {
    SendName { form, flags, creation: 7, name: A.into() }
}

#[test]
fn initiator_refuses() {
    let cases = [
        (vec![status(&Status::Nok)], Failure::Refused(Status::Nok)),
        (vec![status(&Status::NotAllowed)], Failure::Refused(Status::NotAllowed)),
        (vec![status(&Status::AliveAnswer(true))], Failure::Peer(Error::Status)),
        (
            vec![status(&Status::Ok), challenge("c@h2", Flags::NODE)],
            Failure::Name { wanted: B.into(), got: "c@h2".into() },
        ),
        (
            vec![status(&Status::Ok), challenge(B, Flags::MANDATORY_25.without(Flags::MAP_TAG))],
            Failure::Flags { missing: Flags::MAP_TAG },
        ),
        (vec![BytesMut::from(&b"\xff\xff"[..])], Failure::Peer(Error::TooLong { len: 0xffff })),
    ];
    for (messages, failure) in cases {
        let (result, out) = initiator_gets(Flags::NODE, &messages);
        assert_eq!(result.unwrap_err(), failure);
        assert!(out.is_empty(), "no digest for {failure}");
    }
    let (result, _) = initiator_gets(Flags::NODE | Flags::NAME_ME, &[status(&Status::Ok)]);
    assert_eq!(result.unwrap_err(), Failure::NotNamed);
}

#[test]
fn initiator_leaves_a_living_connection_alone_if_told_to() {
    for (take_over, answer) in [(true, b"\x00\x05strue".as_slice()), (false, b"\x00\x06sfalse")] {
        let mut out = BytesMut::new();
        let initiator = Initiator::new(FRAMING, local(A, Flags::NODE), B, 1, &mut out);
        let mut initiator = initiator.expect("a hello").taking_over(take_over);
        out.clear();
        let result = initiator.received(&status(&Status::Alive), &mut out);
        assert_eq!(out, answer);
        if take_over {
            assert!(matches!(result, Ok(None)));
        } else {
            assert_eq!(result.unwrap_err(), Failure::Refused(Status::Alive));
        }
    }
}

#[test]
fn a_failed_initiator_stays_failed() {
    let mut out = BytesMut::new();
    let mut initiator =
        Initiator::new(FRAMING, local(A, Flags::NODE), B, 1, &mut out).expect("a hello");
    assert!(initiator.received(&status(&Status::Nok), &mut out).is_err());
    assert_eq!(initiator.received(&status(&Status::Ok), &mut out).unwrap_err(), Failure::Turn);
}

#[test]
fn acceptor_refuses_a_hello_without_the_flags() {
    // Without the short way to say that they are all there.
    let digest = Flags::MANDATORY_25_DIGEST;
    let missing = Flags::BIG_CREATION | Flags::HANDSHAKE_23;
    for form in [Form::New, Form::Old] {
        let (_, accepted, out) = acceptor_of(&hello(form, Flags::NODE.without(digest | missing)));
        assert_eq!(accepted.unwrap_err(), Failure::Flags { missing });
        assert_eq!(out, status(&Status::NotAllowed));
    }
}

#[test]
fn acceptor_reads_the_old_form_with_its_complement() {
    for flags in [Flags::NODE, Flags::NODE.without(Flags::V4_NC)] {
        let (mut acceptor, accepted, mut out) = acceptor_of(&hello(Form::Old, flags));
        assert!(matches!(accepted, Ok(Accepted::Hello(peer)) if peer.creation.is_none()));
        acceptor.answer(Status::Ok, &mut out).expect("a status");
        out.clear();
        let complement = Complement { flags, creation: 9 };
        let reply = ChallengeReply { challenge: 1, digest: digest(b"c", 2) };
        let mut bytes = frame(|f, o| complement.encode(f, o));
        reply.encode(FRAMING, &mut bytes).expect("a reply");
        bytes.extend_from_slice(b"the link");
        match acceptor.received(&bytes, &mut out) {
            Ok(Accepted::Up(link)) => {
                assert_eq!((link.peer.creation, link.flags), (Some(9), flags));
                assert_eq!(link.surplus, b"the link"[..]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn acceptor_answers_what_was_asked() {
    let named = || Status::Named { name: "x1@h1".into(), creation: 8 };
    let asking = SendName { name: "h1".into(), ..hello(Form::New, Flags::NODE | Flags::NAME_ME) };
    let mut out = BytesMut::new();
    let (mut acceptor, _, _) = acceptor_of(&asking);
    assert_eq!(acceptor.answer(Status::Ok, &mut out), Err(Failure::Turn));
    let (mut acceptor, _, _) = acceptor_of(&hello(Form::New, Flags::NODE));
    assert_eq!(acceptor.answer(named(), &mut out), Err(Failure::Turn));
    assert!(out.is_empty());

    let (mut acceptor, _, _) = acceptor_of(&asking);
    acceptor.answer(named(), &mut out).expect("a name");
    let reply = ChallengeReply { challenge: 1, digest: digest(b"c", 2) };
    let accepted = acceptor.received(&frame(|f, o| reply.encode(f, o)), &mut out);
    assert!(matches!(accepted, Ok(Accepted::Up(link)) if link.peer.name == "x1@h1"));
    assert_eq!(acceptor.answer(Status::Ok, &mut out), Err(Failure::Turn));
}

#[test]
fn acceptor_has_little_patience_while_it_decides() {
    let (mut acceptor, _, mut out) = acceptor_of(&hello(Form::New, Flags::NODE));
    assert!(matches!(acceptor.received(&[0; 2048], &mut out), Ok(Accepted::Pending)));
    let failure = acceptor.received(&[0], &mut out).unwrap_err();
    assert_eq!(failure, Failure::Peer(Error::OutOfTurn));
}

#[test]
fn no_secret_in_debug_output() {
    let (acceptor, _, _) = acceptor_of(&hello(Form::New, Flags::NODE));
    assert!(format!("{acceptor:?}").contains("Cookie(..)"));
}
