//! Senders that are faster than receivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meshx_node::carrier::Switchboard;
use meshx_node::etf::{Term, term};
use meshx_node::{CallError, Down, Signal};

use crate::raw::{Claim, is_closed};
use crate::{Known, LIMIT, MEMORY, NOTHING, address, builder, next, on, until};

/// How many messages.
const COUNT: usize = 10_000;

/// A full mailbox holds its senders back; nothing is lost, and all is in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_holds_senders_back() {
    let _memory = MEMORY.read().await;
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let b = on(&board, "b").mailbox_limit(64 << 10).start().await.unwrap();
    let mut slow = b.mailbox().unwrap();
    let to = slow.pid().clone();
    let sender = a.mailbox().unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..COUNT {
            sender.send(&to, &(number, vec![0_u8; 1024])).await.unwrap();
        }
        sender
    });
    until("it is full", || slow.queue_len() >= 50).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(slow.queue_len() < 200, "{} wait", slow.queue_len());
    assert!(!sending.is_finished(), "the sender is held back");
    for expected in 0..COUNT {
        // In turn, and out of turn: both make room.
        let signal = if expected % 3 == 0 {
            tokio::time::timeout(LIMIT, slow.receive_where(|_| true)).await.unwrap().unwrap()
        } else {
            next(&mut slow).await
        };
        let Signal::Message(message) = signal else { panic!() };
        let (number, _): (usize, Vec<u8>) = message.body.typed().unwrap();
        assert_eq!(number, expected);
    }
    sending.await.unwrap();
}

/// Exit signals and the ends of who is monitored are as large as their reasons.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasons_fill_a_mailbox_too() {
    const ENDS: i64 = 20;
    let _memory = MEMORY.read().await;
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let b = on(&board, "b").mailbox_limit(1 << 20).start().await.unwrap();
    let mut slow = b.mailbox().unwrap();
    slow.trap_exits(true);
    let reason = |number: i64| term!({ (number), (Term::from(&vec![0_u8; 1 << 20][..])) });
    let mut watched = Vec::new();
    for _ in 0..ENDS {
        let one = a.mailbox().unwrap();
        slow.monitor(one.pid()).await;
        slow.send(one.pid(), "behind the monitor").await.unwrap();
        until("it is watched", || one.queue_len() > 0).await;
        watched.push(one);
    }
    // What waits to be written is less than what ends the connection.
    let sends = a.mailbox().unwrap();
    for (number, one) in (0..).zip(watched) {
        sends.exit(slow.pid(), &reason(number)).await.unwrap();
        one.end(reason(ENDS + number));
    }
    until("it is full", || slow.queue_len() >= 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(slow.queue_len() < 8, "{} wait", slow.queue_len());
    let mut seen = Vec::new();
    for _ in 0..2 * ENDS {
        let (Signal::Exit { reason, .. } | Signal::Down(Down { reason, .. })) =
            next(&mut slow).await
        else {
            panic!()
        };
        seen.push(reason.as_tuple().unwrap()[0].as_i64().unwrap());
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..2 * ENDS));
}

/// A short reason that waits does not hold all that was read together with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_holds_no_more_than_itself() {
    let (a, b) = crate::pair().await;
    let mut traps = b.mailbox().unwrap();
    traps.trap_exits(true);
    let sends = a.mailbox().unwrap();
    sends.exit(traps.pid(), &Term::from(&[7_u8; 200][..])).await.unwrap();
    let Signal::Exit { reason: Term::Binary(reason), .. } = next(&mut traps).await else {
        panic!()
    };
    assert!(reason.into_bytes().is_unique(), "it is a part of something");
}

