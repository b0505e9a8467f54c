//! The handshake with real VMs: our two roles, and the observer in a relay between the two sides.
//! Skipped with a notice where there is no `erl`.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use bytes::BytesMut;
use meshx_dist::handshake::{
    Accepted, Acceptor, Challenge, ChallengeAck, Cookie, Failure, Flags, Form, Framing, Initiator,
    Link, Local, SendName, Side, Status, Verdict, digest,
};
use support::{Epmd, PATIENCE, Relay, Vm, erl_is_here, fill};

const STAY: &str = "ok.";

fn local(name: &str, cookie: &str) -> Local {
    Local { name: name.into(), flags: Flags::NODE, creation: 77, cookie: Cookie::new(cookie) }
}

/// What an initiator met: a link, a failure of the handshake, or the end of the connection.
type Dialled = Result<(Link, TcpStream), Option<Failure>>;

fn dial(port: u16, local: Local, wanted: &str) -> Dialled {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("dial");
    stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
    let mut out = BytesMut::new();
    let mut initiator = Initiator::new(Framing::U16, local, wanted, 0xfeed_beef, &mut out)?;
    loop {
        stream.write_all(&out.split()).map_err(|_| None)?;
        let mut bytes = Vec::new();
        if !fill(&mut stream, &mut bytes) {
            return Err(None);
        }
        if let Some(link) = initiator.received(&bytes, &mut out)? {
            return Ok((link, stream));
        }
    }
}

/// Accepts one connection in a thread; its end closes the connection.
fn accept(local: Local) -> (u16, thread::JoinHandle<Dialled>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    let accepting = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("time limit");
        let mut acceptor = Acceptor::new(Framing::U16, local, 0xfeed_beef);
        let mut out = BytesMut::new();
        loop {
            let mut bytes = Vec::new();
            if !fill(&mut stream, &mut bytes) {
                return Err(None);
            }
            let accepted = acceptor.received(&bytes, &mut out)?;
            if let Accepted::Hello(_) = accepted {
                acceptor.answer(Status::Ok, &mut out)?;
            }
            stream.write_all(&out.split()).map_err(|_| None)?;
            if let Accepted::Up(link) = accepted {
                return Ok((link, stream));
            }
        }
    });
    (port, accepting)
}

/// Connects, sends a message, prints what `connect_node` said, halts.
fn connect_and_halt(peer: &str) -> String {
    format!(
        "R = net_kernel:connect_node('{peer}'), \
         [begin {{nobody, '{peer}'}} ! hello, erlang:nodes(connected), timer:sleep(200) end || R], \
         io:format(\"~p\", [R]), halt()."
    )
}

#[test]
fn we_dial_with_the_right_cookie() {
    if !erl_is_here() {
        return;
    }
    let epmd = Epmd::start();
    let _vm = Vm::start(&epmd, "vm@localhost", "right", STAY);
    let (alive, creation) = epmd.registered("vm");
    let relay = Relay::start(alive.port, "vm@localhost");
    let (link, mut stream) =
        dial(relay.port, local("rust@localhost", "right"), "vm@localhost").expect("a link");
    assert_eq!((link.peer.name.as_str(), link.peer.creation), ("vm@localhost", Some(creation)));
    assert!(link.flags.contains(Flags::MANDATORY_26), "{}", link.flags);
    stream.write_all(&[0; 4]).expect("a tick");
    drop(stream);
    assert_eq!(relay.outcome().verdict, Verdict::Up);
}

#[test]
fn we_dial_with_the_wrong_cookie() {
    if !erl_is_here() {
        return;
    }
    let epmd = Epmd::start();
    let _vm = Vm::start(&epmd, "vm@localhost", "right", STAY);
    let relay = Relay::start(epmd.registered("vm").0.port, "vm@localhost");
    let failure = dial(relay.port, local("rust@localhost", "wrong"), "vm@localhost").unwrap_err();
    assert_eq!(failure, None, "a VM closes without a word");
    let outcome = relay.outcome();
    assert_eq!(outcome.verdict, Verdict::Cookie);
    let sentence = "the cookies of rust@localhost and vm@localhost differ: vm@localhost refused";
    assert_eq!(outcome.to_string(), sentence);
}

