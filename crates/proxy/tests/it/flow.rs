//! Bytes through a pair of sidecars.

use std::time::Duration;

use meshx_proxy::{Direction, Outcome, Protocol, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Mesh, Program, SOON, dial, end_of, eventually, nobody, talk};

fn pattern(length: usize, step: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(step) >> 3).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn bytes_flow_both_ways_at_once() {
    const LENGTH: usize = 2_000_000;
    let mesh = Mesh::new();
    let program = Program::serving(async |stream: TcpStream| {
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&pattern(LENGTH, 13)).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        // A wrong byte ends the program here, and the client's answer with it.
        assert!(got == pattern(LENGTH, 7));
        writing.await.unwrap();
    });
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);

    let (mut read, mut write) = dial(door.local).await.into_split();
    let writing = tokio::spawn(async move {
        write.write_all(&pattern(LENGTH, 7)).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let got = end_of(&mut read).await;
    writing.await.unwrap();
    assert!(got == pattern(LENGTH, 13), "{} bytes came", got.len());
    assert_eq!(program.accepted(), 1);
    let length = u64::try_from(LENGTH).unwrap();
    for station in [&web, &db] {
        let closed =
            station.event("the end", |event| matches!(event.outcome, Outcome::Closed { .. })).await;
        let Outcome::Closed { sent, received, .. } = closed.outcome else { unreachable!() };
        assert_eq!((sent, received), (length, length));
        assert!(station.journal.refused().is_empty());
    }
}

#[tokio::test]
async fn an_answer_after_the_callers_end_arrives_whole() {
    let mesh = Mesh::new();
    let program = Program::serving(async |mut stream: TcpStream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        // By now an end that was taken for the end of both ways has done its damage.
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(&question).await.unwrap();
    });
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);

    let mut stream = dial(door.local).await;
    stream.write_all(&pattern(100_000, 11)).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = end_of(&mut stream).await;
    assert!(answer == pattern(100_000, 11), "{} of 100000 bytes came", answer.len());
}

#[tokio::test]
async fn a_program_that_ends_first_still_hears_everything() {
    let mesh = Mesh::new();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let program = Program::serving(move |mut stream: TcpStream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"greeting").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            heard.send(all).unwrap();
        }
    });
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);

    let mut stream = dial(door.local).await;
    assert_eq!(end_of(&mut stream).await, b"greeting");
    stream.write_all(&pattern(100_000, 3)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(&pattern(100_000, 5)).await.unwrap();
    drop(stream);
    let all = tokio::time::timeout(SOON, hears.recv()).await.unwrap().unwrap();
    assert!(all == [pattern(100_000, 3), pattern(100_000, 5)].concat(), "{} bytes", all.len());
}

#[tokio::test]
async fn what_is_known_of_a_connection() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut stream = dial(door.local).await;
    talk(&mut stream, b"hello").await;

    let [out] = &web.sidecar.connections().list()[..] else { panic!("one connection") };
    let [inward] = &db.sidecar.connections().list()[..] else { panic!("one connection") };
    assert_eq!((out.direction, inward.direction), (Direction::Outbound, Direction::Inbound));
    for facts in [out, inward] {
        assert_eq!((facts.source.as_str(), facts.destination.as_str()), ("web", "db"));
        assert_eq!((facts.sent, facts.received), (5, 5));
        assert_eq!(facts.tls, "TLSv1_3");
        assert!(facts.cipher.starts_with("TLS13_"), "{}", facts.cipher);
    }
    assert_eq!(out.peer, mesh.id("db").to_string());
    assert_eq!(inward.peer, mesh.id("web").to_string());
    db.sidecar.identity().with_material(|m| assert_eq!(out.peer_serial, m.serial()));
    web.sidecar.identity().with_material(|m| assert_eq!(inward.peer_serial, m.serial()));
    assert_eq!(out.remote, db.public.to_string());

    drop(stream);
    eventually("both tables are empty", || web.live() == 0 && db.live() == 0).await;
}

