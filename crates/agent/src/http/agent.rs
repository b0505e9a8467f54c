//! `/v1/agent/…` but for Connect.

use std::collections::BTreeMap;

use hyper::StatusCode;
use meshx_consul_api::{
    AgentCheckRegistration, AgentMember, AgentService, AgentServiceHealth,
    AgentServiceRegistration, CheckStatus, CheckUpdate, HealthCheck,
};
use meshx_core::Action;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::Call;
use super::decode::{self, AGENT_CHECK, CHECK_UPDATE, SERVICE};
use super::filter::Kind;
use super::options::{parse_wait, refuse_namespace};
use super::reply::Reply;
use super::request::go_bool;
use crate::CONSUL_VERSION;
use crate::refusal::Refusal;
use crate::state::{CheckKind, State};

impl Call<'_> {
    pub(super) fn agent_self(&self) -> Result<Reply, Refusal> {
        let body = self.control.read(|state| {
            let identity = &state.identity;
            let (services, checks) = {
                let local = state.local();
                (local.services.len() - 1, local.checks.len() - 1)
            };
            let ttls = state.local().checks.values();
            let ttls = ttls.filter(|check| matches!(check.kind, CheckKind::Ttl(_))).count();
            let default = state.intentions.default_action();
            // There are no ACLs. A client of 1.8 knows only their keys, and reads there what holds
            // where no intention matches: it must not take "no ACLs" for "allow".
            let denies = default == Action::Deny;
            let default = default.to_string();
            json!({
                "Config": {
                    "Datacenter": identity.datacenter,
                    "NodeName": identity.node,
                    "NodeID": identity.node_id,
                    "Revision": "",
                    "Server": true,
                    "Version": CONSUL_VERSION,
                    "MeshxVersion": env!("CARGO_PKG_VERSION"),
                },
                "DebugConfig": {
                    "ACLDatacenter": identity.datacenter,
                    "ACLDefaultPolicy": default,
                    "ACLsEnabled": denies,
                    "DefaultIntentionPolicy": default,
                    "AdvertiseAddrLAN": identity.address,
                    "ConnectEnabled": true,
                    "ConnectSidecarMinPort": crate::limits::SIDECAR_PORTS.start(),
                    "ConnectSidecarMaxPort": crate::limits::SIDECAR_PORTS.end(),
                    "DNSAddrs": self.facts.dns.map(|dns| [format!("tcp://{dns}"), format!("udp://{dns}")]),
                    "DNSDomain": "consul.",
                    "DNSPort": self.facts.dns.map_or(-1, |dns| i32::from(dns.port())),
                    "Datacenter": identity.datacenter,
                    "DevMode": true,
                    "EnableUI": false,
                    "GRPCAddrs": [],
                    "GRPCPort": -1,
                    "HTTPAddrs": [format!("tcp://{}", self.facts.http)],
                    "HTTPPort": self.facts.http.port(),
                    "NodeID": identity.node_id,
                    "NodeName": identity.node,
                    "PrimaryDatacenter": identity.datacenter,
                    "Version": CONSUL_VERSION,
                    "VersionPrerelease": "",
                },
                "Coord": coordinate(),
                "Member": member(state),
                "Stats": {
                    "agent": {
                        "check_monitors": "0",
                        "check_ttls": ttls.to_string(),
                        "checks": checks.to_string(),
                        "services": services.to_string(),
                    },
                    "build": {"prerelease": "", "revision": "", "version": CONSUL_VERSION},
                    "consul": {
                        "acl": "disabled",
                        "bootstrap": "true",
                        "known_datacenters": "1",
                        "leader": "true",
                        "leader_addr": leader(state),
                        "server": "true",
                    },
                    "raft": {
                        "applied_index": state.topics.last().to_string(),
                        "last_log_index": state.topics.last().to_string(),
                        "num_peers": "0",
                        "state": "Leader",
                        "term": "1",
                    },
                    "runtime": {
                        "arch": std::env::consts::ARCH,
                        "os": std::env::consts::OS,
                        "version": "rust",
                    },
                    "serf_lan": {"failed": "0", "left": "0", "members": "1"},
                },
                "Meta": {"consul-network-segment": ""},
                "xDS": {"SupportedProxies": {"envoy": []}},
            })
        });
        self.json(&body)
    }

    pub(super) fn agent_services(&self) -> Result<Reply, Refusal> {
        refuse_namespace(&self.request.query)?;
        let filter = self.filter(Kind::AgentService)?;
        let mut services = self.control.read(State::agent_services);
        if let Some(filter) = filter {
            services.retain(|_, service| filter.matches(service));
        }
        self.json(&services)
    }

    pub(super) fn agent_checks(&self) -> Result<Reply, Refusal> {
        refuse_namespace(&self.request.query)?;
        let filter = self.filter(Kind::Check)?;
        let mut checks = self.control.read(State::agent_checks);
        if let Some(filter) = filter {
            checks.retain(|_, check| filter.matches(check));
        }
        self.json(&checks)
    }

    pub(super) async fn agent_service(&self, id: &str) -> Result<Reply, Refusal> {
        let query = &self.request.query;
        let time = parse_wait(query)?.time;
        if let Some(known) = query.filled("hash") {
            let is_same = |state: &State| {
                state.agent_service(id).is_some_and(|service| hash(&service) == known)
            };
            self.control.wait_hash(id, time, is_same).await?;
        }
        let service = self.control.read(|state| state.agent_service(id));
        let unknown = || Refusal::missing(format!("unknown service ID: {id}"));
        let mut service = service.ok_or_else(unknown)?;
        service.content_hash = hash(&service);
        let header = service.content_hash.clone();
        Ok(self.json(&service)?.header("x-consul-contenthash", header))
    }

    pub(super) fn service_register(&self) -> Result<Reply, Refusal> {
        let failed = |text| Refusal::bad(format!("Request decode failed: {text}"));
        let value = decode::read(&self.request.body, &SERVICE).map_err(failed)?;
        for part in [&value, &value["Connect"]["SidecarService"]] {
            let list = part["Checks"].as_array().into_iter().flatten();
            for check in std::iter::once(&part["Check"]).chain(list) {
                if !is_status(&check["Status"]) {
                    return Err(Refusal::bad(
                        "Status for checks must 'passing', 'warning', 'critical'",
                    ));
                }
            }
        }
        let request: AgentServiceRegistration = decode::typed(value).map_err(failed)?;
        let replace = self.request.query.flag("replace-existing-checks")?;
        self.control.write(|state, now| state.register(request, replace, now))?;
        Ok(Reply::empty())
    }

    pub(super) fn service_deregister(&self, id: &str) -> Result<Reply, Refusal> {
        if id.is_empty() {
            return Err(Refusal::internal("ServiceID missing"));
        }
        self.control.write(|state, now| state.deregister(id, now));
        Ok(Reply::empty())
    }

    pub(super) fn check_register(&self) -> Result<Reply, Refusal> {
        let failed = |text| Refusal::bad(format!("Request decode failed: {text}"));
        let value = decode::read(&self.request.body, &AGENT_CHECK).map_err(failed)?;
        if !is_status(&value["Status"]) {
            return Err(Refusal::bad("Bad check status"));
        }
        let request: AgentCheckRegistration = decode::typed(value).map_err(failed)?;
        self.control.write(|state, now| state.register_check(request, now))?;
        Ok(Reply::empty())
    }

    pub(super) fn check_deregister(&self, id: &str) -> Reply {
        self.control.write(|state, now| state.deregister_check(id, now));
        Reply::empty()
    }

    pub(super) fn check_note(&self, id: &str, word: &str) -> Result<Reply, Refusal> {
        let note = self.request.query.get("note").unwrap_or_default();
        let status = CheckStatus::from_word(word).unwrap_or_default();
        self.control.write(|state, now| state.update_ttl(id, status, note, now))?;
        Ok(Reply::empty())
    }

    pub(super) fn check_update(&self, id: &str) -> Result<Reply, Refusal> {
        let update: CheckUpdate = self.decode(&CHECK_UPDATE)?;
        let Some(status) = CheckStatus::from_word(&update.status) else {
            return Err(Refusal::bad(format!("Invalid check status: '{}'", update.status)));
        };
        self.control.write(|state, now| state.update_ttl(id, status, &update.output, now))?;
        Ok(Reply::empty())
    }

    pub(super) fn service_maintenance(&self, id: &str) -> Result<Reply, Refusal> {
        if id.is_empty() {
            return Err(Refusal::bad("Missing service ID"));
        }
        let reason = self.maintenance()?;
        self.control.write(|state, now| state.service_maintenance(id, reason, now))?;
        Ok(Reply::empty())
    }

    pub(super) fn node_maintenance(&self) -> Result<Reply, Refusal> {
        let reason = self.maintenance()?;
        self.control.write(|state, now| state.node_maintenance(reason, now));
        Ok(Reply::empty())
    }

    /// The reason, perhaps empty, when maintenance is to begin.
    fn maintenance(&self) -> Result<Option<&str>, Refusal> {
        let query = &self.request.query;
        let word = query.get("enable").ok_or_else(|| Refusal::bad("Missing value for enable"))?;
        let enable = go_bool(word)
            .ok_or_else(|| Refusal::bad(format!("Invalid value for enable: \"{word}\"")))?;
        let reason = query.get("reason").unwrap_or_default();
        if reason.len() > crate::limits::TEXT {
            return Err(Refusal::bad("The reason is too long"));
        }
        Ok(enable.then_some(reason))
    }

    pub(super) fn agent_health_by_id(&self, id: &str) -> Result<Reply, Refusal> {
        if id.is_empty() {
            return Err(Refusal::internal("Bad request: Missing serviceID"));
        }
        let found = self.control.read(|state| {
            let service = state.agent_service(id)?;
            Some(service_health(service, state.agent_service_checks(id)))
        });
        let Some((status, health)) = found else {
            let reason = format!("ServiceId {id} not found");
            let unknown = AgentServiceHealth {
                aggregated_status: "critical".to_owned(),
                service: None,
                checks: None,
            };
            return self.health_reply(StatusCode::NOT_FOUND, reason, &unknown);
        };
        self.health_reply(status.code(), status.word().to_owned(), &health)
    }

    pub(super) fn agent_health_by_name(&self, name: &str) -> Result<Reply, Refusal> {
        if name.is_empty() {
            return Err(Refusal::internal("Bad request: Missing service Name"));
        }
        let found: Vec<(Aggregate, AgentServiceHealth)> = self.control.read(|state| {
            let services = state.agent_services().into_values();
            let named = services.filter(|service| service.service == name);
            named
                .map(|service| {
                    let checks = state.agent_service_checks(&service.id);
                    service_health(service, checks)
                })
                .collect()
        });
        let Some(worst) = found.iter().map(|(status, _)| *status).max() else {
            let reason = format!("ServiceName {name} Not Found");
            return self.health_reply(StatusCode::NOT_FOUND, reason, &json!([]));
        };
        let healths: Vec<_> = found.into_iter().map(|(_, health)| health).collect();
        self.health_reply(worst.code(), worst.word().to_owned(), &healths)
    }

    fn health_reply<T: serde::Serialize>(
        &self,
        code: StatusCode,
        reason: String,
        body: &T,
    ) -> Result<Reply, Refusal> {
        let accept = self.request.headers.get("accept").and_then(|value| value.to_str().ok());
        let is_text = match self.request.query.filled("format") {
            Some(format) => format == "text",
            None => accept.is_some_and(|accept| accept.starts_with("text/plain")),
        };
        let reply = if is_text {
            Reply::text(code, "text/plain", reason.clone())
        } else {
            self.json(body)?.status(code)
        };
        Ok(reply.header("x-consul-reason", reason))
    }

    pub(super) fn members(&self) -> Result<Reply, Refusal> {
        let mut member = self.control.read(member);
        if self.request.query.filled("wan").is_some_and(|wan| wan != "0" && wan != "false") {
            let datacenter = member.tags.get("dc").cloned().unwrap_or_default();
            member.name = format!("{}.{datacenter}", member.name);
            member.port = 8302;
            member.tags.remove("wan_join_port");
        }
        self.json(&[member])
    }

    pub(super) fn leader(&self, as_list: bool) -> Result<Reply, Refusal> {
        let leader = self.control.read(leader);
        if as_list { self.json(&[leader]) } else { self.json(&leader) }
    }

    pub(super) fn coordinates(&self) -> Result<Reply, Refusal> {
        let (node, index, default) = self.control.read(|state| {
            let index = state.local().create_index;
            (state.identity.node.clone(), index, state.intentions.default_action())
        });
        let body = json!([{"Node": node, "Segment": "", "Coord": coordinate()}]);
        Ok(self.json(&body)?.indexed(index, default))
    }

    pub(super) fn metrics(&self) -> Result<Reply, Refusal> {
        if self.request.query.filled("format") == Some("prometheus") {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Prometheus is not enabled since its retention time is not positive",
            ));
        }
        let (services, checks, intentions) = self.control.read(|state| {
            let (services, checks) = state.counts();
            (services, checks, state.intentions.list().count())
        });
        let now = OffsetDateTime::now_utc().replace_nanosecond(0);
        let now = now.map(|now| now.to_string()).unwrap_or_default().replace(".0 ", " ");
        let gauge = |name: &str, value: usize| json!({"Name": name, "Value": value, "Labels": {}});
        let body = json!({
            "Timestamp": now.replace("+00:00:00", "+0000 UTC"),
            "Gauges": [
                gauge("meshx.agent.checks", checks),
                gauge("meshx.agent.intentions", intentions),
                gauge("meshx.agent.services", services),
                gauge("meshx.agent.uptime_s",
                    usize::try_from(self.control.started.elapsed().as_secs()).unwrap_or(usize::MAX)),
            ],
            "Points": [],
            "Counters": [],
            "Samples": [],
        });
        self.json(&body)
    }
}

