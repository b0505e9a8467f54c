//! Registering services and checks with the local agent, judged and completed as Consul 1.8.7 does.

use std::time::{Duration, Instant};

use meshx_consul_api::{
    AgentCheckRegistration, AgentServiceRegistration, CheckDefinition, CheckStatus, GoDuration,
    Proxy, SidecarService,
};
use meshx_core::{ServiceId, ServiceName};
use serde_json::{Map, Value};

use super::record::{CONNECT_PROXY, CheckKind, CheckRecord, Probe, ServiceRecord, Target};
use super::rules::{
    check_address, check_meta, check_proxy, check_proxy_size, check_tagged, check_texts,
    check_weights, complete_proxy, tagged_addresses,
};
use super::{State, fold};
use crate::limits;
use crate::refusal::{Refusal, several};

impl State {
    /// `PUT /v1/agent/service/register`. With `replace`, checks of the service that are not named
    /// again are removed.
    pub(crate) fn register(
        &mut self,
        mut request: AgentServiceRegistration,
        replace: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        if request.name.is_empty() {
            return Err(Refusal::bad("Missing service name"));
        }
        let sidecar = request.connect.as_mut().and_then(|c| c.sidecar_service.take());
        let parent_id = request.id.clone().filter(|id| !id.is_empty());
        let parent_id = parent_id.unwrap_or_else(|| request.name.clone());
        let mut plans = vec![self.plan(&request, false)?];
        if let Some(sidecar) = sidecar {
            let request = self.sidecar(&plans[0].0, &parent_id, *sidecar)?;
            plans.push(self.plan(&request, true)?);
        }
        self.make_room(&plans)?;
        let node = self.identity.node.clone();
        for (record, checks) in plans {
            let id = record.id.clone();
            self.insert_service(&node, record);
            if replace {
                let named = |old: &&String| !checks.iter().any(|check| check.id == **old);
                let old = self.local().services.get(&id).map(|service| &service.checks);
                let gone: Vec<String> = old.into_iter().flatten().filter(named).cloned().collect();
                for check in gone {
                    self.remove_check(&node, &check, now);
                }
            }
            for check in checks {
                self.insert_check(&node, check, now);
            }
            self.follow(&node, &id, now);
        }
        Ok(())
    }

    /// `PUT /v1/agent/service/deregister/:id`: with its checks and its sidecar. An unknown id is
    /// not an error.
    pub(crate) fn deregister(&mut self, id: &str, now: Instant) {
        let node = self.identity.node.clone();
        let sidecar = sidecar_id(id);
        let services = &self.local().services;
        let has_sidecar = services.get(&sidecar).is_some_and(|service| service.is_sidecar);
        if services.get(id).is_some_and(|service| !service.is_hidden) {
            self.remove_service(&node, id, now);
            if has_sidecar {
                self.remove_service(&node, &sidecar, now);
            }
        }
    }