/// Two processes send to each other what none of both mailboxes holds, and receive only then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_to_send_holds_nobody_back() {
    const PAGES: usize = 240;
    let _memory = MEMORY.read().await;
    let board = Switchboard::new();
    let a = on(&board, "a").mailbox_limit(64 << 10).start().await.unwrap();
    let b = on(&board, "b").mailbox_limit(64 << 10).start().await.unwrap();
    let (one, other) = (a.mailbox().unwrap(), b.mailbox().unwrap());
    let pids = (one.pid().clone(), other.pid().clone());
    let work = |mut process: meshx_node::Mailbox, to: meshx_node::etf::Pid| async move {
        for _ in 0..PAGES {
            process.send(&to, &vec![0_u8; 10_000]).await.unwrap();
        }
        for _ in 0..PAGES {
            next(&mut process).await;
        }
    };
    let both =
        async { tokio::join!(tokio::spawn(work(one, pids.1)), tokio::spawn(work(other, pids.0))) };
    let (one, other) = tokio::time::timeout(LIMIT, both).await.expect("no deadlock");
    one.unwrap();
    other.unwrap();
}

/// Selective receive alone drains a full mailbox, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selective_receive_makes_room() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let b = on(&board, "b").mailbox_limit(16 << 10).start().await.unwrap();
    let mut slow = b.mailbox().unwrap();
    let to = slow.pid().clone();
    let sender = a.mailbox().unwrap();
    let sending = tokio::spawn(async move {
        for _ in 0..500 {
            sender.send(&to, &vec![0_u8; 1024]).await.unwrap();
        }
    });
    until("it is full", || slow.queue_len() >= 12).await;
    for number in 0..500 {
        let one = slow.receive_where(|signal| matches!(signal, Signal::Message(_)));
        let one = tokio::time::timeout(LIMIT, one).await;
        assert!(one.is_ok_and(|it| it.is_some()), "{number}");
    }
    sending.await.unwrap();
}

/// However many signals come that are not wanted, each is looked at once.
#[tokio::test]
async fn selective_receive_looks_at_each_signal_once() {
    const COUNT: usize = 500;
    let node = on(&Switchboard::new(), "a").start().await.unwrap();
    let (mut receiver, sender) = (node.mailbox().unwrap(), node.mailbox().unwrap());
    let to = receiver.pid().clone();
    let looks = Arc::new(AtomicUsize::new(0));
    // Some are taken over when the first is received, some wait, and some come later.
    for number in 0..2 * COUNT {
        sender.send(&to, &number).await.unwrap();
        if number + 1 == COUNT {
            next(&mut receiver).await;
        }
    }
    let counted = Arc::clone(&looks);
    let receiving = tokio::spawn(async move {
        let wanted = |signal: &Signal| {
            counted.fetch_add(1, Ordering::Relaxed);
            matches!(signal, Signal::Message(it) if it.body.typed::<usize>().unwrap() == 3 * COUNT)
        };
        let found = receiver.receive_where(wanted).await.unwrap();
        (found, receiver)
    });
    for number in 2 * COUNT..=3 * COUNT {
        tokio::task::yield_now().await;
        sender.send(&to, &number).await.unwrap();
    }
    let (found, mut receiver) = receiving.await.unwrap();
    let Signal::Message(found) = found else { panic!() };
    assert_eq!(found.body.typed::<usize>().unwrap(), 3 * COUNT);
    assert_eq!(looks.load(Ordering::Relaxed), 3 * COUNT);
    for expected in 1..3 * COUNT {
        let Signal::Message(message) = next(&mut receiver).await else { panic!() };
        assert_eq!(message.body.typed::<usize>().unwrap(), expected);
    }
}

