//! Two nodes find each other: at once, again and again, under one name, while one of them stops.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use meshx_dist::handshake::{Framing, Initiator, Local};
use meshx_node::carrier::{Carried, Memory, Myself, Publication, Resolve, Switchboard, Tcp};
use meshx_node::{ConnectError, Cookie, Flags, Node, NodeEvent, Signal, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{self, Claim, dial, is_closed};
use crate::{COOKIE, Known, address, builder, next, on, until, ups_and_downs};

async fn settled(a: &Node, b: &Node) {
    until("both are down", || a.peers().is_empty() && b.peers().is_empty()).await;
}

/// A message there and one back, over the one connection that there is.
async fn talk(a: &Node, b: &Node) {
    let (mut left, mut right) = (a.mailbox().unwrap(), b.mailbox().unwrap());
    left.send(right.pid(), "there").await.unwrap();
    next(&mut right).await;
    right.send(left.pid(), "back").await.unwrap();
    next(&mut left).await;
}

/// D11: both dial at the same time, a thousand times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_each_other_have_one_connection() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let b = on(&board, "b").start().await.unwrap();
    let (mut of_a, mut of_b) = (a.monitor_nodes(), b.monitor_nodes());
    for round in 0..1000_u32 {
        let (from_a, to_a) = (a.clone(), a.name().clone());
        let (from_b, to_b) = (b.clone(), b.name().clone());
        let one = tokio::spawn(async move {
            // Not always to the moment.
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            from_a.connect(&to_b).await
        });
        let other = tokio::spawn(async move {
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            from_b.connect(&to_a).await
        });
        one.await.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
        other.await.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
        talk(&a, &b).await;
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1), "round {round}");
        if round % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (events, node) in [(&mut of_a, &a), (&mut of_b, &b)] {
            assert_eq!(ups_and_downs(events), (1, 0), "round {round}, {node:?}");
        }
        let ends = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert!(ends.0.disconnect(ends.1.name()));
        settled(&a, &b).await;
        for events in [&mut of_a, &mut of_b] {
            assert!(matches!(events.try_recv(), Ok(NodeEvent::Down { .. })));
        }
    }
}

/// As [`two_that_dial_each_other_have_one_connection`], while both talk, and over real sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_cross_make_one_connection() {
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let b = builder("b").carrier(known.tcp()).start().await.unwrap();
    known.add(&a);
    known.add(&b);
    let (mut of_a, mut of_b) = (a.monitor_nodes(), b.monitor_nodes());
    for round in 0..100 {
        let (mut left, mut right) = (a.mailbox().unwrap(), b.mailbox().unwrap());
        let (to_left, to_right) = (left.pid().clone(), right.pid().clone());
        let one = async {
            for number in 0..20 {
                left.send(&to_right, &number).await.unwrap();
            }
        };
        let other = async {
            for number in 0..20 {
                right.send(&to_left, &number).await.unwrap();
            }
        };
        tokio::join!(one, other);
        for mailbox in [&mut left, &mut right] {
            for number in 0..20 {
                let Signal::Message(message) = next(mailbox).await else { panic!() };
                assert_eq!(message.body.typed::<i32>().unwrap(), number, "round {round}");
            }
        }
        assert_eq!(ups_and_downs(&mut of_a), (1, 0), "round {round}");
        assert_eq!(ups_and_downs(&mut of_b), (1, 0), "round {round}");
        a.disconnect(b.name());
        settled(&a, &b).await;
        assert_eq!(of_a.len() + of_b.len(), 2);
        drop((of_a.try_recv(), of_b.try_recv()));
    }
}

