//! The mesh for a Rust program.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshx_consul::{Client, Config, ConsulError};
use meshx_core::{
    Code, Connected, Lease, MeshError, Running, Service, ServiceId, ServiceMesh, ServiceName,
    Upstream,
};
use meshx_proxy::{Event, Outcome, Protocol};
use meshx_rt::net;
use tokio::runtime::Handle;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::member::journal;
use crate::rundir::RunDir;
use crate::{Member, MemberConfig, Notice, Notify, WorkloadError, admin, listening};

/// Time for the control plane to show an instance to its peers.
const VISIBLE_LIMIT: Duration = Duration::from_secs(10);
/// The code of a connection that an intention cut; the same as of one that it refuses.
const CUT: Code = Code(706);
/// Time for the connections of a stopped service to end.
const DRAIN: Duration = Duration::from_secs(10);

/// [`ServiceMesh`] over Consul (or `meshx agent`) with the built-in sidecar.
///
/// Cheap to clone; clones share the services.
///
/// ```no_run
/// use meshx_core::{Service, ServiceMesh, Upstream};
/// use meshx_workload::Mesh;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::at("127.0.0.1:8500")?;
/// let web = mesh.start(Service::named("web".parse()?)).await?;
/// let db = mesh.connect(&web, Upstream::to("db".parse()?)).await?;
/// println!("serve plain TCP on {}, find the database at {}", web.local, db.local);
/// mesh.stop(web).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mesh {
    client: Client,
    notify: Notify,
    admin: Answers,
    replace: bool,
    /// Somebody asked a service to make room.
    asked: CancellationToken,
    services: Services,
    /// Read by whoever takes a service out, until that is done.
    leaving: Arc<RwLock<()>>,
}

/// Whether, and where, services answer the command line.
#[derive(Clone)]
enum Answers {
    Nowhere,
    /// Below this folder, if it is one of ours.
    Under(Option<PathBuf>),
}

type Services = Arc<Mutex<HashMap<ServiceId, Entry>>>;

struct Entry {
    member: Arc<Member>,
    follow: JoinHandle<Infallible>,
    _admin: Option<Admin>,
}

/// What answers the command line for one service.
struct Admin {
    folder: RunDir,
    /// Ends the socket.
    _done: DropGuard,
}

impl Mesh {
    /// The mesh of this control plane. Nothing is connected yet.
    pub fn new(client: Client) -> Self {
        let notify: Notify = Arc::new(|notice| tracing::info!("{notice}"));
        let (admin, asked) = (Answers::Nowhere, CancellationToken::new());
        let (services, leaving) = (Arc::default(), Arc::default());
        Self { client, notify, admin, replace: false, asked, services, leaving }
    }

    /// Lines for a person go there, not to the log.
    #[must_use]
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = notify;
        self
    }

    /// Each service answers `meshx status`, `why`, `check` and `intentions deny` on a socket of this
    /// user, as programs under `meshx exec` do: in a private folder below `runtime_dir`
    /// (`$XDG_RUNTIME_DIR`), or else below `/tmp`. There, too, another process can ask a service to make
    /// room for it ([`Mesh::asked_to_stop`]).
    #[must_use]
    pub fn answers_commands(mut self, runtime_dir: Option<PathBuf>) -> Self {
        self.admin = Answers::Under(runtime_dir);
        self
    }

    /// The mesh of the control plane at an address, as `CONSUL_HTTP_ADDR` would name it.
    pub fn at(address: &str) -> Result<Self, ConsulError> {
        Ok(Self::new(Client::new(Config::at(address)?)?))
    }

    /// The mesh that Consul's own variables name (`CONSUL_HTTP_ADDR` and the rest).
    pub fn from_env() -> Result<Self, ConsulError> {
        Ok(Self::new(Client::new(Config::from_variables(|name| std::env::var(name).ok())?)?))
    }

    /// A service whose name is held by a live process of ours takes its place (`--replace`).
    #[must_use]
    pub fn replaces(mut self, replaces: bool) -> Self {
        self.replace = replaces;
        self
    }

    /// Waits until another process that takes a service's place has asked for it. The service leaves the
    /// mesh by itself, and its connections have ten seconds to end; the program should end as well.
    pub async fn asked_to_stop(&self) {
        self.asked.cancelled().await;
    }

    fn member(&self, id: &ServiceId) -> Result<Arc<Member>, MeshError> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(id).map(|entry| Arc::clone(&entry.member)).ok_or_else(|| {
            let gone = WorkloadError::Config(format!("{id} is not running here"));
            MeshError::new("find the service", gone)
        })
    }

    async fn try_start(&self, service: Service) -> Result<Running, WorkloadError> {
        let local = match service.local {
            Some(local) => local,
            None => {
                let port = net::free_port().map_err(WorkloadError::io("no free port"))?;
                SocketAddr::from(([127, 0, 0, 1], port))
            }
        };
        let mut config = MemberConfig::new(service.name.clone(), protocol_of(&service.name));
        (config.id, config.tags, config.meta) = (service.id, service.tags, service.meta);
        let admin = match &self.admin {
            Answers::Nowhere => None,
            Answers::Under(dir) => Some(self.answer(&config.id, dir.as_deref())?),
        };
        config.replace = self.replace;
        config.admin = admin.as_ref().map(|admin| admin.folder.admin_socket());
        let member = Member::join(&self.client, config, journal(Arc::clone(&self.notify))).await?;
        if listening::listens(local).await {
            member.listens_at(local);
            member.visible(VISIBLE_LIMIT).await?;
        }
        let (name, id, public) = (member.name().clone(), member.id().clone(), member.public());
        let member = Arc::new(member);
        let following = Arc::clone(&member);
        let follow = tokio::spawn(async move { following.follow_port(local).await });
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.insert(id.clone(), Entry { member, follow, _admin: admin });
        drop(services);
        let (mesh, key, runtime) = (self.clone(), id.clone(), Handle::current());
        let lease = Lease::new(move || {
            // Not necessarily dropped inside a runtime.
            runtime.spawn(async move { mesh.take_out(&key, Duration::ZERO).await });
        });
        Ok(Running { name, id, local, public, lease })
    }

    /// Returns when the service is out, whoever takes it out.
    async fn take_out(&self, id: &ServiceId, drain: Duration) -> Result<(), WorkloadError> {
        let leaving = self.leaving.read().await;
        let entry = {
            let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            services.remove(id)
        };
        let Some(Entry { member, follow, _admin }) = entry else {
            // A program that ends now would take the end from who is at it: the registration would stay.
            drop(leaving);
            drop(self.leaving.write().await);
            return Ok(());
        };
        follow.abort();
        member.leave(drain).await
    }

    /// Answers the command line for a service that is about to be.
    fn answer(&self, id: &ServiceId, dir: Option<&Path>) -> Result<Admin, WorkloadError> {
        let folder = RunDir::create(dir)?;
        let (stop, done) = (CancellationToken::new(), CancellationToken::new());
        let (reporting, asked): (Weak<_>, _) = (Arc::downgrade(&self.services), id.clone());
        let report = move || {
            let services: Services = reporting.upgrade()?;
            let services = services.lock().unwrap_or_else(PoisonError::into_inner);
            services.get(&asked).map(|entry| entry.member.report())
        };
        admin::serve(&folder.admin_socket(), report, stop.clone(), done.clone())?;
        let (mesh, id, ended) = (self.clone(), id.clone(), done.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => return,
                () = stop.cancelled() => {}
            }
            (mesh.notify)(Notice::Warning(format!("{id} leaves the mesh: it was asked to")));
            mesh.asked.cancel();
            if let Err(error) = mesh.take_out(&id, DRAIN).await {
                tracing::debug!(%error, "the registration is left to expire");
            }
        });
        Ok(Admin { folder, _done: done.drop_guard() })
    }
}

