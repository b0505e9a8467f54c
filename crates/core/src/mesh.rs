//! The four operations of a mesh.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{Code, Diagnostic, Service, ServiceId, ServiceName, Upstream};

/// A service mesh as a program sees it: offer a service, reach another.
///
/// These are the four operations of Meshx's behaviour of the same name, and one to wait with. `start`
/// and `connect`
/// return guards: dropping one undoes it in the background, [`stop`](Self::stop) and
/// [`disconnect`](Self::disconnect) undo it and wait until it is done.
///
/// # Readiness
///
/// `start` returns when everything on the mesh's side is done: the certificate is there, the public
/// listener is bound, the instance is registered. If the program listens already, it returns when a
/// peer can really connect; if it does not, the instance is critical until it does, and
/// [`ready`](Self::ready) waits for that. `connect` returns when the local listener is bound; it does
/// not wait for an instance of the destination to exist.
///
/// # Cancellation
///
/// A future of `start` or `connect` that is dropped leaves nothing bound, and takes back in the
/// background what it had registered.
pub trait ServiceMesh: Send + Sync {
    /// Registers an instance and runs its sidecar. The program listens on [`Running::local`].
    fn start(&self, service: Service) -> impl Future<Output = Result<Running, MeshError>> + Send;

    /// Waits until a peer can really connect: the program listens, and the control plane leads peers
    /// to it. An error when that is not so within `limit`.
    fn ready(
        &self,
        running: &Running,
        limit: Duration,
    ) -> impl Future<Output = Result<(), MeshError>> + Send;

    /// Drains the sidecar, removes the registration, and returns when both are done.
    fn stop(&self, running: Running) -> impl Future<Output = Result<(), MeshError>> + Send;

    /// Opens a local address that leads to any passing instance of the destination. `running` says
    /// on whose behalf: its identity is the one that the destination sees and judges.
    fn connect(
        &self,
        running: &Running,
        upstream: Upstream,
    ) -> impl Future<Output = Result<Connected, MeshError>> + Send;

    /// Closes the local address. Connections that live through it go on.
    fn disconnect(
        &self,
        connected: Connected,
    ) -> impl Future<Output = Result<(), MeshError>> + Send;

    /// Why the newest connection between this service and `peer`, whoever of both dialled, was refused
    /// or cut, if that was no longer ago than `within`. A program sees only the end of a stream; this
    /// tells the reason. `None` where the mesh does not know, or nothing of the kind happened.
    fn last_failure(
        &self,
        _running: &Running,
        _peer: &ServiceName,
        _within: Duration,
    ) -> Option<MeshError> {
        None
    }

    /// Who is behind a connection that the program accepted from `from`: the SPIFFE identity that the
    /// peer has proved to the sidecar. `None`: the sidecar made no such connection (somebody on this
    /// machine dialled the program itself), or the mesh does not know. The sidecar may know it a
    /// moment later than the program has accepted.
    fn caller(&self, _running: &Running, _from: SocketAddr) -> Option<String> {
        None
    }
}

/// A service that is in the mesh. Dropping it takes the service out in the background.
#[derive(Debug)]
pub struct Running {
    /// The name that peers dial.
    pub name: ServiceName,
    /// The identity of this instance.
    pub id: ServiceId,
    /// Where the program must listen for plain TCP.
    pub local: SocketAddr,
    /// Where peers' sidecars connect with mutual TLS.
    pub public: SocketAddr,
    /// Undoes the registration when dropped.
    pub lease: Lease,
}

/// An upstream that is open. Dropping it closes the local address.
#[derive(Debug)]
pub struct Connected {
    /// The service that it leads to.
    pub destination: ServiceName,
    /// Where the program dials.
    pub local: SocketAddr,
    /// Closes the listener when dropped.
    pub lease: Lease,
}

/// Something to undo: runs once, on drop.
pub struct Lease(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Lease {
    /// A lease that runs `release` when it is dropped. `release` must not block.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(release)))
    }

    /// Drops the duty: `release` never runs.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Lease(held)" } else { "Lease(released)" })
    }
}

/// An error of a mesh operation: what was wanted, who failed, what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{wanted}: {source}")]
pub struct MeshError {
    wanted: String,
    code: Code,
    hint: Option<String>,
    retryable: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl MeshError {
    /// Wraps the error of one layer, saying what was wanted.
    pub fn new(wanted: impl Into<String>, cause: impl Diagnostic + Send + Sync + 'static) -> Self {
        let (code, hint, retryable) = (cause.code(), cause.hint(), cause.is_retryable());
        Self { wanted: wanted.into(), code, hint, retryable, source: Box::new(cause) }
    }
}

impl Diagnostic for MeshError {
    fn code(&self) -> Code {
        self.code
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }

    fn is_retryable(&self) -> bool {
        self.retryable
    }
}
