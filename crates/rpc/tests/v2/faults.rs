//! Faults R2, R4 and R5 of a mesh: changed bytes, too many calls, too much of one. (R1 and R3: `life`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use meshx_etf::Binary;
use meshx_rpc::transport::{Dial, Listen, Memory};
use meshx_rpc::{
    Algorithm, Body, Client, Codec, Error, Executed, Incoming, Kind, Limits, Outgoing, Retries,
    Server,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Count, functions, pair};

/// Copies, and changes one bit of every so many bytes, at places that `seed` chooses.
async fn corrupt(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut seed: u64,
    every: u64,
) {
    let mut bytes = vec![0; 4096];
    let mut next = every / 2;
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let part = &mut bytes[..count];
        let len = u64::try_from(count).unwrap();
        if next < len {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            part[usize::try_from(next).unwrap()] ^= 1 << (seed >> 61);
            next += every / 2 + (seed >> 33) % every;
        }
        next = next.saturating_sub(len);
        if to.write_all(part).await.is_err() {
            return;
        }
    }
}

/// R2: of a hundred thousand calls, none has a wrong result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_bytes_never_change_a_result() {
    let (dial, mut listen) = Memory::pair();
    let (onward, inner) = Memory::pair();
    let algorithms = [Algorithm::Crc32c, Algorithm::Xxh3, Algorithm::Blake3];
    // Where a length was changed, the rest of that frame never comes.
    let half = Duration::from_millis(500);
    let limits = Limits { frame: half, handshake: half, keep_alive: half, ..Limits::default() };
    let server = Server::new(functions()).listen(inner).checksums(&algorithms);
    let _server = server.limits(limits).start();
    let changed = Count::default();
    let connections = changed.clone();
    let relay = tokio::spawn(async move {
        let mut seed = 1;
        loop {
            let near = listen.accept().await.unwrap();
            let far = onward.dial().await.unwrap();
            seed += 2;
            connections.add();
            tokio::spawn(corrupt(near.read, far.write, seed, 40_000));
            tokio::spawn(corrupt(far.read, near.write, seed + 1, 40_000));
        }
    });
    let (right, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut workers = Vec::new();
    for worker in 0..50_u32 {
        let client = Client::to(dial.clone()).checksums(&[algorithms[worker as usize % 3]]);
        let client = client.connections(1).retries(Retries::NONE).limits(limits).start();
        let (right, failed) = (Arc::clone(&right), Arc::clone(&failed));
        workers.push(tokio::spawn(async move {
            for round in 0..2000_u32 {
                let call = client.function("add").timeout(Duration::from_secs(20));
                match call.call::<_, u32>(&(worker, round)).await {
                    Ok(sum) => {
                        assert_eq!(sum, worker + round, "a wrong result");
                        right.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        let kind = error.kind();
                        let ended = matches!(
                            kind,
                            Kind::Transport | Kind::Integrity | Kind::Protocol | Kind::Draining
                        );
                        assert!(ended, "{error:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let (right, failed) = (right.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    assert_eq!(right + failed, 100_000);
    // Bits were changed, and found.
    assert!(failed > 20 && changed.get() > 70, "{failed} failed, {} connections", changed.get());
    assert!(right > 90_000, "{right}");
    relay.abort();
}

/// R4: ten times as many callers as there are places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_calls_are_shed_and_the_others_answered() {
    let (client, _server) =
        pair(functions(), |it| it.retries(Retries::NONE).connections(1), |it| it.in_flight(8));
    let shed = Count::default();
    let answered = async |callers: usize| {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Count::default());
        let workers: Vec<_> = (0..callers)
            .map(|_| {
                let (client, stop, done, shed) =
                    (client.clone(), Arc::clone(&stop), done.clone(), shed.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        match client.call::<_, u64>("sleep", &20).await {
                            Ok(_) => _ = done.add(),
                            Err(error) => {
                                let said = (error.kind(), error.executed());
                                assert_eq!(said, (Kind::Overloaded, Executed::Never));
                                shed.add();
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.unwrap();
        }
        done.get()
    };
    let peak = answered(8).await;
    let under_load = answered(80).await;
    assert!(shed.get() > 100, "{}", shed.get());
    assert!(under_load * 10 >= peak * 8, "{under_load} of {peak}");
}

/// R5: what is too large for a message goes as an exchange, and holds little.
#[tokio::test]
async fn a_gibibyte_passes_in_an_exchange_and_is_refused_in_one_call() {
    const MESSAGE: usize = 8 << 20;
    const MESSAGES: usize = 128;
    let length = async |mut all: Incoming<Binary>, mut out: Outgoing<u64>| {
        let mut len = 0;
        while let Some(message) = all.next().await {
            len += u64::try_from(message?.len()).unwrap();
        }
        out.send(&len).await?;
        Ok::<_, Error>(())
    };
    let all = functions().add_exchange("length", length);
    let (client, _server) =
        pair(all, |it| it.checksums(&[Algorithm::None]), |it| it.checksums(&Algorithm::ALL));
    let (mut out, mut len) =
        client.function("length").codec(Codec::Postcard).open::<Binary, u64>().await.unwrap();
    let message = Binary::from(vec![7; MESSAGE]);
    let before = resident();
    for _ in 0..MESSAGES {
        out.send(&message).await.unwrap();
    }
    drop(out);
    assert_eq!(len.next().await.unwrap().unwrap(), 1 << 30);
    let grown = resident().saturating_sub(before);
    assert!(grown < 256 << 20, "{} MiB", grown >> 20);

    let large = Body::raw(vec![0; 65 << 20]);
    let error = client.function("raw").call_raw(large).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
}

/// The most memory that this process had, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
