//! The registry: nodes, services, checks, intentions, certificates.
//!
//! Synchronous and free of I/O. Time comes in with every call, probes and timers go out: the shell
//! takes [`Effect`]s after each write and asks for the [next deadline](State::next_deadline).

mod authority;
#[cfg(test)]
mod bounds_tests;
mod catalog;
mod checks;
mod intentions;
mod record;
mod register;
mod rules;
#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod test_world;
mod topics;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use meshx_consul_api::CheckStatus;

pub(crate) use authority::{Authority, CaChange, HandedLeaf, SavedAuthority};
pub(crate) use intentions::{IntentionChange, Intentions, describe as describe_intention};
pub(crate) use record::{CheckKind, CheckRecord, NodeRecord, Probe, ServiceRecord, Target};
pub(crate) use topics::{Topic, Topics};
pub(crate) use view::{check_view, service_view};

/// The check that says that the agent itself is alive, as Consul's gossip does.
pub(crate) const SERF_HEALTH: &str = "serfHealth";

/// Who this agent is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) node: String,
    pub(crate) node_id: String,
    pub(crate) address: String,
    pub(crate) datacenter: String,
    /// The address in `status/leader`; its port is that of the service `consul`.
    pub(crate) server_port: u16,
}

/// Work for the shell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Probe at once and then at the interval; results carry the generation.
    Start { check: String, generation: u64, probe: Probe },
    /// Stop probing.
    Stop { check: String },
}

/// A deadline of a check of the local node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Its TTL runs out.
    Expire(String),
    /// Its service is removed.
    Reap(String),
}

type Instances = HashMap<String, BTreeSet<(String, String)>>;

/// The registry.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) topics: Topics,
    pub(crate) intentions: Intentions,
    pub(crate) authority: Authority,
    nodes: BTreeMap<String, NodeRecord>,
    /// (node, id) by folded service name.
    by_name: Instances,
    /// (node, id) of the instances that accept mesh connections, by folded service name.
    by_connect: Instances,
    /// Alias checks of the local node by what they follow.
    aliases: HashMap<(String, String), BTreeSet<String>>,
    timers: BTreeSet<(Instant, Timer)>,
    effects: Vec<Effect>,
    services: usize,
    checks: usize,
    generation: u64,
}

impl State {
    /// A registry that holds the local node and nothing else. Indexes begin at `first_index`.
    pub(crate) fn new(
        identity: Identity,
        intentions: Intentions,
        authority: Authority,
        first_index: u64,
        now: Instant,
    ) -> Self {
        let mut state = Self {
            topics: Topics::new(first_index),
            intentions,
            authority,
            nodes: BTreeMap::new(),
            by_name: HashMap::new(),
            by_connect: HashMap::new(),
            aliases: HashMap::new(),
            timers: BTreeSet::new(),
            effects: Vec::new(),
            services: 0,
            checks: 0,
            generation: 0,
            identity,
        };
        state.add_local_node(now);
        state
    }

    fn add_local_node(&mut self, now: Instant) {
        let identity = self.identity.clone();
        let family = if identity.address.contains(':') { "ipv6" } else { "ipv4" };
        let tagged =
            ["lan".to_owned(), format!("lan_{family}"), "wan".to_owned(), format!("wan_{family}")];
        let index = self.topics.next();
        let node = NodeRecord {
            id: identity.node_id,
            tagged_addresses: Some(tagged.map(|t| (t, identity.address.clone())).into()),
            address: identity.address,
            meta: Some([("consul-network-segment".to_owned(), String::new())].into()),
            create_index: index,
            modify_index: index,
            ..NodeRecord::default()
        };
        self.nodes.insert(identity.node.clone(), node);
        self.topics.touch(Topic::Nodes, index);
        self.topics.touch(Topic::Node(identity.node.clone()), index);
        // What Consul's servers say about themselves.
        let meta = [
            ("non_voter", "false"),
            ("raft_version", "3"),
            ("serf_protocol_current", "2"),
            ("serf_protocol_max", "5"),
            ("serf_protocol_min", "1"),
            ("version", crate::CONSUL_VERSION),
        ];
        let consul = ServiceRecord {
            id: "consul".to_owned(),
            name: "consul".to_owned(),
            port: identity.server_port,
            meta: Some(meta.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            is_hidden: true,
            ..ServiceRecord::default()
        };
        self.insert_service(&identity.node, consul);
        let mut alive =
            CheckRecord::passive(SERF_HEALTH, "Serf Health Status", CheckStatus::Passing, "");
        "Agent alive and reachable".clone_into(&mut alive.output);
        self.insert_check(&identity.node, alive, now);
    }

    /// The work that the last writes made.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The local node.
    pub(crate) fn local(&self) -> &NodeRecord {
        // The local node is inserted by `new` and never removed: see `catalog`.
        static NONE: std::sync::LazyLock<NodeRecord> =
            std::sync::LazyLock::new(NodeRecord::default);
        self.nodes.get(&self.identity.node).unwrap_or(&NONE)
    }

    /// All nodes by name.
    pub(crate) fn nodes(&self) -> &BTreeMap<String, NodeRecord> {
        &self.nodes
    }

    /// Services and checks in all.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.services, self.checks)
    }