    /// `PUT /v1/agent/check/register`.
    pub(crate) fn register_check(
        &mut self,
        request: AgentCheckRegistration,
        now: Instant,
    ) -> Result<(), Refusal> {
        let definition = request.definition;
        let name = definition.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::bad("Missing check name"));
        }
        let kind = self.check_kind(&definition)?;
        let id = request.id.filter(|id| !id.is_empty()).or_else(|| definition.check_id.clone());
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| name.clone());
        let mut record = check_record(&id, &name, &definition, kind)?;
        if let Some(service) = request.service_id.filter(|id| !id.is_empty()) {
            let owner = self.local().services.get(&service).filter(|s| !s.is_hidden);
            let Some(owner) = owner else {
                return Err(Refusal::internal(format!("ServiceID \"{service}\" does not exist")));
            };
            record.service_name.clone_from(&owner.name);
            record.service_tags.clone_from(&owner.tags);
            record.service_id = service;
        }
        if self.counts().1 >= limits::CHECKS && !self.local().checks.contains_key(&record.id) {
            return Err(Refusal::full("checks", limits::CHECKS));
        }
        if record.id == super::SERF_HEALTH {
            return Err(Refusal::bad("serfHealth is the agent's own check"));
        }
        let node = self.identity.node.clone();
        self.insert_check(&node, record, now);
        Ok(())
    }

    /// `PUT /v1/agent/check/deregister/:id`. An unknown id is not an error.
    pub(crate) fn deregister_check(&mut self, id: &str, now: Instant) {
        let node = self.identity.node.clone();
        if id != super::SERF_HEALTH {
            self.remove_check(&node, id, now);
        }
    }

    fn make_room(&self, plans: &[(ServiceRecord, Vec<CheckRecord>)]) -> Result<(), Refusal> {
        let local = self.local();
        let services = plans.iter().filter(|(s, _)| !local.services.contains_key(&s.id)).count();
        let checks = plans.iter().flat_map(|(_, checks)| checks);
        let checks = checks.filter(|check| !local.checks.contains_key(&check.id)).count();
        let (have_services, have_checks) = self.counts();
        if have_services + services > limits::SERVICES {
            return Err(Refusal::full("services", limits::SERVICES));
        }
        if have_checks + checks > limits::CHECKS {
            return Err(Refusal::full("checks", limits::CHECKS));
        }
        Ok(())
    }

    /// Judges a registration and completes it with Consul's defaults.
    fn plan(
        &self,
        request: &AgentServiceRegistration,
        is_sidecar: bool,
    ) -> Result<(ServiceRecord, Vec<CheckRecord>), Refusal> {
        let name: ServiceName =
            request.name.parse().map_err(|e| Refusal::bad(format!("Invalid service name: {e}")))?;
        let id = request.id.clone().filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| request.name.clone());
        id.parse::<ServiceId>().map_err(|e| Refusal::bad(format!("Invalid service ID: {e}")))?;
        if self.local().services.get(&id).is_some_and(|service| service.is_hidden) {
            return Err(Refusal::bad(format!("Service ID \"{id}\" is the agent's own")));
        }
        let address = request.address.clone().unwrap_or_default();
        check_address(&address)?;
        let weights = request.weights.unwrap_or_default();
        check_weights(weights)?;
        check_meta(&request.meta)
            .map_err(|text| Refusal::bad(format!("Invalid Service Meta: {text}")))?;
        check_texts(&request.tags)?;
        check_tagged(&request.tagged_addresses)?;
        let kind = request.kind.clone().unwrap_or_default();
        check_texts([&kind])?;
        let native = request.connect.as_ref().is_some_and(|connect| connect.native);
        let port = request.port.unwrap_or_default();
        let mut proxy = Proxy::default();
        if kind == CONNECT_PROXY {
            proxy = request.proxy.clone().unwrap_or_default();
            check_proxy(&proxy, port, native)?;
            check_proxy_size(&proxy)?;
            complete_proxy(&mut proxy);
        }
        let record = ServiceRecord {
            kind,
            id,
            name: name.into(),
            tags: request.tags.clone(),
            tagged_addresses: tagged_addresses(&request.tagged_addresses, &address, port),
            address,
            meta: Some(request.meta.clone()).filter(|meta| !meta.is_empty()),
            port,
            weights,
            enable_tag_override: request.enable_tag_override,
            proxy,
            native,
            is_sidecar,
            ..ServiceRecord::default()
        };
        let definitions: Vec<&CheckDefinition> = request
            .check
            .iter()
            .filter(|check| **check != CheckDefinition::default())
            .chain(&request.checks)
            .collect();
        if definitions.len() > limits::CHECKS_AT_ONCE {
            return Err(Refusal::full("checks of one registration", limits::CHECKS_AT_ONCE));
        }
        let mut checks = Vec::with_capacity(definitions.len());
        for (number, definition) in definitions.iter().enumerate() {
            let derived = match definitions.len() {
                1 => format!("service:{}", record.id),
                _ => format!("service:{}:{}", record.id, number + 1),
            };
            let id = definition.check_id.clone().filter(|id| !id.is_empty()).unwrap_or(derived);
            let name = definition.name.clone().filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| format!("Service '{}' check", record.name));
            let kind = self.check_kind(definition)?;
            let mut check = check_record(&id, &name, definition, kind)?;
            check.service_id.clone_from(&record.id);
            check.service_name.clone_from(&record.name);
            check.service_tags.clone_from(&record.tags);
            checks.push(check);
        }
        Ok((record, checks))
    }

    /// The registration of a sidecar that stands inside that of its parent.
    fn sidecar(
        &self,
        parent: &ServiceRecord,
        parent_id: &str,
        sidecar: SidecarService,
    ) -> Result<AgentServiceRegistration, Refusal> {
        let one = |problem: &str| Refusal::bad(several(&[problem.to_owned()]));
        if sidecar.id.as_ref().is_some_and(|id| !id.is_empty()) {
            return Err(one(
                "A SidecarService cannot specify an ID as this is managed by the agent",
            ));
        }
        if sidecar.connect.as_ref().is_some_and(|c| c.sidecar_service.is_some()) {
            return Err(one("A SidecarService cannot have a nested SidecarService"));
        }
        let id = sidecar_id(parent_id);
        let address = sidecar.address.filter(|a| !a.is_empty());
        let address = address.unwrap_or_else(|| parent.address.clone());
        let port = match sidecar.port.filter(|port| *port != 0) {
            Some(port) => port,
            None => self.sidecar_port(&id)?,
        };
        let mut proxy = sidecar.proxy.unwrap_or_default();
        if proxy.destination_service_name.is_empty() {
            proxy.destination_service_name.clone_from(&parent.name);
        }
        if proxy.destination_service_id.is_empty() {
            proxy.destination_service_id.clone_from(&parent.id);
        }
        if proxy.local_service_port == 0 {
            proxy.local_service_port = parent.port;
        }
        let mut checks: Vec<CheckDefinition> =
            sidecar.check.into_iter().filter(|c| *c != CheckDefinition::default()).collect();
        checks.extend(sidecar.checks);
        if checks.is_empty() {
            let host = if address.is_empty() { "127.0.0.1" } else { &address };
            checks = sidecar_checks(host, port, &parent.id);
        }
        let tags = sidecar.tags.filter(|tags| !tags.is_empty());
        let meta = sidecar.meta.filter(|meta| !meta.is_empty());
        let default_name = || format!("{}-sidecar-proxy", parent.name);
        Ok(AgentServiceRegistration {
            kind: Some(CONNECT_PROXY.to_owned()),
            id: Some(id),
            name: sidecar.name.filter(|name| !name.is_empty()).unwrap_or_else(default_name),
            tags: tags.unwrap_or_else(|| parent.tags.clone()),
            port: Some(port),
            address: Some(address),
            tagged_addresses: sidecar.tagged_addresses,
            enable_tag_override: sidecar.enable_tag_override,
            meta: meta.unwrap_or_else(|| parent.meta.clone().unwrap_or_default()),
            weights: sidecar.weights,
            check: None,
            checks,
            proxy: Some(proxy),
            connect: None,
        })
    }

    /// The port that this sidecar had, or the first that no service of the agent has.
    fn sidecar_port(&self, id: &str) -> Result<u16, Refusal> {
        let services = &self.local().services;
        let had = services.get(id).map(|sidecar| sidecar.port);
        if let Some(port) = had.filter(|port| limits::SIDECAR_PORTS.contains(port)) {
            return Ok(port);
        }
        let taken: std::collections::HashSet<u16> = services.values().map(|s| s.port).collect();
        limits::SIDECAR_PORTS.clone().find(|port| !taken.contains(port)).ok_or_else(|| {
            Refusal::internal(format!(
                "Bad request: Invalid SidecarService: no port provided for sidecar_service and \
                 none left in the configured range [{}, {}]",
                limits::SIDECAR_PORTS.start(),
                limits::SIDECAR_PORTS.end()
            ))
        })
    }

    /// What kind of check a definition asks for.
    fn check_kind(&self, check: &CheckDefinition) -> Result<CheckKind, Refusal> {
        let invalid = |text: &str| Refusal::bad(format!("Invalid check: {text}"));
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let time = |d: Option<GoDuration>| d.map(Duration::from).filter(|d| !d.is_zero());
        let is_script = !check.script_args.is_empty();
        let is_probe =
            is_script || filled(&check.http) || filled(&check.tcp) || filled(&check.grpc);
        let is_alias = filled(&check.alias_node) || filled(&check.alias_service);
        let (interval, ttl) = (time(check.interval), time(check.ttl));
        if interval.is_some() && ttl.is_some() {
            return Err(invalid("Interval and TTL cannot both be specified"));
        }
        if is_probe && interval.is_none() {
            return Err(invalid("Interval must be > 0 for Script, HTTP, or TCP checks"));
        }
        if is_probe && is_alias {
            return Err(invalid("Interval cannot be set for Alias checks"));
        }
        if is_alias && ttl.is_some() {
            return Err(invalid("TTL must be not be set for Alias checks"));
        }
        if is_alias {
            let node = check.alias_node.clone().filter(|node| !node.is_empty());
            let node = node.unwrap_or_else(|| self.identity.node.clone());
            let service = check.alias_service.clone().unwrap_or_default();
            check_texts([&node, &service])?;
            return Ok(CheckKind::Alias { node, service });
        }
        if let Some(ttl) = ttl {
            return Ok(CheckKind::Ttl(ttl));
        }
        let Some(interval) = interval.filter(|_| is_probe) else {
            return Err(invalid("TTL must be > 0 for TTL checks"));
        };
        if is_script {
            return Err(Refusal::internal(
                "Scripts are disabled on this agent from remote calls; to enable, configure \
                 'enable_script_checks' to true",
            ));
        }
        let target = if let Some(url) = check.http.clone().filter(|url| !url.is_empty()) {
            http_target(url, check)?
        } else if let Some(target) = check.tcp.clone().filter(|target| !target.is_empty()) {
            check_texts([&target])?;
            Target::Tcp(target)
        } else {
            return Err(invalid("the embedded agent has no gRPC checks; use TCP or TTL"));
        };
        Ok(CheckKind::Probe(Probe {
            target,
            interval: interval.max(limits::PROBE_INTERVAL),
            timeout: time(check.timeout).unwrap_or(limits::PROBE_TIME).min(limits::PROBE_TIME_MAX),
        }))
    }
}

