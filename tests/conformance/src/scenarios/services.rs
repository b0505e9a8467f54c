//! Registering services and their sidecars.

use std::time::Duration;

use serde_json::json;

use crate::{Recording, Subject, eventually, like};

/// The two recorded registrations and everything that was recorded after them.
pub async fn expand_as_recorded(subject: &Subject) {
    subject.register(&Recording::load("state/agent_service_register").body.unwrap()).await;
    subject.register(&Recording::load("state/agent_service_register_echo").body.unwrap()).await;
    for name in ["agent_services", "agent_service", "agent_checks"] {
        replay(subject, name).await;
    }
    subject.pass("echo-ttl?note=ok").await;
    for name in [
        "agent_health_service_by_id",
        "agent_health_service_by_name",
        "catalog_services",
        "catalog_service_echo",
        "catalog_connect_echo",
        "catalog_node",
        "catalog_node_services",
        "catalog_nodes",
        "health_service_echo",
        "health_connect_echo",
        "agent_members",
    ] {
        replay(subject, name).await;
    }
}

async fn replay(subject: &Subject, name: &str) {
    let recording = Recording::load(&format!("state/{name}"));
    eventually(async || recording.matches(&recording.replay(subject).await)).await;
}

/// Keys in snake case, and the sidecar that comes of them.
pub async fn snake_case(subject: &Subject) {
    subject.register(&json!({"Name": "first", "Connect": {"SidecarService": {}}})).await;
    subject.register(&Recording::load("state/register_snake").body.unwrap()).await;
    let recording = Recording::load("state/snk_get");
    recording.matches(&recording.replay(subject).await).unwrap();
}

/// Names of Erlang nodes, raw and percent-encoded, in every place.
pub async fn names_of_erlang_nodes(subject: &Subject) {
    let (name, id) = ("node1@my-host", "node1@my-host:4711");
    let sidecar = json!({"Port": 20_777, "Checks": [{"TTL": "30s", "Status": "passing"}]});
    subject
        .register(&json!({
            "Name": name, "ID": id, "Check": {"TTL": "30s"}, "Connect": {"SidecarService": sidecar},
        }))
        .await;
    for id in [id, "node1%40my-host%3A4711"] {
        let answer = subject.get(&format!("/v1/agent/service/{id}")).await.ok();
        assert_eq!(answer.json()["Service"], name);
        subject.pass(&format!("service:{id}")).await;
        let health = subject.get(&format!("/v1/agent/health/service/id/{id}")).await;
        assert_eq!((health.status, health.header("X-Consul-Reason")), (200, Some("passing")));
    }
    for name in [name, "node1%40my-host"] {
        for path in ["health/service", "health/connect", "catalog/service", "catalog/connect"] {
            eventually(async || {
                let answer = subject.get(&format!("/v1/{path}/{name}?passing")).await.ok();
                let count = answer.json().as_array().map_or(0, Vec::len);
                if count == 1 { Ok(()) } else { Err(format!("{path}/{name}: {}", answer.body)) }
            })
            .await;
        }
        let leaf = subject.get(&format!("/v1/agent/connect/ca/leaf/{name}")).await.ok().json();
        let uri = leaf["ServiceURI"].as_str().unwrap();
        assert!(uri.ends_with("/ns/default/dc/dc1/svc/node1@my-host"), "{uri}");
    }
    subject.ask("PUT", "/v1/agent/service/deregister/node1@my-host%3A4711", None).await.ok();
    assert_eq!(subject.get("/v1/agent/services").await.json(), json!({}));
}

/// Sidecar ports without a wish: the first that is free, and the same one again.
pub async fn sidecar_ports(subject: &Subject) {
    let port = async |id: &str| {
        subject.get(&format!("/v1/agent/service/{id}-sidecar-proxy")).await.ok().json()["Port"]
            .clone()
    };
    subject.register(&json!({"Name": "other", "Port": 21_001})).await;
    for (name, expected) in [("a", 21_000), ("b", 21_002), ("a", 21_000)] {
        subject.register(&json!({"Name": name, "Connect": {"SidecarService": {}}})).await;
        assert_eq!(port(name).await, expected);
    }
    subject.ask("PUT", "/v1/agent/service/deregister/a", None).await.ok();
    subject.register(&json!({"Name": "c", "Connect": {"SidecarService": {}}})).await;
    assert_eq!(port("c").await, 21_000);
}

/// A parent takes its sidecar along; an unknown id is no error.
pub async fn deregistration(subject: &Subject) {
    subject.register(&json!({"Name": "a", "Connect": {"SidecarService": {}}})).await;
    subject.register(&json!({"Name": "b", "Connect": {"SidecarService": {}}})).await;
    subject.ask("PUT", "/v1/agent/service/deregister/b-sidecar-proxy", None).await.ok();
    subject.ask("PUT", "/v1/agent/service/deregister/a", None).await.ok();
    subject.ask("PUT", "/v1/agent/service/deregister/nobody", None).await.ok();
    let services = subject.get("/v1/agent/services").await.json();
    assert_eq!(services.as_object().unwrap().keys().collect::<Vec<_>>(), ["b"]);
    eventually(async || {
        let catalog = subject.get("/v1/catalog/services").await.json();
        like(&json!({"b": [], "consul": []}), &catalog)
    })
    .await;
}

