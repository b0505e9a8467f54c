//! Round trips of what Consul 1.8.7 said, recorded from the real program in `tests/data`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use meshx_consul_api as api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn recording(name: &str, side: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[side]["body"].take()
}

/// Reads `value` as `T` and writes it again: nothing may be lost, changed or added.
#[track_caller]
fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> T {
    let typed: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&typed).unwrap(), value);
    typed
}

#[track_caller]
fn response<T: DeserializeOwned + Serialize>(name: &str) -> T {
    round_trip(&recording(name, "response"))
}

#[track_caller]
fn request<T: DeserializeOwned + Serialize>(name: &str) -> T {
    round_trip(&recording(name, "request"))
}

#[test]
fn services_of_the_agent() {
    let services: BTreeMap<String, api::AgentService> = response("agent_services");
    let sidecar = &services["web-1-sidecar-proxy"];
    let proxy = sidecar.proxy.as_ref().unwrap();
    assert_eq!((sidecar.kind.as_str(), sidecar.port), ("connect-proxy", 21000));
    assert_eq!(proxy.upstreams[0].local_bind_port, 19191);
    let one: api::AgentService = response("agent_service");
    assert_eq!(one.content_hash, "ff387352b044cb3c");
    assert_eq!(one.proxy.unwrap().config["local_connect_timeout_ms"], 1000);
}

#[test]
fn checks() {
    let checks: BTreeMap<String, api::HealthCheck> = response("agent_checks");
    assert_eq!(checks["service:web-1"].status, api::CheckStatus::Passing);
    assert_eq!(checks["service:web-1-sidecar-proxy:1"].check_type, "tcp");
    let checks: Vec<api::HealthCheck> = response("health_checks");
    assert_eq!(checks[0].output, "ok");
    let health: api::AgentServiceHealth = response("agent_health_service_by_id");
    assert_eq!(health.aggregated_status, "passing");
    drop(response::<Vec<api::AgentServiceHealth>>("agent_health_service_by_name"));
    let unknown: api::AgentServiceHealth = response("agent_health_unknown");
    assert_eq!(unknown.checks, None);
}

#[test]
fn the_agent_itself() {
    let agent: api::AgentSelf =
        serde_json::from_value(recording("agent_self", "response")).unwrap();
    let config = agent.config.unwrap();
    assert_eq!((config.version.as_str(), config.server), ("1.8.7", true));
    let debug = agent.debug_config.unwrap();
    assert_eq!(debug.default_action(), Some(meshx_core::Action::Allow));
    let members: Vec<api::AgentMember> = response("agent_members");
    assert_eq!(members[0].tags["role"], "consul");
}

#[test]
fn health_and_catalog() {
    let entries: Vec<api::HealthServiceEntry> = response("health_connect_echo");
    assert_eq!(entries[0].status(), api::CheckStatus::Critical);
    assert_eq!((entries[0].host(), entries[0].service.port), ("127.0.0.1", 20001));
    drop(response::<Vec<api::CatalogService>>("catalog_connect_echo"));
    drop(response::<Vec<api::CatalogService>>("catalog_service_echo"));
    drop(response::<Vec<api::Node>>("catalog_nodes"));
    let node: api::CatalogNode = response("catalog_node");
    let web = &node.services["web-1-sidecar-proxy"];
    assert_eq!(web.proxy.upstreams[0].datacenter.as_deref(), Some(""));
}

#[test]
fn connect() {
    let roots: api::CaRoots = response("connect_ca_roots");
    assert_eq!(roots.roots[0].id, roots.active_root_id);
    let rotated: api::CaRoots = response("connect_ca_roots_after_rotation");
    assert_eq!(rotated.roots[1].serial_number, 9_620_275_048_248_495_064);
    assert!(rotated.roots[1].intermediate_certs.is_some());
    let leaf: api::Leaf = response("connect_ca_leaf_echo");
    assert!(leaf.private_key_pem.expose().contains("private key"));
    assert!(!format!("{leaf:?}").contains("private key"), "keys are not printed");
    let config: api::CaConfiguration = response("connect_ca_configuration");
    assert!(!format!("{config:?}").contains("8760h"), "keys are not printed");
    drop(request::<api::AuthorizeRequest>("authorize_allowed"));
    let answer: api::AuthorizeResponse = response("authorize_allowed");
    assert!(answer.authorized);
}

