//! Links, monitors, names and aliases (Erlang reference manual, "Processes"), among processes of one
//! node and of two.

use meshx_node::etf::{Pid, Term, term};
use meshx_node::{Mailbox, Node, Signal, Target};

use crate::{LIMIT, next, old_pair, pair, quiet, until};

const OLD: &str = "at one of old";

/// A node and one to which it is connected: once itself, once another, once one of old.
async fn places() -> [(&'static str, Node, Node); 3] {
    let ((a, b), (other, old)) = (pair().await, old_pair().await);
    [("here", a.clone(), a.clone()), ("there", a, b), (OLD, other, old)]
}

fn reasons() -> Vec<Term> {
    vec![
        term!(shutdown),
        term!({ shutdown, 7 }),
        term!(kill),
        term!(killed),
        term!(noconnection),
        term!({ badarg, [a, 1.5], { "text" } }),
        Term::from(&vec![7_u8; 300_000][..]),
    ]
}

fn exit(signal: Signal) -> (Pid, Term) {
    match signal {
        Signal::Exit { from, reason } => (from, reason),
        other => panic!("{other:?}"),
    }
}

fn down(signal: Signal) -> meshx_node::Down {
    match signal {
        Signal::Down(down) => down,
        other => panic!("{other:?}"),
    }
}

fn sender(signal: Signal) -> Pid {
    match signal {
        Signal::Message(message) => message.from.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn ended(mailbox: &mut Mailbox) -> Term {
    let signal = mailbox.receive_within(LIMIT).await;
    assert!(signal.is_none(), "{signal:?}");
    mailbox.ended_with().expect("it has ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_carries_every_reason() {
    for (place, a, b) in places().await {
        for reason in reasons() {
            let (mut dies, mut traps) = (a.mailbox().unwrap(), a.mailbox().unwrap());
            traps.trap_exits(true);
            let mut watches = b.mailbox().unwrap();
            let cause = b.mailbox().unwrap();
            let pid = cause.pid().clone();
            dies.link(&pid).await;
            traps.link(&pid).await;
            let reference = watches.monitor(dies.pid()).await;
            until_linked(&dies, &cause).await;
            until_linked(&traps, &cause).await;
            cause.end(reason.clone());
            // `kill` is no special reason in a link.
            assert_eq!(ended(&mut dies).await, reason, "{place}");
            assert_eq!(exit(next(&mut traps).await), (pid, reason.clone()), "{place}");
            let down = down(next(&mut watches).await);
            assert_eq!((down.reference, down.reason), (reference, reason), "{place}");
            quiet(&mut watches).await;
        }
    }
}

/// A message there and back: signals before it have arrived.
async fn until_linked(from: &Mailbox, to: &Mailbox) {
    // Not received: the order of signals is enough.
    from.send(to.pid(), "sync").await.unwrap();
    until("it is there", || to.queue_len() > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn normal_ends_nobody_else() {
    for (place, a, b) in places().await {
        let (mut lives, mut traps) = (a.mailbox().unwrap(), a.mailbox().unwrap());
        traps.trap_exits(true);
        let cause = b.mailbox().unwrap();
        let pid = cause.pid().clone();
        lives.link(&pid).await;
        traps.link(&pid).await;
        until_linked(&lives, &cause).await;
        drop(cause);
        assert_eq!(exit(next(&mut traps).await), (pid, term!(normal)), "{place}");
        quiet(&mut lives).await;
        assert_eq!(lives.ended_with(), None, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_signals() {
    for (place, a, b) in places().await {
        let sends = b.mailbox().unwrap();
        let (mut plain, mut traps) = (a.mailbox().unwrap(), a.mailbox().unwrap());
        traps.trap_exits(true);
        // Not linked; normal is ignored, but by who traps.
        sends.exit(plain.pid(), &term!(normal)).await.unwrap();
        sends.exit(traps.pid(), &term!(normal)).await.unwrap();
        assert_eq!(exit(next(&mut traps).await), (sends.pid().clone(), term!(normal)), "{place}");
        quiet(&mut plain).await;
        sends.exit(traps.pid(), &term!({ some, reason })).await.unwrap();
        let expected = (sends.pid().clone(), term!({ some, reason }));
        assert_eq!(exit(next(&mut traps).await), expected, "{place}");
        sends.exit(plain.pid(), &term!({ some, reason })).await.unwrap();
        assert_eq!(ended(&mut plain).await, term!({ some, reason }), "{place}");
        // kill cannot be trapped, and is killed to others.
        let mut linked = b.mailbox().unwrap();
        linked.trap_exits(true);
        linked.link(traps.pid()).await;
        until_linked(&linked, &traps).await;
        sends.exit(traps.pid(), &term!(kill)).await.unwrap();
        let expected = (traps.pid().clone(), term!(killed));
        assert_eq!(exit(next(&mut linked).await), expected, "{place}");
        assert_eq!(traps.ended_with(), Some(term!(killed)), "{place}");
        // To a process that is not there, and one of another life of its number.
        sends.exit(traps.pid(), &term!(kill)).await.unwrap();
    }
    let (a, _b) = pair().await;
    let mut own = a.mailbox().unwrap();
    let pid = own.pid().clone();
    own.exit(&pid, &term!(normal)).await.unwrap();
    assert_eq!(ended(&mut own).await, term!(normal));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitors_fire_once_each() {
    for (place, a, b) in places().await {
        let mut watches = a.mailbox().unwrap();
        let watched = b.mailbox().unwrap();
        watched.register("watched").unwrap();
        let pid = watched.pid().clone();
        let named = ("watched", b.name().as_str());
        let first = watches.monitor(&pid).await;
        let second = watches.monitor(&pid).await;
        let third = watches.monitor(named).await;
        let fourth = watches.monitor(&pid).await;
        watches.demonitor(&fourth);
        until_linked(&watches, &watched).await;
        // The monitor is on the process, not the name.
        assert!(watched.unregister("watched"));
        let mut another = b.mailbox().unwrap();
        another.register("watched").unwrap();
        drop(watched);
        let mut fired = Vec::new();
        for _ in 0..3 {
            let down = down(next(&mut watches).await);
            assert_eq!((&down.node, &down.reason), (b.name(), &term!(normal)), "{place}");
            let name = matches!(&down.target, Target::Name(name) if *name == "watched");
            assert_eq!(name, down.reference == third, "{place}: {down:?}");
            fired.push(down.reference);
        }
        for reference in [first, second, third] {
            assert_eq!(fired.iter().filter(|it| **it == reference).count(), 1, "{place}");
        }
        // A process that is gone, a name that nobody has.
        let gone = watches.monitor(&pid).await;
        let down_now = down(next(&mut watches).await);
        assert_eq!((down_now.reference, down_now.reason), (gone, term!(noproc)), "{place}");
        let nobody = watches.monitor(("nobody", b.name().as_str())).await;
        let down_now = down(next(&mut watches).await);
        assert_eq!((down_now.reference, down_now.reason), (nobody, term!(noproc)), "{place}");
        // One that fired and waits is taken out with the monitor.
        let late = watches.monitor(&pid).await;
        until("it waits", || watches.queue_len() > 0).await;
        watches.demonitor(&late);
        quiet(&mut watches).await;
        quiet(&mut another).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there() {
    for (place, a, b) in places().await {
        let mut links = a.mailbox().unwrap();
        let gone = b.mailbox().unwrap().pid().clone();
        links.trap_exits(true);
        links.link(&gone).await;
        assert_eq!(exit(next(&mut links).await), (gone.clone(), term!(noproc)), "{place}");
        // Of another life of the node.
        let mut old = gone;
        old.node = meshx_node::etf::Node::new(old.node.name().clone(), old.node.creation() ^ 1);
        links.link(&old).await;
        assert_eq!(exit(next(&mut links).await), (old.clone(), term!(noproc)), "{place}");
        let reference = links.monitor(&old).await;
        let down = down(next(&mut links).await);
        assert_eq!((down.reference, down.reason), (reference, term!(noproc)), "{place}");
        links.send(&old, "lost").await.unwrap();
        links.exit(&old, &term!(kill)).await.unwrap();
        // Itself.
        let own = links.pid().clone();
        links.link(&own).await;
        links.unlink(&own);
        quiet(&mut links).await;
    }
    let (a, b) = pair().await;
    b.stop().await;
    let mut links = a.mailbox().unwrap();
    let nowhere = b.mailbox().unwrap().pid().clone();
    until("it is down", || a.peers().is_empty()).await;
    links.trap_exits(true);
    links.link(&nowhere).await;
    assert_eq!(exit(next(&mut links).await), (nowhere.clone(), term!(noconnection)));
    let reference = links.monitor(("x", b.name().as_str())).await;
    let down = down(next(&mut links).await);
    assert_eq!((down.reference, down.reason), (reference, term!(noconnection)));
    assert!(links.send(&nowhere, "x").await.is_err());
    links.trap_exits(false);
    links.link(&nowhere).await;
    assert_eq!(ended(&mut links).await, term!(noconnection));
}

/// Whatever order signals cross in: after the last link, an exit arrives once; after the last unlink,
/// it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_and_unlinks_race() {
    for (place, a, b) in places().await {
        for round in 0..200 {
            let (left, right) = (a.mailbox().unwrap(), b.mailbox().unwrap());
            left.trap_exits(true);
            right.trap_exits(true);
            let (one, other) = (left.pid().clone(), right.pid().clone());
            // In parallel.
            let toggles = |own: Mailbox, to: Pid| {
                tokio::spawn(async move {
                    for turn in 0..5 {
                        own.link(&to).await;
                        if (round + turn) % 3 == 0 {
                            tokio::task::yield_now().await;
                        }
                        own.unlink(&to);
                    }
                    own
                })
            };
            let (left, right) = (toggles(left, other.clone()), toggles(right, one.clone()));
            let (mut left, mut right) = (left.await.unwrap(), right.await.unwrap());
            let linked = round % 2 == 0;
            for last in [false, true] {
                if last && linked {
                    left.link(&other).await;
                }
                // Both directions are at rest.
                left.send(&other, "sync").await.unwrap();
                assert_eq!(sender(next(&mut right).await), one);
                right.send(&one, "sync").await.unwrap();
                assert_eq!(sender(next(&mut left).await), other);
            }
            right.end(term!(gone));
            if linked {
                assert_eq!(exit(next(&mut left).await), (other, term!(gone)), "{place}");
            }
            let more = left.receive_within(std::time::Duration::from_millis(2)).await;
            assert!(more.is_none(), "{place}, {linked}: {more:?}");
        }
    }
}

/// A link must not overtake, nor be overtaken by, what its process said before: here a message in
/// fragments is before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_stay_behind_large_messages() {
    let _memory = crate::MEMORY.read().await;
    let (a, b) = pair().await;
    for _ in 0..10 {
        let (mut left, mut right) = (a.mailbox().unwrap(), b.mailbox().unwrap());
        let pid = right.pid().clone();
        left.trap_exits(true);
        let reference = left.monitor(&pid).await;
        left.link(&pid).await;
        left.send(&pid, "sync").await.unwrap();
        next(&mut right).await;
        right.send_term(left.pid(), &Term::from(&vec![1_u8; 3 << 20][..])).await.unwrap();
        right.send(left.pid(), "second").await.unwrap();
        let late = right.pid().clone();
        right.end(term!(over));
        // What is asked now of the process that has ended is answered behind what it said.
        let second = left.monitor(&late).await;
        for size in [3 << 20, 6] {
            let Signal::Message(message) = next(&mut left).await else { panic!("not in order") };
            assert!(message.body.bytes().len() > size, "{:?}", message.body.bytes().len());
        }
        let mut seen = (0, 0, 0);
        for _ in 0..3 {
            match next(&mut left).await {
                Signal::Exit { reason, .. } if reason == term!(over) => seen.0 += 1,
                Signal::Down(down) if down.reference == reference => seen.1 += 1,
                Signal::Down(down) if down.reference == second => seen.2 += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, (1, 1, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_told_once_to_each() {
    let (a, b) = pair().await;
    let mut here = Vec::new();
    let there: Vec<Mailbox> = (0..50).map(|_| b.mailbox().unwrap()).collect();
    for other in &there {
        let mailbox = a.mailbox().unwrap();
        mailbox.trap_exits(true);
        other.trap_exits(true);
        mailbox.link(other.pid()).await;
        let first = mailbox.monitor(other.pid()).await;
        let second = mailbox.monitor(other.pid()).await;
        mailbox.demonitor(&second);
        until_linked(&mailbox, other).await;
        here.push((mailbox, other.pid().clone(), first));
    }
    let mut events = a.monitor_nodes();
    a.disconnect(b.name());
    for (mailbox, other, reference) in &mut here {
        let (mut exits, mut downs) = (0, 0);
        for _ in 0..2 {
            match next(mailbox).await {
                Signal::Exit { from, reason } => {
                    assert_eq!((&from, reason), (&*other, term!(noconnection)));
                    exits += 1;
                }
                Signal::Down(down) => {
                    assert_eq!((&down.reference, down.reason), (&*reference, term!(noconnection)));
                    downs += 1;
                }
                signal => panic!("{signal:?}"),
            }
        }
        assert_eq!((exits, downs), (1, 1));
    }
    until("down", || !a.peers().iter().any(|peer| peer.name == *b.name())).await;
    assert!(matches!(events.try_recv(), Ok(meshx_node::NodeEvent::Down { .. })));
    assert!(events.try_recv().is_err());
    // Again, over the next connection; nothing of the last one comes.
    for (mailbox, other, _) in &mut here {
        assert!(mailbox.try_receive().is_none());
        mailbox.link(other).await;
        mailbox.send(&*other, "sync").await.unwrap();
    }
    for other in there {
        // The exit of the lost link between two messages.
        until("linked", || other.queue_len() >= 3).await;
        assert_eq!(other.queue_len(), 3);
        other.end(term!(over));
    }
    for (mailbox, other, _) in &mut here {
        assert_eq!(exit(next(mailbox).await), (other.clone(), term!(over)));
        assert!(mailbox.try_receive().is_none());
    }
}

/// Relations that are made while their connection ends: each ends with it, or with the next one, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relations_made_while_the_connection_ends() {
    let (a, b) = pair().await;
    let there = b.mailbox().unwrap();
    there.trap_exits(true);
    let pid = there.pid().clone();
    for round in 0..400 {
        a.connect(b.name()).await.unwrap();
        let mut relating = Vec::new();
        for _ in 0..4 {
            let (mailbox, pid) = (a.mailbox().unwrap(), pid.clone());
            relating.push(tokio::spawn(async move {
                mailbox.trap_exits(true);
                mailbox.link(&pid).await;
                let reference = mailbox.monitor(&pid).await;
                (mailbox, reference)
            }));
        }
        for _ in 0..round % 50 {
            std::hint::spin_loop();
        }
        a.disconnect(b.name());
        let mut related = Vec::new();
        for one in relating {
            related.push(one.await.unwrap());
        }
        a.disconnect(b.name());
        for (mut mailbox, reference) in related {
            let (mut exits, mut downs) = (0, 0);
            for _ in 0..2 {
                match next(&mut mailbox).await {
                    Signal::Exit { reason, .. } if reason == term!(noconnection) => exits += 1,
                    Signal::Down(down) if down.reference == reference => downs += 1,
                    other => panic!("round {round}: {other:?}"),
                }
            }
            assert_eq!((exits, downs), (1, 1), "round {round}");
            assert!(mailbox.try_receive().is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_aliases() {
    for (place, a, b) in places().await {
        let sends = a.mailbox().unwrap();
        let mut first = b.mailbox().unwrap();
        first.register("one").unwrap();
        assert!(first.register("two").is_err(), "{place}: a second name");
        assert!(b.mailbox().unwrap().register("one").is_err(), "{place}: taken");
        assert!(first.register("undefined").is_err());
        sends.send(("one", b.name().as_str()), &1).await.unwrap();
        assert_eq!(sender(next(&mut first).await), *sends.pid());
        drop(first);
        let mut second = b.mailbox().unwrap();
        second.register("one").unwrap();
        assert_eq!(b.whereis("one").as_ref(), Some(second.pid()));
        sends.send(("one", b.name().as_str()), &2).await.unwrap();
        next(&mut second).await;

        // See `old` for what a message to an alias is there.
        if place == OLD {
            continue;
        }
        let alias = second.alias();
        sends.send(&alias, &3).await.unwrap();
        next(&mut second).await;
        assert!(second.unalias(&alias));
        sends.send(&alias, &4).await.unwrap();
        sends.send(second.pid(), &5).await.unwrap();
        let Signal::Message(message) = next(&mut second).await else { panic!() };
        assert_eq!(message.body.typed::<i64>().unwrap(), 5, "{place}: the alias was taken back");
        drop(second);
        sends.send(&alias, &6).await.unwrap();
    }
}

/// Who asked for a linked process ends before it is there: it must not live on with a dead link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_asked_for_follows_who_asked() {
    let (a, b) = pair().await;
    b.offer("test", "linger", 0, |mut mailbox, _| async move {
        while mailbox.receive().await.is_some() {}
    });
    let before = b.process_count();
    for round in 0..50 {
        let asks = a.mailbox().unwrap();
        let request = asks.spawn_request(b.name(), ("test", "linger"), &[], true, round % 2 == 0);
        request.await.unwrap();
        asks.end(term!({ gone, (round) }));
    }
    // They come and go.
    tokio::time::sleep(crate::NOTHING).await;
    until("nobody is left", || b.process_count() == before).await;
}

/// What is offered may panic, at once or later: its process ends, the connection does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offered_functions_may_panic() {
    let (a, b) = pair().await;
    #[expect(unreachable_code, reason = "it panics before")]
    b.offer("test", "panics", 0, |_, _| {
        panic!("of the test");
        async {}
    });
    let mut asks = a.mailbox().unwrap();
    let reference =
        asks.spawn_request(b.name(), ("test", "panics"), &[], false, true).await.unwrap();
    let Signal::Spawned { result: Ok(_), .. } = next(&mut asks).await else { panic!() };
    let down = down(next(&mut asks).await);
    assert_eq!((down.reference, down.reason), (reference, term!(panic)));
    assert_eq!(a.peers().len(), 1);
    let mut alive = b.mailbox().unwrap();
    asks.send(alive.pid(), "still there").await.unwrap();
    next(&mut alive).await;
}
