//! One instance, kept registered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meshx_consul_api as api;
use meshx_core::{Health, ServiceId, ServiceName};
use meshx_rt::Backoff;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{Client, ConsulError};

/// An instance that says nothing for this long is critical.
const TTL: Duration = Duration::from_secs(15);
/// How often it says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// An instance that has been critical for this long is forgotten: what a killed wrapper leaves
/// behind. Consul's minimum is a minute.
const FORGET: Duration = Duration::from_mins(10);
/// How long an agent that lost the instance is given before it hears of it again.
const SETTLE: Duration = Duration::from_millis(750);
/// Time for the last call.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(2);
/// Time for a call that is under way when the last one is due.
const LAST_LIMIT: Duration = Duration::from_secs(1);

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

    fn sidecar_check_id(&self) -> String {
        format!("meshx:{}", self.sidecar_id())
    }

    /// The checks to keep fresh, those that peers look at first.
    fn check_ids(&self) -> Vec<String> {
        let sidecar = self.public.map(|_| self.sidecar_check_id());
        sidecar.into_iter().chain([self.check_id()]).collect()
    }

    fn check(id: String, name: &str, status: &State) -> api::CheckDefinition {
        api::CheckDefinition {
            check_id: Some(id),
            name: Some(name.to_owned()),
            ttl: Some(TTL.into()),
            status: Some(status.health.into()),
            deregister_critical_service_after: Some(FORGET.into()),
            ..api::CheckDefinition::default()
        }
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
            // Instead of Consul's default checks: its probe first looks ten seconds later, and an
            // alias of the service's check follows up to two seconds late (1.8.7, measured). The
            // sidecar lives in this process, which keeps both checks fresh.
            checks: vec![Self::check(self.sidecar_check_id(), "Sidecar", status)],
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
            check: Some(Self::check(self.check_id(), "Program and sidecar", status)),
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
/// agent is away it is asked every second. [`deregister`](Self::deregister) takes the registration
/// out; dropping does the same in the background, for as long as the runtime lives.
#[derive(Debug)]
pub struct Registration {
    client: Client,
    state: watch::Sender<State>,
    /// Asks the keeper to end.
    stop: CancellationToken,
    /// The keeper has ended.
    ended: CancellationToken,
    gone: AtomicBool,
    runtime: Handle,
}

impl Registration {
    /// Registers the instance, critical until [`set_health`](Self::set_health) says otherwise.
    pub async fn start(client: Client, instance: Instance) -> Result<Self, ConsulError> {
        let output = "the program has not started yet".to_owned();
        let first = State { health: Health::Critical, output, instance };
        let (request, registered) = (first.instance.registration(&first), first.instance.clone());
        let (state, receiver) = watch::channel(first);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (gone, runtime) = (AtomicBool::new(false), Handle::current());
        // The guard exists before the request is sent: whoever drops this future in between leaves
        // nothing behind.
        let this = Self { client: client.clone(), state, stop, ended, gone, runtime };
        if let Err(error) = client.register(&request).await {
            this.ended.cancel();
            return Err(error);
        }
        let keeper = Keeper { client, registered, lost: false, stop: this.stop.clone() };
        let ended = this.ended.clone().drop_guard();
        tokio::spawn(async move {
            keeper.keep(receiver).await;
            drop(ended);
        });
        Ok(this)
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

    /// Takes the instance out of the control plane, within three seconds. Once is enough; more often
    /// is no error.
    pub async fn deregister(&self) -> Result<(), ConsulError> {
        self.stop.cancel();
        if self.gone.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let id = self.state.borrow().instance.id.clone();
        deregister(&self.client, &id, &self.ended).await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.stop.cancel();
        if !self.gone.swap(true, Ordering::Relaxed) {
            let id = self.state.borrow().instance.id.clone();
            let (client, ended) = (self.client.clone(), self.ended.clone());
            // Where the keeper was never started there is nothing to wait for either.
            self.runtime.spawn(async move { deregister(&client, &id, &ended).await });
        }
    }
}

async fn deregister(
    client: &Client,
    id: &ServiceId,
    ended: &CancellationToken,
) -> Result<(), ConsulError> {
    // A registration that is under way must not arrive after its end.
    if timeout(LAST_LIMIT, ended.cancelled()).await.is_err() {
        tracing::debug!(%id, "the registration's keeper did not end in time");
    }
    let done = timeout(DEREGISTER_LIMIT, client.deregister(id.as_str())).await;
    done.unwrap_or_else(|_| {
        Err(ConsulError::Broken {
            address: client.address().to_string(),
            request: format!("deregister {id}"),
            reason: format!("no answer within {DEREGISTER_LIMIT:?}"),
        })
    })
}

/// Keeps the agent's memory the way it should be.
struct Keeper {
    client: Client,
    /// What the agent was told last.
    registered: Instance,
    /// The agent does not know the instance.
    lost: bool,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(mut self, mut state: watch::Receiver<State>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        // A request that is under way is finished, so that nothing overtakes it.
        while !self.stop.is_cancelled() {
            let now = state.borrow_and_update().clone();
            let Err(error) = self.renew(&now).await else {
                backoff.reset();
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    changed = state.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(HEARTBEAT) => {}
                }
                continue;
            };
            let id = &now.instance.id;
            tracing::debug!(%id, %error, "the registration could not be renewed");
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(backoff.step()) => {}
            }
        }
    }

    async fn renew(&mut self, now: &State) -> Result<(), ConsulError> {
        if self.lost || self.registered != now.instance {
            self.register(now).await?;
        }
        let update =
            api::CheckUpdate { status: now.health.to_string(), output: now.output.clone() };
        for check in now.instance.check_ids() {
            if !self.client.update_check(&check, &update).await? && !self.stop.is_cancelled() {
                let id = &now.instance.id;
                tracing::info!(%id, "the agent lost the registration; registering again");
                self.lost = true;
                // It may be a new agent with a new authority: the certificate is fetched again
                // within this time, and peers should not be led here before.
                tokio::select! {
                    () = self.stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(SETTLE) => {}
                }
                self.register(now).await?;
                self.client.update_check(&check, &update).await?;
            }
        }
        Ok(())
    }

    async fn register(&mut self, now: &State) -> Result<(), ConsulError> {
        self.client.register(&now.instance.registration(now)).await?;
        (self.registered, self.lost) = (now.instance.clone(), false);
        Ok(())
    }
}
