//! The mesh for a Rust program.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshx_consul::{Client, Config, ConsulError};
use meshx_core::{
    Connected, Lease, MeshError, NodeName, Running, Service, ServiceId, ServiceMesh, Upstream,
};
use meshx_proxy::Protocol;
use meshx_rt::net;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::member::journal;
use crate::{Member, MemberConfig, Notify, WorkloadError, listening};

/// Time for the control plane to show an instance to its peers.
const VISIBLE_LIMIT: Duration = Duration::from_secs(10);
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
    services: Arc<Mutex<HashMap<ServiceId, Entry>>>,
}

struct Entry {
    member: Arc<Member>,
    follow: JoinHandle<Infallible>,
}

impl Mesh {
    /// The mesh of this control plane. Nothing is connected yet.
    pub fn new(client: Client) -> Self {
        let notify: Notify = Arc::new(|notice| tracing::info!("{notice}"));
        Self { client, notify, services: Arc::default() }
    }

    /// The mesh of the control plane at an address, as `CONSUL_HTTP_ADDR` would name it.
    pub fn at(address: &str) -> Result<Self, ConsulError> {
        Ok(Self::new(Client::new(Config::at(address)?)?))
    }

    /// The mesh that Consul's own variables name (`CONSUL_HTTP_ADDR` and the rest).
    pub fn from_env() -> Result<Self, ConsulError> {
        Ok(Self::new(Client::new(Config::from_variables(|name| std::env::var(name).ok())?)?))
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
        let mut config = MemberConfig::new(service.name, Protocol::Tcp);
        (config.id, config.tags, config.meta) = (service.id, service.tags, service.meta);
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
        services.insert(id.clone(), Entry { member, follow });
        drop(services);
        let (mesh, key, runtime) = (self.clone(), id.clone(), Handle::current());
        let lease = Lease::new(move || {
            // Not necessarily dropped inside a runtime.
            runtime.spawn(async move { mesh.take_out(&key, Duration::ZERO).await });
        });
        Ok(Running { name, id, local, public, lease })
    }

    async fn take_out(&self, id: &ServiceId, drain: Duration) -> Result<(), WorkloadError> {
        let entry = {
            let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            services.remove(id)
        };
        let Some(Entry { member, follow }) = entry else { return Ok(()) };
        follow.abort();
        member.leave(drain).await
    }
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
        let is_node = upstream.destination.as_str().parse::<NodeName>().is_ok();
        let protocol = if is_node { Protocol::Erlang } else { Protocol::Tcp };
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
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mesh({})", self.client.address())
    }
}
