//! Ticks, in time that the test moves.

use std::time::Duration;

use meshx_node::carrier::{Carrier, Memory, Myself, Switchboard};
use meshx_node::{NodeEvent, Ticktime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, join};
use tokio::time::Instant;

use crate::raw::Claim;
use crate::{builder, on};

fn ticktime(seconds: u64) -> Ticktime {
    Ticktime { time: Duration::from_secs(seconds), intensity: 4 }
}

/// D5: a peer that says nothing is given up after the ticktime, and hears a tick every quarter of it.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_in_time() {
    let board = Switchboard::new();
    let node = on(&board, "a").ticktime(ticktime(60)).start().await.unwrap();
    let stream = Memory::new(&board).dial(node.name()).await.unwrap();
    let mut stream = join(stream.read, stream.write);
    let mut events = node.monitor_nodes();
    Claim::of("raw").shake(&mut stream, node.name()).await.unwrap();
    let begun = Instant::now();
    let mut ticks = 0;
    let mut tick = [0; 4];
    while let Ok(4) = stream.read_exact(&mut tick).await {
        assert_eq!(tick, [0; 4]);
        ticks += 1;
    }
    let lived = begun.elapsed();
    assert!((60..=61).contains(&lived.as_secs()), "{lived:?}");
    assert!((3..=4).contains(&ticks), "{ticks} ticks");
    assert!(matches!(events.recv().await, Ok(NodeEvent::Up { .. })));
    let Ok(NodeEvent::Down { reason, .. }) = events.recv().await else { panic!() };
    assert!(reason.contains("net_ticktime"), "{reason}");
}

/// A peer that ticks stays, and one whose bytes are read late does, too.
#[tokio::test(start_paused = true)]
async fn a_peer_that_ticks_stays() {
    let board = Switchboard::new();
    let node = on(&board, "a").ticktime(ticktime(8)).start().await.unwrap();
    let stream = Memory::new(&board).dial(node.name()).await.unwrap();
    let (mut read, mut write) = (stream.read, stream.write);
    Claim::of("raw").shake(&mut join(&mut read, &mut write), node.name()).await.unwrap();
    let counting = tokio::spawn(async move {
        let mut bytes = 0;
        let mut some = [0; 64];
        while let Ok(count @ 1..) = read.read(&mut some).await {
            bytes += count;
        }
        bytes
    });
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(7)).await;
        write.write_all(&[0; 4]).await.unwrap();
    }
    assert_eq!(node.peers().len(), 1);
    node.stop().await;
    let ticks = counting.await.unwrap() / 4;
    assert!((300..=800).contains(&ticks), "one each 2 s in 700 s: {ticks}");
}

/// Two nodes that have nothing to say stay connected for a day.
#[tokio::test(start_paused = true)]
async fn idle_nodes_stay_connected() {
    let board = Switchboard::new();
    // One ticks seldom; the other's demands are met all the same.
    let a = on(&board, "a").ticktime(ticktime(600)).start().await.unwrap();
    let b = on(&board, "b").ticktime(ticktime(8)).start().await.unwrap();
    a.connect(b.name()).await.unwrap();
    let (mut of_a, mut of_b) = (a.monitor_nodes(), b.monitor_nodes());
    tokio::time::sleep(Duration::from_hours(24)).await;
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    assert!(of_a.try_recv().is_err() && of_b.try_recv().is_err());
}

/// D8 and D6: while bytes wait that the peer does not take, its silence counts as ever.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up_in_time() {
    let board = Switchboard::new();
    let node = on(&board, "a").ticktime(ticktime(60)).start().await.unwrap();
    let stream = Memory::new(&board).dial(node.name()).await.unwrap();
    let mut stream = join(stream.read, stream.write);
    Claim::of("raw").shake(&mut stream, node.name()).await.unwrap();
    let begun = Instant::now();
    let sends = node.mailbox().unwrap();
    let mut sent = 0_usize;
    // More than its pipe and what may wait; then the sender waits, and is told.
    let error = loop {
        match sends.send(("x", "raw@127.0.0.1"), &vec![0_u8; 100_000]).await {
            Ok(()) => sent += 100_000,
            Err(error) => break error,
        }
    };
    let lived = begun.elapsed();
    assert!((60..=76).contains(&lived.as_secs()), "{lived:?}");
    assert!(sent < 4 << 20, "{sent} bytes were taken");
    let error = error.to_string();
    assert!(error.contains("raw@127.0.0.1"), "{error}");
    drop(stream);
}

/// A handshake that is not finished is given up in its time, at every step.
#[tokio::test(start_paused = true)]
async fn silent_handshakes_are_given_up_in_time() {
    let board = Switchboard::new();
    let memory = Memory::new(&board);
    let node = builder("a").carrier(memory.clone()).start().await.unwrap();
    // As acceptor: nothing was said, or half of it.
    for said in [&[][..], &[0, 30], &[0, 30, b'N', 1, 2, 3]] {
        let mut stream = memory.dial(node.name()).await.unwrap();
        stream.write.write_all(said).await.unwrap();
        let begun = Instant::now();
        let mut nothing = Vec::new();
        drop(stream.read.read_to_end(&mut nothing).await);
        assert!((6..=8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }
    // As initiator.
    let me = Myself { name: "silent@127.0.0.1".to_owned(), hidden: true };
    let mut listener = memory.listen(&me).await.unwrap();
    let begun = Instant::now();
    let (dialled, stream) = tokio::join!(node.connect("silent@127.0.0.1"), listener.accept());
    let error = dialled.unwrap_err().to_string();
    assert!((6..=8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(error.contains("silent@127.0.0.1"), "{error}");
    drop(stream);
}
