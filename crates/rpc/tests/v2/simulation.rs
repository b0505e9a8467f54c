//! Slow, stalled and cut connections, chosen by seeds, in time that does not pass: whatever happens, a
//! call ends in time, a result is right, and what is said of having run is true.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshx_rpc::transport::{Dial, Listen, Memory, MemoryListening};
use meshx_rpc::{Client, Executed, Functions, Limits, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// Numbers that a seed chooses (Knuth's MMIX).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn split(&mut self) -> Self {
        Self(self.below(u64::MAX >> 33).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// One direction: pieces of any size, late, sometimes very late, and sometimes the end of both.
async fn passes(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut chance: Chance,
    cut: Arc<Notify>,
) {
    let all = async {
        let mut bytes = vec![0; 1 << 16];
        loop {
            let most = 1 + usize::try_from(chance.below(1 << 12)).unwrap();
            let Ok(count @ 1..) = from.read(&mut bytes[..most]).await else { return };
            let pause = match chance.below(1000) {
                0 => return,
                1..=5 => 500 + chance.below(4000),
                6..=200 => chance.below(50),
                _ => 0,
            };
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = all => cut.notify_waiters(),
        () = cut.notified() => {}
    }
}

async fn network(mut listen: MemoryListening, onward: Memory, mut chance: Chance) {
    loop {
        let near = listen.accept().await.unwrap();
        if chance.below(10) == 0 {
            continue;
        }
        let Ok(far) = onward.dial().await else { continue };
        let cut = Arc::new(Notify::new());
        tokio::spawn(passes(near.read, far.write, chance.split(), Arc::clone(&cut)));
        tokio::spawn(passes(far.read, near.write, chance.split(), cut));
    }
}

async fn one(seed: u64) -> (usize, usize) {
    const LIMIT: Duration = Duration::from_secs(3);
    let mut chance = Chance(seed);
    let ran: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
    let counts = Arc::clone(&ran);
    let functions = Functions::new().add("run", move |(id, ms, text): (u64, u64, String)| {
        *counts.lock().unwrap().entry(id).or_default() += 1;
        async move {
            if ms > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Ok::<_, String>((id * 7, text))
        }
    });
    let (dial, near) = Memory::pair();
    let (onward, far) = Memory::pair();
    let limits = Limits {
        handshake: Duration::from_secs(1),
        frame: Duration::from_secs(2),
        keep_alive: Duration::from_secs(1),
        stream_window: 65_536,
        max_block: 4096,
        ..Limits::default()
    };
    let _server = Server::new(functions).listen(far).limits(limits).start();
    let network = tokio::spawn(network(near, onward, chance.split()));
    let client = Client::to(dial).limits(limits).connections(3).start();
    let mut calls = Vec::new();
    for id in 0..200_u64 {
        let (client, mut chance) = (client.clone(), chance.split());
        calls.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(chance.below(10_000))).await;
            let ms = if chance.below(2) == 0 { 0 } else { chance.below(300) };
            let text = "x".repeat(usize::try_from(chance.below(10)).unwrap().pow(5));
            let idempotent = chance.below(2) == 0;
            let call = client.function("run").timeout(LIMIT);
            let call = if idempotent { call.idempotent() } else { call };
            let begun = tokio::time::Instant::now();
            let result = call.call::<_, (u64, String)>(&(id, ms, &text)).await;
            let took = begun.elapsed();
            assert!(took <= LIMIT + Duration::from_millis(50), "{id} took {took:?}");
            if let Ok((seven, back)) = &result {
                assert!(*seven == id * 7 && *back == text, "{id}: another result");
            }
            (id, idempotent, result.map(drop))
        }));
    }
    let (mut right, mut failed) = (0, 0);
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    // What is still on its way may run yet.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let ran = ran.lock().unwrap();
    for (id, idempotent, result) in results {
        let count = ran.get(&id).copied().unwrap_or(0);
        match result {
            Ok(()) => {
                right += 1;
                assert!(count >= 1, "{id} did not run");
            }
            Err(error) => {
                failed += 1;
                let never = error.executed() == Executed::Never;
                assert!(idempotent || !never || count == 0, "{id} ran: {error:?}");
            }
        }
        assert!(idempotent || count <= 1, "{id} ran {count} times");
    }
    network.abort();
    (right, failed)
}

#[tokio::test(start_paused = true)]
async fn calls_keep_their_promises_on_bad_networks() {
    let first: u64 = std::env::var("MESHX_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (mut right, mut failed) = (0, 0);
    for seed in first..first + 20 {
        println!("MESHX_SEED={seed}");
        let done = one(seed).await;
        right += done.0;
        failed += done.1;
    }
    // The network was bad, and did not stop all.
    assert!(right > 2000 && failed > 20, "{right} right, {failed} failed");
}
