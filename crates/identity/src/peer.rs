//! What a finished handshake proved.

use meshx_core::{SpiffeId, TrustDomain};
use rustls::CommonState;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;
use crate::verify::service_identity;

/// The other side of a finished mutual TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Who it is.
    pub id: SpiffeId,
    /// The serial number of its certificate, hex with colons.
    pub serial: String,
    /// The protocol version, such as `TLSv1_3`.
    pub tls_version: String,
    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
}

impl Peer {
    /// Reads the peer of a connection whose handshake is complete. The chain has been verified by
    /// then; this checks that the leaf is the identity of a service of our trust domain.
    pub fn of(connection: &CommonState, ours: &TrustDomain) -> Result<Self, IdentityError> {
        let leaf = connection
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or(IdentityError::NoPeerCertificate)?;
        let id = service_identity(leaf)?;
        if id.trust_domain() != ours {
            return Err(IdentityError::TrustDomain {
                wanted: ours.to_string(),
                found: id.trust_domain().to_string(),
            });
        }
        if !id.has_default_tenancy() {
            // Intentions speak of names in the default namespace; another tenant's `web` is not ours.
            return Err(IdentityError::Tenancy(id.to_string()));
        }
        let (_, cert) = X509Certificate::from_der(leaf)
            .map_err(|e| IdentityError::malformed("the peer's certificate", e))?;
        let tls_version =
            connection.protocol_version().map_or_else(String::new, |v| format!("{v:?}"));
        let cipher_suite = connection
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite()));
        Ok(Self {
            id,
            serial: cert.tbs_certificate.raw_serial_as_string(),
            tls_version,
            cipher_suite,
        })
    }
}
