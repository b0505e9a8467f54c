//! What the agent tells about itself and its services.

use std::collections::BTreeMap;

use meshx_core::Action;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tolerant::{is_default, null_default};
use crate::{Proxy, ServiceAddress, ServiceConnect, Weights};

/// A service of the local agent (`GET /v1/agent/services`, `GET /v1/agent/service/:id`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentService {
    /// `connect-proxy` for a sidecar, empty for an ordinary service.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub kind: String,
    /// The id on its agent.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name that peers look up.
    pub service: String,
    /// Tags.
    #[serde(deserialize_with = "null_default")]
    pub tags: Vec<String>,
    /// Metadata.
    #[serde(deserialize_with = "null_default")]
    pub meta: BTreeMap<String, String>,
    /// Where the service listens.
    pub port: u16,
    /// Where the service listens; empty for the address of the node.
    pub address: String,
    /// Further addresses by name.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Weights for DNS SRV answers.
    pub weights: Weights,
    /// True when servers may change the tags.
    pub enable_tag_override: bool,
    /// A hash of all this, to wait for a change (`?hash=`); only in the answer about one service.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub content_hash: String,
    /// What a `connect-proxy` is the proxy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Set for a program that speaks the mesh's TLS itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ServiceConnect>,
}

/// The parts of `GET /v1/agent/self` that a client reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentSelf {
    /// Who the agent is. A token without `agent:read` gets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<AgentSelfConfig>,
    /// Its running configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_config: Option<AgentDebugConfig>,
}

/// `Config` of `GET /v1/agent/self`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentSelfConfig {
    /// Its datacenter.
    pub datacenter: String,
    /// The name of its node.
    pub node_name: String,
    /// The id of its node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// The source revision.
    pub revision: String,
    /// True when it is a server.
    pub server: bool,
    /// Its version, such as `1.8.7`; the version spoken, for the embedded agent.
    pub version: String,
    /// Its own version; only the embedded agent has one.
    #[serde(rename = "MeshxVersion", skip_serializing_if = "Option::is_none")]
    pub meshx_version: Option<String>,
}

/// The few keys of `DebugConfig` that decide what holds where no intention matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentDebugConfig {
    /// True when ACLs are on.
    #[serde(rename = "ACLsEnabled", skip_serializing_if = "Option::is_none")]
    pub acls_enabled: Option<bool>,
    /// `allow` or `deny`; Consul up to 1.8 has it here.
    #[serde(rename = "ACLDefaultPolicy", skip_serializing_if = "Option::is_none")]
    pub acl_default_policy: Option<String>,
    /// Consul from 1.9 has the policy in here.
    #[serde(rename = "ACLResolverSettings", skip_serializing_if = "Option::is_none")]
    pub acl_resolver_settings: Option<Value>,
    /// Consul from 1.18: overrides the ACL policy for intentions when it is not empty.
    #[serde(rename = "DefaultIntentionPolicy", skip_serializing_if = "Option::is_none")]
    pub default_intention_policy: Option<String>,
}

impl AgentDebugConfig {
    /// What holds where no intention matches; `None` when the agent does not say.
    ///
    /// ```
    /// use meshx_consul_api::AgentDebugConfig;
    /// use meshx_core::Action;
    /// let read = |json| serde_json::from_str::<AgentDebugConfig>(json).map(|c| c.default_action());
    /// assert_eq!(read(r#"{"ACLsEnabled":false,"ACLDefaultPolicy":"deny"}"#)?, Some(Action::Allow));
    /// assert_eq!(read(r#"{"ACLsEnabled":true,"ACLDefaultPolicy":"deny"}"#)?, Some(Action::Deny));
    /// assert_eq!(read("{}")?, None);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn default_action(&self) -> Option<Action> {
        if let Some(action) = self.default_intention_policy.as_deref().and_then(action) {
            return Some(action);
        }
        if self.acls_enabled == Some(false) {
            return Some(Action::Allow);
        }
        let nested = || self.acl_resolver_settings.as_ref()?.get("ACLDefaultPolicy")?.as_str();
        action(self.acl_default_policy.as_deref().or_else(nested)?)
    }
}

/// A member of the cluster (`GET /v1/agent/members`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentMember {
    /// The name of its node.
    pub name: String,
    /// Its gossip address.
    pub addr: String,
    /// Its gossip port.
    pub port: u16,
    /// What it tells about itself.
    #[serde(deserialize_with = "null_default")]
    pub tags: BTreeMap<String, String>,
    /// 1 alive, 2 leaving, 3 left, 4 failed.
    pub status: u8,
    /// Lowest gossip protocol.
    pub protocol_min: u8,
    /// Highest gossip protocol.
    pub protocol_max: u8,
    /// Gossip protocol in use.
    pub protocol_cur: u8,
    /// Lowest delegate protocol.
    pub delegate_min: u8,
    /// Highest delegate protocol.
    pub delegate_max: u8,
    /// Delegate protocol in use.
    pub delegate_cur: u8,
}

fn action(policy: &str) -> Option<Action> {
    match policy {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        _ => None,
    }
}
