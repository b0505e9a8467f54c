//! The private EPMD of one VM.
//!
//! The epmd module in the VM (`erlang/meshx_epmd.erl`) registers here and asks here, in EPMD's wire
//! format, over a Unix socket that only its user can open. Where EPMD would know nodes of one
//! machine, this knows every node service in the mesh; where EPMD would answer with a node's own
//! port, this answers with the loopback port of an upstream that leads there.
//!
//! A VM registers before it sets its name, so a VM that the command line does not name registers
//! without a host. Such a registration is granted, and becomes a member as soon as the module has
//! told the host, which it does in a second registration some 20 ms later.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use meshx_core::{Diagnostic as _, NodeName, Upstream};
use meshx_dist::epmd::front_door::{Family, Lookup, Origin};
use meshx_dist::epmd::{Alive, AliveReply, NamesReply, PortReply, Request};
use meshx_proxy::{Direction, EndpointView, Event, Journal, Outcome, Protocol, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{RwLock, Semaphore, watch};

use crate::notice::warn;
use crate::{Member, MemberConfig, Notice, Notify, UpstreamGuard, WorkloadError};

/// Time for a question to arrive.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long a question waits for the host of a VM that has just registered without one. The VM gives
/// up after 2.5 s.
const HOST_LIMIT: Duration = Duration::from_secs(1);
/// How long a refused registration counts as refused. The module tries again after 2 s, so a lasting
/// cause is told once.
const REFUSED: Duration = Duration::from_secs(5);
/// Connections at once: one lease, and a VM asks one question for each connection that it makes.
const MAX_CONNECTIONS: usize = 256;
/// Peers with an open upstream; the one that was asked for least recently is closed for a new one.
/// Its connections go on.
const MAX_PEERS: usize = 1024;

/// The front door, and the member that the VM becomes.
pub(crate) struct FrontDoor {
    pub(crate) client: meshx_consul::Client,
    /// Everything of the member but its name.
    pub(crate) template: MemberConfig,
    pub(crate) expected: Option<NodeName>,
    pub(crate) journal: Journal,
    pub(crate) notify: Notify,
    pub(crate) member: RwLock<Option<Member>>,
    peers: Mutex<HashMap<(NodeName, Family), Peer>>,
    /// Changed only while `member` is locked.
    lease: watch::Sender<Lease>,
}

/// How the VM stands with its registration.
#[derive(Default)]
struct Lease {
    /// Number of the registration in force; 0 before the first.
    number: u64,
    /// It came without a host, which will be told in the next one.
    lacks_host: bool,
    /// The last registration was refused: when, and why.
    refused: Option<(Instant, String)>,
}

impl Lease {
    fn refusal(&self) -> Option<&str> {
        let (at, why) = self.refused.as_ref()?;
        (at.elapsed() < REFUSED).then_some(why)
    }
}

struct Peer {
    port: u16,
    view: watch::Receiver<EndpointView>,
    asked: Instant,
    _open: UpstreamGuard,
}

impl FrontDoor {
    pub(crate) fn new(
        client: meshx_consul::Client,
        template: MemberConfig,
        expected: Option<NodeName>,
        journal: Journal,
        notify: Notify,
    ) -> Self {
        let (member, peers) = (RwLock::default(), Mutex::default());
        let lease = watch::Sender::default();
        Self { client, template, expected, journal, notify, member, peers, lease }
    }

    /// Becomes the member of this name, unless it is that already.
    pub(crate) async fn become_member(&self, node: &NodeName) -> Result<(), WorkloadError> {
        self.sit(&mut *self.member.write().await, node).await
    }

    async fn sit(&self, seat: &mut Option<Member>, node: &NodeName) -> Result<(), WorkloadError> {
        if let Some(member) = seat.as_ref() {
            if member.name().as_str() == node.as_str() {
                return Ok(());
            }
            let was = member.name().clone();
            (self.notify)(Notice::Warning(format!(
                "the program calls itself {node}, not {was}; that name is registered instead"
            )));
        }
        if let Some(old) = seat.take() {
            self.peers.lock().unwrap_or_else(PoisonError::into_inner).clear();
            old.leave(Duration::ZERO).await?;
        }
        let mut config = self.template.clone();
        config.name = node.service();
        config.id = meshx_core::ServiceId::from(&config.name);
        let member = Member::join(&self.client, config, self.journal.clone()).await?;
        (self.notify)(Notice::Joined {
            service: node.to_string(),
            public: member.public(),
            control_plane: self.client.address().to_string(),
        });
        *seat = Some(member);
        Ok(())
    }

    /// Serves the VM for ever.
    pub(crate) fn serve(self: &Arc<Self>, socket: &Path) -> Result<(), WorkloadError> {
        let what = format!("cannot listen on {}", socket.display());
        let listener = UnixListener::bind(socket).map_err(WorkloadError::io(what))?;
        let this = Arc::clone(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let this = Arc::clone(&this);
                tokio::spawn(async move {
                    if let Err(error) = this.answer(stream).await {
                        tracing::debug!(%error, "a question at the front door failed");
                    }
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        if stream.peer_cred()?.uid() != rustix::process::getuid().as_raw() {
            return Ok(());
        }
        let mut buffer = BytesMut::with_capacity(512);
        let request = loop {
            match Request::decode(&buffer) {
                Ok(Some((request, _))) => break request,
                Ok(None) => {}
                // As EPMD does: close without a word.
                Err(_) => return Ok(()),
            }
            let read = tokio::time::timeout(REQUEST_LIMIT, stream.read_buf(&mut buffer)).await;
            if !matches!(read, Ok(Ok(count)) if count > 0) {
                return Ok(());
            }
        };
        let mut reply = BytesMut::new();
        match request {
            Request::Alive(alive) => return self.hold_lease(stream, alive).await,
            Request::PortPlease { name } => {
                let alive = name.split('@').next().unwrap_or_default();
                let answer = match self.port_please(&name).await {
                    Some(port) => PortReply::Found(Alive::new(alive, port)),
                    None => PortReply::NotFound { result: 1 },
                };
                encoded(answer.encode(&mut reply));
            }
            Request::Names => encoded(self.names().await.encode(&mut reply)),
            // Not ours to do: this front door belongs to one VM, which has no such question.
            _ => return Ok(()),
        }
        stream.write_all(&reply).await?;
        stream.shutdown().await
    }

    /// A registration holds as long as its connection: when that ends, the distribution of the VM
    /// has stopped.
    async fn hold_lease(&self, mut stream: UnixStream, alive: Alive) -> std::io::Result<()> {
        let mut reply = BytesMut::new();
        let Some(number) = self.register(&alive).await else {
            AliveReply::refused(&alive).encode(&mut reply);
            return stream.write_all(&reply).await;
        };
        // Any number from 4 up: smaller ones are reserved (erl_dist_protocol, creation).
        let creation = meshx_rt::random::u32().max(4);
        AliveReply::granted(&alive, creation).encode(&mut reply);
        let written = stream.write_all(&reply).await;
        // Nothing is expected on the lease; whatever ends the wait ends the lease.
        let _ended = stream.read(&mut [0; 1]).await;
        // A later registration has to wait for the seat, so this one is not taken for it.
        let seat = self.member.read().await;
        let still = self.lease.borrow().number == number;
        if still && let Some(member) = seat.as_ref() {
            member.is_down("the node has stopped its distribution");
        }
        if still {
            self.lease.send_modify(|lease| lease.lacks_host = false);
        }
        written
    }

    /// The number of the registration; `None` when it is refused, which has been told by then.
    async fn register(&self, alive: &Alive) -> Option<u64> {
        let mut seat = self.member.write().await;
        let done = self.try_register(&mut seat, alive).await;
        let mut number = None;
        self.lease.send_modify(|lease| {
            let refused = match done {
                Ok(has_host) => {
                    lease.number += 1;
                    lease.lacks_host = !has_host;
                    number = Some(lease.number);
                    None
                }
                Err(error) => {
                    let why = error.to_string();
                    if lease.refusal() != Some(&why) {
                        (self.notify)(warn(&error));
                    }
                    lease.lacks_host = false;
                    Some((Instant::now(), why))
                }
            };
            lease.refused = refused;
        });
        number
    }

    /// True when the VM told the host of its name.
    async fn try_register(
        &self,
        seat: &mut Option<Member>,
        alive: &Alive,
    ) -> Result<bool, WorkloadError> {
        let origin = Origin::parse(&alive.extra).map_err(|error| {
            WorkloadError::Config(format!("a registration is malformed: {error}"))
        })?;
        let family = origin.as_ref().map_or(Family::Inet, |origin| origin.family);
        let host = origin.and_then(|origin| origin.host);
        // Without the host, the part before the @ must be as in a name all the same.
        let whole = format!("{}@{}", alive.name, host.as_deref().unwrap_or("host"));
        let node: NodeName = whole.parse()?;
        if alive.port == 0 {
            return Err(WorkloadError::Config(format!("{} registered without a port", alive.name)));
        }
        let node = if host.is_some() {
            Some(node)
        } else {
            // Most likely it is who it is said to be, or was until now.
            let known = seat.as_ref().map(|member| member.name().as_node());
            known.unwrap_or_else(|| self.expected.clone()).filter(|n| n.alive() == alive.name)
        };
        if let Some(node) = node {
            self.sit(seat, &node).await?;
            if let Some(member) = seat.as_ref() {
                member.listens_at(SocketAddr::new(family.loopback(), alive.port));
            }
        }
        Ok(host.is_some())
    }

    /// Where to dial for a node; `None` when it cannot be, which has been told by then.
    async fn port_please(&self, text: &str) -> Option<u16> {
        {
            let mut lease = self.lease.subscribe();
            let told = lease.wait_for(|lease| !lease.lacks_host);
            drop(tokio::time::timeout(HOST_LIMIT, told).await);
        }
        // A node that does not listen never registers, but dials all the same.
        if self.member.read().await.is_none()
            && self.lease.borrow().refusal().is_none()
            && let Some(expected) = &self.expected
            && let Err(error) = self.become_member(expected).await
        {
            (self.notify)(warn(&error));
            return None;
        }
        let seat = self.member.read().await;
        let source = seat.as_ref().map(|member| member.name().to_string());
        let refuse = |destination: String, step: Step, detail: String| {
            let outcome = Outcome::Refused { step, detail };
            let event = Event::now(Direction::Outbound, source.clone(), destination, None, outcome);
            self.journal.add(event);
        };
        let wanted = Lookup::parse(text).ok().and_then(|lookup| {
            let node: NodeName = format!("{}@{}", lookup.node, lookup.host?).parse().ok()?;
            Some((node, lookup.family))
        });
        let Some((node, family)) = wanted else {
            let shown = text.chars().filter(|c| !c.is_control()).take(80).collect();
            refuse(shown, Step::Name, "this is not a node name".to_owned());
            return None;
        };
        let Some(member) = seat.as_ref() else {
            let lease = self.lease.borrow();
            let why = lease.refusal().map_or_else(
                || "this program has no name in the mesh yet; give it one with --name".to_owned(),
                |why| format!("this program could not be registered: {why}"),
            );
            (self.notify)(Notice::Warning(format!("{node} was not looked up: {why}")));
            return None;
        };
        match self.lead(member, &node, family).await {
            Ok(port) => Some(port),
            Err((step, detail)) => {
                refuse(node.to_string(), step, detail);
                None
            }
        }
    }

    /// The port that leads to the node, or the step that would fail.
    async fn lead(
        &self,
        member: &Member,
        node: &NodeName,
        family: Family,
    ) -> Result<u16, (Step, String)> {
        let service = node.service();
        if let Some(us) = member.name().as_node()
            && !us.form().agrees_with(node.form())
        {
            let detail = format!(
                "{us} and {node} mix short and long names; the VM refuses that (give both hosts a \
                 dot, or neither)"
            );
            return Err((Step::NameForm, detail));
        }
        let (port, view) = self.upstream(member, node, family).await?;
        let verdict = member.sidecar().policy().judge(member.name(), &service);
        if !verdict.is_allowed() {
            return Err((Step::Policy, verdict.to_string()));
        }
        let view = view.borrow();
        if view.endpoints.is_empty() {
            return Err(if view.registered {
                (Step::Health, format!("{node} is registered, but it is not passing"))
            } else {
                (Step::Name, format!("no node {node} is registered in the mesh"))
            });
        }
        Ok(port)
    }

    async fn upstream(
        &self,
        member: &Member,
        node: &NodeName,
        family: Family,
    ) -> Result<(u16, watch::Receiver<EndpointView>), (Step, String)> {
        let key = (node.clone(), family);
        {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(peer) = peers.get_mut(&key) {
                peer.asked = Instant::now();
                return Ok((peer.port, peer.view.clone()));
            }
        }
        let bind = Some(SocketAddr::new(family.loopback(), 0));
        let upstream = Upstream { destination: node.service(), bind };
        let (open, local, view) =
            member.open(&upstream, Protocol::Erlang).await.map_err(|error| failed_step(&error))?;
        let (port, asked) = (local.port(), Instant::now());
        // Names that nobody registered are not remembered: there is no end of them.
        if view.borrow().registered {
            let peer = Peer { port, view: view.clone(), asked, _open: open };
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            if peers.len() >= MAX_PEERS {
                let oldest = peers.iter().min_by_key(|(_, peer)| peer.asked);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    peers.remove(&oldest);
                }
            }
            peers.insert(key, peer);
        }
        Ok((port, view))
    }

    /// The nodes of the mesh whose host part is ours, as `net_adm:names/0` expects.
    async fn names(&self) -> NamesReply {
        let seat = self.member.read().await;
        let us = seat.as_ref().and_then(|member| member.name().as_node());
        let (Some(us), Ok(services)) = (us, self.client.catalog_services().await) else {
            return NamesReply::default();
        };
        let nodes = services
            .keys()
            .filter_map(|name| name.parse::<NodeName>().ok())
            .filter(|node| node.host() == us.host())
            .map(|node| (node.alive().to_owned(), 0))
            .collect();
        NamesReply { nodes, ..NamesReply::default() }
    }
}

/// A lookup that failed says nothing about who is there.
fn failed_step(error: &WorkloadError) -> (Step, String) {
    let step = if matches!(error, WorkloadError::Consul(_)) {
        Step::ControlPlane
    } else {
        // No loopback port for the upstream.
        Step::Reach
    };
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    (step, format!("{error}{hint}"))
}

fn encoded(result: Result<(), meshx_dist::epmd::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an answer of the front door could not be written");
    }
}