/// Registering again keeps the state of checks; checks go only when they are replaced.
pub async fn registering_again(subject: &Subject) {
    let checks = async || {
        let checks = subject.get("/v1/agent/checks").await.json();
        let checks = checks.as_object().unwrap().clone();
        let states: Vec<String> = checks
            .iter()
            .map(|(id, check)| format!("{id} {}", check["Status"].as_str().unwrap()))
            .collect();
        states
    };
    let two = json!({"Name": "a", "Checks": [{"TTL": "60s"}, {"TTL": "60s", "Status": "warning"}]});
    subject.register(&two).await;
    assert_eq!(checks().await, ["service:a:1 critical", "service:a:2 warning"]);
    subject.pass("service:a:1").await;
    subject.register(&two).await;
    assert_eq!(checks().await, ["service:a:1 passing", "service:a:2 warning"]);
    let one = json!({"Name": "a", "Check": {"TTL": "60s", "Status": "passing"}});
    subject.register(&one).await;
    assert_eq!(checks().await, ["service:a passing", "service:a:1 passing", "service:a:2 warning"]);
    subject.put("/v1/agent/service/register?replace-existing-checks=true", &one).await.ok();
    assert_eq!(checks().await, ["service:a passing"]);
}

/// The hash of a service: waits, wakes on a change and on its end.
pub async fn content_hash(subject: &Subject) {
    subject.register(&json!({"Name": "a", "Check": {"TTL": "60s"}})).await;
    let first = subject.get("/v1/agent/service/a").await.ok();
    let hash = first.header("X-Consul-ContentHash").unwrap().to_owned();
    assert_eq!(first.json()["ContentHash"], hash.as_str());
    let at_once = subject.get("/v1/agent/service/a?hash=other&wait=10s").await.ok();
    assert!(at_once.took < Duration::from_secs(2));
    let same = subject.get(&format!("/v1/agent/service/a?hash={hash}&wait=300ms")).await.ok();
    assert!(same.took >= Duration::from_millis(300));
    assert_eq!(same.header("X-Consul-ContentHash"), Some(hash.as_str()));
    let path = format!("/v1/agent/service/a?hash={hash}&wait=20s");
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Health is not part of what a service is.
        subject.pass("service:a").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        subject.register(&json!({"Name": "a", "Port": 9, "Check": {"TTL": "60s"}})).await;
    };
    let (changed, ()) = tokio::join!(subject.get(&path), change);
    assert!(changed.took >= Duration::from_millis(350) && changed.took < Duration::from_secs(5));
    assert_eq!(changed.json()["Port"], 9);
    let hash = changed.header("X-Consul-ContentHash").unwrap();
    let path = format!("/v1/agent/service/a?hash={hash}&wait=20s");
    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        subject.ask("PUT", "/v1/agent/service/deregister/a", None).await.ok();
    };
    let (gone, ()) = tokio::join!(subject.get(&path), end);
    assert_eq!((gone.status, gone.body.as_str()), (404, "unknown service ID: a"));
    assert!(gone.took < Duration::from_secs(5));
}

/// `?filter=` in the forms that tools use.
pub async fn filters(subject: &Subject) {
    let web = json!({"Name": "web", "Tags": ["v1"], "Meta": {"os": "linux"}, "Port": 80});
    subject.register(&web).await;
    subject.register(&json!({"Name": "db", "Connect": {"SidecarService": {"Port": 20_100}}})).await;
    for (filter, expected) in [
        ("Kind%20%3D%3D%20%22connect-proxy%22", vec!["db-sidecar-proxy"]),
        ("Service==web", vec!["web"]),
        ("%22v1%22+in+Tags", vec!["web"]),
        ("Tags+contains+v1", vec!["web"]),
        ("Meta.os+==+linux+and+not+ID+==+other", vec!["web"]),
        ("Port+!=+80+and+(Service==db+or+Service==web)", vec!["db"]),
        ("Tags+is+not+empty", vec!["web"]),
        ("v1+not+in+Tags+and+Kind+==+%22%22", vec!["db"]),
    ] {
        let services =
            subject.get(&format!("/v1/agent/services?filter={filter}")).await.ok().json();
        let ids: Vec<&String> = services.as_object().unwrap().keys().collect();
        assert_eq!(ids, expected, "{filter}");
    }
    let error = subject.get("/v1/agent/services?filter=Bogus==1").await;
    let text = "Failed to create boolean expression evaluator: Selector \"Bogus\" is not valid";
    assert_eq!((error.status, error.body.as_str()), (500, text));
    assert_eq!(subject.get("/v1/agent/services?filter=(").await.status, 500);
}
