//! `/v1/catalog/…`.

use std::collections::BTreeMap;

use meshx_consul_api::{CatalogDeregistration, CatalogNode, CatalogRegistration, Node};
use serde_json::{Value, json};

use super::Call;
use super::decode::{CATALOG_DEREGISTRATION, CATALOG_REGISTRATION};
use super::filter::Kind;
use super::reply::Reply;
use crate::refusal::Refusal;
use crate::state::{Topic, fold, service_view};

impl Call<'_> {
    pub(super) async fn catalog_services(&self) -> Result<Reply, Refusal> {
        self.query(Topic::Services, |state| {
            let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for node in state.nodes().values().filter(|node| self.has_node_meta(node)) {
                for service in node.services.values() {
                    let tags = services.entry(service.name.clone()).or_default();
                    for tag in &service.tags {
                        if !tags.contains(tag) {
                            tags.push(tag.clone());
                        }
                    }
                }
            }
            Ok(services)
        })
        .await
    }

    /// `catalog/service/:s` and `catalog/connect/:s`.
    pub(super) async fn catalog_service(
        &self,
        name: &str,
        is_connect: bool,
    ) -> Result<Reply, Refusal> {
        if name.is_empty() {
            return Err(Refusal::bad("Missing service name"));
        }
        let filter = self.filter(Kind::CatalogService)?;
        let folded = fold(name);
        let topic = if is_connect { Topic::Connect(folded) } else { Topic::Service(folded) };
        self.query(topic, |state| {
            let mut found: Vec<_> = if is_connect {
                state.connectable(name).collect()
            } else {
                state.instances(name).collect()
            };
            found.retain(|(_, node, service)| {
                self.has_tags(&service.tags) && self.has_node_meta(node)
            });
            let views = found.into_iter().map(|(n, node, s)| state.catalog_view(n, node, s));
            let mut views: Vec<_> = views.collect();
            if let Some(filter) = filter {
                views.retain(|view| filter.matches(view));
            }
            Ok(views)
        })
        .await
    }

    pub(super) async fn catalog_nodes(&self) -> Result<Reply, Refusal> {
        let filter = self.filter(Kind::Node)?;
        self.query(Topic::Nodes, |state| {
            let nodes = state.nodes().iter().filter(|(_, node)| self.has_node_meta(node));
            let mut nodes: Vec<Node> =
                nodes.map(|(name, node)| state.node_view(name, node)).collect();
            if let Some(filter) = filter {
                nodes.retain(|node| filter.matches(node));
            }
            Ok(nodes)
        })
        .await
    }

    /// `catalog/node/:n`, with its services by id, and `catalog/node-services/:n`, with a list.
    pub(super) async fn catalog_node(&self, name: &str, as_list: bool) -> Result<Reply, Refusal> {
        if name.is_empty() {
            return Err(Refusal::bad("Missing node name"));
        }
        let filter = self.filter(Kind::NodeService)?;
        self.query(Topic::Node(name.to_owned()), |state| {
            let Some(record) = state.nodes().get(name) else { return Ok(Value::Null) };
            let node = state.node_view(name, record);
            let services = record.services.values().map(service_view);
            let services =
                services.filter(|service| filter.as_ref().is_none_or(|f| f.matches(service)));
            if as_list {
                let services: Vec<_> = services.collect();
                return Ok(json!({"Node": node, "Services": services}));
            }
            let services = services.map(|service| (service.id.clone(), service)).collect();
            serde_json::to_value(CatalogNode { node, services })
                .map_err(|error| Refusal::internal(error.to_string()))
        })
        .await
    }

    pub(super) fn datacenters(&self) -> Result<Reply, Refusal> {
        self.json(&[self.control.read(|state| state.identity.datacenter.clone())])
    }

    pub(super) fn catalog_register(&self) -> Result<Reply, Refusal> {
        let request: CatalogRegistration = self.decode(&CATALOG_REGISTRATION)?;
        self.control.write(|state, now| state.catalog_register(&request, now))?;
        self.json(&true)
    }

    pub(super) fn catalog_deregister(&self) -> Result<Reply, Refusal> {
        let request: CatalogDeregistration = self.decode(&CATALOG_DEREGISTRATION)?;
        self.control.write(|state, now| state.catalog_deregister(&request, now))?;
        self.json(&true)
    }
}
