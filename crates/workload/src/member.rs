//! One service instance in the mesh.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use meshx_consul::{
    Client, Instance, Registration, follow_endpoints, follow_identity, follow_intentions,
};
use meshx_core::{Health, ServiceId, ServiceName, Upstream};
use meshx_proxy::{EndpointView, Journal, OpenUpstream, Protocol, Sidecar, SidecarConfig};
use meshx_rt::net;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, SidecarReport};
use crate::claim::{self, Claim};
use crate::{WorkloadError, listening};

/// Public listeners take a port from here where none is asked for: below the ephemeral range, and
/// apart from the ports that Consul hands out itself (21000 to 21255).
const PUBLIC_PORTS: std::ops::Range<u16> = 20_000..21_000;
/// How often the program's port is looked at: until it listens, and after that.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// What a member is to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberConfig {
    /// The service.
    pub name: ServiceName,
    /// The instance.
    pub id: ServiceId,
    /// What flows.
    pub protocol: Protocol,
    /// Where the sidecar listens for peers; `None` chooses.
    pub listen: Option<SocketAddr>,
    /// The address that peers are told; `None` is the listener's own.
    pub advertise: Option<IpAddr>,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata besides our own.
    pub meta: BTreeMap<String, String>,
    /// Ends a live holder of the same id first.
    pub replace: bool,
    /// The admin socket to name in the registration.
    pub admin: Option<PathBuf>,
    /// Peers may dial it. `false` for a client without a port of its own: it is registered, but no
    /// sidecar of it is offered to peers.
    pub offers: bool,
}

impl MemberConfig {
    /// A member of this name, with everything else as is usual.
    pub fn new(name: ServiceName, protocol: Protocol) -> Self {
        let id = ServiceId::from(&name);
        let (tags, meta) = (Vec::new(), BTreeMap::new());
        let (listen, advertise, replace, admin, offers) = (None, None, false, None, true);
        Self { name, id, protocol, listen, advertise, tags, meta, replace, admin, offers }
    }
}

/// A service instance in the mesh: its certificate, its sidecar, its registration.
///
/// Registered as critical until [`listens_at`](Self::listens_at) says that the program listens.
/// [`leave`](Self::leave) is the orderly way out; dropping it stops the sidecar at once and takes the
/// registration out in the background.
#[derive(Debug)]
pub struct Member {
    client: Client,
    sidecar: Sidecar,
    registration: Registration,
    target: watch::Sender<Option<SocketAddr>>,
    stop: CancellationToken,
    public: SocketAddr,
    id: ServiceId,
    protocol: Protocol,
    since: Instant,
    upstreams: Upstreams,
    claim: Mutex<Option<Claim>>,
}

/// The open upstreams: local address by a number of their own and the destination.
type Upstreams = Arc<Mutex<BTreeMap<(u64, String), SocketAddr>>>;

/// An upstream that is open; dropping it closes its listener and forgets it.
#[derive(Debug)]
pub struct UpstreamGuard {
    key: (u64, String),
    upstreams: Upstreams,
    _open: OpenUpstream,
}

impl Drop for UpstreamGuard {
    fn drop(&mut self) {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.remove(&self.key);
    }
}

impl Member {
    /// Brings the service in. Nothing is bound before its identity is proved.
    pub async fn join(
        client: &Client,
        config: MemberConfig,
        journal: Journal,
    ) -> Result<Self, WorkloadError> {
        let claim = Claim::take(client, &config).await?;
        let stop = CancellationToken::new();
        // Whatever fails from here on, the followers end.
        let guard = stop.clone().drop_guard();
        let (identity, policy) = tokio::try_join!(
            follow_identity(client, &config.name, &stop),
            follow_intentions(client, &stop),
        )?;
        let (listener, public) = public_listener(client, &config).await?;
        let (target, target_receiver) = watch::channel(None);
        let (name, protocol) = (config.name.clone(), config.protocol);
        let sidecar =
            SidecarConfig::new(name, protocol, identity, policy, target_receiver, journal);
        let sidecar = Sidecar::start(sidecar, listener);
        let mut meta = config.meta;
        let our_protocol = if protocol == Protocol::Erlang { "erlang" } else { "tcp" };
        meta.insert(admin::META_PROTOCOL.to_owned(), our_protocol.to_owned());
        meta.insert(admin::META_PID.to_owned(), std::process::id().to_string());
        let started = claim::start_of(std::process::id()).unwrap_or_default();
        meta.insert(admin::META_START.to_owned(), started);
        meta.insert(admin::META_HOST.to_owned(), hostname());
        if let Some(path) = &config.admin {
            meta.insert(admin::META_ADMIN.to_owned(), path.display().to_string());
        }
        let id = config.id;
        let public_offer = config.offers.then_some(public);
        let instance =
            Instance::new(config.name, id.clone(), None, public_offer, config.tags, meta);
        let registration = Registration::start(client.clone(), instance).await?;
        if !config.offers {
            registration.set_health(Health::Passing, "a client without a port of its own");
        }
        drop(guard.disarm());
        Ok(Self {
            client: client.clone(),
            sidecar,
            registration,
            target,
            stop,
            public,
            id,
            protocol,
            since: Instant::now(),
            upstreams: Upstreams::default(),
            claim: Mutex::new(Some(claim)),
        })
    }

