//! A certificate authority that issues what Consul's built-in Connect CA issues.
//!
//! Shapes as recorded from Consul 1.8.7: EC P-256 with ecdsa-with-SHA256; the root carries
//! `URI:spiffe://TRUST-DOMAIN`, key usage digitalSignature, keyCertSign, cRLSign and lives ten
//! years; a leaf carries one URI SAN and nothing else, client and server authentication, lives 72
//! hours and is backdated by a minute. Key identifiers are the SHA-256 of the public key.

mod root;

use std::time::{Duration, SystemTime};

use meshx_core::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::IdentityError;

/// How long a root lives: ten years, as Consul's.
const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// How long a cross-signed intermediate lives: a year, as Consul's `IntermediateCertTTL`.
const INTERMEDIATE_LIFE: Duration = Duration::from_hours(365 * 24);
/// How far leaves are backdated, so that clocks may differ a little.
const BACKDATE: Duration = Duration::from_mins(1);
/// Longest common name (RFC 5280, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A root certificate with its key.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use meshx_core::SpiffeId;
/// use meshx_identity::ca::CertificateAuthority;
///
/// let domain = "11111111-2222-3333-4444-555555555555.consul".parse()?;
/// let ca = CertificateAuthority::generate(&domain, 7, SystemTime::now())?;
/// let web = SpiffeId::new(domain, "dc1", "web".parse()?);
/// let leaf = ca.issue(&web, 8, SystemTime::now(), Duration::from_hours(72))?;
/// assert!(leaf.key_pem.starts_with("-----BEGIN EC PRIVATE KEY-----"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
    cert_pem: String,
    root_id: String,
    signing_key_id: String,
    serial: u64,
    key_type: (&'static str, usize),
    not_before: SystemTime,
    not_after: SystemTime,
}

/// A leaf certificate as the CA hands it out.
pub struct IssuedLeaf {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM, `EC PRIVATE KEY` (SEC 1) as Consul's.
    pub key_pem: Zeroizing<String>,
    /// Its serial number.
    pub serial: u64,
    /// Valid from.
    pub valid_after: SystemTime,
    /// Valid until.
    pub valid_before: SystemTime,
}

impl CertificateAuthority {
    /// Makes a new root for the trust domain.
    pub fn generate(
        trust_domain: &TrustDomain,
        serial: u64,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let key = new_key()?;
        let unique = hex(&Sha256::digest(key.der_bytes()), "");
        let prefix = trust_domain.as_str().split(['-', '.']).next().unwrap_or_default();
        let common_name = format!("pri-{}.meshx.ca.{prefix}.consul", &unique[..7]);
        let not_after = now + ROOT_LIFE;
        let mut params = base_params(&common_name, serial, now, not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id(&key));
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        let cert = params.self_signed(&key).map_err(|e| issue(&e))?;
        Ok(Self::assemble(params, key, &cert, serial, now, not_after))
    }

