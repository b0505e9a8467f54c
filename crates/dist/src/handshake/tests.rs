//! Fixed cases of the messages and of the observer. Laws over all values are in `tests/laws.rs`, real
//! peers in `tests/erl.rs`.

use bytes::BytesMut;

use super::*;

const A: &str = "a@h1";
const B: &str = "b@h2";

fn hello(flags: Flags, name: &str) -> SendName {
    SendName { form: Form::New, flags, creation: 0x6b00_1f57, name: name.into() }
}

fn challenge(flags: Flags) -> Challenge {
    Challenge { form: Form::New, flags, challenge: 99, creation: 5, name: B.into() }
}

fn frame(encode: impl FnOnce(Framing, &mut BytesMut) -> Result<(), Error>) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(Framing::U16, &mut out).unwrap();
    out.to_vec()
}

fn body(frame: &[u8]) -> &[u8] {
    let (body, used) = Framing::U16.split(frame).unwrap().unwrap();
    assert_eq!(used, frame.len());
    body
}

/// A conversation, cut after `steps` messages of a handshake without incidents.
struct Talk(Observer);

impl Talk {
    fn new() -> Self {
        Self(Observer::new(Framing::U16).wanting(B))
    }

    fn initiator(mut self, bytes: &[u8]) -> Self {
        self.0.sent(Side::Initiator, bytes);
        self
    }

    fn acceptor(mut self, bytes: &[u8]) -> Self {
        self.0.sent(Side::Acceptor, bytes);
        self
    }

    fn named(self) -> Self {
        self.initiator(&frame(|f, out| hello(Flags::NODE, A).encode(f, out)))
    }

    fn status(self, status: &Status) -> Self {
        self.acceptor(&frame(|f, out| status.encode(f, out)))
    }

    fn challenged(self) -> Self {
        self.acceptor(&frame(|f, out| challenge(Flags::NODE).encode(f, out)))
    }

    fn replied(self) -> Self {
        let reply = ChallengeReply { challenge: 7, digest: digest(b"x", 99) };
        self.initiator(&frame(|f, out| reply.encode(f, out)))
    }

    fn acked(self) -> Self {
        let ack = ChallengeAck { digest: digest(b"x", 7) };
        self.acceptor(&frame(|f, out| ack.encode(f, out)))
    }

    #[track_caller]
    fn closed(&self, by: Side, token: &str, sentence: &str) {
        let outcome = self.0.diagnosis_at_close(by);
        assert_eq!((outcome.token(), outcome.to_string().as_str()), (token, sentence));
    }
}

#[test]
fn hello_has_the_layout_of_the_protocol() {
    let bytes = frame(|f, out| hello(Flags::NODE, A).encode(f, out));
    assert_eq!(bytes, b"\x00\x13N\x00\x00\x00\x0d\x07\xdf\x7f\xbck\x00\x1fW\x00\x04a@h1");
    let mut wide = BytesMut::new();
    hello(Flags::NODE, A).encode(Framing::U32, &mut wide).unwrap();
    assert_eq!(wide[..5], *b"\x00\x00\x00\x13N");

    let old = SendName::decode(b"n\x00\x05\x07\xdf\x7f\xbca@h1").unwrap();
    assert_eq!((old.form, old.flags.bits(), old.creation), (Form::Old, 0x07df_7fbc, 0));
    let version = SendName::decode(b"n\x00\x06\x07\xdf\x7f\xbca@h1");
    assert_eq!(version, Err(Error::Version { message: "name message", version: 6 }));
}

#[test]
fn tails_are_ignored_where_the_protocol_says_so() {
    let tail = |bytes: &[u8]| [body(bytes), b"later"].concat();
    let hello = hello(Flags::NODE, A);
    assert_eq!(SendName::decode(&tail(&frame(|f, o| hello.encode(f, o)))), Ok(hello));
    let challenge = challenge(Flags::NODE);
    assert_eq!(Challenge::decode(&tail(&frame(|f, o| challenge.encode(f, o)))), Ok(challenge));
    let named = Status::Named { name: A.into(), creation: 4 };
    assert_eq!(Status::decode(&tail(&frame(|f, o| named.encode(f, o)))), Ok(named));

    assert_eq!(Status::decode(b"sokay"), Err(Error::Status));
    let ack = ChallengeAck { digest: digest(b"x", 1) };
    let longer = tail(&frame(|f, o| ack.encode(f, o)));
    assert_eq!(ChallengeAck::decode(&longer), Err(Error::Trailing("challenge ack")));
}

