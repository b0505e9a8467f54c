//! Nodes that no agent looks after: `catalog/register`, `catalog/deregister`.

use std::time::Instant;

use meshx_consul_api::{
    CatalogDeregistration, CatalogRegistration, HealthCheck, NodeServiceRegistration,
};
use meshx_core::{ServiceId, ServiceName};

use super::record::{CONNECT_PROXY, CheckRecord, NodeRecord, ServiceRecord};
use super::rules::{
    check_address, check_pairs, check_proxy, check_proxy_size, check_size, check_tagged,
    check_texts, complete_proxy, tagged_addresses,
};
use super::{State, Topic};
use crate::limits;
use crate::refusal::Refusal;

impl State {
    /// `PUT /v1/catalog/register`.
    pub(crate) fn catalog_register(
        &mut self,
        request: &CatalogRegistration,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.check_datacenter(request.datacenter.as_deref())?;
        if request.node.is_empty() {
            return Err(Refusal::internal("Must provide node"));
        }
        if request.address.is_empty() && !request.skip_node_update {
            return Err(Refusal::internal("Must provide address if SkipNodeUpdate is not set"));
        }
        self.refuse_local(&request.node)?;
        let node_id = request.id.clone().unwrap_or_default();
        if !node_id.is_empty() && !is_uuid(&node_id) {
            return Err(Refusal::internal("Bad node ID: uuid string is wrong length"));
        }
        check_texts([&request.node, &request.address])?;
        check_pairs("NodeMeta", &request.node_meta)?;
        check_pairs("TaggedAddresses", &request.tagged_addresses)?;
        let service = request.service.as_ref().map(catalog_service).transpose()?;
        let name = request.node.clone();
        let existing = self.nodes.get(&name);
        let mut checks = Vec::new();
        for check in request.check.iter().chain(&request.checks) {
            checks.push(catalog_check(&name, check, service.as_ref(), existing)?);
        }
        self.make_room_for(&name, service.as_ref(), &checks)?;
        self.put_node(request, node_id);
        if let Some(service) = service {
            self.insert_service(&name, service);
        }
        for check in checks {
            self.insert_check(&name, check, now);
        }
        Ok(())
    }

    /// `PUT /v1/catalog/deregister`. What is unknown is not an error.
    pub(crate) fn catalog_deregister(
        &mut self,
        request: &CatalogDeregistration,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.check_datacenter(request.datacenter.as_deref())?;
        if request.node.is_empty() {
            return Err(Refusal::internal("Must provide node"));
        }
        self.refuse_local(&request.node)?;
        if !request.service_id.is_empty() {
            self.remove_service(&request.node, &request.service_id, now);
        } else if !request.check_id.is_empty() {
            self.remove_check(&request.node, &request.check_id, now);
        } else if let Some(node) = self.nodes.get(&request.node) {
            let services: Vec<String> = node.services.keys().cloned().collect();
            let checks: Vec<String> = node.own_checks.iter().cloned().collect();
            for id in services {
                self.remove_service(&request.node, &id, now);
            }
            for id in checks {
                self.remove_check(&request.node, &id, now);
            }
            self.nodes.remove(&request.node);
            let index = self.topics.next();
            self.topics.touch(Topic::Nodes, index);
            self.topics.remove(&Topic::Node(request.node.clone()), index);
            self.topics.remove(&Topic::NodeChecks(request.node.clone()), index);
            self.follow(&request.node, "", now);
        }
        Ok(())
    }

    /// Refuses another datacenter, in Consul's words.
    pub(crate) fn check_datacenter(&self, datacenter: Option<&str>) -> Result<(), Refusal> {
        match datacenter {
            Some(dc) if !dc.is_empty() && dc != self.identity.datacenter => {
                Err(Refusal::internal("No path to datacenter"))
            }
            _ => Ok(()),
        }
    }

    /// Consul takes such a write and undoes it a minute later, because the agent is the authority
    /// on its own node. Saying so is kinder.
    fn refuse_local(&self, node: &str) -> Result<(), Refusal> {
        if node != self.identity.node {
            return Ok(());
        }
        Err(Refusal::bad(format!(
            "node \"{node}\" is looked after by this agent: use /v1/agent/service/register and \
             /v1/agent/service/deregister"
        )))
    }

    fn make_room_for(
        &self,
        name: &str,
        service: Option<&ServiceRecord>,
        checks: &[CheckRecord],
    ) -> Result<(), Refusal> {
        let node = self.nodes.get(name);
        if node.is_none() && self.nodes.len() >= limits::NODES {
            return Err(Refusal::full("nodes", limits::NODES));
        }
        let is_new = |id: &str| node.is_none_or(|node| !node.services.contains_key(id));
        if service.is_some_and(|s| is_new(&s.id)) && self.services >= limits::SERVICES {
            return Err(Refusal::full("services", limits::SERVICES));
        }
        let is_new =
            |check: &&CheckRecord| node.is_none_or(|node| !node.checks.contains_key(&check.id));
        if self.checks + checks.iter().filter(is_new).count() > limits::CHECKS {
            return Err(Refusal::full("checks", limits::CHECKS));
        }
        Ok(())
    }

