//! Sidecars as Consul knows them: `Connect.SidecarService`, `Proxy`, `Upstreams`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tolerant::{is_default, null_default, written_null};
use crate::{CheckDefinition, ServiceAddress, Weights};

/// The `Connect` part of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceConnect {
    /// True when the program itself speaks the mesh's TLS and needs no sidecar.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub native: bool,
    /// A sidecar to register as `<id>-sidecar-proxy`; an empty one takes every default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sidecar_service: Option<Box<SidecarService>>,
}

/// The sidecar inside the registration of its parent. Every field has a default that Consul derives
/// from the parent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SidecarService {
    /// Always `connect-proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Must be absent: the id is `<parent>-sidecar-proxy`.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `<parent name>-sidecar-proxy` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The parent's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// The public listener; the first free of 21000 to 21255 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The public listener; the parent's address when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Further addresses by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// True when servers may change the tags.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub enable_tag_override: bool,
    /// The parent's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, String>>,
    /// Weights for DNS SRV answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Replaces the default checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckDefinition>,
    /// Replaces the default checks.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub checks: Vec<CheckDefinition>,
    /// What the sidecar is the proxy of, and its upstreams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Must be absent: a sidecar has no sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ServiceConnect>,
}

/// What a `connect-proxy` is the proxy of.
///
/// `MeshGateway` and `Expose` are options of Consul that have no meaning here; they are carried so
/// that an answer has the shape of Consul's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Proxy {
    /// The service that the proxy stands for.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub destination_service_name: String,
    /// The instance that the proxy stands for.
    #[serde(
        rename = "DestinationServiceID",
        skip_serializing_if = "is_default",
        deserialize_with = "null_default"
    )]
    pub destination_service_id: String,
    /// Where the program listens.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub local_service_address: String,
    /// Where the program listens.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub local_service_port: u16,
    /// Options of the proxy, opaque to Consul.
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "null_default")]
    pub config: Map<String, Value>,
    /// What the program reaches through the proxy.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub upstreams: Vec<Upstream>,
    /// Carried only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_gateway: Option<Map<String, Value>>,
    /// Carried only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expose: Option<Map<String, Value>>,
}

/// A destination that a program reaches through its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Upstream {
    /// `service` (the default) or `prepared_query`.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub destination_type: String,
    /// The namespace, Consul Enterprise only.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub destination_namespace: String,
    /// The service to reach.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub destination_name: String,
    /// The datacenter to reach it in. Some answers of Consul write it when it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// Where the program dials; 127.0.0.1 when empty.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub local_bind_address: String,
    /// Where the program dials.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub local_bind_port: u16,
    /// Options of the proxy. Some answers of Consul write `null` when there are none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "written_null")]
    pub config: Option<Value>,
    /// Carried only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_gateway: Option<Map<String, Value>>,
}
