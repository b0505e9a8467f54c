//! Handshakes in memory between identities of real and foreign authorities.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meshx_core::{ServiceName, SpiffeId, TrustDomain};
use meshx_identity::ca::CertificateAuthority;
use meshx_identity::{Identity, Material, Peer};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

fn domain() -> TrustDomain {
    "11111111-2222-3333-4444-555555555555.consul".parse().unwrap()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate(&domain(), 7, SystemTime::now()).unwrap()
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn material(ca: &CertificateAuthority, service: &str, now: SystemTime) -> Material {
    let id = SpiffeId::new(domain(), "dc1", name(service));
    let leaf = ca.issue(&id, 9, now, Duration::from_hours(72)).unwrap();
    Material::from_pem(&leaf.cert_pem, &leaf.key_pem, [ca.cert_pem()]).unwrap()
}

fn identity(ca: &CertificateAuthority, service: &str) -> Identity {
    Identity::new(material(ca, service, SystemTime::now())).unwrap()
}

/// Runs a whole handshake; returns what the server learned, or the first error of either side.
fn shake(client: &Identity, wanted: &str, server: &Identity) -> Result<Peer, String> {
    let server_name = ServerName::try_from("mesh.invalid").unwrap();
    let config = client.client_config(&name(wanted), "dc1").unwrap();
    let mut client = ClientConnection::new(config, server_name).unwrap();
    let mut server = ServerConnection::new(server.server_config(false)).unwrap();
    let mut wire = Vec::new();
    for _ in 0..8 {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
            server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {e}"))?;
        }
    }
    if client.is_handshaking() || server.is_handshaking() {
        return Err("the handshake did not finish".to_owned());
    }
    Peer::of(&server, &domain()).map_err(|e| e.to_string())
}

#[test]
fn services_of_one_mesh_know_each_other() {
    let ca = authority();
    let (web, node) = (identity(&ca, "web"), identity(&ca, "node1@myhost"));
    let peer = shake(&web, "node1@myhost", &node).unwrap();
    assert_eq!(peer.id.to_string(), format!("spiffe://{}/ns/default/dc/dc1/svc/web", domain()));
    assert_eq!(peer.tls_version, "TLSv1_3");
}

#[test]
fn the_wrong_service_is_refused_by_the_client() {
    let ca = authority();
    let error = shake(&identity(&ca, "web"), "db", &identity(&ca, "evil")).unwrap_err();
    assert!(error.contains("svc/evil") && error.contains("svc/db"), "{error}");
}

#[test]
fn a_foreign_authority_is_refused_by_both_sides() {
    let (ca, foreign) = (authority(), authority());
    let error = shake(&identity(&ca, "web"), "db", &identity(&foreign, "db")).unwrap_err();
    assert!(error.starts_with("client: "), "{error}");

    // A client that trusts us but proves itself by another authority.
    let id = SpiffeId::new(domain(), "dc1", name("web"));
    let leaf = foreign.issue(&id, 1, SystemTime::now(), Duration::from_hours(1)).unwrap();
    let both = [ca.cert_pem(), foreign.cert_pem()];
    let spy = Identity::new(Material::from_pem(&leaf.cert_pem, &leaf.key_pem, both).unwrap());
    let error = shake(&spy.unwrap(), "db", &identity(&ca, "db")).unwrap_err();
    assert!(error.starts_with("server: "), "{error}");
}

#[test]
fn an_expired_leaf_is_refused() {
    let ca = authority();
    let old = SystemTime::now() - Duration::from_hours(80);
    let expired = Identity::new(material(&ca, "db", old)).unwrap();
    let error = shake(&identity(&ca, "web"), "db", &expired).unwrap_err();
    assert!(error.contains("expired") || error.contains("Expired"), "{error}");
}

#[test]
fn rotation_serves_new_handshakes_and_a_cross_signed_root_is_accepted() {
    let (old, new) = (authority(), authority());
    let (web, db) = (identity(&old, "web"), identity(&old, "db"));
    let before: Arc<_> = db.server_config(false);

    let id = SpiffeId::new(domain(), "dc1", name("db"));
    let leaf = new.issue(&id, 1, SystemTime::now(), Duration::from_hours(1)).unwrap();
    let cross = old.cross_sign(&new, 11, SystemTime::now()).unwrap();
    let chain = format!("{}{cross}", leaf.cert_pem);
    let roots = [old.cert_pem(), new.cert_pem()];
    db.rotate(Material::from_pem(&chain, &leaf.key_pem, roots).unwrap()).unwrap();

    assert!(!Arc::ptr_eq(&before, &db.server_config(false)));
    // `web` knows the old root only, `db` shows the new leaf with the cross-signed intermediate.
    shake(&web, "db", &db).unwrap();
}

#[test]
fn an_authority_is_not_accepted_as_a_service() {
    let ca = authority();
    let sec1 = {
        let id = SpiffeId::new(domain(), "dc1", name("x"));
        ca.issue(&id, 1, SystemTime::now(), Duration::from_hours(1)).unwrap().key_pem
    };
    assert!(Material::from_pem(ca.cert_pem(), &sec1, [ca.cert_pem()]).is_err());
}

#[test]
fn a_saved_authority_goes_on() {
    let ca = authority();
    let again = CertificateAuthority::from_parts(ca.cert_pem(), &ca.key_pem()).unwrap();
    assert_eq!(again.root_id(), ca.root_id());
    assert_eq!(again.serial(), 7);
    shake(&identity(&ca, "web"), "db", &identity(&again, "db")).unwrap();
    assert!(CertificateAuthority::from_parts(ca.cert_pem(), &authority().key_pem()).is_err());
}
