//! Certificates come and go; connections stay.

use std::time::{Duration, SystemTime};

use meshx_identity::ca::CertificateAuthority;
use meshx_identity::{Identity, Material};
use meshx_proxy::{Outcome, Protocol, Step};
use tokio::io::AsyncWriteExt;

use crate::support::{Mesh, Program, Station, dial, end_of, talk};

#[tokio::test]
async fn rotation_keeps_what_lives_and_serves_the_new() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut old = dial(door.local).await;
    talk(&mut old, b"before").await;
    let before = web.sidecar.connections().list().remove(0).peer_serial;

    for _ in 0..3 {
        db.sidecar.identity().rotate(mesh.material("db")).unwrap();
        web.sidecar.identity().rotate(mesh.material("web")).unwrap();
        talk(&mut old, b"old").await;
        talk(&mut dial(door.local).await, b"new").await;
    }
    let mut new = dial(door.local).await;
    talk(&mut new, b"after").await;
    let list = web.sidecar.connections().list();
    let serials: Vec<_> = list.iter().map(|facts| facts.peer_serial.clone()).collect();
    let now = db.sidecar.identity().with_material(|m| m.serial().to_owned());
    assert_ne!(before, now);
    assert_eq!(serials, [before, now]);
    talk(&mut old, b"still").await;
    assert!(web.journal.refused().is_empty() && db.journal.refused().is_empty());
}

/// The steps of a control plane that changes its root: first everybody trusts both roots, then
/// leaves of the new one are issued, then the old one goes.
#[tokio::test]
async fn a_new_root_under_traffic() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let web = mesh.caller("web", Protocol::Tcp);
    let door = web.open("db", Protocol::Tcp, &[db.public]);
    let mut live = dial(door.local).await;
    talk(&mut live, b"before").await;

    let next = CertificateAuthority::generate(&mesh.domain, 8, SystemTime::now()).unwrap();
    let issue = |ca: &CertificateAuthority, service: &str, roots: &[&CertificateAuthority]| {
        let life = Duration::from_hours(1);
        let leaf = ca.issue(&mesh.id(service), 50, SystemTime::now(), life).unwrap();
        let roots = roots.iter().map(|root| root.cert_pem());
        Material::from_pem(&leaf.cert_pem, &leaf.key_pem, roots).unwrap()
    };
    let both = [&mesh.ca, &next];
    let steps: [(&Station, Material); 6] = [
        (&web, issue(&mesh.ca, "web", &both)),
        (&db, issue(&mesh.ca, "db", &both)),
        (&db, issue(&next, "db", &both)),
        (&web, issue(&next, "web", &both)),
        (&web, issue(&next, "web", &[&next])),
        (&db, issue(&next, "db", &[&next])),
    ];
    for (station, material) in steps {
        station.sidecar.identity().rotate(material).unwrap();
        talk(&mut live, b"live").await;
        talk(&mut dial(door.local).await, b"new").await;
    }
    assert!(web.journal.refused().is_empty() && db.journal.refused().is_empty());

    // And who still lives under the old root is a stranger now.
    let late = mesh.caller("late", Protocol::Tcp);
    let door = late.open("db", Protocol::Tcp, &[db.public]);
    assert_eq!(end_of(&mut dial(door.local).await).await, b"");
    late.refusal(Step::Tls).await;
    talk(&mut live, b"untouched").await;
}

/// Both directions of an expiry at once, to wait only once.
#[tokio::test]
async fn an_expired_leaf_admits_nobody_new_and_cuts_nobody() {
    let mesh = Mesh::new();
    let program = Program::echo();
    let brief = |service: &str| {
        let material = mesh.material_from(service, SystemTime::now(), Duration::from_secs(2));
        Identity::new(material).unwrap()
    };
    let db = mesh.station("db", Protocol::Tcp, program.address);
    let old_web = Station::start("web", Protocol::Tcp, brief("web"), &mesh.policy, None);
    let old_db =
        Station::start("db", Protocol::Tcp, brief("db"), &mesh.policy, Some(program.address));
    let web = mesh.caller("web", Protocol::Tcp);
    let calling = old_web.open("db", Protocol::Tcp, &[db.public]);
    let called = web.open("db", Protocol::Tcp, &[old_db.public]);
    let (mut one, mut two) = (dial(calling.local).await, dial(called.local).await);
    talk(&mut one, b"valid").await;
    talk(&mut two, b"valid").await;

    // Validity is counted in whole seconds, the last one included.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    talk(&mut one, b"expired, and still here").await;
    talk(&mut two, b"expired, and still here").await;

    // The caller's leaf is expired: the called side refuses, and the caller learns why.
    let mut stream = dial(calling.local).await;
    drop(stream.write_all(b"let me in").await);
    assert_eq!(end_of(&mut stream).await, b"");
    let detail = db.refusal(Step::Tls).await;
    assert!(detail.contains("expired"), "{detail}");
    let detail = old_web.refusal(Step::Tls).await;
    assert!(detail.contains("refused the certificate of web"), "{detail}");
    assert!(detail.to_lowercase().contains("expired"), "{detail}");

    // The called side's leaf is expired: the caller refuses, and the called side learns why.
    assert_eq!(end_of(&mut dial(called.local).await).await, b"");
    let detail = web.refusal(Step::Tls).await;
    assert!(detail.contains("expired"), "{detail}");
    let detail = old_db.refusal(Step::Tls).await;
    assert!(detail.to_lowercase().contains("expired"), "{detail}");
    assert_eq!(program.accepted(), 2);

    // A fresh leaf heals, without a restart.
    old_web.sidecar.identity().rotate(mesh.material("web")).unwrap();
    old_db.sidecar.identity().rotate(mesh.material("db")).unwrap();
    talk(&mut dial(calling.local).await, b"healed").await;
    talk(&mut dial(called.local).await, b"healed").await;
    talk(&mut one, b"untouched").await;
    talk(&mut two, b"untouched").await;
    let cut = |station: &Station| {
        station.journal.events().iter().any(|e| matches!(e.outcome, Outcome::Cut { .. }))
    };
    assert!(![&db, &old_db, &web, &old_web].into_iter().any(cut));
}
