//! Many, slow, and greedy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshx_proxy::{MAX_HANDSHAKES, Protocol, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{Mesh, Program, SOON, dial, eventually, talk};

#[tokio::test]
async fn half_open_clients_do_not_keep_a_good_one_out() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut stream = dial(db.public).await;
        if number % 2 == 0 {
            stream.write_all(b"\x16\x03\x01").await.unwrap();
        }
        idle.push(stream);
    }
    let begun = Instant::now();
    talk(&mut dial(door.local).await, b"hello").await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(db.journal.refused().is_empty(), "{:?}", db.journal.refused());
}

#[tokio::test]
async fn too_many_half_open_clients_are_shed_and_forgotten() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut live = dial(door.local).await;
    talk(&mut live, b"hello").await;
    let mut idle = Vec::new();
    for _ in 0..MAX_HANDSHAKES + 20 {
        let mut stream = dial(db.public).await;
        // The silent do not take the places of handshakes; these have begun one.
        stream.write_all(b"\x16").await.unwrap();
        idle.push(stream);
    }
    eventually("the surplus is shed", || db.refused(Step::Overload) == 20).await;
    talk(&mut live, b"undisturbed").await;
    drop(idle);
    // The places are free again as soon as they hung up.
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        let mut stream = dial(door.local).await;
        if crate::support::answers(&mut stream, b"hello").await {
            return;
        }
    }
    panic!("the places are not free again");
}

/// However many strangers connect and say nothing, a peer is served at once.
#[tokio::test]
async fn the_silent_do_not_keep_a_peer_out() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut idle = Vec::new();
    for _ in 0..MAX_HANDSHAKES * 2 {
        idle.push(dial(db.public).await);
    }
    talk(&mut dial(door.local).await, b"welcome").await;
    assert_eq!(db.refused(Step::Overload), 0);
}

/// The writer is stopped soon after the reader stops; nothing is lost, nobody else waits.
#[tokio::test]
async fn a_reader_that_stops_stops_the_writer_and_nobody_else() {
    const CHUNK: usize = 256 * 1024;
    let mesh = Mesh::new();
    let go = Arc::new(Notify::new());
    let (total, mut totals) = tokio::sync::mpsc::unbounded_channel();
    let waits = Arc::clone(&go);
    let program = Program::serving(move |mut stream: TcpStream| {
        let (waits, total) = (Arc::clone(&waits), total.clone());
        async move {
            waits.notified().await;
            let mut count = 0;
            let mut space = vec![0; CHUNK];
            loop {
                match stream.read(&mut space).await.unwrap() {
                    0 => break,
                    more => count += more,
                }
            }
            total.send(count).unwrap();
        }
    });
    let echo = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let other = mesh.station("db", Protocol::Tcp, echo.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let good = web.open("db", Protocol::Tcp, &[other.public]);

    let mut stream = dial(door.local).await;
    let mut good = dial(good.local).await;
    talk(&mut good, b"hello").await;
    let chunk = vec![5; CHUNK];
    let mut accepted = 0;
    loop {
        let write = stream.write(&chunk);
        match tokio::time::timeout(Duration::from_millis(500), write).await {
            Ok(count) => accepted += count.unwrap(),
            Err(_) => break,
        }
        // Three connections' worth of kernel buffers, and the relays between them.
        assert!(accepted < 64 * 1024 * 1024, "{accepted} bytes were taken, and nobody reads");
    }
    for _ in 0..20 {
        let begun = Instant::now();
        talk(&mut good, b"hello").await;
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    }
    go.notify_one();
    stream.shutdown().await.unwrap();
    let got = tokio::time::timeout(4 * SOON, totals.recv()).await.unwrap().unwrap();
    assert_eq!(got, accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_open_talk_and_close() {
    const COUNT: usize = 1000;
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut live = Vec::new();
    while live.len() < COUNT {
        let batch: Vec<_> = (0..50)
            .map(|_| {
                let local = door.local;
                tokio::spawn(async move {
                    let mut stream = dial(local).await;
                    talk(&mut stream, b"hello").await;
                    stream
                })
            })
            .collect();
        for stream in batch {
            live.push(stream.await.unwrap());
        }
    }
    assert_eq!((web.live(), db.live(), program.accepted()), (COUNT, COUNT, COUNT));
    for stream in live.iter_mut().step_by(37) {
        talk(stream, b"all at once").await;
    }
    drop(live);
    eventually("all are gone", || web.live() == 0 && db.live() == 0).await;
    assert!(web.journal.refused().is_empty() && db.journal.refused().is_empty());
}