#[test]
fn a_name_that_is_asked_for_has_only_a_host() {
    let dynamic = hello(Flags::NODE | Flags::NAME_ME, "h1");
    let bytes = frame(|f, out| dynamic.encode(f, out));
    assert_eq!(SendName::decode(body(&bytes)), Ok(dynamic));
    let mut out = BytesMut::new();
    assert!(hello(Flags::NODE, "h1").encode(Framing::U16, &mut out).is_err());
    assert!(hello(Flags::NAME_ME, A).encode(Framing::U16, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn frames_have_a_bound() {
    assert_eq!(Framing::U16.split(b"\x08\x01"), Err(Error::TooLong { len: 2049 }));
    assert_eq!(Framing::U32.split(b"\xff\xff\xff\xff"), Err(Error::TooLong { len: 0xffff_ffff }));
    assert_eq!(Framing::U32.split(b"\x00\x00\x00\x02a"), Ok(None));
    assert_eq!(Framing::U16.split(b"\x00\x01ab"), Ok(Some((b"a".as_slice(), 3))));
}

#[test]
fn observer_follows_to_the_end_and_then_rests() {
    let talk = Talk::new().named().status(&Status::OkSimultaneous).challenged().replied().acked();
    assert_eq!(talk.0.stage(), &Stage::Up);
    let initiator = talk.0.initiator().unwrap();
    assert_eq!((initiator.name.as_str(), initiator.creation), (A, Some(0x6b00_1f57)));
    let acceptor = talk.0.acceptor().unwrap();
    assert_eq!((acceptor.name.as_str(), acceptor.creation), (B, Some(5)));
    assert_eq!(talk.0.status(), Some(&Status::OkSimultaneous));
    let much = vec![0xff; 100_000];
    let talk = talk.acceptor(&much).initiator(&much);
    assert_eq!((talk.0.stage(), talk.0.buffered()), (&Stage::Up, 0));
    talk.closed(Side::Acceptor, "up", "a@h1 and b@h2 finished the handshake");
}

#[test]
fn both_sides_in_one_read_are_no_trouble() {
    let status = frame(|f, out| Status::Ok.encode(f, out));
    let challenge = frame(|f, out| challenge(Flags::NODE).encode(f, out));
    let talk = Talk::new().named().acceptor(&[status, challenge].concat());
    assert_eq!(talk.0.stage(), &Stage::AwaitReply);
    let ack = frame(|f, out| ChallengeAck { digest: digest(b"x", 7) }.encode(f, out));
    let talk = talk.replied().acceptor(&[ack, vec![0; 9000]].concat());
    assert_eq!((talk.0.stage(), talk.0.buffered()), (&Stage::Up, 0));
}

#[test]
fn cookies_differ() {
    let talk = Talk::new().named().status(&Status::Ok).challenged().replied();
    let sentence = "the cookies of a@h1 and b@h2 differ: b@h2 refused";
    talk.closed(Side::Acceptor, "cookie", sentence);
    let sentence = "b@h2 did not answer in the handshake, and a@h1 gave up waiting";
    talk.closed(Side::Initiator, "timeout", sentence);
}

#[test]
fn silence_after_the_ack() {
    let talk = Talk::new().named().status(&Status::Ok).challenged().replied().acked();
    let sentence = "a@h1 closed after the handshake with b@h2 without a word: it did not use the link, \
                    or it did not accept b@h2's cookie";
    talk.closed(Side::Initiator, "unconfirmed", sentence);
    let talk = talk.initiator(&[0, 0, 0, 0]); // a tick
    talk.closed(Side::Initiator, "up", "a@h1 and b@h2 finished the handshake");
}

#[test]
fn refusals_by_status() {
    let sentence = "b@h2 does not allow a@h1 to connect (net_kernel:allow/1 was called there)";
    Talk::new().named().status(&Status::NotAllowed).closed(Side::Acceptor, "not_allowed", sentence);
    let weak = frame(|f, out| hello(Flags::MANDATORY_25, A).encode(f, out));
    let sentence =
        "b@h2 does not allow a@h1 to connect; it may be too old: it lacks UNLINK_ID V4_NC";
    let talk = Talk::new().initiator(&weak).status(&Status::NotAllowed);
    talk.closed(Side::Acceptor, "not_allowed", sentence);
    let sentence = "a@h1 and b@h2 dialled each other at the same time; the connection that b@h2 \
                    opened goes on";
    Talk::new().named().status(&Status::Nok).closed(Side::Initiator, "nok", sentence);
    let alive = Talk::new().named().status(&Status::Alive);
    assert_eq!(alive.0.stage(), &Stage::AwaitAliveAnswer);
    let alive = alive.initiator(&frame(|f, out| Status::AliveAnswer(false).encode(f, out)));
    let sentence = "b@h2 still had a connection to a@h1, and this one was given up";
    alive.closed(Side::Initiator, "alive", sentence);
}

#[test]
fn alive_and_true_goes_on() {
    let answer = frame(|f, out| Status::AliveAnswer(true).encode(f, out));
    let talk = Talk::new().named().status(&Status::Alive).initiator(&answer).challenged();
    assert_eq!(talk.0.stage(), &Stage::AwaitReply);
    assert_eq!(talk.0.status(), Some(&Status::Alive));
}

#[test]
fn another_node_answers() {
    let other = Challenge { name: "c@h2".into(), ..challenge(Flags::NODE) };
    let other = frame(|f, out| other.encode(f, out));
    let talk = Talk::new().named().status(&Status::Ok).acceptor(&other);
    talk.closed(Side::Initiator, "name_mismatch", "a@h1 dialled b@h2, but c@h2 answered");
    let sentence = "a@h1 did not answer in the handshake, and c@h2 gave up waiting";
    talk.closed(Side::Acceptor, "timeout", sentence);
}

#[test]
fn too_old_an_acceptor() {
    let old = frame(|f, out| challenge(Flags::MANDATORY_25).encode(f, out));
    let talk = Talk::new().named().status(&Status::Ok).acceptor(&old);
    let sentence = "a@h1 gave up: b@h2 is too old, it lacks UNLINK_ID V4_NC";
    talk.closed(Side::Initiator, "flags", sentence);
}

#[test]
fn nothing_after_the_name() {
    let sentence = "b@h2 did not answer in the handshake, and a@h1 gave up waiting";
    Talk::new().named().closed(Side::Initiator, "timeout", sentence);
    let sentence = "b@h2 closed the connection in the middle of the handshake with a@h1, without a \
                    reason";
    Talk::new().named().closed(Side::Acceptor, "closed", sentence);
    let sentence = "the dialling node closed the connection to b@h2 without a hello";
    Talk::new().closed(Side::Initiator, "no_hello", sentence);
}

#[test]
fn old_form_brings_its_complement() {
    let old = SendName { form: Form::Old, ..hello(Flags::NODE, A) };
    let complement = Complement { flags: Flags::NODE, creation: 8 };
    let talk =
        Talk::new().initiator(&frame(|f, out| old.encode(f, out))).status(&Status::Ok).challenged();
    assert_eq!(talk.0.initiator().unwrap().creation, None);
    let talk = talk.initiator(&frame(|f, out| complement.encode(f, out)));
    let initiator = talk.0.initiator().unwrap();
    assert_eq!((initiator.flags, initiator.creation), (Flags::NODE, Some(8)));
    let refused = talk.replied().status(&Status::NotAllowed); // flags judged again (dist_util)
    assert_eq!(refused.0.stage(), &Stage::Refused(Status::NotAllowed));

    let talk = Talk::new().named().status(&Status::Ok).challenged();
    let talk = talk.initiator(&frame(|f, out| complement.encode(f, out)));
    assert!(matches!(talk.0.stage(), Stage::Malformed { by: Side::Initiator, .. }));
}

#[test]
fn a_name_is_given() {
    let asking = frame(|f, out| hello(Flags::NODE | Flags::NAME_ME, "h1").encode(f, out));
    let named = Status::Named { name: "X1Y2@h1".into(), creation: 9 };
    let talk = Talk::new().initiator(&asking).status(&named).challenged();
    assert!(talk.0.is_dynamic());
    let initiator = talk.0.initiator().unwrap();
    assert_eq!((initiator.name.as_str(), initiator.creation), ("X1Y2@h1", Some(9)));
    let talk = Talk::new().initiator(&asking).status(&Status::Ok);
    assert_eq!(talk.0.diagnosis_at_close(Side::Initiator).token(), "not_named");
}

#[test]
fn what_is_no_handshake_goes_quiet() {
    let talk = Talk::new().initiator(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(talk.0.buffered(), 0);
    let sentence = "the dialling node did not speak the distribution handshake with b@h2: a \
                    handshake frame of 18245 bytes; the limit is 2048";
    talk.closed(Side::Acceptor, "malformed", sentence);

    let out_of_turn = Talk::new().acceptor(&[1; 3000]);
    let stage = Stage::Malformed { by: Side::Acceptor, error: Error::OutOfTurn };
    assert_eq!(out_of_turn.0.stage(), &stage);
    // The ack, before the reply that it answers.
    let early = Talk::new().named().status(&Status::Ok).challenged().acked().replied();
    assert_eq!(early.0.stage(), &stage);
    let status_by_initiator = Talk::new().named().acceptor(b"\x00\x05strue");
    let stage = Stage::Malformed { by: Side::Acceptor, error: Error::Status };
    assert_eq!(status_by_initiator.0.stage(), &stage);
}