/// A process with a full mailbox calls: its answer is behind what waits, and gets to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_gets_past_a_full_mailbox() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let b = on(&board, "b").mailbox_limit(64 << 10).start().await.unwrap();
    let mut server = a.mailbox().unwrap();
    server.register("server").unwrap();
    let slow = b.mailbox().unwrap();
    let to = slow.pid().clone();
    let flood = a.mailbox().unwrap();
    let flooding = tokio::spawn(async move {
        for _ in 0..400 {
            flood.send(&to, &vec![0_u8; 1024]).await.unwrap();
        }
    });
    let serving = tokio::spawn(async move {
        loop {
            let Signal::Message(message) = next(&mut server).await else { panic!() };
            let Term::Tuple(call) = message.body.term().unwrap() else { panic!() };
            let caller = meshx_node::Caller::of(&call[1]).unwrap();
            caller.reply(&server, &42).await.unwrap();
        }
    });
    until("it is full", || slow.queue_len() >= 50).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let limit = Duration::from_secs(5);
    let answer: Result<i64, CallError> =
        slow.call(("server", a.name().as_str()), "question", limit).await;
    assert_eq!(answer.unwrap(), 42);
    drop(slow);
    flooding.await.unwrap();
    serving.abort();
}

/// D8: a peer that reads nothing: its senders wait, memory stays small, others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_peer_costs_nobody_else() {
    let _memory = MEMORY.write().await;
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let b = builder("b").carrier(known.tcp()).start().await.unwrap();
    known.add(&b);
    let frozen = Claim::of("frozen").connect(address(&a), a.name()).await.unwrap();
    until("it is there", || a.peers().len() == 1).await;
    let before = crate::scale::resident();
    let mut senders = Vec::new();
    for _ in 0..100 {
        let sender = a.mailbox().unwrap();
        senders.push(tokio::spawn(async move {
            let megabyte = Term::from(&vec![0_u8; 1 << 20][..]);
            sender.send_term(("x", "frozen@127.0.0.1"), &megabyte).await
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = senders.iter().filter(|sender| !sender.is_finished()).count();
    // 64 may be on their way, and what the socket holds may be all of some.
    assert!(waiting >= 30, "{waiting} of 100 wait");
    let one = a.mailbox().unwrap();
    let busy = one.try_send(("x", "frozen@127.0.0.1"), "x").unwrap_err();
    assert!(busy.to_string().contains("frozen@127.0.0.1"), "{busy}");
    // Their megabytes are their own; what the node adds is bounded.
    let grown = crate::scale::resident().saturating_sub(before);
    assert!(grown < 180 << 20, "{grown} bytes more");

    let (left, mut right) = (a.mailbox().unwrap(), b.mailbox().unwrap());
    let mut times = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        left.send(right.pid(), "ping").await.unwrap();
        next(&mut right).await;
        times.push(begun.elapsed());
    }
    times.sort();
    assert!(times[495] < Duration::from_millis(100), "{:?}", times[495]);
    a.disconnect("frozen@127.0.0.1");
    for sender in senders {
        drop(tokio::time::timeout(LIMIT, sender).await.expect("it is told"));
    }
    drop(frozen);
}

/// Counts how often it is encoded.
struct Counted(Arc<AtomicUsize>);

impl serde::Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        to.serialize_u8(1)
    }
}

/// What cannot be sent yet costs nothing meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_encodes_his_message_when_there_is() {
    let _memory = MEMORY.read().await;
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let mut frozen = Claim::of("frozen").connect(address(&a), a.name()).await.unwrap();
    until("it is there", || a.peers().len() == 1).await;
    let to = ("x", "frozen@127.0.0.1");
    let filler = a.mailbox().unwrap();
    while tokio::time::timeout(NOTHING, filler.send(to, &vec![0_u8; 4096])).await.is_ok() {}
    let (late, count) = (a.mailbox().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Counted(Arc::clone(&count));
    let sending = tokio::spawn(async move { late.send(to, &counted).await });
    tokio::time::sleep(NOTHING).await;
    assert_eq!((count.load(Ordering::Relaxed), sending.is_finished()), (0, false));
    let reading = tokio::spawn(async move { is_closed(&mut frozen, LIMIT).await });
    sending.await.unwrap().unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);
    reading.abort();
}

