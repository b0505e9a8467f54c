//! Connections to the agent: opened, kept for the next request, opened again.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use meshx_rt::net;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::{Address, Config, ConsulError};

/// Time to connect, and then for the TLS handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Idle connections that are kept.
const KEPT: usize = 4;
/// Where systems keep their authorities, in the order in which they are tried.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// Opens and keeps connections to one agent.
pub(crate) struct Transport {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Sender>>,
}

impl Transport {
    pub(crate) fn new(config: &Config) -> Result<Self, ConsulError> {
        let tls = match &config.address {
            Address::Tcp { authority, tls: true } => Some(tls(config, authority)?),
            _ => None,
        };
        Ok(Self { address: config.address.clone(), tls, idle: Mutex::default() })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// A connection that is ready for a request, and whether it was used before: a used one may
    /// turn out to be closed, and the request may then be sent again on a new one.
    pub(crate) async fn take(&self) -> Result<(Sender, bool), ConsulError> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match kept {
                // The task of a connection whose answer was just read may need a moment.
                Some(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Ok((sender, true));
                    }
                }
                None => return Ok((self.open().await?, false)),
            }
        }
    }

    /// Gives a connection back for the next request.
    pub(crate) fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT && !sender.is_closed() {
            idle.push(sender);
        }
    }

    async fn open(&self) -> Result<Sender, ConsulError> {
        let opened = match (&self.address, &self.tls) {
            (Address::Unix(path), _) => match unix(path).await {
                Ok(stream) => shake(stream).await,
                Err(error) => Err(error),
            },
            (Address::Tcp { authority, .. }, None) => match tcp(authority).await {
                Ok(stream) => shake(stream).await,
                Err(error) => Err(error),
            },
            (Address::Tcp { authority, .. }, Some((connector, name))) => {
                let secure = async {
                    let stream = tcp(authority).await?;
                    let handshake = connector.connect(name.clone(), stream);
                    tokio::time::timeout(CONNECT_LIMIT, handshake).await.map_err(|_| {
                        let text = format!("no TLS handshake within {CONNECT_LIMIT:?}");
                        io::Error::new(io::ErrorKind::TimedOut, text)
                    })?
                };
                match secure.await {
                    Ok(stream) => shake(stream).await,
                    Err(error) => Err(error),
                }
            }
        };
        let address = || self.address.to_string();
        opened.map_err(|source| {
            let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls.map(ToString::to_string) {
                Some(reason) => ConsulError::Tls { address: address(), reason },
                None => ConsulError::Unreachable { address: address(), source },
            }
        })
    }
}

async fn unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

async fn tcp(authority: &str) -> io::Result<tokio::net::TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host(authority).await? {
        match net::dial(address, CONNECT_LIMIT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn shake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to the control plane ended");
        }
    });
    Ok(sender)
}

fn tls(
    config: &Config,
    authority: &str,
) -> Result<(TlsConnector, ServerName<'static>), ConsulError> {
    let files = &config.tls;
    let mut roots = RootCertStore::empty();
    let mut sources = Vec::new();
    match &files.ca {
        Some(path) if path.is_dir() => {
            let entries = std::fs::read_dir(path).map_err(|e| {
                ConsulError::config(&format!("CONSUL_CAPATH={}", path.display()), e)
            })?;
            sources.extend(entries.flatten().map(|entry| entry.path()));
        }
        Some(path) => sources.push(path.clone()),
        None => sources.extend(
            SYSTEM_BUNDLES.iter().map(Into::into).find(|p: &std::path::PathBuf| p.exists()),
        ),
    }
    for path in &sources {
        let setting = format!("the authorities in {}", path.display());
        let certs = CertificateDer::pem_file_iter(path)
            .map_err(|e| ConsulError::config(&setting, format!("{e:?}")))?;
        for cert in certs.flatten() {
            // Bundles hold authorities of many kinds; those that TLS cannot use are passed over.
            if let Err(error) = roots.add(cert) {
                tracing::debug!(%error, %setting, "an authority was passed over");
            }
        }
    }
    if roots.is_empty() {
        return Err(ConsulError::config("CONSUL_CACERT", "no usable authority was found"));
    }
    let builder = ClientConfig::builder_with_provider(meshx_identity::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| ConsulError::config("TLS", e))?
        .with_root_certificates(roots);
    let client = match (&files.client_cert, &files.client_key) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| ConsulError::config("CONSUL_CLIENT_CERT", format!("{e:?}")))?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|_| ConsulError::config("CONSUL_CLIENT_KEY", "no PEM key in the file"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| ConsulError::config("CONSUL_CLIENT_CERT", e))?
        }
        _ => builder.with_no_client_auth(),
    };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host =
        files.server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let name =
        ServerName::try_from(host).map_err(|e| ConsulError::config("CONSUL_TLS_SERVER_NAME", e))?;
    Ok((TlsConnector::from(Arc::new(client)), name))
}
