//! The daemon, by bytes on its connections.

use std::net::SocketAddr;

use bytes::BytesMut;
use meshx_dist::epmd::{Alive, KillReply, Request, StopReply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;
use crate::Client;

const SOON: Duration = Duration::from_secs(5);

fn start(config: Config) -> (Daemon, Client) {
    let daemon = Daemon::bind(Config { port: 0, ..config }).unwrap();
    let client = Client::at(daemon.addresses()[0]);
    (daemon, client)
}

async fn dial(daemon: &Daemon) -> TcpStream {
    meshx_rt::net::dial(daemon.addresses()[0], SOON).await.unwrap()
}

/// Everything the daemon says before it closes.
async fn ask(daemon: &Daemon, body: &[u8]) -> Vec<u8> {
    let mut stream = dial(daemon).await;
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, body].concat()).await.unwrap();
    let mut answer = Vec::new();
    // A daemon that closes with bytes unread resets.
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it closes"));
    answer
}

async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn registers_finds_lists_and_forgets() {
    let (daemon, client) = start(Config::default());
    let mut alive = Alive::new("shop", 40123);
    (alive.node_type.0, alive.protocol, alive.highest, alive.lowest) = (7, 9, 11, 3);
    alive.extra = vec![0, 1, 255];
    let lease = client.register(&alive).await.unwrap();
    let second = client.register(&Alive::new("till", 0)).await.unwrap();
    assert_ne!(lease.creation(), second.creation());
    assert_eq!(client.lookup("shop").await.unwrap(), Some(alive), "echoed untouched");
    assert_eq!(client.lookup("other").await.unwrap(), None);
    let names = client.names().await.unwrap();
    assert_eq!(names.port, u32::from(daemon.addresses()[0].port()));
    assert_eq!(names.nodes, [("till".to_owned(), 0), ("shop".to_owned(), 40123)]);
    drop(lease);
    until("the name is free", || async { client.lookup("shop").await.unwrap().is_none() }).await;
    let dump = client.dump().await.unwrap();
    assert_eq!((dump.active.len(), dump.old.len()), (1, 1));
    assert!(dump.active[0].fd > 2, "{dump:?}");
}

#[tokio::test]
async fn a_name_is_held_once_and_free_at_once_after_its_holder() {
    let (_daemon, client) = start(Config::default());
    let alive = Alive::new("shop", 1);
    let mut creations = std::collections::HashSet::new();
    for _ in 0..50 {
        // No wait between the end of one and the begin of the next.
        let lease = client.register(&alive).await.unwrap();
        assert!(client.register(&alive).await.is_err());
        assert!(creations.insert(lease.creation()));
    }
}

