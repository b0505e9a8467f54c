//! What `PUT /v1/agent/service/register` takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tolerant::{is_default, null_default};
use crate::{CheckDefinition, Proxy, ServiceConnect};

/// A service to register with the local agent (`PUT /v1/agent/service/register`, Consul 1.8).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentServiceRegistration {
    /// `connect-proxy` for a sidecar; absent for an ordinary service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The id on its agent; the name when absent.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The name that peers look up.
    pub name: String,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub tags: Vec<String>,
    /// Where the service listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where the service listens; the address of the node when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Further addresses by name (`lan`, `wan`, …).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// True when servers may change the tags.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub enable_tag_override: bool,
    /// Metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub meta: BTreeMap<String, String>,
    /// Weights for DNS SRV answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// A check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckDefinition>,
    /// Further checks.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub checks: Vec<CheckDefinition>,
    /// What a `connect-proxy` is the proxy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// A sidecar to register along with the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ServiceConnect>,
}

/// One entry of `TaggedAddresses` of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceAddress {
    /// Host or IP address.
    pub address: String,
    /// Port.
    pub port: u16,
}

/// Weights of an instance by state, for DNS SRV answers. One that is not written is 0, as in Consul.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Weights {
    /// The weight while all checks pass.
    #[serde(default)]
    pub passing: u32,
    /// The weight while a check warns.
    #[serde(default)]
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}