#[test]
fn intentions() {
    drop(request::<api::IntentionDefinition>("intention_create"));
    drop(response::<api::Created>("intention_create"));
    assert!(!response::<api::IntentionCheck>("intention_check").allowed);
    let list: Vec<api::Intention> = response("intention_list");
    assert_eq!(list[1].rule().unwrap().to_string(), "deny * → *");
    let l7 = json!({"SourceName": "a", "DestinationName": "b", "Permissions": [{"Action": "allow"}],
                    "Meta": null, "Hash": null, "LegacyID": "later"});
    let l7: api::Intention = serde_json::from_value(l7).unwrap();
    assert_eq!(l7.rule().unwrap().action, meshx_core::Action::Deny);
}

#[test]
fn registrations() {
    // `90m` is written back in Go's own form, `1h30m0s`.
    let mut web = recording("agent_service_register", "request");
    web["Check"]["DeregisterCriticalServiceAfter"] = "1h30m0s".into();
    let web: api::AgentServiceRegistration = round_trip(&web);
    let sidecar = web.connect.unwrap().sidecar_service.unwrap();
    assert_eq!(sidecar.proxy.unwrap().upstreams[0].destination_name, "echo");
    let echo: api::AgentServiceRegistration = request("agent_service_register_echo");
    assert_eq!(echo.check.unwrap().status, Some(api::CheckStatus::Critical));
    let many: api::AgentServiceRegistration = request("replace_existing_checks");
    assert_eq!(many.checks.len(), 2);
    drop(request::<api::AgentCheckRegistration>("check_register_tcp"));
    drop(request::<api::CheckUpdate>("check_update"));
    drop(request::<api::CatalogDeregistration>("catalog_deregister"));
    let external: api::CatalogRegistration =
        serde_json::from_value(recording("catalog_register", "request")).unwrap();
    assert_eq!(external.service.unwrap().port, 5432);
}

/// A 1.8 agent refuses keys that it does not know: what is absent must not be written.
#[test]
fn requests_hold_only_what_is_set() {
    let registration = api::AgentServiceRegistration {
        name: "a".to_owned(),
        connect: Some(api::ServiceConnect {
            sidecar_service: Some(Box::default()),
            ..api::ServiceConnect::default()
        }),
        check: Some(api::CheckDefinition::default()),
        proxy: Some(api::Proxy {
            upstreams: vec![api::Upstream::default()],
            ..api::Proxy::default()
        }),
        ..api::AgentServiceRegistration::default()
    };
    assert_eq!(
        serde_json::to_value(&registration).unwrap(),
        json!({"Name": "a", "Check": {}, "Proxy": {"Upstreams": [{}]}, "Connect": {"SidecarService": {}}})
    );
    let check = api::AgentCheckRegistration::default();
    assert_eq!(serde_json::to_value(&check).unwrap(), json!({}));
}

/// What a later Consul or a Go client with nil lists says.
#[test]
fn reading_is_tolerant() {
    let entry = json!({
        "Node": {"Node": "n", "Address": "::1", "Partition": "default", "Meta": null},
        "Service": {"ID": "s", "Service": "s", "Tags": null, "Meta": null, "TaggedAddresses": null,
                    "SocketPath": "", "PeerName": "", "Locality": null},
        "Checks": null,
    });
    let entry: api::HealthServiceEntry = serde_json::from_value(entry).unwrap();
    assert_eq!((entry.host(), entry.status()), ("::1", api::CheckStatus::Passing));
    let roots: api::CaRoots =
        serde_json::from_value(json!({"TrustDomain": "x", "Roots": null})).unwrap();
    assert!(roots.roots.is_empty());
    let check: api::HealthCheck =
        serde_json::from_value(json!({"Status": "purple", "ServiceTags": null})).unwrap();
    assert_eq!(check.status, api::CheckStatus::Critical);
}
