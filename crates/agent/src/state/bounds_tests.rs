//! What a registration may not be.

use std::time::Duration;

use meshx_consul_api::{
    AgentServiceRegistration, CatalogRegistration, CheckDefinition, GoDuration,
};
use serde_json::{Value, json};

use super::record::CheckKind;
use super::test_world::{World, service, with_sidecar};
use crate::limits;

fn register(world: &mut World, request: Value) -> Result<(), String> {
    let request: AgentServiceRegistration = serde_json::from_value(request).unwrap();
    world.state.register(request, false, world.now).map_err(|refusal| refusal.text)
}

#[test]
fn an_empty_id_is_no_id() {
    let mut world = World::new();
    world.register(with_sidecar(AgentServiceRegistration {
        id: Some(String::new()),
        ..service("web")
    }));
    let ids: Vec<String> = world.state.agent_services().into_keys().collect();
    assert_eq!(ids, ["web", "web-sidecar-proxy"]);
}

#[test]
fn the_patience_of_a_probe_is_bounded() {
    let mut world = World::new();
    for (timeout, patience) in [
        (None, limits::PROBE_TIME),
        (Some(3), Duration::from_secs(3)),
        (Some(1_000 * 3_600), Duration::from_mins(1)),
    ] {
        let check = CheckDefinition {
            tcp: Some("127.0.0.1:1".to_owned()),
            interval: Some(GoDuration::from_secs(10)),
            timeout: timeout.map(GoDuration::from_secs),
            ..CheckDefinition::default()
        };
        world.register(AgentServiceRegistration { check: Some(check), ..service("web") });
        let CheckKind::Probe(probe) = &world.state.local().checks["service:web"].kind else {
            panic!("not a probe");
        };
        assert_eq!(probe.timeout, patience);
    }
}

#[test]
fn what_is_too_much_to_keep_is_refused() {
    let long = |bytes: usize| "x".repeat(bytes);
    let pairs = |count: usize| -> Value {
        (0..count).map(|n| (format!("k{n}"), Value::String(String::new()))).collect()
    };
    let http = |field: &str, value: Value| {
        let mut check = json!({"HTTP": "http://127.0.0.1:1/", "Interval": "10s"});
        check[field] = value;
        json!({"Name": "web", "Check": check})
    };
    let proxy = |field: &str, value: Value| {
        let mut proxy = json!({"DestinationServiceName": "web"});
        proxy[field] = value;
        json!({"Name": "p", "Kind": "connect-proxy", "Port": 1, "Proxy": proxy})
    };
    let upstream = |config: Value| {
        let upstream = json!({"DestinationName": "db", "LocalBindPort": 1, "Config": config});
        proxy("Upstreams", json!([upstream]))
    };
    let mut world = World::new();
    for (request, fits) in [
        (http("Body", json!(long(limits::PROBE_BODY))), true),
        (http("Body", json!(long(limits::PROBE_BODY + 1))), false),
        (http("Method", json!(long(33))), false),
        (http("HTTP", json!(format!("http://h/{}", long(4_096)))), false),
        (http("Header", json!({"X": vec![""; 64]})), true),
        (http("Header", json!({"X": vec![""; 65]})), false),
        (http("Header", json!({"X": [long(4_095)]})), true),
        (http("Header", json!({"X": [long(4_096)]})), false),
        (http("Header", json!({long(4_097): []})), false),
        (proxy("Config", json!({"a": long(16_000)})), true),
        (proxy("Config", json!({"a": long(16_384)})), false),
        (upstream(json!({"a": long(16_000)})), true),
        (upstream(json!({"a": long(16_384)})), false),
        (proxy("DestinationServiceID", json!(long(limits::PROXY))), false),
        (json!({"Name": "web", "Kind": long(4_097)}), false),
        (json!({"Name": "web", "Check": {"TCP": long(4_097), "Interval": "1s"}}), false),
        (json!({"Name": "web", "Check": {"AliasService": long(4_097)}}), false),
        (json!({"Name": "web", "Checks": vec![json!({"TTL": "9s"}); 257]}), false),
        (json!({"Name": "web", "TaggedAddresses": {"lan": {"Address": long(4_097)}}}), false),
    ] {
        let text = request.to_string();
        let head = &text[..text.floor_char_boundary(80)];
        assert_eq!(register(&mut world, request).is_ok(), fits, "{head}");
    }
    for (field, value, fits) in [
        ("NodeMeta", pairs(64), true),
        ("NodeMeta", pairs(65), false),
        ("NodeMeta", json!({"k": long(513)}), false),
        ("TaggedAddresses", json!({long(129): ""}), false),
        ("Service", json!({"Service": "s", "Meta": pairs(65)}), false),
        ("Service", json!({"Service": "s", "Kind": long(4_097)}), false),
        ("Service", json!({"Service": "s", "Proxy": {"Config": {"a": long(16_384)}}}), false),
        ("Check", json!({"CheckID": "c", "Definition": {"a": long(16_384)}}), false),
    ] {
        let mut request = json!({"Node": "n2", "Address": "192.0.2.1"});
        request[field] = value;
        let request: CatalogRegistration = serde_json::from_value(request).unwrap();
        let result = world.state.catalog_register(&request, world.now);
        assert_eq!(result.is_ok(), fits, "{field}");
    }
}
