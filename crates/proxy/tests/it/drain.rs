//! Stopping: nobody new, patience for those who live, an end for the rest.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use meshx_proxy::Protocol;
use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::version::TLS13;

use crate::forge::{shake_on, uri};
use crate::support::{Mesh, Program, SOON, dial, end_of, is_quiet, talk};

#[tokio::test]
async fn waits_for_the_living_and_accepts_nobody_new() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut live = dial(door.local).await;
    talk(&mut live, b"hello").await;

    let draining = tokio::spawn(async move { db.sidecar.drain(Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = meshx_rt::net::dial(db.public, SOON).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    talk(&mut live, b"still served").await;
    assert!(!draining.is_finished());

    let left = Instant::now();
    drop(live);
    let cut = tokio::time::timeout(SOON, draining).await.unwrap().unwrap();
    assert_eq!(cut, 0);
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}

#[tokio::test]
async fn cuts_the_rest_at_the_limit() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let (mut one, mut two) = (dial(door.local).await, dial(door.local).await);
    talk(&mut one, b"hello").await;
    talk(&mut two, b"hello").await;

    let begun = Instant::now();
    let cut = db.sidecar.drain(Duration::from_millis(300)).await;
    assert_eq!(cut, 2);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_millis(1300), "{:?}", begun.elapsed());
    end_of(&mut one).await;
    end_of(&mut two).await;
}

#[tokio::test]
async fn the_calling_side_drains_as_well() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut live = dial(door.local).await;
    talk(&mut live, b"hello").await;
    let draining = tokio::spawn(async move { web.sidecar.drain(Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = meshx_rt::net::dial(door.local, SOON).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    talk(&mut live, b"still served").await;
    live.shutdown().await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, draining).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn an_idle_sidecar_drains_at_once() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let begun = Instant::now();
    assert_eq!(db.sidecar.drain(Duration::from_secs(30)).await, 0);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Who was in the middle of the handshake at the limit does not get in afterwards.
#[tokio::test]
async fn a_handshake_under_way_does_not_outlive_the_drain() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let id = mesh.id("web").to_string();
    let good = mesh.forge.leaf(|params| params.subject_alt_names = vec![uri(&id)]);
    let early = dial(db.public).await;
    tokio::time::sleep(Duration::from_millis(50)).await;

    let begun = Instant::now();
    db.sidecar.drain(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
    assert!(!is_quiet(&early).await, "it is told");
    if let Ok(mut stream) = shake_on(early, Some(&good), &TLS13).await {
        drop(stream.write_all(b"let me in").await);
        assert_eq!(end_of(&mut stream).await, b"");
    }
    assert_eq!(program.accepted(), 0);
}

/// The same on the calling side: an instance that answers too late is not talked to.
#[tokio::test]
async fn a_search_under_way_does_not_outlive_the_drain() {
    let mesh = Mesh::new();
    let mute = Program::serving(async |stream| {
        tokio::time::sleep(Duration::from_hours(1)).await;
        drop(stream);
    });
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[mute.address]);
    let mut waiting = dial(door.local).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    web.sidecar.drain(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
    assert_eq!(end_of(&mut waiting).await, b"");
}

#[tokio::test]
async fn a_sidecar_that_is_dropped_leaves_nothing_behind() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut live = dial(door.local).await;
    talk(&mut live, b"hello").await;
    drop(db.sidecar);
    end_of(&mut live).await;
    let refused = meshx_rt::net::dial(db.public, SOON).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
