//! Intentions: at the door, and over connections that live.

use std::time::{Duration, Instant};

use meshx_core::Action::{Allow, Deny};
use meshx_proxy::{Outcome, Protocol, Step};
use tokio::io::AsyncWriteExt;

use crate::support::{
    Mesh, Program, Station, answers, dial, end_of, eventually, is_quiet, policy, rule_set, talk,
};

#[tokio::test]
async fn the_called_side_denies_by_itself() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let strict = policy(&[("web", "db", Deny)]);
    let db =
        Station::start("db", Protocol::Tcp, mesh.identity("db"), &strict, Some(program.address));
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut stream = dial(door.local).await;
    drop(stream.write_all(b"let me in").await);
    assert_eq!(end_of(&mut stream).await, b"");
    let detail = db.refusal(Step::Policy).await;
    assert_eq!(detail, "denied by web → db (precedence 9)");
    let refused = db.event("the refusal", |e| matches!(e.outcome, Outcome::Refused { .. })).await;
    assert_eq!(refused.source.as_deref(), Some("web"));
    assert_eq!((program.accepted(), db.live()), (0, 0));

    strict.send_replace(rule_set(&[]));
    talk(&mut dial(door.local).await, b"now").await;
}

#[tokio::test]
async fn the_calling_side_denies_before_it_dials() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let strict = policy(&[("*", "db", Deny)]);
    let web = Station::start("web", Protocol::Tcp, mesh.identity("web"), &strict, None);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    assert_eq!(web.refusal(Step::Policy).await, "denied by * → db (precedence 8)");
    assert!(db.journal.events().is_empty(), "the peer never heard of it");
    assert_eq!(program.accepted(), 0);
}

#[tokio::test]
async fn deny_cuts_only_what_is_denied_and_allow_heals() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let (good, bad) = (mesh.caller("good", Protocol::Tcp), mesh.caller("bad", Protocol::Tcp));
    let good_door = good.open("db", Protocol::Tcp, &[db.public]);
    let bad_door = bad.open("db", Protocol::Tcp, &[db.public]);
    let (mut kept, mut cut) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        kept.push(dial(good_door.local).await);
        cut.push(dial(bad_door.local).await);
    }
    for stream in kept.iter_mut().chain(&mut cut) {
        talk(stream, b"hello").await;
    }
    assert_eq!((good.live(), bad.live(), db.live()), (5, 5, 10));

    let decided = Instant::now();
    mesh.decide(&[("bad", "db", Deny)]);
    for stream in &mut cut {
        assert_eq!(end_of(stream).await, b"");
    }
    assert!(decided.elapsed() < Duration::from_secs(1), "{:?}", decided.elapsed());
    eventually("the tables agree", || bad.live() == 0 && db.live() == 5).await;
    for stream in &mut kept {
        talk(stream, b"still here").await;
    }
    assert_eq!(good.live(), 5);
    let rule = |event: &meshx_proxy::Event| match &event.outcome {
        Outcome::Cut { rule } => Some(rule.clone()),
        _ => None,
    };
    for station in [&db, &bad] {
        let cuts: Vec<_> = station.journal.events().iter().filter_map(rule).collect();
        assert_eq!(cuts, vec!["denied by bad → db (precedence 9)"; 5]);
    }
    assert!(!good.journal.events().iter().any(|event| rule(event).is_some()));
    assert!(!answers(&mut dial(bad_door.local).await, b"x").await, "still denied");

    mesh.decide(&[("bad", "db", Allow)]);
    talk(&mut dial(bad_door.local).await, b"hello again").await;
    for stream in &mut kept {
        talk(stream, b"untouched").await;
    }
    assert_eq!(program.accepted(), 11);
}

/// Only one of the two sidecars hears of the change: either is enough.
#[tokio::test]
async fn either_side_cuts_alone() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let (called, calling) = (policy(&[]), policy(&[]));
    let db =
        Station::start("db", Protocol::Tcp, mesh.identity("db"), &called, Some(program.address));
    let web = Station::start("web", Protocol::Tcp, mesh.identity("web"), &calling, None);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    for side in [&called, &calling] {
        let mut stream = dial(door.local).await;
        talk(&mut stream, b"hello").await;
        side.send_replace(rule_set(&[("web", "*", Deny)]));
        assert_eq!(end_of(&mut stream).await, b"");
        drop(stream);
        eventually("both tables are empty", || web.live() == 0 && db.live() == 0).await;
        side.send_replace(rule_set(&[]));
    }
}

#[tokio::test]
async fn a_change_that_denies_nobody_cuts_nobody() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut stream = dial(door.local).await;
    talk(&mut stream, b"hello").await;
    for round in 0..20 {
        let other = format!("other-{round}");
        mesh.decide(&[(&other, "db", Deny), ("db", "web", Deny), ("web", "db", Allow)]);
    }
    assert!(is_quiet(&stream).await);
    talk(&mut stream, b"still here").await;
    assert_eq!((web.live(), db.live()), (1, 1));
}

/// The other way round: a rule from the called service to the calling one does not touch this
/// connection, because an intention is directed.
#[tokio::test]
async fn the_wildcard_of_the_default_is_judged_too() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut stream = dial(door.local).await;
    talk(&mut stream, b"hello").await;
    mesh.decide(&[("*", "*", Deny), ("web", "db", Allow)]);
    assert!(is_quiet(&stream).await);
    mesh.decide(&[("*", "*", Deny)]);
    assert_eq!(end_of(&mut stream).await, b"");
}