/// The state of a service over all its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aggregate {
    Of(CheckStatus),
    Maintenance,
}

impl Aggregate {
    fn word(self) -> &'static str {
        match self {
            Self::Of(status) => status.as_str(),
            Self::Maintenance => "maintenance",
        }
    }

    fn code(self) -> StatusCode {
        match self {
            Self::Of(CheckStatus::Passing) => StatusCode::OK,
            Self::Of(CheckStatus::Warning) => StatusCode::TOO_MANY_REQUESTS,
            Self::Of(CheckStatus::Critical) | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn service_health(
    service: AgentService,
    mut checks: Vec<HealthCheck>,
) -> (Aggregate, AgentServiceHealth) {
    let of = |check: &HealthCheck| match check.check_type.as_str() {
        "maintenance" => Aggregate::Maintenance,
        _ => Aggregate::Of(check.status),
    };
    let worst = checks.iter().map(of).max().unwrap_or(Aggregate::Of(CheckStatus::Passing));
    for check in &mut checks {
        // This endpoint of Consul writes the definition in full and no type.
        check.check_type.clear();
        check.definition = json!({
            "Interval": "0s", "Timeout": "0s", "DeregisterCriticalServiceAfter": "0s",
            "HTTP": "", "Header": null, "Method": "", "Body": "", "TLSSkipVerify": false, "TCP": "",
        });
    }
    let health = AgentServiceHealth {
        aggregated_status: worst.word().to_owned(),
        service: Some(service),
        checks: Some(checks),
    };
    (worst, health)
}

/// A hash of everything that the agent says about a service.
fn hash(service: &AgentService) -> String {
    let text = serde_json::to_vec(service).unwrap_or_default();
    Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// True for a status of Consul, and for none.
fn is_status(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(word) => word.is_empty() || CheckStatus::from_word(word).is_some(),
        _ => false,
    }
}

fn leader(state: &State) -> String {
    let identity = &state.identity;
    let host = if identity.address.contains(':') {
        format!("[{}]", identity.address)
    } else {
        identity.address.clone()
    };
    format!("{host}:{}", identity.server_port)
}

/// The agent as a member of a cluster of one, with the tags that `consul members` reads.
fn member(state: &State) -> AgentMember {
    let identity = &state.identity;
    let tags = [
        ("acls", "0".to_owned()),
        ("build", format!("{CONSUL_VERSION}:")),
        ("dc", identity.datacenter.clone()),
        ("ft_fs", "1".to_owned()),
        ("id", identity.node_id.clone()),
        ("port", identity.server_port.to_string()),
        ("raft_vsn", "3".to_owned()),
        ("role", "consul".to_owned()),
        ("segment", String::new()),
        ("vsn", "2".to_owned()),
        ("vsn_max", "3".to_owned()),
        ("vsn_min", "2".to_owned()),
        ("wan_join_port", "8302".to_owned()),
    ];
    AgentMember {
        name: identity.node.clone(),
        addr: identity.address.clone(),
        port: 8301,
        tags: tags
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        status: 1,
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    }
}

/// One machine has no distances.
fn coordinate() -> Value {
    json!({"Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 1.5, "Adjustment": 0, "Height": 1e-5})
}
