//! Roots that were made with another program (OpenSSL 3, `openssl req -x509`, 100 years).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime};

use meshx_core::SpiffeId;
use meshx_identity::ca::CertificateAuthority;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor as verify;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// `C=DE, O=Acme GmbH, OU=Mesh, CN=Acme Mesh Root`, a random serial number of 20 bytes.
const ACME: &str = include_str!("data/acme.pem");
/// Its key, SEC 1.
const KEY: &str = include_str!("data/acme.key");

fn id() -> SpiffeId {
    let domain = "11111111-2222-3333-4444-555555555555.consul".parse().unwrap();
    SpiffeId::new(domain, "dc1", "web".parse().unwrap())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// What a peer does that knows only `root`.
fn accepts(root: &str, leaf: &str, between: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(der(root)).unwrap();
    let leaf = der(leaf);
    let leaf = ParsedCertificate::try_from(&leaf)?;
    let algorithms = meshx_identity::provider().signature_verification_algorithms.all;
    verify(&leaf, &roots, between, UnixTime::now(), algorithms)
}

#[test]
fn leaves_of_an_imported_root_verify() {
    let ca = CertificateAuthority::from_parts(ACME, KEY).unwrap();
    let leaf = ca.issue(&id(), 9, SystemTime::now(), Duration::from_hours(1)).unwrap();
    accepts(ACME, &leaf.cert_pem, &[]).unwrap();
    let (root, leaf) = (der(ACME), der(&leaf.cert_pem));
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
    let low: [u8; 8] = root.raw_serial().last_chunk().copied().unwrap();
    assert!(root.raw_serial().len() >= 20, "a serial number beyond 64 bits");
    assert_eq!(ca.serial(), u64::from_be_bytes(low));
    assert_eq!(ca.key_type(), ("ec", 256));
    assert_eq!(ca.signing_key_id().len(), 20 * 3 - 1, "the key id in the certificate");
    let saved = CertificateAuthority::from_parts(ca.cert_pem(), &ca.key_pem()).unwrap();
    let leaf = saved.issue(&id(), 10, SystemTime::now(), Duration::from_hours(1)).unwrap();
    accepts(ACME, &leaf.cert_pem, &[]).unwrap();
}

#[test]
fn an_imported_root_takes_over_and_is_taken_over() {
    let (domain, now) = (id().trust_domain().clone(), SystemTime::now());
    let own = CertificateAuthority::generate(&domain, 7, now).unwrap();
    let acme = CertificateAuthority::from_parts(ACME, KEY).unwrap();
    for (old, new) in [(&own, &acme), (&acme, &own)] {
        let leaf = new.issue(&id(), 9, now, Duration::from_hours(1)).unwrap();
        accepts(old.cert_pem(), &leaf.cert_pem, &[]).unwrap_err();
        let bridge = old.cross_sign(new, 11, now).unwrap();
        accepts(old.cert_pem(), &leaf.cert_pem, &[der(&bridge)]).unwrap();
    }
}

#[test]
fn what_cannot_be_a_root_is_refused() {
    for (cert, reason) in [
        (include_str!("data/leaf.pem"), "no basic constraint cA"),
        (include_str!("data/nosign.pem"), "keyCertSign"),
        // `DC=com, DC=acme, CN=Root`: an attribute twice.
        (include_str!("data/twice.pem"), "its subject cannot be repeated"),
        ("", "the CA's certificate"),
    ] {
        let error = CertificateAuthority::from_parts(cert, KEY).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let other = CertificateAuthority::generate(id().trust_domain(), 7, SystemTime::now()).unwrap();
    let error = CertificateAuthority::from_parts(ACME, &other.key_pem()).unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");
}