    /// The service.
    pub fn name(&self) -> &ServiceName {
        self.sidecar.service()
    }

    /// The instance.
    pub fn id(&self) -> &ServiceId {
        &self.id
    }

    /// Where peers reach the sidecar.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// The sidecar.
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// The program listens here: peers are let in, and the instance is passing.
    pub fn listens_at(&self, local: SocketAddr) {
        self.target.send_replace(Some(local));
        self.registration.set_local(local);
        self.registration.set_health(Health::Passing, format!("the program listens at {local}"));
    }

    /// The program does not listen, and this is why: the instance is critical.
    pub fn is_down(&self, reason: &str) {
        self.target.send_replace(None);
        self.registration.set_health(Health::Critical, reason);
    }

    /// Waits until peers are led here.
    pub async fn visible(&self, limit: Duration) -> Result<(), WorkloadError> {
        Ok(self.registration.visible(limit).await?)
    }

    /// Follows the program's port for ever: passing while somebody listens there.
    pub async fn follow_port(&self, local: SocketAddr) -> Infallible {
        loop {
            let listens = listening::listens(local).await;
            let known = self.target.borrow().is_some();
            match (listens, known) {
                (true, false) => self.listens_at(local),
                (false, true) => self.is_down(&format!("nothing listens at {local}")),
                (false, false) => self
                    .registration
                    .set_health(Health::Critical, format!("nothing listens at {local}")),
                (true, true) => {}
            }
            tokio::time::sleep(LOOK[usize::from(listens)]).await;
        }
    }

    /// Opens an upstream on a loopback address and returns where. It closes when the handle drops.
    pub async fn open(
        &self,
        upstream: &Upstream,
        protocol: Protocol,
    ) -> Result<(UpstreamGuard, SocketAddr, watch::Receiver<EndpointView>), WorkloadError> {
        let bind = upstream.bind.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let destination = &upstream.destination;
        let what = format!("cannot open the upstream {destination} at {bind}");
        let listener = net::listen(bind).map_err(WorkloadError::io(what.clone()))?;
        let local = listener.local_addr().map_err(WorkloadError::io(what))?;
        let endpoints =
            follow_endpoints(&self.client, destination, &self.stop, EndpointView::new).await?;
        let open =
            self.sidecar.open(destination.clone(), protocol, vec![listener], endpoints.clone());
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        let number = upstreams.last_key_value().map_or(0, |((last, _), _)| last + 1);
        let key = (number, destination.to_string());
        upstreams.insert(key.clone(), local);
        let upstreams = Arc::clone(&self.upstreams);
        Ok((UpstreamGuard { key, upstreams, _open: open }, local, endpoints))
    }

    /// What the sidecar tells about itself.
    pub fn report(&self) -> SidecarReport {
        let identity = self.sidecar.identity();
        let (spiffe_id, serial, until) = identity.with_material(|material| {
            (material.id().to_string(), material.serial().to_owned(), material.valid_before())
        });
        let upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        SidecarReport {
            schema: "meshx.sidecar/1".to_owned(),
            service: self.name().to_string(),
            id: self.id.to_string(),
            protocol: self.protocol,
            pid: std::process::id(),
            public: self.public.to_string(),
            local: self.target.borrow().map(|local| local.to_string()),
            spiffe_id,
            certificate_serial: serial,
            certificate_seconds_left: until
                .duration_since(SystemTime::now())
                .map_or(0, |left| left.as_secs()),
            uptime_seconds: self.since.elapsed().as_secs(),
            upstreams: upstreams.iter().map(|((_, to), at)| (to.clone(), at.to_string())).collect(),
            connections: self.sidecar.connections().list(),
            events: self.sidecar.journal().events(),
            refused: self
                .sidecar
                .journal()
                .refused()
                .into_iter()
                .map(|(step, count)| (step.to_string(), count))
                .collect(),
        }
    }

