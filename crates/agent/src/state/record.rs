//! What the registry remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meshx_consul_api::{CheckStatus, Proxy, ServiceAddress, Weights};
use serde_json::Value;

/// A node of the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeRecord {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) tagged_addresses: Option<BTreeMap<String, String>>,
    pub(crate) meta: Option<BTreeMap<String, String>>,
    pub(crate) services: BTreeMap<String, ServiceRecord>,
    pub(crate) checks: BTreeMap<String, CheckRecord>,
    /// The checks that belong to no service.
    pub(crate) own_checks: BTreeSet<String>,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// An instance of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceRecord {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) address: String,
    pub(crate) tagged_addresses: BTreeMap<String, ServiceAddress>,
    pub(crate) meta: Option<BTreeMap<String, String>>,
    pub(crate) port: u16,
    pub(crate) weights: Weights,
    pub(crate) enable_tag_override: bool,
    pub(crate) proxy: Proxy,
    /// The program speaks the mesh's TLS itself.
    pub(crate) native: bool,
    /// Registered inside its parent, and removed with it.
    pub(crate) is_sidecar: bool,
    /// In the catalog only: the agent's list of services does not show it.
    pub(crate) is_hidden: bool,
    pub(crate) checks: BTreeSet<String>,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

impl ServiceRecord {
    /// The service that this instance accepts mesh connections for, if it does.
    pub(crate) fn connects_for(&self) -> Option<&str> {
        if self.kind == CONNECT_PROXY {
            Some(&self.proxy.destination_service_name)
        } else if self.native {
            Some(&self.name)
        } else {
            None
        }
    }

    /// True when both say the same to everybody who asks.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let plain = |record: &Self| Self {
            checks: BTreeSet::new(),
            create_index: 0,
            modify_index: 0,
            ..record.clone()
        };
        plain(self) == plain(other)
    }
}

/// The kind of a sidecar.
pub(crate) const CONNECT_PROXY: &str = "connect-proxy";

/// A check and its state.
#[derive(Clone, Debug)]
pub(crate) struct CheckRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: CheckStatus,
    pub(crate) notes: String,
    pub(crate) output: String,
    pub(crate) service_id: String,
    pub(crate) service_name: String,
    pub(crate) service_tags: Vec<String>,
    pub(crate) definition: Value,
    pub(crate) kind: CheckKind,
    /// Consecutive successes before the check passes, and how many there are.
    pub(crate) successes: (u32, u32),
    /// Consecutive failures before the check is critical, and how many there are.
    pub(crate) failures: (u32, u32),
    pub(crate) deregister_after: Option<Duration>,
    /// When the TTL runs out.
    pub(crate) expires: Option<Instant>,
    /// When the service is removed.
    pub(crate) reaped: Option<Instant>,
    /// Tells the results of this definition from those of an earlier one.
    pub(crate) generation: u64,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// How a check learns its state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CheckKind {
    /// Somebody else reports it through the catalog; the word is Consul's type of the check.
    Passive(&'static str),
    /// Its owner reports it in time.
    Ttl(Duration),
    /// It is probed.
    Probe(Probe),
    /// It follows the checks of a service of a node.
    Alias { node: String, service: String },
}

impl CheckKind {
    /// Consul's word for the type.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Passive(word) => word,
            Self::Ttl(_) => "ttl",
            Self::Probe(probe) => match probe.target {
                Target::Tcp(_) => "tcp",
                Target::Http { .. } => "http",
            },
            Self::Alias { .. } => "alias",
        }
    }
}

/// A probe that the agent runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probe {
    pub(crate) target: Target,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// Opens a connection to `host:port`.
    Tcp(String),
    /// Sends a request.
    Http { url: String, method: String, header: BTreeMap<String, Vec<String>>, body: String },
}

impl CheckRecord {
    /// A check of the node `node` that is reported by somebody else.
    pub(crate) fn passive(id: &str, name: &str, status: CheckStatus, word: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            status,
            notes: String::new(),
            output: String::new(),
            service_id: String::new(),
            service_name: String::new(),
            service_tags: Vec::new(),
            definition: Value::Object(serde_json::Map::new()),
            kind: CheckKind::Passive(word),
            successes: (0, 0),
            failures: (0, 0),
            deregister_after: None,
            expires: None,
            reaped: None,
            generation: 0,
            create_index: 0,
            modify_index: 0,
        }
    }

    /// True when both say the same to everybody who asks, but for the output.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.status == other.status
            && self.notes == other.notes
            && self.service_id == other.service_id
            && self.service_name == other.service_name
            && self.service_tags == other.service_tags
            && self.kind.word() == other.kind.word()
            && self.definition == other.definition
    }
}