#[tokio::test]
async fn what_is_said_on_a_lease_ends_it() {
    let (daemon, client) = start(Config::default());
    let mut stream = dial(&daemon).await;
    let mut wire = BytesMut::new();
    Request::Alive(Alive::new("shop", 1)).encode(&mut wire).unwrap();
    stream.write_all(&wire).await.unwrap();
    stream.read_exact(&mut [0; 6]).await.unwrap();
    assert!(client.lookup("shop").await.unwrap().is_some());
    stream.write_all(b"x").await.unwrap();
    until("the name is free", || async { client.lookup("shop").await.unwrap().is_none() }).await;
    assert_eq!(timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn what_is_no_request_is_closed_without_a_word() {
    let (daemon, client) = start(Config::default());
    for body in [
        b"Q".as_slice(),
        b"",
        b"n ",
        b"z",
        b"z\0",
        b"za\0b",
        b"z\xff",
        b"x",
        b"x\0\x01M\0\0\x06\0\x05\0\x00\0\0",
        b"x\0\x01M\0\0\x06\0\x05\0\x01a\0\0\0",
        b"x\0\x01M\0\0\x06\0\x05\0\x03a b\0\0",
        b"s",
        b"sshop",
    ] {
        assert_eq!(ask(&daemon, body).await, b"", "{body:?}");
    }
    assert_eq!(ask(&daemon, b"za b").await, b"w\x01");
    assert_eq!(ask(&daemon, b"zshop@h1").await, b"w\x01");
    assert_eq!(ask(&daemon, b"zshop\0").await, b"w\x01");
    assert!(client.names().await.unwrap().nodes.is_empty());
    // Two requests in one.
    let mut stream = dial(&daemon).await;
    stream.write_all(b"\0\x01n\0\x01n").await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap());
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn commands_are_checked_unless_relaxed() {
    let (mut daemon, client) = start(Config::default());
    let lease = client.register(&Alive::new("shop", 1)).await.unwrap();
    assert_eq!(client.kill().await.unwrap(), KillReply::No);
    assert!(matches!(client.stop("shop").await, Err(crate::Error::Closed { .. })));
    assert!(client.lookup("shop").await.unwrap().is_some());
    drop(lease);
    until("kill", || async { client.kill().await.unwrap() == KillReply::Ok }).await;
    timeout(SOON, daemon.killed()).await.unwrap();

    let relaxed = Config { relaxed_command_check: true, ..Config::default() };
    let (mut daemon, client) = start(relaxed);
    let lease = client.register(&Alive::new("shop", 1)).await.unwrap();
    assert_eq!(client.stop("other").await.unwrap(), StopReply::NoExist);
    assert_eq!(ask(&daemon, b"sother").await, b"NOEXISTSTOPPED");
    assert_eq!(ask(&daemon, b"sa b").await, b"NOEXISTSTOPPED");
    assert_eq!(client.stop("shop").await.unwrap(), StopReply::Stopped);
    timeout(SOON, lease.lost()).await.unwrap();
    let _again = client.register(&Alive::new("shop", 1)).await.unwrap();
    assert_eq!(client.kill().await.unwrap(), KillReply::Ok);
    timeout(SOON, daemon.killed()).await.unwrap();
}

#[tokio::test]
async fn half_a_request_is_cut_and_a_lease_is_not() {
    let limit = Duration::from_millis(200);
    let (daemon, client) = start(Config { packet_timeout: limit, ..Config::default() });
    let lease = client.register(&Alive::new("shop", 1)).await.unwrap();
    let mut silent = dial(&daemon).await;
    let mut half = dial(&daemon).await;
    let begun = Instant::now();
    half.write_all(b"\0\x05zsh").await.unwrap();
    for stream in [&mut silent, &mut half] {
        assert_eq!(timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    }
    assert!((limit..limit * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    tokio::time::sleep(limit * 2).await;
    assert!(timeout(Duration::ZERO, lease.lost()).await.is_err());
    assert!(client.lookup("shop").await.unwrap().is_some());
}

#[tokio::test]
async fn a_refused_registration_is_closed() {
    let (daemon, client) = start(Config::default());
    let _lease = client.register(&Alive::new("shop", 1)).await.unwrap();
    let again = b"x\0\x01M\0\0\x06\0\x05\0\x04shop\0\0";
    assert_eq!(ask(&daemon, again).await, b"v\x01\0\0\0\x63");
    let old = b"x\0\x01M\0\0\x05\0\x05\0\x04shop\0\0";
    assert_eq!(ask(&daemon, old).await, b"y\x01\0\x63");
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let (daemon, _client) = start(Config::default());
    let port = daemon.addresses()[0].port();
    let error = Daemon::bind(Config { port, ..Config::default() }).unwrap_err();
    assert!(matches!(error, BindError::InUse(address) if address.port() == port), "{error}");
    drop(daemon);
    // The listeners close with the tasks that have them.
    until("the port is free", || async {
        Daemon::bind(Config { port, ..Config::default() }).is_ok()
    })
    .await;
}

#[tokio::test]
async fn listens_on_loopback_alone_unless_told_otherwise() {
    let (daemon, _client) = start(Config::default());
    assert!(daemon.addresses().iter().all(|address| address.ip().is_loopback()));
    let all = vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
    let (daemon, _client) = start(Config { addresses: all, ..Config::default() });
    let port = daemon.addresses()[0].port();
    for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
        let client = Client::at(SocketAddr::new(ip.parse().unwrap(), port));
        assert!(client.register(&Alive::new("shop", 1)).await.is_ok(), "{ip}");
    }
}

#[tokio::test]
async fn plays_a_busy_machine() {
    let delay = Duration::from_millis(150);
    let (_daemon, client) =
        start(Config { delay_accept: delay, delay_write: delay, ..Config::default() });
    let begun = Instant::now();
    assert_eq!(client.lookup("shop").await.unwrap(), None);
    assert!((delay * 2..delay * 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