    /// Stops being led to, and stops accepting peers; those who are connected stay connected, and
    /// upstreams stay open.
    pub fn retire(&self, reason: &str) {
        self.registration.set_health(Health::Critical, reason);
        self.sidecar.close();
    }

    /// Takes the service out: deregisters, drains for `drain`, cuts the rest. Once is enough; more
    /// often is no error.
    pub async fn leave(&self, drain: Duration) -> Result<(), WorkloadError> {
        let deregistered = self.registration.deregister().await;
        self.sidecar.drain(drain).await;
        self.stop.cancel();
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(deregistered?)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The name of this machine.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The public listener, and the address that peers are told.
///
/// Where nothing is asked for it binds the address that the agent advertises for this machine:
/// loopback under `meshx agent` and `consul agent -dev`, the machine's own in a cluster.
async fn public_listener(
    client: &Client,
    config: &MemberConfig,
) -> Result<(TcpListener, SocketAddr), WorkloadError> {
    let listener = match (config.listen, config.advertise) {
        (Some(listen), _) => {
            let what = format!("cannot listen for peers on {listen}");
            net::listen(listen).map_err(WorkloadError::io(what))?
        }
        (None, advertise) => {
            let ip = match advertise {
                Some(ip) => ip,
                None => agent_address(client).await?,
            };
            let seed =
                config.id.as_str().bytes().fold(7_usize, |hash, byte| {
                    hash.wrapping_mul(31).wrapping_add(usize::from(byte))
                });
            let bound = net::listen_in(ip, PUBLIC_PORTS, seed);
            let what = format!(
                "cannot listen for peers on {ip}, where the control plane says this machine is \
                 (say where with --listen and --advertise)"
            );
            bound.map_err(WorkloadError::io(what))?
        }
    };
    let bound = listener.local_addr().map_err(WorkloadError::io("the public listener"))?;
    let ip = match config.advertise {
        Some(ip) => ip,
        None if bound.ip().is_unspecified() => agent_address(client).await?,
        None => bound.ip(),
    };
    Ok((listener, SocketAddr::new(ip, bound.port())))
}

async fn agent_address(client: &Client) -> Result<IpAddr, WorkloadError> {
    let whole: serde_json::Value = client.get("/v1/agent/self").await?.value;
    let address = whole.pointer("/Member/Addr").and_then(serde_json::Value::as_str);
    Ok(address.and_then(|text| text.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

/// A journal that shows failures to a person, without drowning them in it: of one kind, the first at
/// once, then one for each window, with the number that were left out.
pub(crate) fn journal(notify: crate::Notify) -> Journal {
    use meshx_proxy::Direction;
    /// What this side's program tried is shown almost every time; strangers at the door are not.
    const WINDOW: [Duration; 2] = [Duration::from_millis(200), Duration::from_mins(1)];
    /// Kinds that are remembered.
    const KINDS: usize = 1024;
    type Shown = std::collections::HashMap<(meshx_proxy::Step, String), (Instant, u64)>;
    let shown: Arc<Mutex<Shown>> = Arc::default();
    Journal::new(move |event| {
        let Some(mut notice) = crate::Notice::of(event) else { return };
        if let (Some(kind), crate::Notice::Failed { more, .. }) =
            (crate::notice::kind(event), &mut notice)
        {
            let window = WINDOW[usize::from(event.direction == Direction::Inbound)];
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.len() >= KINDS {
                shown.clear();
            }
            if let Some((last, left_out)) = shown.get_mut(&kind) {
                if last.elapsed() < window {
                    *left_out += 1;
                    return;
                }
                *more = *left_out;
            }
            shown.insert(kind, (Instant::now(), 0));
        }
        notify(notice);
    })
}
