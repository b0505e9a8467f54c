//! `/v1/health/…`.

use meshx_consul_api::{CheckStatus, HealthCheck};

use super::Call;
use super::filter::Kind;
use super::options::Options;
use super::reply::Reply;
use crate::refusal::Refusal;
use crate::state::{NodeRecord, State, Topic, check_view, fold};

impl Call<'_> {
    /// `health/service/:s` and `health/connect/:s`.
    pub(super) async fn health_service(
        &self,
        name: &str,
        is_connect: bool,
    ) -> Result<Reply, Refusal> {
        let query = &self.request.query;
        let is_passing = query.flag("passing")?;
        // Consul's built-in proxy asks for `health/service/:s?connect=true`.
        let is_connect = is_connect || query.get("connect").is_some_and(|v| v == "true");
        if name.is_empty() {
            return Err(Refusal::bad("Missing service name"));
        }
        let filter = self.filter(Kind::HealthEntry)?;
        let folded = fold(name);
        let topic = if is_connect { Topic::Connect(folded) } else { Topic::Service(folded) };
        self.query(topic, |state| {
            let mut entries = Vec::new();
            let mut add = |node: &String, record: &NodeRecord, service: &_| {
                let is_wanted = (!is_passing
                    || State::status(record, service) == CheckStatus::Passing)
                    && self.has_tags(&service.tags)
                    && self.has_node_meta(record);
                if is_wanted {
                    entries.push(state.entry_view(node, record, service));
                }
            };
            if is_connect {
                state.connectable(name).for_each(|(n, r, s)| add(n, r, s));
            } else {
                state.instances(name).for_each(|(n, r, s)| add(n, r, s));
            }
            if let Some(filter) = filter {
                entries.retain(|entry| filter.matches(entry));
            }
            Ok(entries)
        })
        .await
    }

    pub(super) async fn health_checks(&self, name: &str) -> Result<Reply, Refusal> {
        if name.is_empty() {
            return Err(Refusal::bad("Missing service name"));
        }
        let filter = self.filter(Kind::Check)?;
        self.query(Topic::Service(fold(name)), |state| {
            let mut checks: Vec<HealthCheck> = state
                .instances(name)
                .filter(|(_, node, _)| self.has_node_meta(node))
                .flat_map(|(node, record, service)| {
                    let checks = service.checks.iter().filter_map(|id| record.checks.get(id));
                    checks.map(|check| check_view(node, check))
                })
                .collect();
            if let Some(filter) = filter {
                checks.retain(|check| filter.matches(check));
            }
            Ok(checks)
        })
        .await
    }

    pub(super) async fn health_node(&self, name: &str) -> Result<Reply, Refusal> {
        if name.is_empty() {
            return Err(Refusal::bad("Missing node name"));
        }
        let filter = self.filter(Kind::Check)?;
        self.query(Topic::NodeChecks(name.to_owned()), |state| {
            let node = state.nodes().get(name);
            let checks = node.into_iter().flat_map(|node| node.checks.values());
            let mut checks: Vec<_> = checks.map(|check| check_view(name, check)).collect();
            if let Some(filter) = filter {
                checks.retain(|check| filter.matches(check));
            }
            Ok(checks)
        })
        .await
    }

    pub(super) async fn health_state(&self, word: &str) -> Result<Reply, Refusal> {
        if word.is_empty() {
            return Err(Refusal::bad("Missing check state"));
        }
        let filter = self.filter(Kind::Check)?;
        let status = CheckStatus::from_word(word);
        self.query(Topic::Checks, |state| {
            let nodes = state.nodes().iter().filter(|(_, node)| self.has_node_meta(node));
            let mut checks: Vec<HealthCheck> = nodes
                .flat_map(|(name, node)| {
                    node.checks.values().map(move |check| check_view(name, check))
                })
                .filter(|check| word == "any" || Some(check.status) == status)
                .collect();
            if let Some(filter) = filter {
                checks.retain(|check| filter.matches(check));
            }
            Ok(checks)
        })
        .await
    }

    /// There are no ingress gateways.
    pub(super) fn health_ingress(&self, name: &str) -> Result<Reply, Refusal> {
        if name.is_empty() {
            return Err(Refusal::bad("Missing service name"));
        }
        let options = Options::parse(&self.request.query)?;
        let default = self.control.read(|state| state.intentions.default_action());
        let none: [(); 0] = [];
        Ok(self.json(&none)?.indexed(1, default).consistency(options.consistency))
    }

    /// Every `?tag=` is among the tags; case does not matter, as with Consul.
    pub(super) fn has_tags(&self, tags: &[String]) -> bool {
        let mut wanted = self.request.query.all("tag").filter(|tag| !tag.is_empty());
        wanted.all(|wanted| tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted)))
    }

    /// Every `?node-meta=key:value` is in the metadata of the node.
    pub(super) fn has_node_meta(&self, node: &NodeRecord) -> bool {
        self.request.query.all("node-meta").all(|pair| {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            node.meta.as_ref().and_then(|meta| meta.get(key)).is_some_and(|v| v == value)
        })
    }
}
