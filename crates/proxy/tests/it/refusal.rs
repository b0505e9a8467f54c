//! Who does not get in, and what is said of it. Nothing of them reaches the program.

use std::time::Duration;

use meshx_proxy::{FIRST_BYTE_LIMIT, Outcome, Protocol, Step, TLS_LIMIT};
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::forge::{Forge, Forged, dns, shake, uri};
use crate::support::{Mesh, Program, Station, dial, end_of, eventually, skip, talk};

/// The service `db` with its program, and a caller that is welcome.
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

    /// Exactly one refusal so far, at `step`; the program heard of nobody; the good get in.
    async fn refused_once(&self, case: &str, step: Step) -> String {
        let detail = self.db.refusal(step).await;
        assert_eq!(self.db.journal.refused(), [(step, 1)], "{case}: {detail}");
        assert_eq!((self.program.accepted(), self.db.live()), (0, 0), "{case}");
        let door = self.web.open("db", Protocol::Tcp, &[self.db.public]);
        talk(&mut dial(door.local).await, b"welcome").await;
        assert_eq!(self.program.accepted(), 1, "{case}");
        detail
    }
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let cases: [(&str, &[u8]); 6] = [
        ("garbage", b"\x00\x01\x02\x03garbage\xff\xfe"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: db\r\n\r\n"),
        ("a hello of distribution", b"\x00\x15N\0\0\0\x0d\x07\xdf\x7f\xbd\0\0\0\x05\0\x03a@h"),
        ("a record too long", b"\x16\x03\x01\xff\xff\x01\x00"),
        ("a hello cut to nonsense", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
        ("SSLv2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"),
    ];
    for (case, bytes) in cases {
        let scene = Scene::new();
        let mut stream = dial(scene.db.public).await;
        stream.write_all(bytes).await.unwrap();
        end_of(&mut stream).await;
        scene.refused_once(case, Step::Tls).await;
    }
}

#[tokio::test]
async fn bytes_that_break_off_are_refused() {
    let scene = Scene::new();
    let mut stream = dial(scene.db.public).await;
    stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    stream.shutdown().await.unwrap();
    end_of(&mut stream).await;
    scene.refused_once("half a record", Step::Tls).await;
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_no_attempt() {
    let scene = Scene::new();
    for _ in 0..10 {
        drop(dial(scene.db.public).await);
    }
    let door = scene.web.open("db", Protocol::Tcp, &[scene.db.public]);
    talk(&mut dial(door.local).await, b"welcome").await;
    assert!(scene.db.journal.refused().is_empty(), "{:?}", scene.db.journal.refused());
}

#[tokio::test]
async fn who_is_silent_or_slow_is_cut_off_in_time() {
    for (said, limit, word) in [
        (&b""[..], FIRST_BYTE_LIMIT, "not a byte within 2s"),
        (b"\x16", TLS_LIMIT, "within 10s"),
        (b"\x16\x03\x01\x02\x00\x01\x00", TLS_LIMIT, "within 10s"),
    ] {
        let scene = Scene::new();
        let mut stream = dial(scene.db.public).await;
        stream.write_all(said).await.unwrap();
        skip(limit.checked_sub(Duration::from_secs(1)).unwrap()).await;
        assert!(crate::support::is_quiet(&stream).await, "{said:?}: too early");
        skip(Duration::from_secs(1)).await;
        end_of(&mut stream).await;
        let detail = scene.refused_once("silence", Step::Tls).await;
        assert!(detail.contains(word), "{detail}");
    }
}

/// A case: what is wrong, the certificate, the step at which it must fail, a word of the detail.
type Case = (&'static str, Option<Forged>, Step, &'static str);

fn credentials(mesh: &Mesh) -> Vec<Case> {
    let id = mesh.id("web").to_string();
    let good = |edit: &dyn Fn(&mut rcgen::CertificateParams)| {
        mesh.forge.leaf(|params| {
            params.subject_alt_names = vec![uri(&id)];
            edit(params);
        })
    };
    let day = Duration::from_hours(24);
    let (_, foreign) = Forge::authority(&mesh.domain);
    let foreign = foreign.leaf(|params| params.subject_alt_names = vec![uri(&id)]);
    let named =
        |names: Vec<rcgen::SanType>| good(&|params| params.subject_alt_names.clone_from(&names));
    let other = "99999999-2222-3333-4444-555555555555.consul";
    vec![
        ("no certificate", None, Step::Tls, "no certificates"),
        ("a foreign authority", Some(foreign), Step::Tls, ""),
        (
            "another trust domain",
            Some(named(vec![uri(&id.replace(mesh.domain.as_str(), other))])),
            Step::Identity,
            other,
        ),
        (
            "an authority as a leaf",
            Some(good(&|params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            })),
            Step::Tls,
            "CaUsedAsEndEntity",
        ),
        (
            "a leaf that may sign certificates",
            Some(good(&|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
            Step::Identity,
            "authority",
        ),
        ("two URIs", Some(named(vec![uri(&id), uri(&id)])), Step::Identity, "2 URI names"),
        ("only a DNS name", Some(named(vec![dns("web.mesh")])), Step::Identity, "0 URI names"),
        (
            "the identity of an agent",
            Some(named(vec![uri(&format!("spiffe://{}/agent/client/dc/dc1/id/x", mesh.domain))])),
            Step::Identity,
            "service",
        ),
        (
            "expired",
            Some(good(&|params| {
                params.not_before = OffsetDateTime::now_utc() - 2 * day;
                params.not_after = OffsetDateTime::now_utc() - day;
            })),
            Step::Tls,
            "expired",
        ),
        (
            "not valid yet",
            Some(good(&|params| {
                params.not_before = OffsetDateTime::now_utc() + day;
                params.not_after = OffsetDateTime::now_utc() + 2 * day;
            })),
            Step::Tls,
            "not valid yet",
        ),
        (
            "a server's certificate only",
            Some(good(&|params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            })),
            Step::Tls,
            "",
        ),
    ]
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused() {
    let count = credentials(&Mesh::new()).len();
    for number in 0..count {
        let scene = Scene::new();
        let (case, forged, step, word) = credentials(&scene.mesh).swap_remove(number);
        // In TLS 1.3 the client is done before the server has judged it, and may have spoken.
        if let Ok(mut stream) = shake(scene.db.public, forged.as_ref(), &TLS13).await {
            drop(stream.write_all(b"let me in").await);
            assert_eq!(end_of(&mut stream).await, b"", "{case}");
        }
        let detail = scene.refused_once(case, step).await;
        assert!(detail.contains(word), "{case}: {detail}");
    }
}

#[tokio::test]
async fn a_client_of_tls_1_2_is_refused() {
    let scene = Scene::new();
    let id = scene.mesh.id("web").to_string();
    let good = scene.mesh.forge.leaf(|params| params.subject_alt_names = vec![uri(&id)]);
    shake(scene.db.public, Some(&good), &TLS12).await.unwrap_err();
    scene.refused_once("TLS 1.2", Step::Tls).await;
    // It was the version: with the other one the same certificate is welcome.
    let mut stream = shake(scene.db.public, Some(&good), &TLS13).await.unwrap();
    talk(&mut stream, b"in").await;
}

#[tokio::test]
async fn each_refusal_is_one_event() {
    let scene = Scene::new();
    for _ in 0..3 {
        let mut stream = dial(scene.db.public).await;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        end_of(&mut stream).await;
    }
    eventually("three refusals", || scene.db.refused(Step::Tls) == 3).await;
    let events = scene.db.journal.events();
    assert_eq!(events.len(), 3, "{events:?}");
    for event in events {
        assert!(matches!(event.outcome, Outcome::Refused { step: Step::Tls, .. }));
        assert_eq!((event.source, event.destination.as_str()), (None, "db"));
        assert!(event.remote.is_some_and(|remote| remote.starts_with("127.0.0.1:")));
    }
}