/// Exits and the like do not wait; but there is an end to what gathers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_to_a_frozen_peer_do_not_gather_for_good() {
    let _memory = MEMORY.read().await;
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let frozen = Claim::of("frozen").connect(address(&a), a.name()).await.unwrap();
    until("it is there", || a.peers().len() == 1).await;
    let mut target = a.mailbox().unwrap().pid().clone();
    target.node =
        meshx_node::etf::Node::new(meshx_node::etf::Atom::new("frozen@127.0.0.1").unwrap(), 77);
    let sends = a.mailbox().unwrap();
    let reason = term!({ boom, (Term::from(&vec![0_u8; 1 << 20][..])) });
    for _ in 0..200 {
        if sends.exit(&target, &reason).await.is_err() {
            break;
        }
    }
    until("it is given up", || a.peers().is_empty()).await;
    drop(frozen);
}

/// D9: a huge message goes in fragments, and small ones pass between them.
async fn huge_and_small(size: usize, count: usize) {
    let _memory = MEMORY.read().await;
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let b = builder("b").carrier(known.tcp()).mailbox_limit(4 << 30).start().await.unwrap();
    known.add(&b);
    let (mut large, mut small) = (b.mailbox().unwrap(), b.mailbox().unwrap());
    let (to_large, to_small) = (large.pid().clone(), small.pid().clone());
    a.connect(b.name()).await.unwrap();
    let from = a.mailbox().unwrap();
    let huge = Term::from(&vec![7_u8; size][..]);
    from.send_term(&to_large, &huge).await.unwrap();
    let pings = a.mailbox().unwrap();
    let mut times = Vec::new();
    for number in 0..count {
        let begun = Instant::now();
        pings.send(&to_small, &number).await.unwrap();
        next(&mut small).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let p99 = times[count * 99 / 100];
    assert!(p99 < Duration::from_millis(100), "{p99:?}");
    let limit = Duration::from_mins(2);
    let Some(Signal::Message(message)) = large.receive_within(limit).await else { panic!() };
    assert_eq!(message.body.bytes().len(), size + 5);
    assert_eq!(message.body.term().unwrap(), huge);
}

/// As many large messages as may be on their way: what is small passes them, be it a message, a call or a
/// request.
#[tokio::test]
async fn small_messages_and_calls_pass_many_large_ones() {
    const MANY: usize = 64;
    let _memory = MEMORY.read().await;
    let known = Known::default();
    let a = builder("a").carrier(known.tcp()).start().await.unwrap();
    let b = builder("b").carrier(known.tcp()).mailbox_limit(4 << 30).start().await.unwrap();
    known.add(&b);
    let (mut large, mut small) = (b.mailbox().unwrap(), b.mailbox().unwrap());
    a.connect(b.name()).await.unwrap();
    let content = Term::from(&vec![7_u8; 4 << 20][..]);
    let senders: Vec<_> = (0..MANY).map(|_| a.mailbox().unwrap()).collect();
    for sender in &senders {
        sender.send_term(large.pid(), &content).await.unwrap();
    }
    let mut asks = a.mailbox().unwrap();
    asks.send(small.pid(), "small").await.unwrap();
    next(&mut small).await;
    let name: Term = a.rpc(b.name(), "erlang", "node", (), LIMIT).await.unwrap();
    assert!(name.is_atom(b.name()));
    a.rpc_cast(b.name(), "erlang", "node", ()).await.unwrap();
    asks.spawn_request(b.name(), ("not", "there"), &[], false, false).await.unwrap();
    assert!(matches!(next(&mut asks).await, Signal::Spawned { result: Err(_), .. }));
    // They take turns, so all of them arrive at about the same time. One more has to wait.
    assert!(asks.try_send_term(large.pid(), &content).is_err(), "they are on their way");
    assert_eq!(large.queue_len(), 0, "the large ones were first");
    for _ in 0..MANY {
        next(&mut large).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_pass_a_large_one() {
    huge_and_small(128 << 20, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_messages_pass_a_huge_one() {
    huge_and_small(1 << 30, 1000).await;
}
