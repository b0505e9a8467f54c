//! The agent as a whole: start, where it listens, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshx_consul_api::AgentSelf;
use meshx_core::TrustDomain;
use meshx_rt::net;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::AgentConfig;
use crate::control::{Control, new_uuid};
use crate::dns;
use crate::error::{AgentError, Holder};
use crate::http::{Facts, Site, server};
use crate::state::{Authority, Identity, Intentions, State};
use crate::store::{Saved, Store};

/// The port in the answers about servers, where Consul has its RPC. Nobody listens there.
const SERVER_PORT: u16 = 8300;
/// Patience for whoever holds our port to say who it is.
const ASK_HOLDER: Duration = Duration::from_millis(500);
/// Bytes of its answer that are read.
const HOLDER_ANSWER: u64 = 256 * 1024;

/// A control plane that runs.
///
/// Dropping it stops it in the background; [`shutdown`](Self::shutdown) stops it and waits.
#[derive(Debug)]
pub struct Agent {
    http: SocketAddr,
    dns: Option<SocketAddr>,
    trust_domain: TrustDomain,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Agent {
    /// Starts an agent. When this returns it listens and answers.
    ///
    /// The certificate authority is made or loaded before anything listens.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        check_name("datacenter", &config.datacenter)?;
        check_name("node name", &config.node_name)?;
        let store = match config.data_dir.clone() {
            None => None,
            Some(dir) => Some(
                tokio::task::spawn_blocking(move || Store::open(&dir))
                    .await
                    .unwrap_or_else(|_| Err(ended(&config)))?,
            ),
        };
        let state = load(&config, store.as_ref())?;
        let trust_domain = state.authority.trust_domain().clone();
        let listener = match net::listen(config.http_addr) {
            Ok(listener) => listener,
            Err(error) => return Err(listen_error(config.http_addr, error).await),
        };
        let http = listener.local_addr().map_err(|source| AgentError::Listen {
            address: config.http_addr,
            what: "HTTP",
            source,
        })?;
        let sockets = match config.dns_addr {
            None => None,
            Some(address) => {
                Some(dns::bind(address).await.map_err(|source| AgentError::Listen {
                    address,
                    what: "DNS",
                    source,
                })?)
            }
        };
        let dns = sockets.as_ref().map(|sockets| sockets.address);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let control = Control::new(state, store, stop.clone());
        let site = Site::new(http, config.advertise, &config.node_name);
        let facts = Arc::new(Facts { http, dns, site });
        tasks.spawn(Arc::clone(&control).keep_time());
        tasks.spawn(server::serve(listener, Arc::clone(&control), facts, tasks.clone()));
        if let Some(sockets) = sockets {
            dns::serve(sockets, &control, &tasks);
        }
        tasks.close();
        tracing::info!(%http, ?dns, %trust_domain, "agent started");
        Ok(Self { http, dns, trust_domain, stop, tasks })
    }

    /// Where the HTTP API listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where DNS listens, over UDP and TCP.
    pub fn dns_addr(&self) -> Option<SocketAddr> {
        self.dns
    }

    /// The trust domain of every identity that this agent issues.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Stops the agent. Blocking queries are answered with what is there, requests under way have
    /// two seconds to end.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The registry as it begins.
fn load(config: &AgentConfig, store: Option<&Store>) -> Result<State, AgentError> {
    let now = SystemTime::now();
    // Indexes begin at the time of day in milliseconds: whoever waits with an index from before a
    // restart is answered at once, not when its wait is over.
    let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let clock = u64::try_from(millis).unwrap_or(u64::MAX / 2);
    let saved = store.map(Store::load).transpose()?.flatten();
    let (node_id, index, authority, intentions) = match saved {
        Some(saved) => {
            let authority = Authority::restore(saved.authority, &config.datacenter, now)?;
            (saved.node_id, clock.max(saved.index + 1), authority, saved.intentions)
        }
        None => {
            let trust_domain = format!("{}.consul", new_uuid())
                .parse()
                .map_err(meshx_identity::IdentityError::from)?;
            let authority = Authority::generate(trust_domain, &config.datacenter, clock, now)?;
            (new_uuid(), clock, authority, Vec::new())
        }
    };
    let intentions =
        Intentions::new(intentions, config.default_policy).map_err(|error| AgentError::State {
            path: config.data_dir.clone().unwrap_or_default(),
            reason: error.to_string(),
        })?;
    if let Some(store) = store {
        let saved = Saved {
            node_id: node_id.clone(),
            index,
            authority: authority.save(None),
            intentions: intentions.list().cloned().collect(),
        };
        store.save(&saved).map_err(|error| AgentError::DataDir {
            path: config.data_dir.clone().unwrap_or_default(),
            reason: error.to_string(),
        })?;
    }
    let identity = Identity {
        node: config.node_name.clone(),
        node_id,
        address: config.advertise.to_string(),
        datacenter: config.datacenter.clone(),
        server_port: SERVER_PORT,
    };
    let now = tokio::time::Instant::now().into_std();
    Ok(State::new(identity, intentions, authority, index, now))
}

fn ended(config: &AgentConfig) -> AgentError {
    AgentError::DataDir {
        path: config.data_dir.clone().unwrap_or_default(),
        reason: "opening it was interrupted".to_owned(),
    }
}

/// DNS labels with dots between them.
fn check_name(what: &'static str, name: &str) -> Result<(), AgentError> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    if is_name && (what != "datacenter" || !name.contains('.')) {
        return Ok(());
    }
    let name = name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    Err(AgentError::Name { what, name })
}

async fn listen_error(address: SocketAddr, source: std::io::Error) -> AgentError {
    if source.kind() != std::io::ErrorKind::AddrInUse {
        return AgentError::Listen { address, what: "HTTP", source };
    }
    let holder = tokio::time::timeout(ASK_HOLDER, ask_holder(address)).await;
    AgentError::InUse { address, holder: holder.ok().flatten().unwrap_or(Holder::Unknown) }
}

/// Asks whoever listens there whether it is a control plane.
async fn ask_holder(address: SocketAddr) -> Option<Holder> {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let about: AgentSelf = serde_json::from_str(&get(address, "/v1/agent/self").await?).ok()?;
    let config = about.config?;
    if let Some(version) = config.meshx_version {
        return Some(Holder::Meshx { version });
    }
    let leader = get(address, "/v1/status/leader").await.unwrap_or_default();
    let roots = get(address, "/v1/connect/ca/roots").await.unwrap_or_default();
    Some(Holder::Consul {
        version: config.version,
        has_leader: leader.trim().len() > 2,
        has_connect: roots.contains("ActiveRootID"),
    })
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = net::dial(address, ASK_HOLDER).await.ok()?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(HOLDER_ANSWER).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
}
