//! The catalog and health of services, and nodes that no agent looks after.

use serde_json::{Value, json};

use crate::{Subject, eventually};

/// The ids of the instances that an answer lists.
fn ids(answer: &Value) -> Vec<String> {
    let entries = answer.as_array().cloned().unwrap_or_default();
    let id = |entry: &Value| {
        let id = entry["Service"]["ID"].as_str().or_else(|| entry["ServiceID"].as_str());
        id.unwrap_or_default().to_owned()
    };
    let mut ids: Vec<String> = entries.iter().map(id).collect();
    ids.sort();
    ids
}

async fn lists(subject: &Subject, path: &str, expected: &[&str]) {
    eventually(async || {
        let answer = subject.get(&format!("/v1/{path}")).await.ok();
        let ids = ids(&answer.json());
        if ids == expected { Ok(()) } else { Err(format!("{path}: {ids:?}, not {expected:?}")) }
    })
    .await;
}

/// Which instances a query lists.
pub async fn selection(subject: &Subject) {
    for (id, tags, status) in [
        ("p", json!(["v1", "x"]), "passing"),
        ("w", json!(["v1"]), "warning"),
        ("c", json!([]), "critical"),
    ] {
        let check = json!({"TTL": "60s", "Status": status});
        subject.register(&json!({"Name": "a", "ID": id, "Tags": tags, "Check": check})).await;
    }
    for (path, expected) in [
        ("health/service/a", vec!["c", "p", "w"]),
        ("health/service/a?passing", vec!["p"]),
        ("health/service/a?passing=1", vec!["p"]),
        ("health/service/a?passing=0", vec!["c", "p", "w"]),
        ("health/service/a?tag=v1", vec!["p", "w"]),
        ("health/service/a?tag=V1&tag=x", vec!["p"]),
        ("health/service/a?tag=nope", vec![]),
        ("health/service/a?node-meta=a:b", vec![]),
        ("health/service/a?node-meta=consul-network-segment:", vec!["c", "p", "w"]),
        ("health/service/a?near=_agent&stale&dc=dc1", vec!["c", "p", "w"]),
        ("health/service/a?filter=Service.ID==p", vec!["p"]),
        ("health/service/A", vec!["c", "p", "w"]),
        ("catalog/service/a?tag=v1", vec!["p", "w"]),
        ("catalog/service/a?filter=ServiceID==p", vec!["p"]),
        ("catalog/service/nobody", vec![]),
        ("health/connect/a", vec![]),
    ] {
        lists(subject, path, &expected).await;
    }
    let states = async |word: &str| {
        let checks = subject.get(&format!("/v1/health/state/{word}")).await.ok().json();
        checks.as_array().unwrap().len()
    };
    assert_eq!((states("any").await, states("warning").await, states("green").await), (4, 1, 0));
}

/// The headers of a query, by consistency.
pub async fn headers(subject: &Subject) {
    for (query, consistency) in [("", "leader"), ("?stale", "stale"), ("?consistent", "consistent")]
    {
        let answer = subject.get(&format!("/v1/catalog/services{query}")).await.ok();
        assert_eq!(answer.header("X-Consul-Effective-Consistency"), Some(consistency));
        assert_eq!(answer.header("X-Consul-KnownLeader"), Some("true"));
        assert_eq!(answer.header("X-Consul-LastContact"), Some("0"));
        assert_eq!(answer.header("Vary"), Some("Accept-Encoding"));
        assert!(answer.index() > 0);
    }
    let cached = subject.get("/v1/catalog/services?cached").await.ok();
    assert!(cached.header("X-Cache").is_some());
    for path in
        ["health/service/none", "health/connect/none", "health/checks/none", "catalog/node/none"]
    {
        let empty = subject.get(&format!("/v1/{path}")).await.ok();
        assert!(empty.index() > 0, "an empty result has an index too");
    }
}

