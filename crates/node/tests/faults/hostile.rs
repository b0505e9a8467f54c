//! Peers that do not keep to the protocol: only their own connection ends, memory stays small, and the
//! next good peer is let in (D1, D2, D3).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meshx_node::carrier::Switchboard;
use meshx_node::etf::{self, Pid, Reference, Term, term};
use meshx_node::{Builder, Flags, Mailbox, Node, NodeEvent, Payload, RpcTable, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{Claim, dial, frame, is_closed, short_frame};
use crate::{Known, LIMIT, MEMORY, address, builder, next, on, quiet, until};

/// A node under attack, a good peer of it, and a process that is to hear the good one only.
struct Victim {
    node: Node,
    good: Node,
    inbox: Mailbox,
}

impl Victim {
    async fn new(refine: impl FnOnce(Builder) -> Builder) -> Self {
        let known = Known::default();
        let node = refine(builder("victim").carrier(known.tcp())).start().await.unwrap();
        known.add(&node);
        let good = builder("good").carrier(known.tcp()).start().await.unwrap();
        good.connect(node.name()).await.unwrap();
        let inbox = node.mailbox().unwrap();
        inbox.register("inbox").unwrap();
        Self { node, good, inbox }
    }

    async fn dial(&self) -> TcpStream {
        dial(address(&self.node)).await
    }

    async fn enemy(&self) -> TcpStream {
        let stream = Claim::of("enemy").connect(address(&self.node), self.node.name()).await;
        stream.expect("the handshake is right")
    }

    /// The good peer is still connected, and heard, and only it; another good one is let in.
    async fn is_well(&mut self) {
        let sends = self.good.mailbox().unwrap();
        let since = self.good.peers()[0].since;
        sends.send(("inbox", self.node.name().as_str()), "good").await.unwrap();
        let Signal::Message(message) = next(&mut self.inbox).await else { panic!() };
        assert_eq!(message.from.as_ref(), Some(sends.pid()));
        assert_eq!(self.good.peers()[0].since, since, "the same connection");
        let next = Claim::of("next").connect(address(&self.node), self.node.name()).await;
        assert!(next.is_some(), "a good peer is let in");
        drop(next);
    }
}

fn bare(term: &Term) -> Vec<u8> {
    Payload::of(term).unwrap().bytes().to_vec()
}

/// A message in one frame, without atoms in its header.
fn message(control: &[u8], payload: &[u8]) -> Vec<u8> {
    frame(&[&[131, 68, 0], control, payload].concat())
}

fn pid(node: &str, creation: u32) -> Pid {
    let node = etf::Node::new(etf::Atom::new(node).unwrap(), creation);
    Pid { node, id: 7, serial: 0 }
}

fn enemy() -> Pid {
    pid("enemy@127.0.0.1", 77)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_at_every_step_of_the_handshake() {
    let mut victim = Victim::new(|it| it.setup_time(Duration::from_millis(600))).await;
    let hello = good_hello("silent@127.0.0.1");
    let mut silent = Vec::new();
    for said in [0, 1, 2, 10, hello.len() - 1, hello.len()] {
        let mut stream = victim.dial().await;
        stream.write_all(&hello[..said]).await.unwrap();
        silent.push(stream);
    }
    let begun = Instant::now();
    for stream in &mut silent {
        assert!(is_closed(stream, Duration::from_secs(3)).await);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    victim.is_well().await;
}

fn good_hello(name: &str) -> Vec<u8> {
    hello(Flags::NODE.bits(), name.as_bytes())
}

fn hello(flags: u64, name: &[u8]) -> Vec<u8> {
    let mut body = vec![b'N'];
    body.extend(flags.to_be_bytes());
    body.extend(77_u32.to_be_bytes());
    body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    body.extend(name);
    short_frame(&body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_handshakes() {
    let mut victim = Victim::new(|it| it.setup_time(Duration::from_secs(2))).await;
    let long = "x".repeat(300);
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: victim\r\n\r\n".to_vec()),
        ("the longest frame", vec![0xff; 70_000]),
        ("an empty frame", vec![0, 0]),
        ("another tag", short_frame(b"X123456789012345678")),
        ("no flags", hello(0, b"x@127.0.0.1")),
        ("the mandatory flags of OTP 25 only", hello(0x0107_0f94, b"x@127.0.0.1")),
        ("only the bit of the documentation", hello(1 << 36, b"x@127.0.0.1")),
        ("no name", hello(Flags::NODE.bits(), b"")),
        ("a long name", hello(Flags::NODE.bits(), format!("{long}@127.0.0.1").as_bytes())),
        ("a name that is no text", hello(Flags::NODE.bits(), b"\xff\xfe@127.0.0.1")),
        ("its own name", good_hello(victim.node.name())),
        ("the name's length too long", short_frame(b"N123456789012\xff\xffx@y")),
        ("more behind the hello than belongs there", {
            let mut hello = good_hello("x@127.0.0.1");
            hello.extend(vec![0xff; 100_000]);
            hello
        }),
        ("a reply to no challenge", {
            let mut hello = good_hello("x@127.0.0.1");
            hello.extend(short_frame(&[b"r1234".as_slice(), &[7; 16]].concat()));
            // What is said behind must not arrive.
            let control = term!({ 6, (enemy()), (Term::atom("")), inbox });
            hello.extend(message(&bare(&control), &bare(&term!(stolen))));
            hello
        }),
    ];
    for (what, bytes) in wrong {
        let mut stream = victim.dial().await;
        // It may be closed before all is said.
        drop(stream.write_all(&bytes).await);
        assert!(is_closed(&mut stream, Duration::from_secs(4)).await, "{what}");
    }
    // The right steps with a wrong cookie.
    let mut liar = Claim::of("liar");
    liar.cookie = "wrong".to_owned();
    assert!(liar.connect(address(&victim.node), victim.node.name()).await.is_none());
    quiet(&mut victim.inbox).await;
    assert_eq!(victim.node.peers().len(), 1);
    victim.is_well().await;
}

/// Six hundred who begin and say no more: whoever comes then is let in at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_half_handshakes_keep_nobody_out() {
    let _alone = MEMORY.write().await;
    let mut victim = Victim::new(|it| it).await;
    let before = crate::scale::resident();
    let mut half = Vec::new();
    for number in 0..600 {
        let mut stream = victim.dial().await;
        if number % 2 == 0 {
            stream.write_all(&good_hello(&format!("half{number}@127.0.0.1"))).await.unwrap();
        }
        half.push(stream);
    }
    let begun = Instant::now();
    victim.is_well().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let grown = crate::scale::resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    drop(half);
    victim.is_well().await;
}

fn wrong_frames(own: &Pid) -> Vec<(&'static str, Vec<u8>)> {
    let foreign = || pid("good@127.0.0.1", 77);
    let (from, to) = (enemy, || own.clone());
    let reference = || Reference::new(enemy().node, &[1, 2, 3]).unwrap();
    let control = |control: &Term| message(&bare(control), &[]);
    let reasoned = |payload: &[u8]| message(&bare(&term!({ 24, (from()), (to()) })), payload);
    let fragment = |tag: u8, sequence: u64, number: u64, rest: &[u8]| {
        let numbers = [sequence.to_be_bytes(), number.to_be_bytes()].concat();
        frame(&[&[131, tag], &numbers[..], rest].concat())
    };
    let send = bare(&term!({ 6, (from()), (Term::atom("")), inbox }));
    let deep: Vec<u8> = [108, 0, 0, 0, 1].repeat(1_000_000);
    vec![
        ("4 GiB announced", vec![0xff; 4]),
        ("2 GiB announced", [&0x8000_0000_u32.to_be_bytes()[..], &[131, 68, 0]].concat()),
        ("zeros in a frame", frame(&[0; 64])),
        ("text", b"GET / HTTP/1.1\r\nHost: victim\r\n\r\n".to_vec()),
        ("another version", frame(&[130, 68, 0, 106])),
        ("nothing but a version", frame(&[131])),
        ("an empty header", frame(&[131, 68])),
        ("an unknown kind of frame", frame(&[131, 71, 0, 0])),
        ("pass-through where a header belongs", frame(&[112, 131, 104, 1, 97, 1])),
        ("an atom that was never sent", frame(&[131, 68, 1, 0, 5, 104, 1, 82, 0])),
        ("more atoms than there are bytes", frame(&[131, 68, 255, 8, 8])),
        ("an atom of wrong text", frame(&[131, 68, 1, 8, 5, 2, 0xff, 0xfe, 104, 1, 82, 0])),
        ("a later fragment without a first", fragment(70, 9, 1, &[1, 2, 3])),
        ("a fragment of number 0", fragment(69, 9, 0, &[&[0], &send[..]].concat())),
        ("a first fragment twice", {
            let first = fragment(69, 9, 3, &[&[0], &send[..]].concat());
            [first.clone(), first].concat()
        }),
        ("a fragment left out", {
            let first = fragment(69, 9, 5, &[&[0], &send[..]].concat());
            [first, fragment(70, 9, 3, &[1])].concat()
        }),
        ("too many begun messages", {
            let begun = |sequence| fragment(69, sequence, 1 << 60, &[&[0], &send[..]].concat());
            (1..2000).flat_map(begun).collect()
        }),
        ("no control message", message(&[], &[])),
        ("half a control message", message(&[104, 3, 97, 1], &[])),
        ("no tuple", control(&term!([1, 2]))),
        ("an empty tuple", control(&Term::from(Vec::<Term>::new()))),
        ("an unknown operation", control(&term!({ 99, (from()), (to()) }))),
        ("operation 4", control(&term!({ 4, (from()), (to()) }))),
        ("too many elements", control(&term!({ 1, (from()), (to()), 1 }))),
        ("too few", control(&term!({ 1, (from()) }))),
        ("a link in the name of another", control(&term!({ 1, (foreign()), (to()) }))),
        ("an exit in the name of another", {
            message(&bare(&term!({ 26, (foreign()), (to()) })), &bare(&term!(kill)))
        }),
        ("a monitor in the name of another", {
            control(&term!({ 19, (foreign()), (to()), (reference()) }))
        }),
        ("an unlink with id 0", control(&term!({ 35, 0, (from()), (to()) }))),
        ("a link that is not between processes", control(&term!({ 1, a, b }))),
        ("a monitor without a reference", control(&term!({ 19, (from()), (to()), 1 }))),
        ("a message without a payload", message(&send, &[])),
        ("a payload where none belongs", {
            message(&bare(&term!({ 1, (from()), (to()) })), &bare(&term!(x)))
        }),
        ("a compressed reason", reasoned(&[80, 0, 0, 0, 3, 0x78, 0x9c])),
        ("a reason with a version", reasoned(&[131, 106])),
        ("a reason that is cut", reasoned(&[109, 0, 0, 1, 0, 1])),
        ("a list of 4 G elements", reasoned(&[108, 255, 255, 255, 255, 97])),
        ("a function of 4 GiB", reasoned(&[112, 255, 255, 255, 255, 0])),
        ("a million lists in each other", reasoned(&deep)),
        ("an opaque local term", reasoned(&[121, 0, 0, 0, 0])),
        ("an infinite float", reasoned(&[70, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0])),
        ("something behind a reason", reasoned(&[106, 106])),
        ("arguments that are no term", {
            let spawn = term!({ 29, (reference()), (from()), (from()), { m, f, 1 }, [] });
            message(&bare(&spawn), &[80, 1, 2])
        }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_after_the_handshake() {
    let _alone = MEMORY.write().await;
    let mut victim = Victim::new(|it| it).await;
    let mut linked = victim.node.mailbox().unwrap();
    linked.trap_exits(true);
    let before = crate::scale::resident();
    let own = victim.inbox.pid().clone();
    for (what, bytes) in wrong_frames(&own) {
        let mut stream = victim.enemy().await;
        // Something right first: a link, which must break.
        let link = term!({ 1, (enemy()), (linked.pid().clone()) });
        stream.write_all(&message(&bare(&link), &[])).await.unwrap();
        drop(stream.write_all(&bytes).await);
        let closed = is_closed(&mut stream, Duration::from_secs(5)).await;
        assert!(closed, "{what}: the connection goes on");
        let Signal::Exit { from, reason } = next(&mut linked).await else { panic!("{what}") };
        assert_eq!((from, reason), (enemy(), term!(noconnection)), "{what}");
        let grown = crate::scale::resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{what}: {grown} bytes more");
        assert!(victim.inbox.try_receive().is_none(), "{what}");
    }
    until("the enemy left", || victim.node.peers().len() == 1).await;
    assert_eq!(victim.inbox.ended_with(), None);
    victim.is_well().await;
}

/// What is odd and yet right goes on: ticks, bytes one by one, what is for nobody, messages that
/// nobody can decode (which is the receiver's error).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_but_right() {
    let mut victim = Victim::new(|it| it).await;
    let mut stream = victim.enemy().await;
    let own = victim.inbox.pid().clone();
    let gone = Pid { id: 9_999, ..own.clone() };
    let reference = Reference::new(enemy().node, &[1, 2, 3]).unwrap();
    let plain = |control: &Term| message(&bare(control), &[]);
    let mut bytes = vec![0; 4 * 50];
    bytes.extend(plain(&term!({ 36, 5, (enemy()), (own.clone()) })));
    bytes.extend(plain(&term!({ 20, (enemy()), (own.clone()), (reference.clone()) })));
    bytes.extend(plain(&term!({ 7, (enemy()), (own.clone()) })));
    bytes.extend(message(&bare(&term!({ 24, (enemy()), (own.clone()) })), &bare(&term!(x))));
    bytes.extend(message(&bare(&term!({ 22, (enemy()), (gone.clone()) })), &bare(&term!(x))));
    bytes.extend(plain(&term!({ 31, (reference.clone()), (own.clone()), 3, (enemy()) })));
    let down = term!({ 28, (enemy()), (own.clone()), (reference) });
    bytes.extend(message(&bare(&down), &bare(&term!(x))));
    bytes.extend(message(&bare(&term!({ 26, (enemy()), (gone.clone()) })), &bare(&term!(kill))));
    bytes.extend(message(&bare(&term!({ 6, (enemy()), (Term::atom("")), inbox })), &[80, 1, 2]));
    for byte in bytes {
        stream.write_all(&[byte]).await.unwrap();
    }
    let Signal::Message(message) = next(&mut victim.inbox).await else { panic!() };
    assert!(message.body.term().is_err());
    // A link with nobody is answered, and an unlink, too.
    stream.write_all(&plain(&term!({ 1, (enemy()), (gone.clone()) }))).await.unwrap();
    stream.write_all(&plain(&term!({ 35, 77, (enemy()), (gone) }))).await.unwrap();
    let mut answers = Vec::new();
    let noproc_and_ack = async {
        while !(contains(&answers, b"noproc") && contains(&answers, &[104, 4, 97, 36, 97, 77])) {
            assert_ne!(stream.read_buf(&mut answers).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(LIMIT, noproc_and_ack).await.expect("both answers");
    assert_eq!(victim.node.peers().len(), 2);
    victim.is_well().await;
}

/// A peer uses the references of others for its own monitors: theirs stay, and fire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_is_ended_by_its_own_node_only() {
    let victim = Victim::new(|it| it).await;
    let mut stream = victim.enemy().await;
    let watched = victim.node.mailbox().unwrap();
    let (mut here, mut there) = (victim.node.mailbox().unwrap(), victim.good.mailbox().unwrap());
    let references = [here.monitor(watched.pid()).await, there.monitor(watched.pid()).await];
    there.send(watched.pid(), "behind the monitor").await.unwrap();
    until("it is watched", || watched.queue_len() == 1).await;
    let (from, to) = (enemy, || watched.pid().clone());
    let mut bytes = Vec::new();
    for reference in &references {
        for operation in [19, 20] {
            let control = term!({ (operation), (from()), (to()), (reference.clone()) });
            bytes.extend(message(&bare(&control), &[]));
        }
    }
    bytes.extend(message(&bare(&term!({ 22, (from()), (to()) })), &bare(&term!(x))));
    stream.write_all(&bytes).await.unwrap();
    until("all is read", || watched.queue_len() == 2).await;
    watched.end(term!(done));
    for (mailbox, reference) in [&mut here, &mut there].into_iter().zip(references) {
        let Signal::Down(down) = next(mailbox).await else { panic!() };
        assert_eq!((down.reference, down.reason), (reference, term!(done)));
    }
}

/// Whatever a peer says of who sends, it is one of its own processes, or nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_the_name_of_another_are_from_nobody() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let table = RpcTable::new().function("test", "count", move |(): ()| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    });
    let mut victim = Victim::new(|it| it.rpc(table)).await;
    let mut stream = victim.enemy().await;
    let own = victim.inbox.pid().clone();
    let alias = victim.inbox.alias();
    let none = Term::atom("");
    // It is known by its name.
    let its_own = [enemy(), pid("enemy@127.0.0.1", 0)];
    let forged = [pid("good@127.0.0.1", 77), Pid { id: 1, ..own.clone() }, own.clone()];
    for from in forged.into_iter().chain(its_own.clone()) {
        let mut bytes = Vec::new();
        for control in [
            term!({ 22, (from.clone()), (own.clone()) }),
            term!({ 6, (from.clone()), (none.clone()), inbox }),
            term!({ 33, (from.clone()), (alias.clone()) }),
            term!({ 37, 0, (from.clone()), (own.clone()) }),
        ] {
            bytes.extend(message(&bare(&control), &bare(&term!(hello))));
        }
        stream.write_all(&bytes).await.unwrap();
        for _ in 0..4 {
            let Signal::Message(message) = next(&mut victim.inbox).await else { panic!() };
            assert_eq!(message.from, its_own.contains(&from).then(|| from.clone()));
        }
        // Nor is anything called for others, though it is the peer that is to get the answer.
        let rex = bare(&term!({ 6, (from.clone()), (none.clone()), rex }));
        let request = |kind: &str| term!({ (Term::atom(kind)), test, count, [], user });
        let client = term!({ (enemy()), tag });
        for body in [
            term!({ atom "$gen_call", (client), (request("call")) }),
            term!({ atom "$gen_cast", (request("cast")) }),
            term!({ (enemy()), (request("call")) }),
        ] {
            stream.write_all(&message(&rex, &bare(&body))).await.unwrap();
        }
    }
    until("its own calls", || calls.load(Ordering::Relaxed) >= 6).await;
    victim.is_well().await;
    assert_eq!(calls.load(Ordering::Relaxed), 6);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A gibibyte is announced, and little of it comes: memory is taken as bytes come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_announced_costs_nothing() {
    let _alone = MEMORY.write().await;
    let mut victim = Victim::new(|it| it).await;
    let before = crate::scale::resident();
    let mut streams = Vec::new();
    for number in 0..20 {
        let claim = Claim::of(&format!("e{number}"));
        let mut stream = claim.connect(address(&victim.node), victim.node.name()).await.unwrap();
        stream.write_all(&(1_u32 << 30).to_be_bytes()).await.unwrap();
        stream.write_all(&[131, 68, 0]).await.unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
        streams.push(stream);
    }
    until("all are there", || victim.node.peers().len() == 21).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let grown = crate::scale::resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    victim.is_well().await;
}

/// Cut at any byte of the handshake and of what follows, by whichever side: never a connection that
/// stays without a peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_anywhere() {
    let board = Switchboard::new();
    let node = on(&board, "a").setup_time(Duration::from_secs(2)).start().await.unwrap();
    let mut events = node.monitor_nodes();
    for round in 0..60 {
        use meshx_node::carrier::Carrier;
        let memory = meshx_node::carrier::Memory::new(&board);
        let stream = memory.dial(node.name()).await.unwrap();
        let mut stream = tokio::io::join(stream.read, stream.write);
        let shaken = async {
            Claim::of("cut").shake(&mut stream, node.name()).await;
        };
        // So many turns, then the end.
        let turns = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; () = turns => {} () = shaken => {} }
    }
    until("none stays", || node.peers().is_empty()).await;
    let (mut ups, mut downs) = (0, 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    while let Ok(event) = events.try_recv() {
        match event {
            NodeEvent::Up { .. } => ups += 1,
            _ => downs += 1,
        }
    }
    assert_eq!(ups, downs);
}
