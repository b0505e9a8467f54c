//! Nodes as services of a mesh: mutual TLS between them, each proving its name, and intentions.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshx_core::{Connected, Running, Service, ServiceMesh, ServiceName, Upstream};
use meshx_rt::net;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::tcp::halves;
use super::{Carried, Carrier, Listen, Myself, Stream};

/// So many upstreams are open at most; the one that was dialled least recently makes room.
const UPSTREAMS: usize = 1024;
/// An upstream that was not dialled for so long is closed; connections through it go on.
const UNUSED: Duration = Duration::from_mins(1);
/// The longest time until peers are led to a node that starts.
const READY: Duration = Duration::from_secs(10);
/// The longest time to reach the sidecar, which is in this process.
const DIAL: Duration = Duration::from_secs(5);
/// The longest time until dials that the node has given up let go of the service, and how often that is
/// looked at.
const RELEASED: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A connection ended for the reason that the mesh gives if that is no older.
const RECENT: Duration = Duration::from_secs(2);

/// The carrier of nodes in a mesh.
///
/// The node is a service of its own name, and dials others as services of theirs; stock VMs under
/// `meshx exec` are such services, too, and find this node by its name. The sidecars encrypt, prove who
/// is who (the name in the handshake must be the one in the certificate, and nobody is given another), and
/// enforce intentions: what is denied is refused, and cut while it lives. Only loopback carries plain text.
///
/// An upstream is opened with the first dial to a node, and closed a minute after the last one.
///
/// ```no_run
/// # async fn example(mesh: impl meshx_core::ServiceMesh + 'static)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use meshx_node::{Cookie, Node, carrier};
/// let node = Node::builder("shop@myhost")
///     .cookie(Cookie::new("secret"))
///     .carrier(carrier::Mesh::new(mesh))
///     .start()
///     .await?;
/// node.connect("iex@myhost").await?;
/// # Ok(())
/// # }
/// ```
pub struct Mesh<M: ServiceMesh + 'static>(Arc<Shared<M>>);

struct Shared<M: ServiceMesh> {
    mesh: M,
    template: Template,
    running: Mutex<Option<Arc<Running>>>,
    upstreams: Mutex<Upstreams>,
}

/// What of the service is not its name.
#[derive(Default)]
struct Template {
    tags: Vec<String>,
    meta: Vec<(String, String)>,
}

#[derive(Default)]
struct Upstreams {
    open: HashMap<ServiceName, Open>,
    /// Somebody looks after those that are not used.
    swept: bool,
}

/// An upstream that is open, or about to be.
struct Open {
    connected: Arc<OnceCell<Connected>>,
    dialled: Instant,
}

impl<M: ServiceMesh + 'static> Mesh<M> {
    /// Over this mesh.
    pub fn new(mesh: M) -> Self {
        let (running, upstreams) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { mesh, template: Template::default(), running, upstreams }))
    }

    /// With a tag of the registration.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.with(|template| template.tags.push(tag.into()))
    }

    /// With an entry of the registration's metadata.
    #[must_use]
    pub fn meta(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|template| template.meta.push((key.into(), value.into())))
    }

    fn with(mut self, change: impl FnOnce(&mut Template)) -> Self {
        // Nobody else has it before the node starts.
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            change(&mut shared.template);
        }
        self
    }
}