#[test]
fn a_vm_dials_us() {
    if !erl_is_here() {
        return;
    }
    for (cookie, printed, verdict) in
        [("right", "true", Verdict::Up), ("wrong", "false", Verdict::Cookie)]
    {
        let (port, accepting) = accept(local("rust@localhost", "right"));
        let relay = Relay::start(port, "rust@localhost");
        let epmd = Epmd::start();
        epmd.redirect("rust", relay.port);
        let expression = connect_and_halt("rust@localhost");
        let output = Vm::start(&epmd, "vm@localhost", cookie, &expression).output();
        assert_eq!(output, printed);
        assert_eq!(relay.outcome().verdict, verdict);
        match accepting.join().expect("acceptor") {
            Ok((link, _)) => assert_eq!(link.peer.name, "vm@localhost"),
            Err(failure) => assert_eq!(failure, Some(Failure::Cookie)),
        }
    }
}

#[test]
fn a_vm_dials_a_vm() {
    if !erl_is_here() {
        return;
    }
    for (cookie, printed, verdict) in
        [("right", "true", Verdict::Up), ("wrong", "false", Verdict::Cookie)]
    {
        let epmd = Epmd::start();
        let _b = Vm::start(&epmd, "b@localhost", "right", STAY);
        let relay = Relay::start(epmd.registered("b").0.port, "b@localhost");
        epmd.redirect("b", relay.port);
        let a = Vm::start(&epmd, "a@localhost", cookie, &connect_and_halt("b@localhost"));
        assert_eq!(a.output(), printed);
        let outcome = relay.outcome();
        assert_eq!(outcome.verdict, verdict);
        assert_eq!(outcome.initiator.as_deref(), Some("a@localhost"));
        assert_eq!(outcome.acceptor.as_deref(), Some("b@localhost"));
    }
}

/// An acceptor that says what it is told, and then listens until the peer closes.
fn puppet(says: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        for words in says {
            fill(&mut stream, &mut Vec::new());
            stream.write_all(&words).expect("send");
        }
        while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {}
    });
    port
}

fn welcome(name: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    Status::Ok.encode(Framing::U16, &mut out).expect("status");
    let challenge = Challenge {
        form: Form::New,
        flags: Flags::NODE,
        challenge: 1,
        creation: 5,
        name: name.into(),
    };
    challenge.encode(Framing::U16, &mut out).expect("challenge");
    out.to_vec()
}

#[test]
fn what_a_vm_does_not_like() {
    if !erl_is_here() {
        return;
    }
    let mut wrong_ack = BytesMut::new();
    let ack = ChallengeAck { digest: digest(b"wrong", 1) };
    ack.encode(Framing::U16, &mut wrong_ack).expect("ack");
    let mut nok = BytesMut::new();
    Status::NotAllowed.encode(Framing::U16, &mut nok).expect("status");
    for (says, verdict) in [
        (vec![welcome("rust@localhost"), wrong_ack.to_vec()], Verdict::Unconfirmed),
        (
            vec![welcome("other@localhost")],
            Verdict::NameMismatch {
                wanted: Some("rust@localhost".into()),
                got: "other@localhost".into(),
            },
        ),
        (vec![nok.to_vec()], Verdict::NotAllowed { missing: Flags::NONE }),
        (vec![], Verdict::Timeout { silent: Side::Acceptor }),
    ] {
        let relay = Relay::start(puppet(says), "rust@localhost");
        let epmd = Epmd::start();
        epmd.redirect("rust", relay.port);
        let expression = connect_and_halt("rust@localhost");
        let output = Vm::start(&epmd, "vm@localhost", "right", &expression).output();
        assert_eq!((output.as_str(), relay.outcome().verdict), ("false", verdict));
    }
}

