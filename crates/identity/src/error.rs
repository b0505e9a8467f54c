//! What can be wrong with a certificate.

use meshx_core::{Code, Diagnostic, SpiffeError};

/// An error of issuing, reading or checking certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The CA could not make a certificate.
    #[error("the certificate authority could not issue a certificate: {0}")]
    Issue(String),
    /// PEM or DER that does not parse. The text never contains key material.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The certificate has not exactly one URI SAN.
    #[error("the certificate carries {0} URI names where exactly one SPIFFE id is required")]
    UriCount(usize),
    /// The URI SAN is not the identity of a service.
    #[error("the certificate's identity is not a service: {0}")]
    Spiffe(#[from] SpiffeError),
    /// The certificate is a CA where a leaf is required.
    #[error("the certificate is an authority, not a leaf")]
    NotALeaf,
    /// Key and certificate do not belong together, or the key type is unknown.
    #[error("the TLS library refused the certificate and key: {0}")]
    Tls(#[from] rustls::Error),
    /// The peer did not present a certificate.
    #[error("the peer presented no certificate")]
    NoPeerCertificate,
    /// The peer's identity is of another namespace or admin partition than the default.
    #[error("{0} is of another namespace or partition; this mesh is the default one")]
    Tenancy(String),
    /// The peer's identity is of another trust domain.
    #[error("the peer belongs to trust domain {found}, this mesh is {wanted}")]
    TrustDomain {
        /// Ours.
        wanted: String,
        /// The peer's.
        found: String,
    },
}

impl IdentityError {
    pub(crate) fn malformed(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

impl Diagnostic for IdentityError {
    fn code(&self) -> Code {
        Code(match self {
            Self::Issue(_) => 501,
            Self::Malformed { .. } => 502,
            Self::UriCount(_) | Self::Spiffe(_) | Self::NotALeaf => 504,
            Self::Tls(_) => 505,
            Self::NoPeerCertificate => 506,
            Self::TrustDomain { .. } | Self::Tenancy(_) => 507,
        })
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::TrustDomain { .. } => {
                Some("both sidecars must use the same control plane (CONSUL_HTTP_ADDR)".to_owned())
            }
            _ => None,
        }
    }
}
