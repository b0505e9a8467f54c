//! Peers that can do no more than OTP 23.2: no `V4_NC`, no `UNLINK_ID`, no `ALIAS`. Links with such are
//! in `relations`.

use std::collections::HashSet;

use meshx_node::etf::{Reference, Term, term};
use meshx_node::{Caller, Down, Flags, Mailbox, Node, SendError, Signal};

use crate::{LIMIT, next, old_pair, on, quiet, ups_and_downs};

fn lacks<T>(result: Result<T, SendError>) -> Flags {
    match result {
        Err(SendError::Incapable { lacks, .. }) => lacks,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was sent"),
    }
}

#[tokio::test]
async fn pids_are_narrow_while_few_processes_live() {
    let _memory = crate::MEMORY.read().await;
    let node = on(&crate::Switchboard::new(), "a").start().await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..100_000 {
        let pid = node.mailbox().unwrap().pid().clone();
        assert!(pid.is_narrow());
        assert!(seen.insert(pid.clone()), "{pid:?} came again");
    }
    // As soon as there is room again.
    let mut crowd = crowd(&node);
    assert!(!crowd.last().unwrap().pid().is_narrow());
    crowd.truncate(10_000);
    assert!(node.mailbox().unwrap().pid().is_narrow());
}

/// More than there are narrow pids.
fn crowd(node: &Node) -> Vec<Mailbox> {
    (0..33_000).map(|_| node.mailbox().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_peer_cannot_read_is_kept_from_it() {
    let _memory = crate::MEMORY.read().await;
    let (a, b) = old_pair().await;
    let mut events = a.monitor_nodes();
    let mut peer = b.mailbox().unwrap();
    peer.trap_exits(true);
    peer.register("peer").unwrap();
    let to = ("peer", b.name().as_str());
    let mut all = crowd(&a);
    let mut wide = all.pop().unwrap();
    let pid = wide.pid().clone();
    assert!(!pid.is_narrow());

    // Of a process that the peer cannot name.
    assert_eq!(lacks(wide.send(to, "x").await), Flags::V4_NC);
    assert_eq!(lacks(wide.exit(peer.pid(), &term!(bad)).await), Flags::V4_NC);
    let spawn = wide.spawn_request(b.name(), ("m", "f"), &[], true, true).await;
    assert_eq!(lacks(spawn), Flags::V4_NC);
    wide.trap_exits(true);
    wide.link(peer.pid()).await;
    let Signal::Exit { from, reason } = next(&mut wide).await else { panic!() };
    assert_eq!((&from, reason), (peer.pid(), term!(noconnection)));
    wide.unlink(peer.pid());
    let reference = wide.monitor(to).await;
    let Signal::Down(Down { reference: of, reason, .. }) = next(&mut wide).await else { panic!() };
    assert_eq!((of, reason), (reference, term!(noconnection)));

    // In what others say.
    let narrow = all.swap_remove(0);
    let long = Reference::new(pid.node.clone(), &[1, 2, 3, 4, 5]).unwrap();
    for content in [Term::from(pid.clone()), Term::from(long)] {
        let content = term!({ about, [(content)] });
        assert_eq!(lacks(narrow.send_term(to, &content).await), Flags::V4_NC);
        assert_eq!(lacks(narrow.send(to, &(1, &content)).await), Flags::V4_NC);
        assert_eq!(lacks(narrow.try_send_term(to, &content)), Flags::V4_NC);
    }
    let alias = narrow.alias();
    assert_eq!(lacks(peer.send(&alias, "x").await), Flags::ALIAS);
    quiet(&mut peer).await;

    // A signal arrives, whatever its reason is.
    peer.link(narrow.pid()).await;
    let reference = peer.monitor(narrow.pid()).await;
    peer.send(narrow.pid(), "sync").await.unwrap();
    let mut narrow = narrow;
    next(&mut narrow).await;
    narrow.end(term!({ about, (pid) }));
    for _ in 0..2 {
        match next(&mut peer).await {
            Signal::Exit { reason, .. } => assert_eq!(reason, term!(unreadable)),
            Signal::Down(down) => {
                assert_eq!((&down.reference, down.reason), (&reference, term!(unreadable)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ups_and_downs(&mut events), (0, 0));
}

/// Who calls gives an alias, as stock nodes do whatever their peer is; the answer comes to the pid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_without_aliases() {
    let (a, b) = old_pair().await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut server = to.mailbox().unwrap();
        server.register("server").unwrap();
        let serving = tokio::spawn(async move {
            let Signal::Message(message) = next(&mut server).await else { panic!() };
            let Ok(Term::Tuple(call)) = message.body.term() else { panic!() };
            let caller = Caller::of(&call[1]).unwrap();
            caller.reply(&server, &call[2]).await.unwrap();
        });
        let at = ("server", to.name().as_str());
        let answer: Term = from.call(at, &term!({ ask, 1 }), LIMIT).await.unwrap();
        assert_eq!(answer, term!({ ask, 1 }));
        serving.await.unwrap();
    }
}

/// A peer that asks for a process when only those are left that it cannot name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_is_started_that_who_asks_cannot_name() {
    let _memory = crate::MEMORY.read().await;
    let (a, b) = old_pair().await;
    a.offer("m", "f", 0, |mut mailbox, _| async move {
        mailbox.receive().await;
    });
    let crowd = crowd(&a);
    let before = a.process_count();
    let mut asks = b.mailbox().unwrap();
    let asked = asks.spawn_request(a.name(), ("m", "f"), &[], true, true).await.unwrap();
    let Signal::Spawned { reference, result } = next(&mut asks).await else { panic!() };
    assert_eq!((reference, result), (asked, Err("system_limit".parse().unwrap())));
    assert_eq!(a.process_count(), before);
    drop(crowd);
    asks.spawn_request(a.name(), ("m", "f"), &[], true, true).await.unwrap();
    let Signal::Spawned { result: Ok(pid), .. } = next(&mut asks).await else { panic!() };
    assert!(pid.is_narrow());
}
