//! The identity of one service, in force and replaceable.

use std::sync::Arc;

use arc_swap::ArcSwap;
use meshx_core::{ServiceName, SpiffeId};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

use crate::verify::ServiceVerifier;
use crate::{ALPN, IdentityError, Material, provider};

/// The certificate that a service proves itself with, and the configurations made from it.
///
/// Cheap to clone; all clones see a rotation at once.
#[derive(Clone, Debug)]
pub struct Identity {
    current: Arc<ArcSwap<Current>>,
}

#[derive(Debug)]
struct Current {
    material: Material,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
    server_with_alpn: Arc<ServerConfig>,
}

impl Identity {
    /// An identity with its first material.
    pub fn new(material: Material) -> Result<Self, IdentityError> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Current::new(material)?)) })
    }

    /// Replaces the material: new handshakes use it, live connections are not touched.
    pub fn rotate(&self, material: Material) -> Result<(), IdentityError> {
        self.current.store(Arc::new(Current::new(material)?));
        Ok(())
    }

    /// The identity in force.
    pub fn id(&self) -> SpiffeId {
        self.current.load().material.id().clone()
    }

    /// Reads something of the material in force.
    pub fn with_material<T>(&self, read: impl FnOnce(&Material) -> T) -> T {
        read(&self.current.load().material)
    }

    /// The configuration of an inbound listener: TLS 1.3, a client certificate under our roots is
    /// required. The caller must still ask [`crate::Peer`] who it is.
    ///
    /// `alpn` is for a peer that offers [`ALPN`]. Another configuration serves everybody else,
    /// because a server that knows some protocol refuses clients that offer only others, as
    /// Consul's sidecar does.
    pub fn server_config(&self, alpn: bool) -> Arc<ServerConfig> {
        let current = self.current.load();
        Arc::clone(if alpn { &current.server_with_alpn } else { &current.server })
    }

    /// The configuration for dialling one service: only a server that proves to be this service in
    /// this datacenter completes the handshake.
    pub fn client_config(
        &self,
        destination: &ServiceName,
        datacenter: &str,
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let current = self.current.load();
        let domain = current.material.id().trust_domain().clone();
        let verifier = ServiceVerifier {
            roots: Arc::clone(&current.roots),
            wanted: SpiffeId::new(domain, datacenter, destination.clone()),
            provider: provider(),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(
                current.material.chain.clone(),
                current.material.key.clone_key(),
            )?;
        // Consul's certificates carry no host name, so there is none to announce; and sessions are
        // remembered by host name, so there is none to resume.
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

impl Current {
    fn new(material: Material) -> Result<Self, IdentityError> {
        let roots = Arc::new(material.roots.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|e| IdentityError::malformed("the list of roots", e))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(material.chain.clone(), material.key.clone_key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut with_alpn = server.clone();
        with_alpn.alpn_protocols = vec![ALPN.to_vec()];
        let (server, server_with_alpn) = (Arc::new(server), Arc::new(with_alpn));
        Ok(Self { material, roots, server, server_with_alpn })
    }
}