/// A service that has the name of a node speaks as one, and its sidecar sees to it that nobody else
/// uses that name.
fn protocol_of(name: &ServiceName) -> Protocol {
    if name.as_node().is_some() { Protocol::Erlang } else { Protocol::Tcp }
}

impl ServiceMesh for Mesh {
    async fn start(&self, service: Service) -> Result<Running, MeshError> {
        let wanted = format!("start {}", service.id);
        self.try_start(service).await.map_err(|error| MeshError::new(wanted, error))
    }

    async fn ready(&self, running: &Running, limit: Duration) -> Result<(), MeshError> {
        let member = self.member(&running.id)?;
        let wanted = || format!("show {} to its peers", running.id);
        member.visible(limit).await.map_err(|error| MeshError::new(wanted(), error))
    }

    async fn stop(&self, running: Running) -> Result<(), MeshError> {
        let wanted = format!("stop {}", running.id);
        running.lease.forget();
        let done = self.take_out(&running.id, DRAIN).await;
        done.map_err(|error| MeshError::new(wanted, error))
    }

    async fn connect(&self, running: &Running, upstream: Upstream) -> Result<Connected, MeshError> {
        let member = self.member(&running.id)?;
        let protocol = protocol_of(&upstream.destination);
        let wanted = || format!("connect {} to {}", running.id, upstream.destination);
        let (open, local, _view) = member
            .open(&upstream, protocol)
            .await
            .map_err(|error| MeshError::new(wanted(), error))?;
        let lease = Lease::new(move || drop(open));
        Ok(Connected { destination: upstream.destination, local, lease })
    }

    async fn disconnect(&self, connected: Connected) -> Result<(), MeshError> {
        drop(connected);
        Ok(())
    }

    fn caller(&self, running: &Running, from: SocketAddr) -> Option<String> {
        self.member(&running.id).ok()?.sidecar().connections().caller(from)
    }

    fn last_failure(
        &self,
        running: &Running,
        peer: &ServiceName,
        within: Duration,
    ) -> Option<MeshError> {
        let member = self.member(&running.id).ok()?;
        let (us, them) = (running.name.as_str(), peer.as_str());
        let of_both = |event: &Event| {
            let source = event.source.as_deref().unwrap_or_default();
            let destination = event.destination.as_str();
            (source, destination) == (us, them) || (source, destination) == (them, us)
        };
        let events = member.sidecar().journal().events();
        let says = |event: &&Event| !matches!(event.outcome, Outcome::Closed { .. });
        let last = events.into_iter().rev().filter(of_both).find(|event| says(&event))?;
        let (code, detail) = match last.outcome {
            Outcome::Refused { step, detail } => (step.code(), detail),
            Outcome::Cut { rule } => (CUT, rule),
            _ => return None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if now.saturating_sub(u128::from(last.at)) > within.as_millis() {
            return None;
        }
        let source_service = last.source.unwrap_or_default();
        let wanted = format!("connect {source_service} to {}", last.destination);
        let destination = last.destination;
        let cause = WorkloadError::Link { source_service, destination, code, detail };
        Some(MeshError::new(wanted, cause))
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mesh({})", self.client.address())
    }
}