#[tokio::test]
async fn a_program_that_does_not_listen_is_said_so() {
    let mesh = Mesh::new();
    let db = mesh.station("db", Protocol::Tcp, nobody());
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    let detail = db.refusal(Step::Program).await;
    assert!(detail.contains("refused"), "{detail}");

    db.target.send_replace(None);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    eventually("a second refusal", || db.refused(Step::Program) == 2).await;
    let detail = db.refusal(Step::Program).await;
    assert!(detail.contains("does not listen yet"), "{detail}");

    let program = Program::echo();
    db.target.send_replace(Some(program.address));
    talk(&mut dial(door.local).await, b"now").await;
}

/// Sockets of this machine that are connected and whose keepalive timer runs, as (local, remote).
#[cfg(target_os = "linux")]
fn kept_alive() -> Vec<(u16, u16)> {
    let port =
        |address: &str| u16::from_str_radix(address.rsplit_once(':').unwrap().1, 16).unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "01" && fields[5].starts_with("02:"))
        .map(|fields| (port(fields[1]), port(fields[2])))
        .collect()
}

/// `net::tune` turns Nagle's algorithm off before it turns keepalive on, so the timer shows both.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_socket_of_both_sidecars_is_tuned() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut stream = dial(door.local).await;
    talk(&mut stream, b"hello").await;
    let (caller, door) = (stream.local_addr().unwrap().port(), door.local.port());
    let (public, program) = (db.public.port(), program.address.port());
    let mut last = Vec::new();
    eventually("the keepalive timers run", || {
        last = kept_alive();
        last.contains(&(door, caller))
            && last.iter().any(|(_, remote)| *remote == public)
            && last.iter().any(|(local, _)| *local == public)
            && last.iter().any(|(_, remote)| *remote == program)
    })
    .await;
}

/// A wire between the two sidecars that flips one bit, far behind the handshake.
fn bad_wire(public: std::net::SocketAddr, at: usize) -> Program {
    Program::serving(move |stream: TcpStream| async move {
        let mut beyond = dial(public).await;
        let (mut read, mut write) = stream.into_split();
        let (mut beyond_read, mut beyond_write) = beyond.split();
        let back = async {
            drop(tokio::io::copy(&mut beyond_read, &mut write).await);
            drop(write.shutdown().await);
        };
        let forth = async {
            let (mut passed, mut space) = (0, vec![0; 4096]);
            while let Ok(count @ 1..) = read.read(&mut space).await {
                if (passed..passed + count).contains(&at) {
                    space[at - passed] ^= 1;
                }
                passed += count;
                if beyond_write.write_all(&space[..count]).await.is_err() {
                    break;
                }
            }
            drop(beyond_write.shutdown().await);
        };
        tokio::join!(back, forth);
    })
}

#[tokio::test]
async fn a_flipped_bit_on_the_wire_ends_the_connection_and_is_never_delivered() {
    const LENGTH: usize = 300_000;
    let mesh = Mesh::new();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let program = Program::serving(move |mut stream: TcpStream| {
        let heard = heard.clone();
        async move {
            let mut all = Vec::new();
            drop(stream.read_to_end(&mut all).await);
            drop(heard.send(all));
        }
    });
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    for at in [20_000, 99_999, 250_000] {
        let wire = bad_wire(db.public, at);
        let door = web.open("db", Protocol::Tcp, &[wire.address]);
        let mut stream = dial(door.local).await;
        drop(stream.write_all(&pattern(LENGTH, 7)).await);
        drop(stream.shutdown().await);
        end_of(&mut stream).await;
        let all = tokio::time::timeout(SOON, hears.recv()).await.unwrap().unwrap();
        assert!(all.len() < at, "{} of {at} good bytes came", all.len());
        assert!(all == pattern(LENGTH, 7)[..all.len()], "a wrong byte was delivered");
    }
}
