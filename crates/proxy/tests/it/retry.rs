//! Finding an instance that answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_proxy::{CONNECT_LIMIT, EndpointView, FIND_LIMIT, Outcome, Protocol, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::forge::{Forge, server, uri};
use crate::support::{Mesh, Program, Station, dial, end_of, is_quiet, nobody, skip, talk, view};

/// An instance that accepts and then does not behave.
fn garbage() -> Program {
    Program::serving(async |mut stream: TcpStream| {
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        drop(stream.read(&mut [0; 1024]).await);
    })
}

fn hangs_up() -> Program {
    Program::serving(async |stream: TcpStream| drop(stream))
}

fn silent() -> Program {
    Program::serving(async |stream: TcpStream| {
        tokio::time::sleep(Duration::from_hours(1)).await;
        drop(stream);
    })
}

/// An instance that presents this certificate, and talks to anybody.
fn presenting(forge: &Forge, id: &str) -> Program {
    let forged = forge.leaf(|params| params.subject_alt_names = vec![uri(id)]);
    let acceptor = TlsAcceptor::from(server(&forged));
    Program::serving(move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                drop(stream.write_all(b"trust me").await);
            }
        }
    })
}

struct Scene {
    mesh: Mesh,
    program: Program,
    db: Station,
    web: Station,
}

impl Scene {
    fn new() -> Self {
        let mesh = Mesh::new();
        let program = Program::echo();
        let db = mesh.station("db", Protocol::Tcp, program.address);
        let web = mesh.caller("web", Protocol::Tcp);
        Self { mesh, program, db, web }
    }

    /// Instances that must not be talked to, and the step at which they fail.
    fn impostors(&self) -> Vec<(&'static str, Program, Step)> {
        let forge = &self.mesh.forge;
        let (_, foreign) = Forge::authority(&self.mesh.domain);
        let id = |service| self.mesh.id(service).to_string();
        let elsewhere = id("db").replace("/dc/dc1/", "/dc/dc2/");
        let stranger = id("db").replace("1111", "9999");
        vec![
            ("garbage", garbage(), Step::Tls),
            ("hangs up", hangs_up(), Step::Tls),
            ("another service", presenting(forge, &id("cache")), Step::Identity),
            ("a longer name", presenting(forge, &id("db2")), Step::Identity),
            ("another datacenter", presenting(forge, &elsewhere), Step::Identity),
            ("another trust domain", presenting(forge, &stranger), Step::Identity),
            ("a foreign authority", presenting(&foreign, &id("db")), Step::Tls),
        ]
    }
}

#[tokio::test]
async fn the_next_instance_is_tried_and_the_bad_one_passed_over() {
    let scene = Scene::new();
    for (case, impostor, _) in scene.impostors() {
        let before = scene.program.accepted();
        let door = scene.web.open("db", Protocol::Tcp, &[impostor.address, scene.db.public]);
        for round in 0..6 {
            talk(&mut dial(door.local).await, b"hello").await;
            // Asked once, by the first connection; then it is the last choice for a while.
            assert_eq!(impostor.accepted(), 1, "{case}, round {round}");
        }
        assert_eq!(scene.program.accepted(), before + 6, "{case}");
    }
    let door = scene.web.open("db", Protocol::Tcp, &[nobody(), scene.db.public]);
    for _ in 0..6 {
        talk(&mut dial(door.local).await, b"hello").await;
    }
    assert!(scene.web.journal.refused().is_empty(), "no attempt failed as a whole");
}

#[tokio::test]
async fn with_no_other_instance_the_step_is_said() {
    let mesh = Mesh::new();
    let scene = Scene::new();
    for (case, impostor, step) in scene.impostors() {
        let web =
            Station::start("web", Protocol::Tcp, scene.mesh.identity("web"), &mesh.policy, None);
        let door = web.open("db", Protocol::Tcp, &[impostor.address]);
        let mut stream = dial(door.local).await;
        drop(stream.write_all(b"secret").await);
        assert_eq!(end_of(&mut stream).await, b"", "{case}");
        let detail = web.refusal(step).await;
        assert_eq!(web.journal.refused(), [(step, 1)], "{case}");
        assert!(detail.contains(&impostor.address.to_string()), "{case}: {detail}");
        assert!(detail.contains("instance-0"), "{case}: {detail}");
        let opened = |event: &meshx_proxy::Event| matches!(event.outcome, Outcome::Opened);
        assert!(!web.journal.events().iter().any(opened), "{case}");
    }
    let web = scene.mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[nobody()]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    assert!(web.refusal(Step::Reach).await.contains("refused"));
}