/// D4: 200 reconnects, and 50 handshakes in parallel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects_and_parallel_handshakes() {
    let known = Known::default();
    let hub = builder("hub").carrier(known.tcp()).start().await.unwrap();
    known.add(&hub);
    let leaf = builder("leaf").carrier(known.tcp()).start().await.unwrap();
    for _ in 0..200 {
        leaf.connect(hub.name()).await.unwrap();
        // At once: the next connection waits until this one is gone for all.
        assert!(leaf.disconnect(hub.name()));
        assert!(!leaf.disconnect(hub.name()), "it is being closed already");
    }
    talk(&leaf, &hub).await;
    assert_eq!((leaf.peers().len(), hub.peers().len()), (1, 1));

    let mut leaves = Vec::new();
    for number in 0..50 {
        leaves.push(builder(&format!("l{number}")).carrier(known.tcp()).start().await.unwrap());
    }
    let name = hub.name().clone();
    let dialling: Vec<_> = leaves
        .iter()
        .map(|leaf| {
            let (leaf, name) = (leaf.clone(), name.clone());
            tokio::spawn(async move { leaf.connect(&name).await })
        })
        .collect();
    for attempt in dialling {
        attempt.await.unwrap().unwrap();
    }
    until("all are there", || hub.peers().len() == 51).await;
    for leaf in &leaves {
        talk(&hub, leaf).await;
    }
    hub.stop().await;
    for leaf in &leaves {
        until("it left all", || leaf.peers().is_empty()).await;
    }
}

/// D12, and a peer that was restarted: the old connection's relations end before the new one is up,
/// and there are never two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_of_the_same_name_takes_over() {
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    known.add(&a);
    let mut events = a.monitor_nodes();
    let first = builder("b").carrier(known.tcp()).start().await.unwrap();
    known.add(&first);
    let mut there = first.mailbox().unwrap();
    let mut here = a.mailbox().unwrap();
    here.trap_exits(true);
    here.link(there.pid()).await;
    let reference = here.monitor(there.pid()).await;
    here.send(there.pid(), "up").await.unwrap();
    next(&mut there).await;

    let second = builder("b").carrier(known.tcp()).start().await.unwrap();
    known.add(&second);
    assert_ne!(first.creation(), second.creation());
    second.connect(a.name()).await.unwrap();
    for _ in 0..2 {
        match next(&mut here).await {
            Signal::Exit { reason, .. } => assert_eq!(reason.to_string(), "noconnection"),
            Signal::Down(down) => assert_eq!(down.reference, reference),
            other => panic!("{other:?}"),
        }
    }
    until("the first noticed", || first.peers().is_empty()).await;
    let peers = a.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].creation, second.creation());
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(match event {
            NodeEvent::Up { creation, .. } => Some(creation),
            _ => None,
        });
    }
    assert_eq!(seen, [Some(first.creation()), None, Some(second.creation())]);
    // To the old life, over the new connection: nobody is there.
    let late = here.monitor(there.pid()).await;
    let Signal::Down(down) = next(&mut here).await else { panic!() };
    assert_eq!((down.reference, down.reason.to_string()), (late, "noproc".to_owned()));
    talk(&a, &second).await;
}

/// A C node does not know `alive`, and `erl_call` run twice is one that comes again before the end of
/// its first connection was seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_again_while_his_end_is_on_its_way_is_not_told_alive() {
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let c_node = Claim::of("c17");
    let first = c_node.connect(address(&a), a.name()).await.unwrap();
    let says_hello = async || {
        let (mut stream, mut hello) = (dial(address(&a)).await, BytesMut::new());
        let local = Local {
            name: c_node.name.clone(),
            flags: c_node.flags,
            creation: c_node.creation,
            cookie: Cookie::new(COOKIE.to_owned()),
        };
        Initiator::new(Framing::U16, local, a.name().as_str(), 4711, &mut hello).unwrap();
        stream.write_all_buf(&mut hello).await.unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut status = vec![0; len.into()];
        stream.read_exact(&mut status).await.unwrap();
        String::from_utf8(status).unwrap()
    };
    assert_eq!(says_hello().await, "salive");
    let ends = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(first);
    };
    let (status, ()) = tokio::join!(says_hello(), ends);
    assert_eq!(status, "sok");
}

