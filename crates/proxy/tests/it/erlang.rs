//! Links between Erlang nodes: the hello is checked, the handshake is followed.

use std::time::Duration;

use bytes::BytesMut;
use meshx_core::Action::Deny;
use meshx_dist::handshake::{
    Accepted, Acceptor, BODY_MAX, Cookie, Failure, Flags, Form, Framing, Initiator, Local,
    SendName, Status,
};
use meshx_proxy::{HELLO_LIMIT, Outcome, Protocol, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Door, Mesh, Program, Station, dial, end_of, eventually, is_quiet, skip, talk,
};

/// Two nodes: `a@h1` calls, `b@h2` is called.
struct Scene {
    mesh: Mesh,
    program: Program,
    a: Station,
    b: Station,
    door: Door,
}

impl Scene {
    fn new(caller: &str, program: Program) -> Self {
        let mesh = Mesh::new();
        let b = mesh.station("b@h2", Protocol::Erlang, program.address);
        let a = mesh.caller(caller, Protocol::Erlang);
        let door = a.open("b@h2", Protocol::Erlang, &[b.public]);
        Self { mesh, program, a, b, door }
    }

    fn echo() -> Self {
        Self::new("a@h1", Program::echo())
    }
}

fn hello(name: &str, flags: Flags, form: Form) -> Vec<u8> {
    let creation = if form == Form::Old || flags.contains(Flags::NAME_ME) { 0 } else { 7 };
    let message = SendName { form, flags, creation, name: name.to_owned() };
    let mut out = BytesMut::new();
    message.encode(Framing::U16, &mut out).unwrap();
    out.to_vec()
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

#[tokio::test]
async fn the_hello_of_the_right_node_is_passed_on_whole() {
    for form in [Form::New, Form::Old] {
        let scene = Scene::echo();
        let mut stream = dial(scene.door.local).await;
        let hello = hello("a@h1", Flags::NODE, form);
        // In pieces, as a network may deliver it.
        let (first, rest) = hello.split_at(5);
        stream.write_all(first).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(scene.program.accepted(), 0, "the program is not dialled before the hello");
        stream.write_all(rest).await.unwrap();
        let mut echoed = vec![0; hello.len()];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, hello);
        talk(&mut stream, b"and all that follows").await;
        assert_eq!(scene.b.live(), 1);
    }
}

#[tokio::test]
async fn hellos_that_lie_or_make_no_sense_never_reach_the_node() {
    let body = |name: &str, length: u16| {
        let mut body = vec![b'N'];
        body.extend_from_slice(&Flags::NODE.bits().to_be_bytes());
        body.extend_from_slice(&7_u32.to_be_bytes());
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(name.as_bytes());
        frame(&body)
    };
    let long = u16::try_from(BODY_MAX + 1).unwrap();
    let cases = [
        ("another node", hello("c@h1", Flags::NODE, Form::New), Step::NodeName),
        ("the called node", hello("b@h2", Flags::NODE, Form::New), Step::NodeName),
        ("the same name elsewhere", hello("a@h2", Flags::NODE, Form::New), Step::NodeName),
        ("an old hello of another", hello("c@h1", Flags::NODE, Form::Old), Step::NodeName),
        ("another case", hello("A@h1", Flags::NODE, Form::New), Step::NodeName),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Step::Hello),
        ("empty", frame(b""), Step::Hello),
        ("cut inside", frame(b"N\0\0\0\0\0"), Step::Hello),
        ("a name longer than its frame", body("a@h1", 200), Step::Hello),
        ("no host", body("a", 1), Step::Hello),
        ("a name with a line break", body("a@h1\n", 5), Step::Hello),
        ("too long", [&long.to_be_bytes()[..], &vec![b'N'; BODY_MAX + 1]].concat(), Step::Hello),
        ("announced too long", long.to_be_bytes().to_vec(), Step::Hello),
        ("an EPMD request", b"\x00\x05zb@h2".to_vec(), Step::Hello),
    ];
    for (case, bytes, step) in cases {
        let scene = Scene::echo();
        let mut stream = dial(scene.door.local).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(end_of(&mut stream).await, b"", "{case}");
        let detail = scene.b.refusal(step).await;
        assert_eq!(scene.b.journal.refused(), [(step, 1)], "{case}: {detail}");
        assert_eq!((scene.program.accepted(), scene.b.live()), (0, 0), "{case}");
        let refused =
            scene.b.event(case, |event| matches!(event.outcome, Outcome::Refused { .. })).await;
        assert_eq!(refused.source.as_deref(), Some("a@h1"), "{case}: whom to ask");
    }
}

