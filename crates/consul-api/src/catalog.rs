//! What the catalog and health endpoints answer, and what registers with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tolerant::{is_default, null_default};
use crate::{CheckStatus, HealthCheck, Proxy, ServiceAddress, ServiceConnect, Weights};

/// One instance (`GET /v1/health/service/:s`, `GET /v1/health/connect/:s`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthServiceEntry {
    /// Where it runs.
    pub node: Node,
    /// What it is.
    pub service: NodeService,
    /// Its checks and those of its node.
    #[serde(deserialize_with = "null_default")]
    pub checks: Vec<HealthCheck>,
}

impl HealthServiceEntry {
    /// The worst state of its checks: what `?passing` judges.
    pub fn status(&self) -> CheckStatus {
        self.checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Passing)
    }

    /// The host to dial: the address of the service, or of its node when that is empty.
    pub fn host(&self) -> &str {
        if self.service.address.is_empty() { &self.node.address } else { &self.service.address }
    }
}

/// A node of the catalog (`GET /v1/catalog/nodes`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Its id, empty for a node that registered without one.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Further addresses by name; Consul writes `null` for none.
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    /// Metadata; Consul writes `null` for none.
    pub meta: Option<BTreeMap<String, String>>,
    /// The index at which it was made.
    pub create_index: u64,
    /// The index at which it changed last.
    pub modify_index: u64,
}

/// A service as it stands at its node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeService {
    /// `connect-proxy` for a sidecar, empty for an ordinary service.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub kind: String,
    /// The id at its node.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name that peers look up.
    pub service: String,
    /// Tags.
    #[serde(deserialize_with = "null_default")]
    pub tags: Vec<String>,
    /// Where it listens; empty for the address of the node.
    pub address: String,
    /// Further addresses by name.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Metadata; Consul writes `null` for none.
    pub meta: Option<BTreeMap<String, String>>,
    /// Where it listens.
    pub port: u16,
    /// Weights for DNS SRV answers.
    pub weights: Weights,
    /// True when servers may change the tags.
    pub enable_tag_override: bool,
    /// What a `connect-proxy` is the proxy of.
    pub proxy: Proxy,
    /// Set for a program that speaks the mesh's TLS itself.
    pub connect: ServiceConnect,
    /// The index at which it was made.
    pub create_index: u64,
    /// The index at which it changed last.
    pub modify_index: u64,
}

/// A node and its services (`GET /v1/catalog/node/:n`; `null` for an unknown node).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogNode {
    /// The node.
    pub node: Node,
    /// Its services by id.
    #[serde(deserialize_with = "null_default")]
    pub services: BTreeMap<String, NodeService>,
}

/// The flat form of one instance (`GET /v1/catalog/service/:s`, `GET /v1/catalog/connect/:s`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogService {
    /// The id of the node.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name of the node.
    pub node: String,
    /// The address of the node.
    pub address: String,
    /// The datacenter of the node.
    pub datacenter: String,
    /// Further addresses of the node.
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    /// Metadata of the node.
    pub node_meta: Option<BTreeMap<String, String>>,
    /// `connect-proxy` for a sidecar, empty for an ordinary service.
    pub service_kind: String,
    /// The id of the service at its node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The name of the service.
    pub service_name: String,
    /// Its tags.
    #[serde(deserialize_with = "null_default")]
    pub service_tags: Vec<String>,
    /// Where it listens; empty for the address of the node.
    pub service_address: String,
    /// Further addresses of the service.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub service_tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Its weights.
    pub service_weights: Weights,
    /// Its metadata.
    #[serde(deserialize_with = "null_default")]
    pub service_meta: BTreeMap<String, String>,
    /// Where it listens.
    pub service_port: u16,
    /// True when servers may change the tags.
    pub service_enable_tag_override: bool,
    /// What a `connect-proxy` is the proxy of.
    pub service_proxy: Proxy,
    /// Set for a program that speaks the mesh's TLS itself.
    pub service_connect: ServiceConnect,
    /// The index at which it was made.
    pub create_index: u64,
    /// The index at which it changed last.
    pub modify_index: u64,
}

/// `PUT /v1/catalog/register`: a node, and optionally one service and its checks, that no agent
/// looks after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogRegistration {
    /// The datacenter; that of the agent when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// The id of the node.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The name of the node.
    #[serde(deserialize_with = "null_default")]
    pub node: String,
    /// The address of the node.
    #[serde(deserialize_with = "null_default")]
    pub address: String,
    /// Further addresses of the node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub tagged_addresses: BTreeMap<String, String>,
    /// Metadata of the node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub node_meta: BTreeMap<String, String>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<NodeServiceRegistration>,
    /// A check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<HealthCheck>,
    /// Further checks.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub checks: Vec<HealthCheck>,
    /// Leaves the node as it is.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub skip_node_update: bool,
}

/// The service in a [`CatalogRegistration`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServiceRegistration {
    /// `connect-proxy` for a sidecar.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub kind: String,
    /// The id at its node; the name when empty.
    #[serde(rename = "ID", skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub id: String,
    /// The name that peers look up.
    #[serde(deserialize_with = "null_default")]
    pub service: String,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub tags: Vec<String>,
    /// Where it listens.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub address: String,
    /// Further addresses by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub meta: BTreeMap<String, String>,
    /// Where it listens.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub port: u16,
    /// Weights for DNS SRV answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// True when servers may change the tags.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub enable_tag_override: bool,
    /// What a `connect-proxy` is the proxy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Set for a program that speaks the mesh's TLS itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Value>,
}

/// `PUT /v1/catalog/deregister`: a node with everything on it, or one service or check of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogDeregistration {
    /// The datacenter; that of the agent when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// The name of the node.
    #[serde(deserialize_with = "null_default")]
    pub node: String,
    /// Only this service.
    #[serde(
        rename = "ServiceID",
        skip_serializing_if = "is_default",
        deserialize_with = "null_default"
    )]
    pub service_id: String,
    /// Only this check.
    #[serde(
        rename = "CheckID",
        skip_serializing_if = "is_default",
        deserialize_with = "null_default"
    )]
    pub check_id: String,
}
