//! Connections that are made again, and those that are never made.

use meshx_node::etf::term;
use meshx_node::{ConnectError, Keeping, SendError};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_kept_is_connected_again() {
    let board = Switchboard::new();
    let a = on(&board, "a").keep_connected(["b@127.0.0.1"]).start().await.unwrap();
    let kept = a.keep("b@127.0.0.1").unwrap();
    let mut events = a.monitor_nodes();
    until("it failed", || matches!(kept.state(), Keeping::Down { failures: 2.., .. })).await;
    let b = on(&board, "b").start().await.unwrap();
    tokio::time::timeout(LIMIT, kept.up()).await.unwrap();
    // Cut from either side.
    for cut in [&a, &b] {
        let other = if cut.name() == a.name() { &b } else { &a };
        assert!(cut.disconnect(other.name()));
        until("it is cut", || ups_and_downs_so_far(&mut events).1 == 1).await;
        until("it is back", || a.peers().len() == 1).await;
    }
    // Another life of it, for which that one need not look.
    b.stop().await;
    until("it is gone", || matches!(kept.state(), Keeping::Down { .. })).await;
    let b = on(&board, "b").start().await.unwrap();
    let begun = Instant::now();
    b.connect(a.name()).await.unwrap();
    tokio::time::timeout(LIMIT, kept.up()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    b.stop().await;
    a.stop().await;
    assert!(!matches!(kept.state(), Keeping::Up));
}

fn ups_and_downs_so_far(events: &mut Receiver<NodeEvent>) -> (usize, usize) {
    let (mut ups, mut downs) = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            NodeEvent::Up { .. } => ups += 1,
            NodeEvent::Down { .. } => downs += 1,
            _ => {}
        }
    }
    (ups, downs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_no_longer_stays_as_it_is() {
    let (a, b) = pair().await;
    let kept = a.keep(b.name()).unwrap();
    tokio::time::timeout(LIMIT, kept.up()).await.unwrap();
    drop(kept);
    tokio::time::sleep(NOTHING).await;
    assert_eq!(a.peers().len(), 1);
    a.disconnect(b.name());
    until("it is cut", || a.peers().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(a.peers().is_empty());
    // Itself is always there; what is no name never is.
    assert!(matches!(a.keep(a.name()).unwrap().state(), Keeping::Up));
    assert!(matches!(a.keep("a b"), Err(ConnectError::Name(_))));
    let named = builder("c").keep_connected(["c"]).start().await.unwrap_err().to_string();
    assert!(named.starts_with("\"c\" is no node name"), "{named}");
}

/// Time is that of the test: twenty failures take as long as the pauses between them.
#[tokio::test(start_paused = true)]
async fn pauses_grow_and_have_an_end() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let begun = tokio::time::Instant::now();
    let kept = a.keep("nobody@127.0.0.1").unwrap();
    let mut state = kept.watch();
    let failed = |count| move |state: &Keeping| matches!(state, Keeping::Down { failures, .. } if *failures >= count);
    state.wait_for(failed(20)).await.unwrap();
    // 0.2 + 0.4 + 0.8 + 1.6 + 15 times 3 s, and at least half of that.
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(24) && took <= Duration::from_secs(49), "{took:?}");
    let Keeping::Down { reason, .. } = kept.state() else { panic!() };
    assert!(reason.to_string().contains("nobody@127.0.0.1"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_connect_by_itself_fails_at_once() {
    let board = Switchboard::new();
    let a = on(&board, "a").auto_connect(false).start().await.unwrap();
    let b = on(&board, "b").start().await.unwrap();
    let mut inbox = b.mailbox().unwrap();
    inbox.register("inbox").unwrap();
    let mut from = a.mailbox().unwrap();
    let to = ("inbox", b.name().as_str());
    let sent = from.send_term(to, &term!(lost)).await;
    let not_connected = ConnectError::NotConnected(b.name().clone()).to_string();
    assert!(
        matches!(&sent, Err(SendError::Connect(why)) if why.to_string() == not_connected),
        "{sent:?}"
    );
    from.monitor(to).await;
    let Signal::Down(down) = next(&mut from).await else { panic!() };
    assert_eq!(down.reason, term!(noconnection));
    let called = a.call::<_, i64>(to, &1, LIMIT).await.unwrap_err();
    assert!(matches!(called, meshx_node::CallError::NoConnection), "{called}");
    assert!(a.peers().is_empty() && b.peers().is_empty());
    // Who is asked to connect does.
    a.connect(b.name()).await.unwrap();
    from.send_term(to, &term!(taken)).await.unwrap();
    let Signal::Message(message) = next(&mut inbox).await else { panic!() };
    assert_eq!(message.body.term().unwrap(), term!(taken));
    // And an answer goes the way that the question came.
    b.disconnect(a.name());
    until("it is cut", || a.peers().is_empty()).await;
    inbox.send_term(from.pid(), &term!(first)).await.unwrap();
    let Signal::Message(message) = next(&mut from).await else { panic!() };
    assert_eq!(message.body.term().unwrap(), term!(first));
    from.send_term(to, &term!(second)).await.unwrap();
}
