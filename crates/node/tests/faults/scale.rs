//! Many peers of one node.

use std::time::{Duration, Instant};

use meshx_node::{NodeEvent, Ticktime};

use crate::{Known, MEMORY, builder, until};

/// What this process has in memory.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A thousand peers, each a node of its own: both ends together take no more than twice what one may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers() {
    const PEERS: usize = 1000;
    let _alone = MEMORY.write().await;
    let known = Known::default();
    let ticktime = Ticktime { time: Duration::from_secs(4), intensity: 4 };
    let hub = builder("hub").carrier(known.tcp()).ticktime(ticktime).start().await.unwrap();
    known.add(&hub);
    let mut leaves = Vec::new();
    for number in 0..PEERS {
        let leaf = builder(&format!("leaf{number}")).carrier(known.tcp()).ticktime(ticktime);
        leaves.push(leaf.start().await.unwrap());
    }
    let mut events = hub.monitor_nodes();
    let before = resident();
    let begun = Instant::now();
    for leaf in &leaves {
        leaf.connect(hub.name()).await.unwrap();
    }
    until("all are there", || hub.peers().len() == PEERS).await;
    let connected = begun.elapsed();
    // Something was said over each.
    let mut counts = hub.mailbox().unwrap();
    counts.register("counts").unwrap();
    for leaf in &leaves {
        let sends = leaf.mailbox().unwrap();
        sends.send(("counts", hub.name().as_str()), &vec![0_u8; 2000]).await.unwrap();
    }
    for _ in 0..PEERS {
        crate::next(&mut counts).await;
    }
    let each = resident().saturating_sub(before) / PEERS / 2;
    eprintln!("{PEERS} peers in {connected:?}: {each} bytes for each end of a connection");
    assert!(each < 60 << 10, "{each} bytes for each end");
    // Ticks are on time: nobody is lost.
    while let Ok(event) = events.try_recv() {
        assert!(matches!(event, NodeEvent::Up { .. }), "{event:?}");
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(events.try_recv().is_err(), "a peer was lost");
    assert_eq!(hub.peers().len(), PEERS);
    let each = resident().saturating_sub(before) / PEERS / 2;
    eprintln!("after a while: {each} bytes");
}
