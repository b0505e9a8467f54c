//! Services of a mesh: mutual TLS, intentions, and callers who have proved who they are.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshx_core::{Connected, MeshError, Running, Service, ServiceMesh, ServiceName, Upstream};
use meshx_rt::net;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{CONNECT, Carried, Dial, Listen, Stream};

/// The longest time until peers are led to a service that starts.
const READY: Duration = Duration::from_secs(10);
/// So often, and with which pauses, the mesh is asked who calls: its sidecar may know a moment later.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);
/// Of so many connections at a time.
const ASKED: usize = 256;

/// A program in a mesh, as a service of its own. What it calls sees its identity.
///
/// ```no_run
/// # async fn example(mesh: impl meshx_core::ServiceMesh + 'static)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use meshx_core::Service;
/// use meshx_rpc::transport::Mesh;
/// use meshx_rpc::{Client, Functions, Server};
///
/// let functions = Functions::new().add("ping", async |()| Ok::<_, String>("pong"));
/// let (orders, listener) = Mesh::serve(mesh, Service::named("orders".parse()?)).await?;
/// let server = Server::new(functions).listen(listener).start();
/// let stock = Client::to(orders.connect("stock".parse()?).await?).start();
/// let left: u32 = stock.call("left", &"tea").await?;
/// # Ok(())
/// # }
/// ```
pub struct Mesh<M: ServiceMesh + 'static>(Arc<Shared<M>>);

struct Shared<M> {
    mesh: M,
    running: Running,
}

/// Takes the connections that the sidecar leads here. The service is in the mesh as long as this or
/// its [`Mesh`] lives.
pub struct MeshListening<M: ServiceMesh + 'static> {
    shared: Arc<Shared<M>>,
    listener: TcpListener,
    /// Connections of which is asked who made them.
    asked: JoinSet<Stream>,
}

/// Leads to any passing instance of a service.
pub struct MeshDial<M: ServiceMesh + 'static> {
    _shared: Arc<Shared<M>>,
    connected: Connected,
}

impl<M: ServiceMesh + 'static> Mesh<M> {
    /// Starts a service, and listens for what calls it.
    pub async fn serve(mesh: M, service: Service) -> Result<(Self, MeshListening<M>), ServeError> {
        // Bound first, so that the sidecar knows the port before peers are led to it.
        let listener = net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let running = mesh.start(service.port(listener.local_addr()?.port())).await?;
        mesh.ready(&running, READY).await?;
        let shared = Arc::new(Shared { mesh, running });
        Ok((Self(Arc::clone(&shared)), MeshListening { shared, listener, asked: JoinSet::new() }))
    }

    /// Starts a service that only calls.
    pub async fn join(mesh: M, service: Service) -> Result<Self, MeshError> {
        let running = mesh.start(service).await?;
        Ok(Self(Arc::new(Shared { mesh, running })))
    }

    /// The way to another service, whether there are instances of it now or not.
    pub async fn connect(&self, service: ServiceName) -> Result<MeshDial<M>, MeshError> {
        let Shared { mesh, running } = &*self.0;
        let connected = mesh.connect(running, Upstream::to(service)).await?;
        Ok(MeshDial { _shared: Arc::clone(&self.0), connected })
    }
}

/// A service could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The mesh did not take it.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// There is no port to listen on.
    #[error("no port on loopback: {0}")]
    Listen(#[from] io::Error),
}

impl<M: ServiceMesh + 'static> Listen for MeshListening<M> {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    // If asking went wrong, nothing comes of that connection, and others go on.
                    Some(asked) = self.asked.join_next() => match asked {
                        Ok(stream) => return Ok(stream),
                        Err(error) => tracing::error!(%error, "who calls was not found out"),
                    },
                    accepted = self.listener.accept(), if self.asked.len() < ASKED => {
                        let (stream, peer) = accepted?;
                        net::tune(&stream)?;
                        // Nobody waits for who comes from elsewhere than the sidecar.
                        self.asked.spawn(ask(Arc::clone(&self.shared), stream, peer));
                    }
                }
            }
        })
    }

    fn address(&self) -> String {
        format!("{} in the mesh", self.shared.running.name)
    }
}

/// Finds out who is behind a connection.
async fn ask<M: ServiceMesh>(
    shared: Arc<Shared<M>>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Stream {
    let Shared { mesh, running } = &*shared;
    let mut identity = mesh.caller(running, peer);
    for _ in 0..LOOKS {
        if identity.is_some() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        identity = mesh.caller(running, peer);
    }
    let (read, write) = stream.into_split();
    let address = identity.clone().unwrap_or_else(|| peer.to_string());
    Stream::new(read, write, address).with_identity(identity)
}

impl<M: ServiceMesh + 'static> Dial for MeshDial<M> {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let stream = net::dial(self.connected.local, CONNECT).await?;
            let (read, write) = stream.into_split();
            Ok(Stream::new(read, write, self.address()))
        })
    }

    fn address(&self) -> String {
        format!("{} in the mesh", self.connected.destination)
    }
}

impl<M: ServiceMesh + 'static> fmt::Debug for Mesh<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mesh").field(&self.0.running.name).finish()
    }
}

impl<M: ServiceMesh + 'static> fmt::Debug for MeshListening<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeshListening").field(&self.shared.running.name).finish()
    }
}

impl<M: ServiceMesh + 'static> fmt::Debug for MeshDial<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeshDial").field(&self.connected.destination).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use meshx_core::Lease;

    use super::*;

    /// A mesh that panics when it is asked who calls, until it does not.
    struct Failing(AtomicBool);

    impl ServiceMesh for Failing {
        async fn start(&self, service: Service) -> Result<Running, MeshError> {
            let local = service.local.unwrap();
            let (name, id) = (service.name, service.id);
            Ok(Running { name, id, local, public: local, lease: Lease::new(|| ()) })
        }

        async fn ready(&self, _: &Running, _: Duration) -> Result<(), MeshError> {
            Ok(())
        }

        async fn stop(&self, _: Running) -> Result<(), MeshError> {
            Ok(())
        }

        async fn connect(&self, _: &Running, upstream: Upstream) -> Result<Connected, MeshError> {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let lease = Lease::new(|| ());
            Ok(Connected { destination: upstream.destination, local, lease })
        }

        async fn disconnect(&self, _: Connected) -> Result<(), MeshError> {
            Ok(())
        }

        fn caller(&self, _: &Running, _: SocketAddr) -> Option<String> {
            assert!(!self.0.load(Ordering::SeqCst), "as it should");
            Some("spiffe://mesh/caller".to_owned())
        }
    }

    #[tokio::test]
    async fn asking_who_calls_may_fail_for_all_that_are_asked_for() {
        let mesh = Failing(AtomicBool::new(true));
        let service = Service::named("orders".parse().unwrap());
        let (served, mut listening) = Mesh::serve(mesh, service).await.unwrap();
        let address = listening.listener.local_addr().unwrap();
        // As many as are asked for at a time, and all of them fail.
        for _ in 0..ASKED {
            let dialled = net::dial(address, CONNECT).await.unwrap();
            let (_, peer) = listening.listener.accept().await.unwrap();
            listening.asked.spawn(ask(Arc::clone(&listening.shared), dialled, peer));
        }
        let wait = tokio::time::timeout(Duration::from_millis(100), listening.accept());
        assert!(wait.await.is_err());
        served.0.mesh.0.store(false, Ordering::SeqCst);
        let _second = net::dial(address, CONNECT).await.unwrap();
        let accepted = listening.accept().await.unwrap();
        assert_eq!(accepted.identity.as_deref(), Some("spiffe://mesh/caller"));
    }
}