    /// Takes up a root that was made elsewhere or saved: its certificate and its key, both PEM; the
    /// key as PKCS #8 or SEC 1.
    ///
    /// Leaves carry the subject of the certificate as their issuer, byte for byte. What cannot be
    /// taken up so that chains verify is refused: a certificate that is no authority (RFC 5280
    /// §4.2.1.9 and §4.2.1.3: cA, keyCertSign), a key of another certificate, a subject that cannot
    /// be repeated (one attribute twice, or two in one step). Whether the certificate is in force is
    /// not judged here: see [`not_before`](Self::not_before) and [`not_after`](Self::not_after).
    pub fn from_parts(cert_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|_| IdentityError::malformed("the CA's private key", "not a key in PEM"))?;
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|e| IdentityError::malformed("the CA's certificate", format!("{e:?}")))?;
        let (_, cert) = X509Certificate::from_der(&der)
            .map_err(|e| IdentityError::malformed("the CA's certificate", e))?;
        let root = root::Root::read(&cert)?;
        if cert.public_key().raw != key.subject_public_key_info() {
            return Err(IdentityError::malformed(
                "the CA's private key",
                "it does not belong to the certificate",
            ));
        }
        let not_before = cert.validity().not_before.to_datetime().into();
        let not_after = cert.validity().not_after.to_datetime().into();
        let mut params = base_params("", root.serial, not_before, not_after);
        params.distinguished_name = root.subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let key_id = root.key_id.unwrap_or_else(|| key_id(&key));
        let signing_key_id = hex(&key_id, ":");
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
        for text in root.uris {
            params.subject_alt_names.push(uri(&text)?);
        }
        // Written as rcgen will write it, the name must be the one that is there.
        let trial = params.self_signed(&key).map_err(|e| issue(&e))?;
        let (_, trial) = X509Certificate::from_der(trial.der())
            .map_err(|e| IdentityError::malformed("the CA's certificate", e))?;
        if trial.issuer().as_raw() != cert.subject().as_raw() {
            return Err(root::unrepeatable());
        }
        let root_id = hex(&Sha1::digest(&der), ":");
        Ok(Self {
            issuer: Issuer::new(params.clone(), key),
            params,
            cert_pem: cert_pem.to_owned(),
            root_id,
            signing_key_id,
            serial: root.serial,
            key_type: root.key_type,
            not_before,
            not_after,
        })
    }

    fn assemble(
        params: CertificateParams,
        key: KeyPair,
        cert: &Certificate,
        serial: u64,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Self {
        let root_id = hex(&Sha1::digest(cert.der()), ":");
        let signing_key_id = hex(&key_id(&key), ":");
        let cert_pem = unix_lines(&cert.pem());
        let issuer = Issuer::new(params.clone(), key);
        let key_type = ("ec", 256);
        Self {
            issuer,
            params,
            cert_pem,
            root_id,
            signing_key_id,
            serial,
            key_type,
            not_before,
            not_after,
        }
    }

    /// Issues a leaf for this identity, valid from a minute ago for `ttl` from `now`.
    pub fn issue(
        &self,
        id: &SpiffeId,
        serial: u64,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<IssuedLeaf, IdentityError> {
        let key = new_key()?;
        let (valid_after, valid_before) = (now - BACKDATE, now + ttl);
        let short: String =
            id.service().as_str().chars().filter(char::is_ascii_alphanumeric).collect();
        let prefix = id.trust_domain().as_str().split(['-', '.']).next().unwrap_or_default();
        let common_name = format!("{short}.svc.default.{prefix}.consul").to_ascii_lowercase();
        let mut params = base_params(&common_name, serial, valid_after, valid_before);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::DataEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id(&key));
        params.subject_alt_names = vec![uri(&id.to_string())?];
        let cert = params.signed_by(&key, &self.issuer).map_err(|e| issue(&e))?;
        let key_pem = sec1_pem(&key)?;
        let cert_pem = unix_lines(&cert.pem());
        Ok(IssuedLeaf { cert_pem, key_pem, serial, valid_after, valid_before })
    }

    /// Signs the root of `other` as an intermediate of this one, so that peers which know only
    /// this root accept the leaves of the other while roots rotate.
    pub fn cross_sign(
        &self,
        other: &CertificateAuthority,
        serial: u64,
        now: SystemTime,
    ) -> Result<String, IdentityError> {
        let mut params = other.params.clone();
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + INTERMEDIATE_LIFE);
        let cert = params.signed_by(other.issuer.key(), &self.issuer).map_err(|e| issue(&e))?;
        Ok(unix_lines(&cert.pem()))
    }

    /// The root certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The root's private key, PKCS #8 PEM, for keeping it.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Consul's id of the root: SHA-1 of the certificate, hex with colons.
    pub fn root_id(&self) -> &str {
        &self.root_id
    }

    /// The id of the signing key, hex with colons: the certificate's subject key id, or the SHA-256
    /// of the public key where it has none.
    pub fn signing_key_id(&self) -> &str {
        &self.signing_key_id
    }

    /// The low 64 bits of the root's serial number, as Consul's API tells it. A serial number has up
    /// to 20 bytes (RFC 5280 §4.1.2.2).
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The kind of the signing key in Consul's word (`ec`, `rsa`) and its size in bits.
    pub fn key_type(&self) -> (&'static str, usize) {
        self.key_type
    }

    /// Valid from.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Valid until.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("root_id", &self.root_id)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IssuedLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedLeaf").field("serial", &self.serial).finish_non_exhaustive()
    }
}

fn base_params(
    common_name: &str,
    serial: u64,
    not_before: SystemTime,
    not_after: SystemTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name.get(..MAX_COMMON_NAME).unwrap_or(common_name));
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = OffsetDateTime::from(not_before);
    params.not_after = OffsetDateTime::from(not_after);
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| issue(&e))
}

fn key_id(key: &KeyPair) -> Vec<u8> {
    Sha256::digest(key.subject_public_key_info()).to_vec()
}

fn uri(text: &str) -> Result<SanType, IdentityError> {
    text.try_into().map(SanType::URI).map_err(|e| issue(&e))
}

fn issue(error: &rcgen::Error) -> IdentityError {
    IdentityError::Issue(error.to_string())
}

fn hex(bytes: &[u8], separator: &str) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(separator)
}

fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

/// The key in SEC 1 form (RFC 5915) with the curve named, the only form that Go reads under
/// `EC PRIVATE KEY`.
fn sec1_pem(key: &KeyPair) -> Result<Zeroizing<String>, IdentityError> {
    // The inner ECPrivateKey of the PKCS #8 form begins with version 1 and a 32-byte octet string.
    const PRIVATE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    // [0] { OID prime256v1 } and [1] { BIT STRING of 65 bytes }.
    const CURVE: [u8; 12] =
        [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const PUBLIC: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];
    let wrong = || IdentityError::Issue("unexpected form of a P-256 key".to_owned());
    let pkcs8 = key.serialized_der();
    let start = pkcs8.windows(5).position(|window| window == PRIVATE).ok_or_else(wrong)? + 5;
    let scalar = pkcs8.get(start..start + 32).ok_or_else(wrong)?;
    let public = key.der_bytes();
    if public.len() != 65 {
        return Err(wrong());
    }
    let mut der = Zeroizing::new(Vec::with_capacity(128));
    der.extend_from_slice(&[0x30, 0x77]);
    der.extend_from_slice(&PRIVATE);
    der.extend_from_slice(scalar);
    der.extend_from_slice(&CURVE);
    der.extend_from_slice(&PUBLIC);
    der.extend_from_slice(public);
    Ok(pem("EC PRIVATE KEY", &der))
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    use base64::Engine as _;
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}