/// The id of the sidecar that is registered inside its parent.
pub(crate) fn sidecar_id(parent: &str) -> String {
    format!("{parent}-sidecar-proxy")
}

fn http_target(url: String, check: &CheckDefinition) -> Result<Target, Refusal> {
    if fold(&url).starts_with("https://") {
        return Err(Refusal::bad(
            "Invalid check: the embedded agent probes http:// only; use a TCP or TTL check",
        ));
    }
    let lines: usize = check.header.values().map(|values| values.len().max(1)).sum();
    let sizes = check.header.iter().map(|(name, values)| {
        name.len() + values.iter().map(String::len).max().unwrap_or_default()
    });
    if lines > limits::PROBE_HEADERS || sizes.max().unwrap_or_default() > limits::PROBE_HEADER {
        return Err(Refusal::bad(format!(
            "Invalid check: an http check has at most {} header lines of {} bytes",
            limits::PROBE_HEADERS,
            limits::PROBE_HEADER
        )));
    }
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    if length(&check.body) > limits::PROBE_BODY || length(&check.method) > limits::PROBE_METHOD {
        return Err(Refusal::bad(format!(
            "Invalid check: the body of an http check has at most {} bytes, its method {}",
            limits::PROBE_BODY,
            limits::PROBE_METHOD
        )));
    }
    check_texts([&url])?;
    Ok(Target::Http {
        url,
        method: check.method.clone().filter(|m| !m.is_empty()).unwrap_or_else(|| "GET".to_owned()),
        header: check.header.clone(),
        body: check.body.clone().unwrap_or_default(),
    })
}