    /// The instances of a service, by node and id. Case does not matter, as with Consul.
    pub(crate) fn instances(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&String, &NodeRecord, &ServiceRecord)> {
        self.resolve(self.by_name.get(&fold(name)))
    }

    /// The instances that accept mesh connections for a service.
    pub(crate) fn connectable(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&String, &NodeRecord, &ServiceRecord)> {
        self.resolve(self.by_connect.get(&fold(name)))
    }

    fn resolve<'a>(
        &'a self,
        keys: Option<&'a BTreeSet<(String, String)>>,
    ) -> impl Iterator<Item = (&'a String, &'a NodeRecord, &'a ServiceRecord)> {
        keys.into_iter().flatten().filter_map(|(node, id)| {
            let (name, record) = self.nodes.get_key_value(node)?;
            Some((name, record, record.services.get(id)?))
        })
    }

    /// Adds or replaces a service of a node that exists. A service that says the same as before
    /// wakes nobody.
    fn insert_service(&mut self, node: &str, mut record: ServiceRecord) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        let old = entry.services.get(&record.id);
        if let Some(old) = old {
            if old.says_the_same(&record) {
                return;
            }
            record.checks.clone_from(&old.checks);
            record.create_index = old.create_index;
        } else {
            self.services += 1;
        }
        let index = self.topics.next();
        record.modify_index = index;
        if record.create_index == 0 {
            record.create_index = index;
        }
        let key = (node.to_owned(), record.id.clone());
        let (name, connect) = (fold(&record.name), record.connects_for().map(fold));
        let old = entry.services.insert(record.id.clone(), record);
        if let Some(old) = old {
            self.unindex(&key, &old, index);
        }
        self.topics.touch(Topic::Service(name.clone()), index);
        self.by_name.entry(name).or_default().insert(key.clone());
        if let Some(connect) = connect {
            self.topics.touch(Topic::Connect(connect.clone()), index);
            self.by_connect.entry(connect).or_default().insert(key.clone());
        }
        self.topics.touch(Topic::Services, index);
        self.topics.touch(Topic::Node(key.0), index);
        if node == self.identity.node {
            self.topics.touch(Topic::AgentService(key.1), index);
        }
    }

    /// Removes a service and its checks.
    fn remove_service(&mut self, node: &str, id: &str, now: Instant) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        let Some(record) = entry.services.remove(id) else { return };
        self.services -= 1;
        let index = self.topics.next();
        let key = (node.to_owned(), id.to_owned());
        self.unindex(&key, &record, index);
        for check in &record.checks {
            self.remove_check(node, check, now);
        }
        self.topics.touch(Topic::Services, index);
        self.topics.touch(Topic::Node(key.0.clone()), index);
        if node == self.identity.node {
            self.topics.remove(&Topic::AgentService(key.1.clone()), index);
        }
        self.follow(&key.0, &key.1, now);
    }

    /// Takes an instance out of the indexes by name.
    fn unindex(&mut self, key: &(String, String), record: &ServiceRecord, index: u64) {
        let topics = &mut self.topics;
        let mut forget = |instances: &mut Instances, name: String, topic: Topic| {
            let Some(keys) = instances.get_mut(&name) else { return };
            keys.remove(key);
            if keys.is_empty() {
                instances.remove(&name);
                topics.remove(&topic, index);
            } else {
                topics.touch(topic, index);
            }
        };
        let name = fold(&record.name);
        forget(&mut self.by_name, name.clone(), Topic::Service(name));
        if let Some(name) = record.connects_for().map(fold) {
            forget(&mut self.by_connect, name.clone(), Topic::Connect(name));
        }
    }

    /// A check of this node, of this service if any, changed at `index`.
    fn touch_check(&mut self, node: &str, service: &str, index: u64) {
        self.topics.touch(Topic::Checks, index);
        self.topics.touch(Topic::NodeChecks(node.to_owned()), index);
        let Some(entry) = self.nodes.get(node) else { return };
        // A check of the node is part of every instance on it.
        let (one, all) = match service {
            "" => (None, Some(entry.services.values())),
            id => (entry.services.get(id), None),
        };
        for record in one.into_iter().chain(all.into_iter().flatten()) {
            self.topics.touch(Topic::Service(fold(&record.name)), index);
            if let Some(name) = record.connects_for() {
                self.topics.touch(Topic::Connect(fold(name)), index);
            }
        }
    }
}

/// The form in which service names are compared: Consul's indexes are in lower case.
pub(crate) fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}
