//! The first word between two of our sidecars, and peers that do not know it.

use std::time::Duration;

use meshx_core::Action::Deny;
use meshx_identity::ALPN;
use meshx_proxy::{CONNECT_LIMIT, Outcome, Protocol, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::version::TLS13;

use crate::forge::{server_speaking, shake_speaking, uri};
use crate::support::{Mesh, Program, Station, answers, dial, end_of, policy, rule_set, skip, talk};

/// An instance of `db` by somebody else's hand: it agrees to `alpn`, says `word`, and echoes then.
fn instance(mesh: &Mesh, alpn: &[&[u8]], word: &[u8]) -> Program {
    let id = mesh.id("db").to_string();
    let forged = mesh.forge.leaf(|params| params.subject_alt_names = vec![uri(&id)]);
    let acceptor = TlsAcceptor::from(server_speaking(&forged, alpn));
    let word = word.to_vec();
    Program::serving(move |stream: TcpStream| {
        let (acceptor, word) = (acceptor.clone(), word.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            drop(stream.write_all(&word).await);
            let (mut read, mut write) = tokio::io::split(stream);
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        }
    })
}

#[tokio::test]
async fn a_sidecar_of_another_make_is_talked_to_at_once() {
    let mesh = Mesh::new();
    let plain = instance(&mesh, &[], b"");
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[plain.address]);
    talk(&mut dial(door.local).await, b"no word was awaited").await;
}

#[tokio::test]
async fn a_caller_of_another_make_hears_no_word() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let id = mesh.id("web").to_string();
    let good = mesh.forge.leaf(|params| params.subject_alt_names = vec![uri(&id)]);
    // Consul's sidecar offers `h2` and means nothing by it.
    for alpn in [&[][..], &[&b"h2"[..]], &[b"h2", b"http/1.1"], &[b"meshx/2"]] {
        let stream = dial(db.public).await;
        let mut stream = shake_speaking(stream, Some(&good), &TLS13, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        talk(&mut stream, b"at once").await;
    }
    // One that knows the word hears it first, and bytes after it.
    let stream = dial(db.public).await;
    let mut stream = shake_speaking(stream, Some(&good), &TLS13, &[b"h2", ALPN]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));
    assert_eq!(stream.read_u8().await.unwrap(), 0);
    talk(&mut stream, b"after the word").await;
}

#[tokio::test]
async fn bytes_that_follow_the_word_in_the_same_breath_arrive() {
    let mesh = Mesh::new();
    let eager = instance(&mesh, &[ALPN], b"\0greeting\0\x01");
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[eager.address]);
    let mut stream = dial(door.local).await;
    let mut greeting = [0; 10];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"greeting\0\x01");
    talk(&mut stream, b"and so on").await;
}

#[tokio::test]
async fn an_instance_with_a_strange_word_is_passed_over() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    for word in [&b"\x07"[..], b"HTTP/1.1 200 OK\r\n", b"\x01\xff\xff", b"\x01\x00\x07program"] {
        let strange = instance(&mesh, &[ALPN], word);
        let door = web.open("db", Protocol::Tcp, &[strange.address, db.public]);
        for _ in 0..3 {
            talk(&mut dial(door.local).await, b"to the other").await;
        }
        assert_eq!(strange.accepted(), 1, "{word:?}");
    }
}

#[tokio::test]
async fn an_instance_that_says_no_word_leaves_time_for_the_others() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let mute = instance(&mesh, &[ALPN], b"");
    let door = web.open("db", Protocol::Tcp, &[mute.address, db.public]);
    let mut stream = dial(door.local).await;
    skip(CONNECT_LIMIT).await;
    talk(&mut stream, b"to the other").await;
    assert_eq!(mute.accepted(), 1);
}

#[tokio::test]
async fn words_of_a_refusal_cannot_paint_the_terminal() {
    let mesh = Mesh::new();
    let text = "program \x1b[2Jit is\r\ndown";
    let mut word = vec![1, 0, u8::try_from(text.len()).unwrap()];
    word.extend_from_slice(text.as_bytes());
    let rude = instance(&mesh, &[ALPN], &word);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[rude.address]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    let detail = web.refusal(Step::Program).await;
    assert!(detail.ends_with("[2Jit isdown") && !detail.contains(char::is_control), "{detail:?}");
}

/// A refusal by intention is every instance's, so the others are not asked.
#[tokio::test]
async fn the_caller_is_told_which_rule_denied_it() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let strict = policy(&[("web", "db", Deny)]);
    let stations: Vec<_> = (0..2)
        .map(|_| {
            let identity = mesh.identity("db");
            Station::start("db", Protocol::Tcp, identity, &strict, Some(program.address))
        })
        .collect();
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[stations[0].public, stations[1].public]);
    assert!(!answers(&mut dial(door.local).await, b"let me in").await);
    let detail = web.refusal(Step::Policy).await;
    assert!(detail.ends_with("denied by web → db (precedence 9)"), "{detail}");
    let asked: u64 = stations.iter().map(|station| station.refused(Step::Policy)).sum();
    assert_eq!((asked, program.accepted()), (1, 0));
    let opened = |event: &meshx_proxy::Event| matches!(event.outcome, Outcome::Opened);
    assert!(!web.journal.events().iter().any(opened));

    strict.send_replace(rule_set(&[]));
    talk(&mut dial(door.local).await, b"now").await;
}

/// Between two Erlang nodes the word comes before the hello, and the rest is the same.
#[tokio::test]
async fn a_deny_at_the_called_node_reaches_the_calling_one() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let strict = policy(&[("*", "*", Deny)]);
    let b = Station::start(
        "b@h2",
        Protocol::Erlang,
        mesh.identity("b@h2"),
        &strict,
        Some(program.address),
    );
    let a = mesh.caller("a@h1", Protocol::Erlang);
    let door = a.open("b@h2", Protocol::Erlang, &[b.public]);
    let mut stream = dial(door.local).await;
    drop(stream.write_all(b"\x00\x03Nxy").await);
    assert_eq!(end_of(&mut stream).await, b"");
    let detail = a.refusal(Step::Policy).await;
    assert!(detail.ends_with("denied by * → * (precedence 5)"), "{detail}");
    assert_eq!(a.journal.refused(), [(Step::Policy, 1)]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(program.accepted(), 0);
}