/// A node without an agent, its service and its check.
pub async fn external_nodes(subject: &Subject) {
    let register = "/v1/catalog/register";
    let node = json!({
        "Node": "ext1", "Address": "10.0.0.9", "NodeMeta": {"external-node": "true"},
        "Service": {"ID": "db1", "Service": "extdb", "Port": 5432, "Tags": ["m"]},
        "Check": {"Node": "ext1", "CheckID": "c1", "Name": "hc", "Status": "passing", "ServiceID": "db1"},
    });
    assert_eq!(subject.put(register, &node).await.ok().json(), true);
    lists(subject, "health/service/extdb?passing", &["db1"]).await;
    let entry = subject.get("/v1/health/service/extdb").await.ok().json()[0].clone();
    assert_eq!(entry["Node"]["Address"], "10.0.0.9");
    assert_eq!(entry["Node"]["TaggedAddresses"], Value::Null);
    assert_eq!(entry["Checks"][0]["ServiceName"], "extdb");
    let proxy = json!({
        "Node": "ext1", "Address": "10.0.0.9",
        "Service": {"Service": "px", "Kind": "connect-proxy", "Port": 1,
                    "Proxy": {"DestinationServiceName": "extdb"}},
    });
    assert_eq!(subject.put(register, &proxy).await.ok().json(), true);
    lists(subject, "health/connect/extdb", &["px"]).await;
    for (body, text) in [
        (json!({}), "Must provide node"),
        (json!({"Node": "e"}), "Must provide address if SkipNodeUpdate is not set"),
        (
            json!({"Node": "e", "Address": "1.1.1.1", "Service": {"ID": "x"}}),
            "Must provide service name with ID",
        ),
        (
            json!({"Node": "ext1", "Address": "1.1.1.1", "Check": {"CheckID": "y", "ServiceID": "zz"}}),
            "failed inserting check: Missing service registration on node \"ext1\"",
        ),
        (
            json!({"Node": "ext1", "Address": "1.1.1.1", "Checks": [{"CheckID": "y", "Node": "o"}]}),
            "check node \"o\" does not match node \"ext1\"",
        ),
        (json!({"Datacenter": "zz", "Node": "e", "Address": "1.1.1.1"}), "No path to datacenter"),
    ] {
        let answer = subject.put(register, &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (500, text), "{body}");
    }
    let deregister = "/v1/catalog/deregister";
    for body in [
        json!({"Node": "ext1", "ServiceID": "db1"}),
        json!({"Node": "ext1", "CheckID": "nope"}),
        json!({"Node": "nobody"}),
    ] {
        assert_eq!(subject.put(deregister, &body).await.ok().json(), true);
    }
    lists(subject, "catalog/service/extdb", &[]).await;
    lists(subject, "catalog/service/px", &["px"]).await;
    assert_eq!(subject.put(deregister, &json!({"Node": "ext1"})).await.ok().json(), true);
    assert_eq!(subject.get("/v1/catalog/node/ext1").await.ok().json(), Value::Null);
    assert_eq!(subject.get("/v1/catalog/nodes").await.ok().json().as_array().unwrap().len(), 1);
}

/// What the agent says about itself and its cluster.
pub async fn about(subject: &Subject) {
    let about = subject.get("/v1/agent/self").await.ok().json();
    // Consul's Go client reads every part of it as an object.
    assert!(about.as_object().unwrap().values().all(Value::is_object));
    let config = &about["Config"];
    assert_eq!((&config["Datacenter"], &config["NodeName"]), (&json!("dc1"), &json!("n1")));
    assert_eq!((&config["Version"], &config["Server"]), (&json!("1.8.7"), &json!(true)));
    assert_eq!(about["DebugConfig"]["ACLsEnabled"], false);
    assert_eq!(about["Stats"]["consul"]["leader"], "true");
    let leader = subject.get("/v1/status/leader").await.ok().json();
    assert!(leader.as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(subject.get("/v1/status/peers").await.ok().json(), json!([leader]));
    let members = subject.get("/v1/agent/members?segment=_all").await.ok().json();
    assert_eq!(members[0]["Tags"]["role"], "consul");
    let coordinates = subject.get("/v1/coordinate/nodes").await.ok();
    assert!(coordinates.json().is_array() && coordinates.index() > 0);
    let metrics = subject.get("/v1/agent/metrics").await.ok().json();
    assert!(metrics["Gauges"].is_array() && metrics["Timestamp"].is_string());
}
