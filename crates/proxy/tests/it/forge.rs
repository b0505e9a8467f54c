//! Certificates that no honest authority would issue, and peers that present them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshx_core::TrustDomain;
use meshx_identity::ca::CertificateAuthority;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::support::dial;

/// A root's key, free to sign anything.
pub(crate) struct Forge {
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Forged {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Forge {
    /// A root, as an authority and as a forge.
    pub(crate) fn authority(domain: &TrustDomain) -> (CertificateAuthority, Self) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("root of {domain}"));
        params.serial_number = Some(SerialNumber::from(7_u64));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
        let cert = params.self_signed(&key).unwrap();
        let ca = CertificateAuthority::from_parts(&cert.pem(), &key.serialize_pem()).unwrap();
        (ca, Self { issuer: Issuer::new(params, key) })
    }

    /// A leaf in order, but for what `edit` makes of it.
    pub(crate) fn leaf(&self, edit: impl FnOnce(&mut CertificateParams)) -> Forged {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - Duration::from_mins(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::from_hours(1);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        edit(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Forged { chain: vec![cert.der().clone()], key }
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// Shakes hands as a client that trusts anybody and presents `credentials`.
pub(crate) async fn shake(
    address: SocketAddr,
    credentials: Option<&Forged>,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    shake_on(dial(address).await, credentials, version).await
}

pub(crate) async fn shake_on(
    stream: TcpStream,
    credentials: Option<&Forged>,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    shake_speaking(stream, credentials, version, &[]).await
}

/// The same, offering these protocols.
pub(crate) async fn shake_speaking(
    stream: TcpStream,
    credentials: Option<&Forged>,
    version: &'static SupportedProtocolVersion,
    alpn: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let provider = meshx_identity::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match credentials {
        Some(Forged { chain, key }) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let server = ServerName::try_from("mesh.invalid").unwrap();
    TlsConnector::from(Arc::new(config)).connect(server, stream).await
}

/// The configuration of a server that presents `credentials` and asks for nothing.
pub(crate) fn server(credentials: &Forged) -> Arc<ServerConfig> {
    server_speaking(credentials, &[])
}

/// The same, knowing these protocols.
pub(crate) fn server_speaking(credentials: &Forged, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(meshx_identity::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