    fn put_node(&mut self, request: &CatalogRegistration, id: String) {
        let old = self.nodes.get(&request.node);
        if old.is_some() && request.skip_node_update {
            return;
        }
        let mut node = old.cloned().unwrap_or_default();
        node.id = id;
        node.address.clone_from(&request.address);
        node.meta = Some(request.node_meta.clone()).filter(|meta| !meta.is_empty());
        node.tagged_addresses =
            Some(request.tagged_addresses.clone()).filter(|tagged| !tagged.is_empty());
        let says = |node: &NodeRecord| {
            (
                node.id.clone(),
                node.address.clone(),
                node.meta.clone(),
                node.tagged_addresses.clone(),
            )
        };
        if old.is_some_and(|old| says(old) == says(&node)) {
            return;
        }
        let index = self.topics.next();
        node.modify_index = index;
        if node.create_index == 0 {
            node.create_index = index;
        }
        self.nodes.insert(request.node.clone(), node);
        self.topics.touch(Topic::Nodes, index);
        self.topics.touch(Topic::Node(request.node.clone()), index);
        // The address of a node is part of every instance on it.
        self.touch_check(&request.node, "", index);
    }
}

fn catalog_service(request: &NodeServiceRegistration) -> Result<ServiceRecord, Refusal> {
    if request.service.is_empty() {
        return Err(Refusal::internal("Must provide service name with ID"));
    }
    let name: ServiceName =
        request.service.parse().map_err(|e| Refusal::bad(format!("Invalid service name: {e}")))?;
    let id = if request.id.is_empty() { &request.service } else { &request.id };
    id.parse::<ServiceId>().map_err(|e| Refusal::bad(format!("Invalid service ID: {e}")))?;
    check_address(&request.address)?;
    check_texts(&request.tags)?;
    check_texts([&request.kind])?;
    check_pairs("Meta", &request.meta)?;
    check_tagged(&request.tagged_addresses)?;
    let mut proxy = request.proxy.clone().unwrap_or_default();
    check_proxy_size(&proxy)?;
    if request.kind == CONNECT_PROXY {
        check_proxy(&proxy, request.port, false)
            .map_err(|refusal| Refusal::internal(refusal.text))?;
        complete_proxy(&mut proxy);
    }
    let native = request.connect.as_ref().and_then(|connect| connect.get("Native"));
    Ok(ServiceRecord {
        kind: request.kind.clone(),
        id: id.clone(),
        name: name.into(),
        tags: request.tags.clone(),
        address: request.address.clone(),
        tagged_addresses: tagged_addresses(
            &request.tagged_addresses,
            &request.address,
            request.port,
        ),
        meta: Some(request.meta.clone()).filter(|meta| !meta.is_empty()),
        port: request.port,
        weights: request.weights.unwrap_or_default(),
        enable_tag_override: request.enable_tag_override,
        proxy,
        native: native.and_then(serde_json::Value::as_bool).unwrap_or(false),
        ..ServiceRecord::default()
    })
}

fn catalog_check(
    node: &str,
    request: &HealthCheck,
    service: Option<&ServiceRecord>,
    existing: Option<&NodeRecord>,
) -> Result<CheckRecord, Refusal> {
    if !request.node.is_empty() && request.node != node {
        let text = format!("check node \"{}\" does not match node \"{node}\"", request.node);
        return Err(Refusal::internal(text));
    }
    let id = if request.check_id.is_empty() { &request.name } else { &request.check_id };
    check_texts([id, &request.name, &request.notes, &request.output])?;
    if id.is_empty() {
        return Err(Refusal::internal("Must provide a check ID or a name"));
    }
    check_size("the definition of a check", &request.definition, limits::OPAQUE)?;
    let word = if request.definition.get("TCP").is_some_and(|v| v != "") {
        "tcp"
    } else if request.definition.get("HTTP").is_some_and(|v| v != "") {
        "http"
    } else {
        ""
    };
    let mut record = CheckRecord::passive(id, &request.name, request.status, word);
    record.notes.clone_from(&request.notes);
    record.output.clone_from(&request.output);
    if request.definition.is_object() {
        record.definition.clone_from(&request.definition);
    }
    if !request.service_id.is_empty() {
        let in_request = service.filter(|service| service.id == request.service_id);
        let of = in_request.or_else(|| existing?.services.get(&request.service_id));
        let Some(of) = of else {
            return Err(Refusal::internal(format!(
                "failed inserting check: Missing service registration on node \"{node}\""
            )));
        };
        record.service_id.clone_from(&of.id);
        record.service_name.clone_from(&of.name);
        record.service_tags.clone_from(&of.tags);
    }
    Ok(record)
}

/// True for the 36 characters of a UUID.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}