#[tokio::test]
async fn a_node_that_breaks_off_before_its_hello_never_reaches_the_other() {
    let scene = Scene::echo();
    let mut stream = dial(scene.door.local).await;
    stream.write_all(&hello("a@h1", Flags::NODE, Form::New)[..9]).await.unwrap();
    drop(stream);
    scene.b.refusal(Step::Hello).await;
    assert_eq!(scene.program.accepted(), 0);
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_not_awaited_for_ever() {
    for said in [&b""[..], b"\x00", b"\x00\x15N\x00"] {
        let scene = Scene::echo();
        let mut stream = dial(scene.door.local).await;
        stream.write_all(said).await.unwrap();
        skip(HELLO_LIMIT.checked_sub(Duration::from_secs(1)).unwrap()).await;
        assert!(is_quiet(&stream).await, "too early");
        skip(Duration::from_secs(1)).await;
        assert_eq!(end_of(&mut stream).await, b"");
        let detail = scene.b.refusal(Step::Hello).await;
        assert!(detail.contains("7s"), "{detail}");
        assert_eq!(scene.program.accepted(), 0);
    }
}

#[tokio::test]
async fn a_node_without_a_name_must_come_from_the_host_in_its_certificate() {
    let dynamic = |host| hello(host, Flags::NODE | Flags::NAME_ME, Form::New);
    let scene = Scene::new("rem-1@h1", Program::echo());
    let mut stream = dial(scene.door.local).await;
    let right = dynamic("h1");
    stream.write_all(&right).await.unwrap();
    let mut echoed = vec![0; right.len()];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(echoed, right);

    for (caller, host) in [("rem-1@h1", "h2"), ("rem-1@h1", "h"), ("web", "h1")] {
        let scene = Scene::new(caller, Program::echo());
        let mut stream = dial(scene.door.local).await;
        stream.write_all(&dynamic(host)).await.unwrap();
        assert_eq!(end_of(&mut stream).await, b"");
        scene.b.refusal(Step::NodeName).await;
        assert_eq!(scene.program.accepted(), 0, "{caller} from {host}");
    }
}

#[tokio::test]
async fn a_deny_while_the_hello_is_awaited_closes_the_door() {
    let scene = Scene::echo();
    let mut stream = dial(scene.door.local).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    scene.mesh.decide(&[("a@h1", "b@h2", Deny)]);
    drop(stream.write_all(&hello("a@h1", Flags::NODE, Form::New)).await);
    assert_eq!(end_of(&mut stream).await, b"");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((scene.program.accepted(), scene.b.live()), (0, 0));
    let opened = |event: &meshx_proxy::Event| matches!(event.outcome, Outcome::Opened);
    assert!(!scene.b.journal.events().iter().any(opened));
}

fn local(name: &str, cookie: &str) -> Local {
    Local { name: name.to_owned(), flags: Flags::NODE, creation: 7, cookie: Cookie::new(cookie) }
}

/// The calling node's side of a handshake.
async fn initiate(stream: &mut TcpStream, local: Local, wanted: &str) -> Result<(), String> {
    let mut out = BytesMut::new();
    let mut node = Initiator::new(Framing::U16, local, wanted, 42, &mut out).unwrap();
    loop {
        stream.write_all(&out).await.map_err(|e| e.to_string())?;
        out.clear();
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.map_err(|e| e.to_string())?;
        if count == 0 {
            return Err("closed".to_owned());
        }
        if node.received(&bytes[..count], &mut out).map_err(|e| e.to_string())?.is_some() {
            return Ok(());
        }
    }
}

/// A called node that answers `status` and then goes through with it; after that it echoes.
fn node(name: &'static str, cookie: &'static str, status: Status) -> Program {
    Program::serving(move |mut stream: TcpStream| {
        let status = status.clone();
        async move {
            let mut node = Acceptor::new(Framing::U16, local(name, cookie), 43);
            let mut out = BytesMut::new();
            let mut bytes = [0; 4096];
            let result: Result<(), Failure> = async {
                loop {
                    let count = stream.read(&mut bytes).await.unwrap_or(0);
                    if count == 0 {
                        return Ok(());
                    }
                    let now = node.received(&bytes[..count], &mut out);
                    let now = match now {
                        Ok(Accepted::Hello(_)) => {
                            node.answer(status.clone(), &mut out).map(|()| false)
                        }
                        other => other.map(|accepted| matches!(accepted, Accepted::Up(_))),
                    };
                    drop(stream.write_all(&out).await);
                    out.clear();
                    if now? {
                        let (mut read, mut write) = stream.split();
                        drop(tokio::io::copy(&mut read, &mut write).await);
                        return Ok(());
                    }
                }
            }
            .await;
            // A failure closes without a word, as the VM does.
            drop(result);
        }
    })
}

#[tokio::test]
async fn a_handshake_in_order_is_no_failure() {
    let scene = Scene::new("a@h1", node("b@h2", "secret", Status::Ok));
    let mut stream = dial(scene.door.local).await;
    initiate(&mut stream, local("a@h1", "secret"), "b@h2").await.unwrap();
    talk(&mut stream, b"\0\0\0\x04tick").await;
    assert_eq!((scene.a.live(), scene.b.live()), (1, 1));
    drop(stream);
    eventually("the end", || scene.a.live() == 0 && scene.b.live() == 0).await;
    let closed = |event: &meshx_proxy::Event| matches!(event.outcome, Outcome::Closed { .. });
    scene.a.event("the end is noted", closed).await;
    scene.b.event("the end is noted", closed).await;
    assert!(scene.a.journal.refused().is_empty(), "{:?}", scene.a.journal.refused());
    assert!(scene.b.journal.refused().is_empty(), "{:?}", scene.b.journal.refused());
}

#[tokio::test]
async fn the_calling_side_says_why_the_handshake_failed() {
    let cases = [
        ("cookie", node("b@h2", "other", Status::Ok), Step::Cookie, "cookies"),
        ("not allowed", node("b@h2", "secret", Status::NotAllowed), Step::Handshake, "allow"),
        ("another node", node("c@h2", "secret", Status::Ok), Step::NodeName, "c@h2"),
        (
            "no node",
            Program::serving(async |mut stream: TcpStream| {
                drop(stream.read(&mut [0; 512]).await);
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            }),
            Step::Hello,
            "handshake",
        ),
        (
            "hangs up",
            Program::serving(async |mut stream: TcpStream| {
                drop(stream.read(&mut [0; 512]).await);
            }),
            Step::Handshake,
            "without a reason",
        ),
    ];
    for (case, program, step, word) in cases {
        let scene = Scene::new("a@h1", program);
        let mut stream = dial(scene.door.local).await;
        initiate(&mut stream, local("a@h1", "secret"), "b@h2").await.unwrap_err();
        drop(stream);
        let detail = scene.a.refusal(step).await;
        assert!(detail.contains(word), "{case}: {detail}");
        assert_eq!(scene.a.journal.refused(), [(step, 1)], "{case}");
        assert!(detail.contains("a@h1"), "{case}: {detail}");
    }
}

/// Both dialled each other at once: one attempt is given up, and that is no failure.
#[tokio::test]
async fn a_simultaneous_attempt_is_no_failure() {
    let scene = Scene::new("a@h1", node("b@h2", "secret", Status::Nok));
    let mut stream = dial(scene.door.local).await;
    initiate(&mut stream, local("a@h1", "secret"), "b@h2").await.unwrap_err();
    drop(stream);
    eventually("the end", || {
        let closed = |e: &meshx_proxy::Event| matches!(e.outcome, Outcome::Closed { .. });
        scene.a.journal.events().iter().any(closed)
    })
    .await;
    assert!(scene.a.journal.refused().is_empty(), "{:?}", scene.a.journal.refused());
}