/// Whoever wants a connection shares the attempt, and its failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_attempt_for_all() {
    let silent = meshx_rt::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let known = Known::default();
    known.0.insert("silent@127.0.0.1", silent.local_addr().unwrap());
    let setup = Duration::from_millis(300);
    let a = builder("a").carrier(known.tcp()).setup_time(setup).start().await.unwrap();
    let begun = Instant::now();
    let all: Vec<_> = (0..100)
        .map(|_| {
            let a = a.clone();
            tokio::spawn(async move { a.connect("silent@127.0.0.1").await })
        })
        .collect();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(Ok((stream, _))) =
            tokio::time::timeout(Duration::from_millis(500), silent.accept()).await
        {
            held.push(stream);
        }
        held.len()
    });
    for one in all {
        let error = one.await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(held.await.unwrap(), 1);
    let unknown = a.connect("unknown@127.0.0.1").await.unwrap_err();
    assert!(matches!(unknown, ConnectError::Reach { .. }), "{unknown}");
    a.connect("a@127.0.0.1").await.unwrap();
    assert!(a.peers().is_empty(), "itself is no peer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_cookies_say_so() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let other = Node::builder("b@127.0.0.1").cookie(Cookie::new("another"));
    let b = other.carrier(Memory::new(&board)).start().await.unwrap();
    for (from, to) in [(&a, &b), (&b, &a)] {
        let error = from.connect(to.name()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Closed { stage: "last step", .. }), "{error}");
    }
    assert!(a.peers().is_empty() && b.peers().is_empty());
    // With the right one for each other, both are fine.
    let c = Node::builder("c@127.0.0.1")
        .cookie(Cookie::new("a third"))
        .cookie_for("a@127.0.0.1", Cookie::new(COOKIE))
        .carrier(Memory::new(&board));
    let c = c.start().await.unwrap();
    c.connect(a.name()).await.unwrap();
    talk(&a, &c).await;
}

/// What everybody has is no secret: no node starts with an empty cookie, of its own or for another.
#[tokio::test]
async fn an_empty_cookie_is_none() {
    let board = Switchboard::new();
    let named = || Node::builder("a@127.0.0.1").carrier(Memory::new(&board));
    let wrong = [
        (named(), "a@127.0.0.1"),
        (named().cookie(Cookie::new("")), "a@127.0.0.1"),
        (named().cookie(Cookie::new(COOKIE)).cookie_for("b@127.0.0.1", Cookie::new("")), "b@"),
    ];
    for (builder, whose) in wrong {
        let error = builder.start().await.map(drop).unwrap_err();
        assert!(matches!(error, StartError::Cookie(_)), "{error}");
        assert!(error.to_string().contains(whose), "{error}");
    }
    named().cookie(Cookie::new(COOKIE)).start().await.unwrap();
}

/// Whoever says hello under a name, and then nothing, holds up nobody who wants to reach that node
/// for longer than a moment; and our own attempt comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_in_the_name_of_another_holds_up_nobody() {
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let b = builder("b").carrier(known.tcp()).start().await.unwrap();
    known.add(&a);
    known.add(&b);
    let mut liar = Claim::of("b");
    liar.cookie = "wrong".to_owned();
    let mut half = dial(address(&a)).await;
    let hello = raw::short_frame(&hello(&liar));
    AsyncWriteExt::write_all(&mut half, &hello).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    a.connect(b.name()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(!is_closed(&mut half, Duration::from_millis(50)).await, "it is just not waited for");
    talk(&a, &b).await;
    a.disconnect(b.name());
    settled(&a, &b).await;
    // With a wrong cookie.
    assert!(liar.connect(address(&a), a.name()).await.is_none());
    a.connect(b.name()).await.unwrap();
    talk(&a, &b).await;
}

