//! Who a service is, and how it proves it.
//!
//! * [`ca`]: a certificate authority that issues exactly what Consul's built-in Connect CA issues
//!   (`P-256`, one URI SAN, 72 h leaves): the embedded agent's CA.
//! * [`Material`]: one leaf certificate with its key and the roots it is trusted under, parsed and
//!   checked.
//! * [`Identity`]: the material in force for one service. [`Identity::rotate`] replaces it for new
//!   handshakes; connections that live are never touched.
//! * [`Peer`]: what a finished handshake proved about the other side.
//!
//! TLS in the mesh is version 1.3 with client certificates, nothing else, and without session
//! resumption: every handshake verifies a chain and a name. The provider (aws-lc-rs) is passed
//! explicitly; no process-wide default is installed.

pub mod ca;
mod error;
mod identity;
mod material;
mod peer;
mod verify;

pub use error::IdentityError;
pub use identity::Identity;
pub use material::Material;
pub use peer::Peer;

/// The protocol name (ALPN) by which two of our sidecars know each other.
pub const ALPN: &[u8] = b"meshx/1";

/// The cryptography of every TLS configuration in the product.
pub fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<std::sync::Arc<rustls::crypto::CryptoProvider>> =
        std::sync::OnceLock::new();
    std::sync::Arc::clone(
        PROVIDER.get_or_init(|| std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())),
    )
}