#[tokio::test]
async fn no_instance_is_told_from_no_service() {
    let scene = Scene::new();
    let door = scene.web.open("db", Protocol::Tcp, &[]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    let detail = scene.web.refusal(Step::Health).await;
    assert_eq!(detail, "db is registered, but no instance is passing");
    door.view.send_replace(EndpointView::default());
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    let detail = scene.web.refusal(Step::Name).await;
    assert_eq!(detail, "no service `db` is registered");
    assert_eq!(scene.web.journal.refused(), [(Step::Name, 1), (Step::Health, 1)]);

    door.view.send_replace(view(&[scene.db.public]));
    talk(&mut dial(door.local).await, b"now").await;
}

#[tokio::test]
async fn the_instances_take_turns() {
    let scene = Scene::new();
    let (program, second) = (Program::echo(), Program::echo());
    let stations = [&program, &second].map(|p| scene.mesh.station("db", Protocol::Tcp, p.address));
    let instances = stations.each_ref().map(|station| station.public);
    let door = scene.web.open("db", Protocol::Tcp, &instances);
    for _ in 0..6 {
        talk(&mut dial(door.local).await, b"hello").await;
    }
    assert_eq!((program.accepted(), second.accepted()), (3, 3));
}

#[tokio::test]
async fn the_only_instance_is_asked_again_although_it_refused() {
    let scene = Scene::new();
    let address = nobody();
    let door = scene.web.open("db", Protocol::Tcp, &[address]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    scene.web.refusal(Step::Reach).await;

    // It comes up at the same address, long before its time is over.
    let listener = meshx_rt::net::listen(address).unwrap();
    let public = scene.db.public;
    tokio::spawn(async move {
        loop {
            let (mut there, _) = listener.accept().await.unwrap();
            let mut here = dial(public).await;
            drop(tokio::io::copy_bidirectional(&mut there, &mut here).await);
        }
    });
    talk(&mut dial(door.local).await, b"hello").await;
}

#[tokio::test]
async fn an_instance_that_refused_gets_another_chance_later() {
    let scene = Scene::new();
    let impostor = garbage();
    let door = scene.web.open("db", Protocol::Tcp, &[impostor.address, scene.db.public]);
    talk(&mut dial(door.local).await, b"hello").await;
    assert_eq!(impostor.accepted(), 1);
    skip(Duration::from_secs(6)).await;
    for _ in 0..2 {
        talk(&mut dial(door.local).await, b"hello").await;
    }
    assert_eq!(impostor.accepted(), 2);
}

#[tokio::test]
async fn an_instance_that_says_nothing_does_not_keep_the_others_away() {
    let scene = Scene::new();
    let mute = silent();
    let door = scene.web.open("db", Protocol::Tcp, &[mute.address, scene.db.public]);
    let mut stream = dial(door.local).await;
    skip(CONNECT_LIMIT).await;
    talk(&mut stream, b"hello").await;
    for _ in 0..4 {
        talk(&mut dial(door.local).await, b"hello").await;
    }
    assert_eq!(mute.accepted(), 1, "it is passed over afterwards");
}

#[tokio::test]
async fn the_search_ends_in_time() {
    let scene = Scene::new();
    let mute = [silent(), silent(), silent(), silent()];
    let instances: Vec<SocketAddr> = mute.iter().map(|program| program.address).collect();
    let door = scene.web.open("db", Protocol::Tcp, &instances);
    let mut stream = dial(door.local).await;
    skip(CONNECT_LIMIT).await;
    assert!(is_quiet(&stream).await, "the second is asked");
    skip(FIND_LIMIT.checked_sub(CONNECT_LIMIT).unwrap()).await;
    assert_eq!(end_of(&mut stream).await, b"");
    let refused = scene.web.journal.refused();
    assert_eq!(refused.iter().map(|(_, count)| count).sum::<u64>(), 1, "{refused:?}");
    let asked: usize = mute.iter().map(Program::accepted).sum();
    assert!((2..=3).contains(&asked), "{asked} were asked");
}

#[tokio::test]
async fn a_change_of_the_instances_cuts_nobody() {
    let scene = Scene::new();
    let door = scene.web.open("db", Protocol::Tcp, &[scene.db.public]);
    let mut live = dial(door.local).await;
    talk(&mut live, b"hello").await;
    let other = Program::echo();
    let station = scene.mesh.station("db", Protocol::Tcp, other.address);
    door.view.send_replace(view(&[station.public]));
    talk(&mut live, b"still the old one").await;
    talk(&mut dial(door.local).await, b"the new one").await;
    assert_eq!((scene.program.accepted(), other.accepted()), (1, 1));
    door.view.send_replace(EndpointView::default());
    talk(&mut live, b"still the old one").await;
    // The control plane's view is gone altogether: what was seen last holds.
    door.view.send_replace(view(&[station.public]));
    let local = door.local;
    let kept = door.open;
    drop(door.view);
    talk(&mut dial(local).await, b"from memory").await;
    talk(&mut live, b"still the old one").await;
    drop(kept);
    talk(&mut live, b"closing the door cuts nobody").await;
}

/// What was sent to an instance is never sent to another.
#[tokio::test]
async fn nothing_is_tried_again_after_the_handshake() {
    let scene = Scene::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let fickle = Program::serving(move |mut stream: TcpStream| {
        let count = Arc::clone(&count);
        async move {
            let got = stream.read(&mut [0; 64]).await.unwrap();
            count.fetch_add(got, Ordering::SeqCst);
        }
    });
    let station = scene.mesh.station("db", Protocol::Tcp, fickle.address);
    let door = scene.web.open("db", Protocol::Tcp, &[station.public, scene.db.public]);
    let mut stream = dial(door.local).await;
    stream.write_all(b"transfer 100").await.unwrap();
    assert_eq!(end_of(&mut stream).await, b"");
    assert_eq!((heard.load(Ordering::SeqCst), scene.program.accepted()), (12, 0));
}

/// An instance whose program does not answer refuses before a byte is forwarded, so every call goes
/// to the others, and the dialling side is told why.
#[tokio::test]
async fn a_program_that_is_down_costs_no_call() {
    let scene = Scene::new();
    let down = scene.mesh.station("db", Protocol::Tcp, nobody());
    let door = scene.web.open("db", Protocol::Tcp, &[down.public, scene.db.public]);
    for _ in 0..20 {
        talk(&mut dial(door.local).await, b"no call is lost").await;
    }
    assert!(down.refused(Step::Program) > 0, "it was tried");

    let only = scene.web.open("db", Protocol::Tcp, &[down.public]);
    end_of(&mut dial(only.local).await).await;
    let events = scene.web.journal.events();
    let told = events.iter().any(|event| {
        matches!(&event.outcome, Outcome::Refused { step: Step::Program, detail }
            if detail.contains("the program at"))
    });
    assert!(told, "{events:?}");
}
