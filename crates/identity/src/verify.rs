//! The checks on a peer's certificate that webpki does not make: SPIFFE's.

use std::sync::Arc;

use meshx_core::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;

/// The identity in a leaf certificate.
///
/// X509-SVID §2 and §5.2: exactly one URI SAN, which is a SPIFFE id; not a CA; neither keyCertSign
/// nor cRLSign.
pub(crate) fn service_identity(leaf: &CertificateDer<'_>) -> Result<SpiffeId, IdentityError> {
    let (_, cert) = X509Certificate::from_der(leaf)
        .map_err(|e| IdentityError::malformed("the peer's certificate", e))?;
    if cert.is_ca() {
        return Err(IdentityError::NotALeaf);
    }
    let usage = cert.key_usage().map_err(|e| IdentityError::malformed("the key usage", e))?;
    if usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign()) {
        return Err(IdentityError::NotALeaf);
    }
    let names = cert
        .subject_alternative_name()
        .map_err(|e| IdentityError::malformed("the certificate's names", e))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    let [uri] = uris[..] else {
        return Err(IdentityError::UriCount(uris.len()));
    };
    Ok(uri.parse()?)
}

/// Accepts a server whose chain ends in one of our roots and whose identity is the wanted service:
/// same trust domain, namespace, datacenter and name. Host names play no part; there are none in
/// Consul's certificates.
#[derive(Debug)]
pub(crate) struct ServiceVerifier {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) wanted: SpiffeId,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServiceVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let refuse = |reason: Refused| {
            Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason)))))
        };
        match service_identity(end_entity) {
            Ok(found) if found == self.wanted => Ok(ServerCertVerified::assertion()),
            Ok(found) => refuse(Refused::WrongService {
                wanted: self.wanted.to_string(),
                found: found.to_string(),
            }),
            Err(error) => refuse(Refused::NoIdentity(error.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a chain that verified was refused all the same.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the peer is {found}, wanted {wanted}")]
    WrongService { wanted: String, found: String },
    #[error("{0}")]
    NoIdentity(String),
}