/// Nor does who says it again and again, while the node is being dialled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_in_the_name_of_another_do_not_take_the_place_of_its_own() {
    let known = Known::default();
    let b = builder("b").carrier(known.tcp()).start().await.unwrap();
    known.add(&b);
    let a = builder("a").carrier(Tcp::loopback(Slow(known.clone()))).start().await.unwrap();
    let to = address(&a);
    let liar = tokio::spawn(async move {
        let hello = raw::short_frame(&hello(&Claim::of("b")));
        let mut half = Vec::new();
        loop {
            let mut stream = dial(to).await;
            AsyncWriteExt::write_all(&mut stream, &hello).await.unwrap();
            half.push(stream);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let begun = Instant::now();
    a.connect(b.name()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    talk(&a, &b).await;
    liar.abort();
}

/// Knows addresses, after a while.
struct Slow(Known);

impl Resolve for Slow {
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.0.resolve(node).await
        })
    }

    fn publish<'a>(&'a self, me: &'a Myself, at: SocketAddr) -> Carried<'a, Publication> {
        self.0.publish(me, at)
    }
}

fn hello(claim: &Claim) -> Vec<u8> {
    let mut out = BytesMut::new();
    let hello = meshx_dist::handshake::SendName {
        form: meshx_dist::handshake::Form::New,
        flags: claim.flags,
        creation: claim.creation,
        name: claim.name.clone(),
    };
    hello.encode(Framing::U16, &mut out).unwrap();
    out[2..].to_vec()
}

/// Names that are not taken: ours, none, one that the allow list lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_refused() {
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).allow(|name| !name.starts_with("bad"));
    let a = a.start().await.unwrap();
    for name in ["a", "bad"] {
        assert!(Claim::of(name).connect(address(&a), a.name()).await.is_none(), "{name}");
    }
    for whole in ["", "x", "@", "x@", "@127.0.0.1", "x@y@z", "x\0@h"] {
        let mut hello = hello(&Claim::of("x"));
        hello.truncate(15);
        hello[13..].copy_from_slice(&u16::try_from(whole.len()).unwrap().to_be_bytes());
        hello.extend_from_slice(whole.as_bytes());
        let mut stream = dial(address(&a)).await;
        let body = raw::short_frame(&hello);
        AsyncWriteExt::write_all(&mut stream, &body).await.unwrap();
        let mut answer = Vec::new();
        AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
        assert!(answer.is_empty() || answer.ends_with(b"not_allowed"), "{whole:?}: {answer:?}");
    }
    assert!(a.peers().is_empty());
    assert!(Claim::of("good").connect(address(&a), a.name()).await.is_some());
}

/// A node without a name asks for one, and is hidden.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_name_gets_one() {
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let mut claim = Claim::of("");
    "127.0.0.1".clone_into(&mut claim.name);
    claim.flags = Flags::NODE | Flags::NAME_ME | Flags::PUBLISHED;
    let mut stream = dial(address(&a)).await;
    let link = claim.shake(&mut stream, a.name()).await.expect("it is let in");
    until("it is there", || !a.peers().is_empty()).await;
    let peer = &a.peers()[0];
    assert_eq!(peer.name.as_str(), link.local_name);
    assert!(peer.hidden && peer.creation > 3, "{peer:?}");
    let mut second = dial(address(&a)).await;
    let other = claim.shake(&mut second, a.name()).await.expect("it is let in");
    assert_ne!(link.local_name, other.local_name);
    drop((stream, second));
    until("they left", || a.peers().is_empty()).await;
}

