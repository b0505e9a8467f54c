//! The registry as the API shows it.

use std::collections::BTreeMap;

use meshx_consul_api::{
    AgentService, CatalogService, CheckStatus, HealthCheck, HealthServiceEntry, Node, NodeService,
    Proxy, ServiceConnect,
};
use serde_json::{Map, Value};

use super::record::{CONNECT_PROXY, CheckRecord, NodeRecord, ServiceRecord};
use super::{SERF_HEALTH, State};

impl State {
    /// A node.
    pub(crate) fn node_view(&self, name: &str, node: &NodeRecord) -> Node {
        Node {
            id: node.id.clone(),
            node: name.to_owned(),
            address: node.address.clone(),
            datacenter: self.identity.datacenter.clone(),
            tagged_addresses: node.tagged_addresses.clone(),
            meta: node.meta.clone(),
            create_index: node.create_index,
            modify_index: node.modify_index,
        }
    }

    /// An instance with its checks and those of its node, the node's first.
    pub(crate) fn entry_view(
        &self,
        name: &str,
        node: &NodeRecord,
        service: &ServiceRecord,
    ) -> HealthServiceEntry {
        let checks = node.own_checks.iter().chain(&service.checks);
        HealthServiceEntry {
            node: self.node_view(name, node),
            service: service_view(service),
            checks: checks
                .filter_map(|id| node.checks.get(id))
                .map(|check| check_view(name, check))
                .collect(),
        }
    }

    /// The flat form of an instance.
    pub(crate) fn catalog_view(
        &self,
        name: &str,
        node: &NodeRecord,
        service: &ServiceRecord,
    ) -> CatalogService {
        let view = service_view(service);
        let node = self.node_view(name, node);
        CatalogService {
            id: node.id,
            node: node.node,
            address: node.address,
            datacenter: node.datacenter,
            tagged_addresses: node.tagged_addresses,
            node_meta: node.meta,
            service_kind: view.kind,
            service_id: view.id,
            service_name: view.service,
            service_tags: view.tags,
            service_address: view.address,
            service_tagged_addresses: view.tagged_addresses,
            service_weights: view.weights,
            service_meta: view.meta.unwrap_or_default(),
            service_port: view.port,
            service_enable_tag_override: view.enable_tag_override,
            service_proxy: view.proxy,
            service_connect: view.connect,
            create_index: view.create_index,
            modify_index: view.modify_index,
        }
    }

    /// The services of the local agent.
    pub(crate) fn agent_services(&self) -> BTreeMap<String, AgentService> {
        let services = self.local().services.values().filter(|service| !service.is_hidden);
        services.map(|service| (service.id.clone(), agent_view(service))).collect()
    }

    /// One service of the local agent.
    pub(crate) fn agent_service(&self, id: &str) -> Option<AgentService> {
        let service = self.local().services.get(id)?;
        (!service.is_hidden).then(|| agent_view(service))
    }

    /// The checks of the local agent.
    pub(crate) fn agent_checks(&self) -> BTreeMap<String, HealthCheck> {
        let checks = self.local().checks.values().filter(|check| check.id != SERF_HEALTH);
        checks.map(|c| (c.id.clone(), agent_check_view(&self.identity.node, c))).collect()
    }

    /// The checks that decide about a service of the local agent.
    pub(crate) fn agent_service_checks(&self, id: &str) -> Vec<HealthCheck> {
        let local = self.local();
        let own = local.own_checks.iter().filter(|check| *check != SERF_HEALTH);
        let of_service = local.services.get(id).into_iter().flat_map(|service| &service.checks);
        own.chain(of_service)
            .filter_map(|check| local.checks.get(check))
            .map(|check| agent_check_view(&self.identity.node, check))
            .collect()
    }

    /// The worst state of an instance and its node.
    pub(crate) fn status(node: &NodeRecord, service: &ServiceRecord) -> CheckStatus {
        let checks = node.own_checks.iter().chain(&service.checks);
        let worst = checks.filter_map(|id| node.checks.get(id)).map(|check| check.status).max();
        worst.unwrap_or(CheckStatus::Passing)
    }
}

/// A service at its node.
pub(crate) fn service_view(service: &ServiceRecord) -> NodeService {
    let mut proxy = service.proxy.clone();
    proxy.mesh_gateway.get_or_insert_default();
    proxy.expose.get_or_insert_default();
    for upstream in &mut proxy.upstreams {
        // The catalog writes these two even when there is nothing to say.
        upstream.datacenter.get_or_insert_default();
        upstream.config.get_or_insert_default();
    }
    NodeService {
        kind: service.kind.clone(),
        id: service.id.clone(),
        service: service.name.clone(),
        tags: service.tags.clone(),
        address: service.address.clone(),
        tagged_addresses: service.tagged_addresses.clone(),
        meta: service.meta.clone(),
        port: service.port,
        weights: service.weights,
        enable_tag_override: service.enable_tag_override,
        proxy,
        connect: ServiceConnect { native: service.native, sidecar_service: None },
        create_index: service.create_index,
        modify_index: service.modify_index,
    }
}

/// A check of the node `node`.
pub(crate) fn check_view(node: &str, check: &CheckRecord) -> HealthCheck {
    HealthCheck {
        node: node.to_owned(),
        check_id: check.id.clone(),
        name: check.name.clone(),
        status: check.status,
        notes: check.notes.clone(),
        output: check.output.clone(),
        service_id: check.service_id.clone(),
        service_name: check.service_name.clone(),
        service_tags: check.service_tags.clone(),
        check_type: check.kind.word().to_owned(),
        definition: check.definition.clone(),
        create_index: check.create_index,
        modify_index: check.modify_index,
    }
}

fn agent_view(service: &ServiceRecord) -> AgentService {
    let proxy = (service.kind == CONNECT_PROXY).then(|| Proxy { ..service.proxy.clone() });
    let connect = service.native.then_some(ServiceConnect { native: true, sidecar_service: None });
    AgentService {
        kind: service.kind.clone(),
        id: service.id.clone(),
        service: service.name.clone(),
        tags: service.tags.clone(),
        meta: service.meta.clone().unwrap_or_default(),
        port: service.port,
        address: service.address.clone(),
        tagged_addresses: service.tagged_addresses.clone(),
        weights: service.weights,
        enable_tag_override: service.enable_tag_override,
        content_hash: String::new(),
        proxy,
        connect,
    }
}

/// The agent's own view knows no indexes.
fn agent_check_view(node: &str, check: &CheckRecord) -> HealthCheck {
    let definition = Value::Object(Map::new());
    HealthCheck { create_index: 0, modify_index: 0, definition, ..check_view(node, check) }
}
