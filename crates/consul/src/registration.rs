//! One instance, kept registered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use meshx_consul_api as api;
use meshx_core::{Health, ServiceId, ServiceName};
use meshx_rt::Backoff;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Client, ConsulError};

/// An instance that says nothing for this long is critical.
const TTL: Duration = Duration::from_secs(15);
/// How often it says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// An instance that has been critical for this long is forgotten: what a killed wrapper leaves
/// behind. Consul's minimum is a minute.
const FORGET: Duration = Duration::from_mins(10);
/// Time for the last call.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(2);

/// What is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The service.
    pub name: ServiceName,
    /// The instance.
    pub id: ServiceId,
    /// Where the program listens for plain TCP, if that is known.
    pub local: Option<SocketAddr>,
    /// Where peers reach the sidecar; `None` for a client that offers nothing to peers.
    pub public: Option<SocketAddr>,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub meta: BTreeMap<String, String>,
}

impl Instance {
    /// An instance of all these.
    pub fn new(
        name: ServiceName,
        id: ServiceId,
        local: Option<SocketAddr>,
        public: Option<SocketAddr>,
        tags: Vec<String>,
        meta: BTreeMap<String, String>,
    ) -> Self {
        Self { name, id, local, public, tags, meta }
    }

    fn check_id(&self) -> String {
        format!("meshx:{}", self.id)
    }

    /// The id of its sidecar, Consul's default.
    fn sidecar_id(&self) -> String {
        format!("{}-sidecar-proxy", self.id)
    }

    fn registration(&self, status: &State) -> api::AgentServiceRegistration {
        let proxy = api::Proxy {
            local_service_address: self
                .local
                .map_or_else(|| "127.0.0.1".to_owned(), |local| local.ip().to_string()),
            local_service_port: self.local.map_or(0, |local| local.port()),
            ..api::Proxy::default()
        };
        let sidecar = self.public.map(|public| api::SidecarService {
            port: Some(public.port()),
            address: Some(public.ip().to_string()),
            // Instead of Consul's default check, which first looks ten seconds later: the sidecar
            // lives in the process that keeps the service's check fresh.
            checks: vec![api::CheckDefinition {
                name: Some(format!("Sidecar of {}", self.id)),
                alias_service: Some(self.id.to_string()),
                ..api::CheckDefinition::default()
            }],
            proxy: Some(proxy),
            ..api::SidecarService::default()
        });
        api::AgentServiceRegistration {
            id: Some(self.id.to_string()),
            name: self.name.to_string(),
            tags: self.tags.clone(),
            meta: self.meta.clone(),
            port: self.local.map(|local| local.port()),
            address: self.local.map(|local| local.ip().to_string()),
            check: Some(api::CheckDefinition {
                check_id: Some(self.check_id()),
                name: Some("Program and sidecar".to_owned()),
                ttl: Some(TTL.into()),
                status: Some(word(status.health)),
                deregister_critical_service_after: Some(FORGET.into()),
                ..api::CheckDefinition::default()
            }),
            connect: sidecar.map(|sidecar| api::ServiceConnect {
                sidecar_service: Some(Box::new(sidecar)),
                ..api::ServiceConnect::default()
            }),
            ..api::AgentServiceRegistration::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    health: Health,
    output: String,
    instance: Instance,
}

/// An instance that is registered, and kept so.
///
/// A TTL check of 15 s is renewed every 3 s. When the agent does not know the instance any more,
/// because it restarted or lost its state, the instance is registered again at once; while the
/// agent is away it is asked every second. Dropping stops all that without deregistering;
/// [`deregister`](Self::deregister) also takes the registration out.
#[derive(Debug)]
pub struct Registration {
    client: Client,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Registration {
    /// Registers the instance, critical until [`set_health`](Self::set_health) says otherwise.
    pub async fn start(client: Client, instance: Instance) -> Result<Self, ConsulError> {
        let output = "the program has not started yet".to_owned();
        let first = State { health: Health::Critical, output, instance };
        client.register(&first.instance.registration(&first)).await?;
        let (state, receiver) = watch::channel(first);
        let task = tokio::spawn(keep(client.clone(), receiver));
        Ok(Self { client, state, task })
    }

    /// Says how the program is.
    pub fn set_health(&self, health: Health, output: impl Into<String>) {
        let output = output.into();
        self.state.send_if_modified(|state| {
            let changed = state.health != health || state.output != output;
            (state.health, state.output) = (health, output);
            changed
        });
    }

    /// Says where the program listens, which may be known only after it has started.
    pub fn set_local(&self, local: SocketAddr) {
        self.state.send_if_modified(|state| {
            let changed = state.instance.local != Some(local);
            state.instance.local = Some(local);
            changed
        });
    }

    /// Waits until the control plane shows the instance to peers as passing.
    pub async fn visible(&self, limit: Duration) -> Result<(), ConsulError> {
        let (name, id) = {
            let state = self.state.borrow();
            (state.instance.name.clone(), state.instance.sidecar_id())
        };
        let deadline = Instant::now() + limit;
        loop {
            let entries = self.client.health_connect(name.as_str()).await;
            match entries {
                Ok(entries)
                    if entries.iter().any(|entry| {
                        entry.service.id == id && entry.status() == api::CheckStatus::Passing
                    }) =>
                {
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Ok(_) if Instant::now() >= deadline => {
                    return Err(ConsulError::Unexpected {
                        address: self.client.address().to_string(),
                        request: format!("the health of {name}"),
                        reason: format!("the instance is not shown as passing after {limit:?}"),
                    });
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Takes the instance out of the control plane.
    pub async fn deregister(self) -> Result<(), ConsulError> {
        self.task.abort();
        let id = self.state.borrow().instance.id.clone();
        let done = tokio::time::timeout(DEREGISTER_LIMIT, self.client.deregister(id.as_str()));
        done.await.unwrap_or_else(|_| {
            Err(ConsulError::Broken {
                address: self.client.address().to_string(),
                request: format!("deregister {id}"),
                reason: format!("no answer within {DEREGISTER_LIMIT:?}"),
            })
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(client: Client, mut state: watch::Receiver<State>) {
    let mut registered = state.borrow().instance.clone();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut lost = false;
    loop {
        let now = state.borrow_and_update().clone();
        match renew(&client, &now, &mut registered, &mut lost).await {
            Ok(()) => {
                backoff.reset();
                tokio::select! {
                    changed = state.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(HEARTBEAT) => {}
                }
            }
            Err(error) => {
                tracing::debug!(id = %now.instance.id, %error, "the registration could not be renewed");
                tokio::time::sleep(backoff.step()).await;
            }
        }
    }
}

async fn renew(
    client: &Client,
    now: &State,
    registered: &mut Instance,
    lost: &mut bool,
) -> Result<(), ConsulError> {
    let update = api::CheckUpdate { status: now.health.to_string(), output: now.output.clone() };
    if *lost || *registered != now.instance {
        client.register(&now.instance.registration(now)).await?;
        *registered = now.instance.clone();
        *lost = false;
    }
    if !client.update_check(&now.instance.check_id(), &update).await? {
        tracing::info!(id = %now.instance.id, "the agent lost the registration; registering again");
        *lost = true;
        client.register(&now.instance.registration(now)).await?;
        *lost = false;
        client.update_check(&now.instance.check_id(), &update).await?;
    }
    Ok(())
}

fn word(health: Health) -> api::CheckStatus {
    match health {
        Health::Passing => api::CheckStatus::Passing,
        Health::Warning => api::CheckStatus::Warning,
        Health::Critical => api::CheckStatus::Critical,
    }
}
