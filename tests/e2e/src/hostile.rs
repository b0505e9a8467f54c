//! Peers that do what a sidecar never does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};

use crate::Mesh;

/// How long a hostile peer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A certificate with its key, genuine or not.
#[derive(Debug)]
pub struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Credential {
    /// A genuine leaf of this mesh, for any service: what a thief of one service's key has.
    pub fn of(mesh: &Mesh, service: &str) -> Self {
        let leaf = mesh.get_json(&format!("/v1/agent/connect/ca/leaf/{service}"));
        let pem = |field: &str| leaf[field].as_str().unwrap().as_bytes();
        let chain = CertificateDer::pem_slice_iter(pem("CertPEM"));
        Self {
            chain: chain.map(|certificate| certificate.unwrap()).collect(),
            key: PrivateKeyDer::from_pem_slice(pem("PrivateKeyPEM")).unwrap(),
        }
    }

    /// A leaf for the same SPIFFE id, issued by an authority that this mesh does not know.
    pub fn forged(mesh: &Mesh, service: &str) -> Self {
        let leaf = mesh.get_json(&format!("/v1/agent/connect/ca/leaf/{service}"));
        let id = leaf["ServiceURI"].as_str().unwrap();
        let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = Issuer::new(authority, authority_key);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &authority).unwrap();
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// Sends bytes without TLS and returns what comes back until the other side closes.
pub fn plain(address: &str, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, bytes)
}

/// Sends bytes over TLS 1.3, with or without a certificate of its own, trusting anybody, and returns
/// what comes back until the other side closes. A refused handshake returns nothing.
pub fn tls(address: &str, credential: Option<Credential>, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match credential {
        Some(credential) => {
            builder.with_client_auth_cert(credential.chain, credential.key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("nobody.invalid").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    exchange(StreamOwned::new(connection, stream), bytes)
}

fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> Vec<u8> {
    let start = Instant::now();
    // The other side may close at any moment; that is what the caller wants to see.
    let _ignored = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
    }
    assert!(start.elapsed() < PATIENCE, "neither an answer nor a close within {PATIENCE:?}");
    answer
}

/// A server with a certificate of its own that listens where a sidecar should.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Impostor {
    /// Listens on a free port of loopback until the test process ends.
    pub fn listen(credential: Credential) -> Self {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(credential.chain, credential.key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let impostor = Self {
            address: listener.local_addr().unwrap(),
            handshakes: Arc::default(),
            received: Arc::default(),
        };
        let handshakes = Arc::clone(&impostor.handshakes);
        let received = Arc::clone(&impostor.received);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                handshakes.fetch_add(1, Ordering::SeqCst);
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    received.lock().unwrap().extend_from_slice(&buffer[..read]);
                }
            }
        });
        impostor
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// What it was told inside of TLS.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }
}

/// The first message of a distribution handshake: `'N'`, flags, creation, name
/// (`erl_dist_protocol`, "Distribution Handshake", `send_name`), with its length in front.
pub fn hello(node: &str) -> Vec<u8> {
    let name = node.as_bytes();
    let mut body = vec![b'N'];
    body.extend(0x0000_000d_07df_7fbd_u64.to_be_bytes());
    body.extend(1_u32.to_be_bytes());
    body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    body.extend(name);
    let mut message = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    message.extend(body);
    message
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Trusts every server.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