#[test]
fn what_a_vm_refuses() {
    if !erl_is_here() {
        return;
    }
    let epmd = Epmd::start();
    let allow = "ok = net_kernel:allow(['friend@localhost']).";
    let _strict = Vm::start(&epmd, "strict@localhost", "right", allow);
    let _open = Vm::start(&epmd, "open@localhost", "right", STAY);
    let refused = Err(Some(Failure::Refused(Status::NotAllowed)));

    let relay = Relay::start(epmd.registered("strict").0.port, "strict@localhost");
    thread::sleep(std::time::Duration::from_millis(500)); // the expression runs after registration
    let dialled = dial(relay.port, local("rust@localhost", "right"), "strict@localhost");
    assert_eq!(dialled.map(|_| ()), refused);
    assert_eq!(relay.outcome().verdict, Verdict::NotAllowed { missing: Flags::NONE });

    let relay = Relay::start(epmd.registered("open").0.port, "open@localhost");
    let weak = Local { flags: Flags::UNLINK_ID | Flags::V4_NC, ..local("rust@localhost", "right") };
    assert_eq!(dial(relay.port, weak, "open@localhost").map(|_| ()), refused);
    assert_eq!(relay.outcome().verdict, Verdict::NotAllowed { missing: Flags::MANDATORY_25 });
}

#[test]
fn a_vm_gives_us_a_name() {
    if !erl_is_here() {
        return;
    }
    let epmd = Epmd::start();
    let _vm = Vm::start(&epmd, "vm@localhost", "right", STAY);
    let relay = Relay::start(epmd.registered("vm").0.port, "vm@localhost");
    let nameless = Local { flags: Flags::NODE | Flags::NAME_ME, ..local("localhost", "right") };
    let (link, stream) = dial(relay.port, nameless, "vm@localhost").expect("a link");
    assert!(link.local_name.ends_with("@localhost"), "{}", link.local_name);
    drop(stream);
    assert_eq!(relay.outcome().initiator, Some(link.local_name));
}

#[test]
fn a_second_connection_takes_over() {
    if !erl_is_here() {
        return;
    }
    let epmd = Epmd::start();
    let _vm = Vm::start(&epmd, "vm@localhost", "right", STAY);
    let port = epmd.registered("vm").0.port;
    let (_, mut first) = dial(port, local("rust@localhost", "right"), "vm@localhost").expect("one");
    let relay = Relay::start(port, "vm@localhost");
    let (_, second) =
        dial(relay.port, local("rust@localhost", "right"), "vm@localhost").expect("two");
    // The VM ends the first connection.
    while fill(&mut first, &mut Vec::new()) {}
    drop(second);
    // We sent nothing after the ack.
    assert_eq!(relay.outcome().verdict, Verdict::Unconfirmed);
}

#[test]
fn the_hello_of_a_vm_is_the_one_we_know() {
    if !erl_is_here() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let epmd = Epmd::start();
    epmd.redirect("rust", listener.local_addr().expect("address").port());
    let expression = connect_and_halt("rust@localhost");
    let vm = Vm::start(&epmd, "vm@localhost", "right", &expression);
    let (mut stream, _) = listener.accept().expect("accept");
    let mut bytes = Vec::new();
    let hello = loop {
        assert!(fill(&mut stream, &mut bytes), "a hello");
        if let Some((body, used)) = Framing::U16.split(&bytes).expect("a frame") {
            assert_eq!(used, bytes.len(), "one frame and no more");
            break SendName::decode(body).expect("a hello");
        }
    };
    assert_eq!((hello.form, hello.name.as_str()), (Form::New, "vm@localhost"));
    assert_eq!(hello.creation, epmd.registered("vm").1);
    assert!(hello.flags.missing(Flags::MANDATORY_26).is_empty());
    let mut again = BytesMut::new();
    hello.encode(Framing::U16, &mut again).expect("encode");
    assert_eq!(bytes, again, "byte for byte");
    drop(stream);
    assert_eq!(vm.output(), "false");
}
