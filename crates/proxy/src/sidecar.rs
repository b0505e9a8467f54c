//! A sidecar: one inbound listener, any number of upstreams, one identity.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshx_core::{IntentionSet, ServiceName};
use meshx_identity::Identity;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::{Connections, EndpointView, Journal};

/// What flows through the connections of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// Any bytes.
    Tcp,
    /// Erlang distribution: the hello is checked against the certificate, the handshake is followed.
    Erlang,
}

/// What a sidecar needs before it may bind anything.
#[derive(Debug)]
#[non_exhaustive]
pub struct SidecarConfig {
    /// The service beside which it stands.
    pub service: ServiceName,
    /// What flows.
    pub protocol: Protocol,
    /// The certificate in force.
    pub identity: Identity,
    /// The intentions in force.
    pub policy: watch::Receiver<Arc<IntentionSet>>,
    /// Where the program listens; `None` while it does not.
    pub target: watch::Receiver<Option<SocketAddr>>,
    /// Where events go.
    pub journal: Journal,
}

impl SidecarConfig {
    /// A configuration of all these.
    pub fn new(
        service: ServiceName,
        protocol: Protocol,
        identity: Identity,
        policy: watch::Receiver<Arc<IntentionSet>>,
        target: watch::Receiver<Option<SocketAddr>>,
        journal: Journal,
    ) -> Self {
        Self { service, protocol, identity, policy, target, journal }
    }
}

/// A running sidecar. Dropping it stops its listeners and cuts its connections at once;
/// [`Sidecar::drain`] gives them time first.
#[derive(Debug)]
pub struct Sidecar {
    config: SidecarConfig,
    connections: Connections,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends the public listener alone.
    closed: CancellationToken,
}

impl Sidecar {
    /// Serves the public listener, and follows the intentions.
    pub fn start(config: SidecarConfig, public: TcpListener) -> Self {
        let connections = Connections::new(config.journal.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let inbound = Inbound {
            service: config.service.clone(),
            protocol: config.protocol,
            identity: config.identity.clone(),
            policy: config.policy.clone(),
            target: config.target.clone(),
            connections: connections.clone(),
            journal: config.journal.clone(),
        };
        let closed = stop.child_token();
        tokio::spawn(inbound.serve(public, tasks.clone(), closed.clone()));
        tokio::spawn(follow(config.policy.clone(), connections.clone(), stop.clone()));
        Self { config, connections, tasks, stop, closed }
    }

    /// Opens an upstream: connections to `listeners` lead to `destination`.
    pub fn open(
        &self,
        destination: ServiceName,
        protocol: Protocol,
        listeners: Vec<TcpListener>,
        endpoints: watch::Receiver<EndpointView>,
    ) -> OpenUpstream {
        let outbound = Arc::new(Outbound {
            source: self.config.service.clone(),
            destination,
            protocol,
            identity: self.config.identity.clone(),
            policy: self.config.policy.clone(),
            endpoints,
            connections: self.connections.clone(),
            journal: self.config.journal.clone(),
            turn: AtomicUsize::new(0),
            ejected: Mutex::new(HashMap::new()),
        });
        let stop = self.stop.child_token();
        for listener in listeners {
            let outbound = Arc::clone(&outbound);
            tokio::spawn(outbound.serve(listener, self.tasks.clone(), stop.clone()));
        }
        OpenUpstream { stop }
    }

    /// The service beside which it stands.
    pub fn service(&self) -> &ServiceName {
        &self.config.service
    }

    /// The connections that live.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// What happened.
    pub fn journal(&self) -> &Journal {
        &self.config.journal
    }

    /// The identity in force.
    pub fn identity(&self) -> &Identity {
        &self.config.identity
    }

    /// The intentions in force.
    pub fn policy(&self) -> Arc<IntentionSet> {
        Arc::clone(&self.config.policy.borrow())
    }

    /// Stops accepting peers. Connections that live, and upstreams, go on.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Stops accepting, waits up to `limit` for the connections to end, cuts the rest and whoever is
    /// still in a handshake. Returns how many live ones had to be cut.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let cut = self.connections.cut_all();
        if tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end when they were cut");
        }
        cut
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop.cancel();
        self.connections.cut_all();
    }
}

/// An upstream that is open; dropping it closes its listeners. Its connections go on.
#[derive(Debug)]
pub struct OpenUpstream {
    stop: CancellationToken,
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Judges the live connections again whenever the intentions change.
async fn follow(
    mut policy: watch::Receiver<Arc<IntentionSet>>,
    connections: Connections,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = policy.changed() => if changed.is_err() { return },
        }
        let set = Arc::clone(&policy.borrow_and_update());
        connections.judge(&set);
    }
}