impl<M: ServiceMesh + 'static> Carrier for Mesh<M> {
    fn name(&self) -> &'static str {
        "mesh"
    }

    /// The sidecar looks at each hello, and leaves it to the node to give no names.
    fn proves_names(&self) -> bool {
        true
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async move {
            let name: ServiceName = me.name.parse().map_err(io::Error::other)?;
            // Bound first, so that the sidecar knows the port before peers are led to it.
            let listener = net::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let mut service = Service::named(name).port(listener.local_addr()?.port());
            for tag in &self.0.template.tags {
                service = service.tag(tag);
            }
            for (key, value) in &self.0.template.meta {
                service = service.meta(key, value);
            }
            let running = self.0.mesh.start(service).await.map_err(io::Error::other)?;
            self.0.mesh.ready(&running, READY).await.map_err(io::Error::other)?;
            let public = running.public;
            *lock(&self.0.running) = Some(Arc::new(running));
            Ok(Box::new(Listening { listener, public }) as Box<dyn Listen>)
        })
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        Box::pin(async move {
            let destination: ServiceName = node.parse().map_err(io::Error::other)?;
            let local = self.0.upstream(&destination).await?;
            let stream = net::dial(local, DIAL).await?;
            Ok(halves(stream, local))
        })
    }

    fn why_closed(&self, node: &str) -> Option<io::Error> {
        let running = lock(&self.0.running).clone()?;
        let peer = node.parse().ok()?;
        self.0.mesh.last_failure(&running, &peer, RECENT).map(io::Error::other)
    }

    fn stop(&self) -> Carried<'_, ()> {
        Box::pin(async move {
            lock(&self.0.upstreams).open.clear();
            let Some(mut running) = lock(&self.0.running).take() else { return Ok(()) };
            let until = Instant::now() + RELEASED;
            let running = loop {
                match Arc::try_unwrap(running) {
                    Ok(running) => break running,
                    Err(_) if Instant::now() >= until => {
                        let held = "a dial still has the service: it stays until its lease is over";
                        return Err(io::Error::new(io::ErrorKind::TimedOut, held));
                    }
                    Err(shared) => running = shared,
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            };
            self.0.mesh.stop(running).await.map_err(io::Error::other)
        })
    }
}

impl<M: ServiceMesh + 'static> Shared<M> {
    /// Where the upstream to a service listens; opened if need be.
    async fn upstream(self: &Arc<Self>, destination: &ServiceName) -> io::Result<SocketAddr> {
        let not_started =
            || io::Error::new(io::ErrorKind::NotConnected, "this node is not started");
        let running = lock(&self.running).clone().ok_or_else(not_started)?;
        let connected = self.place(destination);
        let open = connected
            .get_or_try_init(|| self.mesh.connect(&running, Upstream::to(destination.clone())));
        open.await.map(|connected| connected.local).map_err(io::Error::other)
    }

    /// The place of an upstream among the others. It has been used now.
    fn place(self: &Arc<Self>, destination: &ServiceName) -> Arc<OnceCell<Connected>> {
        let now = Instant::now();
        let mut upstreams = lock(&self.upstreams);
        if !upstreams.open.contains_key(destination) && upstreams.open.len() >= UPSTREAMS {
            let oldest = upstreams.open.iter().min_by_key(|(_, open)| open.dialled);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                upstreams.open.remove(&oldest);
            }
        }
        let place = upstreams.open.entry(destination.clone());
        let place = place.or_insert_with(|| Open { connected: Arc::default(), dialled: now });
        place.dialled = now;
        let connected = Arc::clone(&place.connected);
        if !upstreams.swept {
            upstreams.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        connected
    }
}

/// Closes upstreams that are not used, until there are none.
async fn sweep<M: ServiceMesh + 'static>(shared: std::sync::Weak<Shared<M>>) {
    loop {
        tokio::time::sleep(UNUSED / 4).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut upstreams = lock(&shared.upstreams);
        upstreams.open.retain(|_, open| open.dialled.elapsed() < UNUSED);
        if upstreams.open.is_empty() {
            upstreams.swept = false;
            return;
        }
    }
}

/// Whatever panicked meanwhile, the tables are whole between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service itself stays in the mesh until [`Carrier::stop`], or until the carrier is dropped, so
/// that connections may end in their own time. Without a listener nobody is led to it.
struct Listening {
    listener: TcpListener,
    public: SocketAddr,
}

impl Listen for Listening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            net::tune(&stream)?;
            Ok(halves(stream, peer))
        })
    }

    fn address(&self) -> String {
        format!("{} (mutual TLS)", self.public)
    }
}

impl<M: ServiceMesh + 'static> fmt::Debug for Mesh<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = lock(&self.0.upstreams).open.len();
        f.debug_struct("Mesh").field("upstreams", &open).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
