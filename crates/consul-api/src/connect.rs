//! Certificates and authorisation of Connect.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::tolerant::{is_default, null_default};

/// The roots to trust (`GET /v1/agent/connect/ca/roots`). All listed roots are valid, the active
/// one signs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaRoots {
    /// The root that signs new leaves.
    #[serde(rename = "ActiveRootID")]
    pub active_root_id: String,
    /// The trust domain of every identity, `<uuid>.consul`.
    pub trust_domain: String,
    /// The roots.
    #[serde(deserialize_with = "null_default")]
    pub roots: Vec<CaRoot>,
}

/// One root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaRoot {
    /// SHA-1 of the certificate, in hex with colons.
    #[serde(rename = "ID")]
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The serial number, its low 64 bits.
    pub serial_number: u64,
    /// The subject key id, in hex with colons.
    #[serde(rename = "SigningKeyID")]
    pub signing_key_id: String,
    /// The trust domain without its suffix.
    pub external_trust_domain: String,
    /// Valid from, RFC 3339.
    pub not_before: String,
    /// Valid until, RFC 3339.
    pub not_after: String,
    /// The certificate.
    #[serde(rename = "RootCert")]
    pub root_cert: String,
    /// Certificates that lead from an older root to this one.
    pub intermediate_certs: Option<Vec<String>>,
    /// True for the root that signs.
    pub active: bool,
    /// `ec`.
    pub private_key_type: String,
    /// 256.
    pub private_key_bits: u32,
    /// The index at which it was made.
    pub create_index: u64,
    /// The index at which it changed last.
    pub modify_index: u64,
}

/// A leaf certificate and its key (`GET /v1/agent/connect/ca/leaf/:service`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Leaf {
    /// The serial number, in hex with colons.
    #[serde(default)]
    pub serial_number: String,
    /// The leaf, followed by intermediates after a rotation. All of it must be presented.
    #[serde(rename = "CertPEM")]
    pub cert_pem: String,
    /// The key.
    #[serde(rename = "PrivateKeyPEM")]
    pub private_key_pem: SecretPem,
    /// The service.
    #[serde(default)]
    pub service: String,
    /// Its identity.
    #[serde(rename = "ServiceURI", default)]
    pub service_uri: String,
    /// Valid from, RFC 3339.
    pub valid_after: String,
    /// Valid until, RFC 3339.
    pub valid_before: String,
    /// The index at which it was made.
    #[serde(default)]
    pub create_index: u64,
    /// The index at which it changed last.
    #[serde(default)]
    pub modify_index: u64,
}

/// A private key in PEM. It is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretPem(Zeroizing<String>);

impl SecretPem {
    /// The key itself, for the TLS library.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretPem {
    fn from(pem: String) -> Self {
        Self(Zeroizing::new(pem))
    }
}

impl From<Zeroizing<String>> for SecretPem {
    fn from(pem: Zeroizing<String>) -> Self {
        Self(pem)
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPem(..)")
    }
}

/// `POST /v1/agent/connect/authorize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthorizeRequest {
    /// The service that is dialled.
    #[serde(deserialize_with = "null_default")]
    pub target: String,
    /// The identity in the caller's certificate.
    #[serde(rename = "ClientCertURI", deserialize_with = "null_default")]
    pub client_cert_uri: String,
    /// The serial number of the caller's certificate, in hex with colons.
    #[serde(
        rename = "ClientCertSerial",
        skip_serializing_if = "is_default",
        deserialize_with = "null_default"
    )]
    pub client_cert_serial: String,
}

/// The answer to an [`AuthorizeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthorizeResponse {
    /// True when the connection may be.
    pub authorized: bool,
    /// Why.
    pub reason: String,
}

/// `GET|PUT /v1/connect/ca/configuration`. `Config` may hold a private key: it has no `Debug`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaConfiguration {
    /// `consul` for the built-in authority.
    pub provider: String,
    /// Options of the provider: `LeafCertTTL`, `IntermediateCertTTL`, `RotationPeriod`,
    /// `PrivateKey`, `RootCert`.
    #[serde(deserialize_with = "null_default")]
    pub config: Map<String, Value>,
    /// State of the provider, never set here.
    pub state: Option<Value>,
    /// Rotates even when the old root cannot sign the new one.
    #[serde(deserialize_with = "null_default")]
    pub force_without_cross_signing: bool,
    /// The index at which it was made.
    #[serde(deserialize_with = "null_default")]
    pub create_index: u64,
    /// The index at which it changed last.
    #[serde(deserialize_with = "null_default")]
    pub modify_index: u64,
}

impl fmt::Debug for CaConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaConfiguration").field("provider", &self.provider).finish_non_exhaustive()
    }
}