fn check_record(
    id: &str,
    name: &str,
    definition: &CheckDefinition,
    kind: CheckKind,
) -> Result<CheckRecord, Refusal> {
    let notes = definition.notes.clone().unwrap_or_default();
    check_texts([id, name, notes.as_str()])?;
    let mut record =
        CheckRecord::passive(id, name, definition.status.unwrap_or(CheckStatus::Critical), "");
    record.kind = kind;
    record.notes = notes;
    record.successes.0 = definition.success_before_passing;
    record.failures.0 = definition.failures_before_critical;
    record.deregister_after = definition
        .deregister_critical_service_after
        .map(Duration::from)
        .filter(|after| !after.is_zero())
        .map(|after| after.max(limits::DEREGISTER_AFTER));
    record.definition = Value::Object(Map::new());
    Ok(record)
}

/// Consul's checks of a sidecar that brings none of its own.
fn sidecar_checks(host: &str, port: u16, parent: &str) -> Vec<CheckDefinition> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    vec![
        CheckDefinition {
            name: Some("Connect Sidecar Listening".to_owned()),
            tcp: Some(format!("{host}:{port}")),
            interval: Some(GoDuration::from_secs(10)),
            ..CheckDefinition::default()
        },
        CheckDefinition {
            name: Some(format!("Connect Sidecar Aliasing {parent}")),
            alias_service: Some(parent.to_owned()),
            ..CheckDefinition::default()
        },
    ]
}