/// The same in the other role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_its_name_from_another() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let asks = || {
        Node::dynamic("127.0.0.1", a.name().as_str())
            .cookie(Cookie::new(COOKIE))
            .carrier(Memory::new(&board))
    };
    let (one, other) = (asks().start().await.unwrap(), asks().start().await.unwrap());
    assert_ne!(one.name(), other.name());
    assert_eq!(a.peers().len(), 2);
    assert!(a.peers().iter().all(|peer| peer.hidden));
    assert!(a.peers().iter().any(|it| it.name == *one.name() && it.creation == one.creation()));
    talk(&a, &one).await;
    // It does not listen, and dials under its name.
    let b = on(&board, "b").start().await.unwrap();
    one.connect(b.name()).await.unwrap();
    a.disconnect(one.name());
    until("it is cut", || one.peers().len() == 1).await;
    assert!(a.connect(one.name()).await.is_err());
    talk(&one, &a).await;
    // With its last connection it loses its name.
    let mut here = one.mailbox().unwrap();
    here.trap_exits(true);
    a.disconnect(one.name());
    until("it is cut", || one.peers().len() == 1).await;
    b.disconnect(one.name());
    assert!(here.receive_within(crate::LIMIT).await.is_none(), "the node stops");
    assert!(matches!(one.connect(a.name()).await, Err(ConnectError::Stopping)));
    until("the other one is not meant", || other.peers().len() == 1).await;
    // A node that is gone gives no name.
    b.stop().await;
    let asks = Node::dynamic("127.0.0.1", b.name().as_str()).cookie(Cookie::new(COOKIE));
    let error = asks.carrier(Memory::new(&board)).start().await.unwrap_err().to_string();
    assert!(error.starts_with("the node got no name of b@127.0.0.1: "), "{error}");
}

/// A node that stops while it is dialled, and while it dials, is connected to nobody afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_stays_alone() {
    for round in 0..30 {
        let board = Switchboard::new();
        let a = on(&board, "a").start().await.unwrap();
        let b = on(&board, "b").start().await.unwrap();
        let (dials, name) = (a.clone(), b.name().clone());
        let one = tokio::spawn(async move { dials.connect(&name).await });
        let (dials, name) = (b.clone(), a.name().clone());
        let other = tokio::spawn(async move { dials.connect(&name).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        b.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        drop((one.await, other.await));
        until("nobody is there", || a.peers().is_empty() && b.peers().is_empty()).await;
        assert!(matches!(b.connect(a.name()).await, Err(ConnectError::Stopping)));
        assert!(a.connect(b.name()).await.is_err());
    }
}

/// Stopping tells everyone, and what was sent is written first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_is_graceful() {
    let (a, b) = crate::pair().await;
    let mut watches = a.mailbox().unwrap();
    let there =
        b.spawn(|mut mailbox| async move { while mailbox.receive().await.is_some() {} }).unwrap();
    let reference = watches.monitor(&there).await;
    let sends = b.mailbox().unwrap();
    watches.send(&there, "sync").await.unwrap();
    for number in 0..200 {
        sends.send(watches.pid(), &(number, vec![0_u8; 10_000])).await.unwrap();
    }
    b.stop().await;
    for number in 0..200 {
        let Signal::Message(message) = next(&mut watches).await else { panic!("{number}") };
        assert!(message.body.bytes().len() > 10_000);
    }
    let Signal::Down(down) = next(&mut watches).await else { panic!() };
    assert_eq!((down.reference, down.reason.to_string()), (reference, "shutdown".to_owned()));
    assert_eq!(sends.ended_with().unwrap().to_string(), "shutdown");
    until("it left", || a.peers().is_empty()).await;
}

/// A process that begins when its node has stopped has ended with it.
#[tokio::test]
async fn a_stopped_node_has_no_processes() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    a.stop().await;
    let mut mailbox = a.mailbox().unwrap();
    assert!(tokio::time::timeout(crate::LIMIT, mailbox.receive()).await.unwrap().is_none());
    assert_eq!(mailbox.ended_with().unwrap().to_string(), "shutdown");
    a.spawn(|_mailbox| std::future::pending()).unwrap();
    until("it ended", || a.process_count() == 0).await;
}
