//! Checks: TTL, probes, aliases, maintenance, the health of local services.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Subject, ask_with, eventually};

async fn check(subject: &Subject, id: &str) -> Value {
    subject.get("/v1/agent/checks").await.ok().json()[id].clone()
}

/// Waits until a check has this state and its output begins so.
async fn turns(subject: &Subject, id: &str, status: &str, output: &str) {
    eventually(async || {
        let check = check(subject, id).await;
        let says = check["Output"].as_str().is_some_and(|text| text.starts_with(output));
        if check["Status"] == status && says { Ok(()) } else { Err(check.to_string()) }
    })
    .await;
}

/// A TTL check and its owner.
pub async fn ttl(subject: &Subject) {
    subject.register(&json!({"Name": "a", "Check": {"TTL": "700ms", "Notes": "n"}})).await;
    let first = check(subject, "service:a").await;
    assert_eq!((&first["Status"], &first["Type"]), (&json!("critical"), &json!("ttl")));
    assert_eq!((&first["Name"], &first["Notes"]), (&json!("Service 'a' check"), &json!("n")));
    for (verb, status) in [("pass", "passing"), ("warn", "warning"), ("fail", "critical")] {
        let path = format!("/v1/agent/check/{verb}/service:a?note=so+{verb}");
        subject.ask("PUT", &path, None).await.ok();
        let check = check(subject, "service:a").await;
        assert_eq!(
            (&check["Status"], &check["Output"]),
            (&json!(status), &json!(format!("so {verb}")))
        );
    }
    let update = json!({"Status": "passing", "Output": "all well"});
    subject.put("/v1/agent/check/update/service:a", &update).await.ok();
    assert_eq!(check(subject, "service:a").await["Output"], "all well");
    let expired = "TTL expired (last output before timeout follows): all well";
    turns(subject, "service:a", "critical", expired).await;
    let update = json!({"Status": "green"});
    let refused = subject.put("/v1/agent/check/update/service:a", &update).await;
    assert_eq!((refused.status, refused.body.as_str()), (400, "Invalid check status: 'green'"));
    let long = json!({"Status": "warning", "Output": "z".repeat(5_000)});
    subject.put("/v1/agent/check/update/service:a", &long).await.ok();
    let output = check(subject, "service:a").await["Output"].as_str().unwrap().to_owned();
    assert!(output.ends_with("z ... (captured 4096 of 5000 bytes)"), "{}", output.len());
}

/// Checks of their own, of the node and of a service.
pub async fn registration(subject: &Subject) {
    subject.register(&json!({"Name": "a", "Tags": ["t"]})).await;
    let register = "/v1/agent/check/register";
    let of_node = json!({"Name": "mem", "TTL": "30s", "Status": "passing"});
    subject.put(register, &of_node).await.ok();
    subject
        .put(register, &json!({"ID": "x", "Name": "X", "TTL": "30s", "ServiceID": "a"}))
        .await
        .ok();
    let node = check(subject, "mem").await;
    assert_eq!((&node["ServiceID"], &node["Status"]), (&json!(""), &json!("passing")));
    let own = check(subject, "x").await;
    assert_eq!((&own["ServiceName"], &own["ServiceTags"]), (&json!("a"), &json!(["t"])));
    for (body, status, text) in [
        (json!({}), 400, "Missing check name"),
        (json!({"Name": "c"}), 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (json!({"Name": "c", "TTL": "5s", "Status": "blue"}), 400, "Bad check status"),
        (
            json!({"Name": "c", "TTL": "5s", "ServiceID": "zz"}),
            500,
            "ServiceID \"zz\" does not exist",
        ),
    ] {
        let answer = subject.put(register, &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{body}");
    }
    // A check of the node is part of the health of every instance on it.
    subject.ask("PUT", "/v1/agent/check/fail/mem", None).await.ok();
    eventually(async || {
        let body = subject.get("/v1/health/service/a?passing").await.ok().body;
        if body.trim() == "[]" { Ok(()) } else { Err(body) }
    })
    .await;
    subject.ask("PUT", "/v1/agent/check/deregister/mem", None).await.ok();
    assert!(check(subject, "mem").await.is_null());
}

/// Probes of TCP and HTTP, in both states.
pub async fn probes(subject: &Subject) {
    let listener = meshx_rt::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let open = listener.local_addr().unwrap();
    let web = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0; 1_024]).await;
            let answer = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nbusy";
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    let closed = meshx_rt::net::free_port().unwrap();
    let http = subject.http;
    let register = async |name: &str, kind: &str, target: String| {
        let mut body = json!({"Name": name, "Interval": "1s", "Timeout": "1s"});
        body[kind] = target.into();
        subject.put("/v1/agent/check/register", &body).await.ok();
    };
    register("t1", "TCP", open.to_string()).await;
    register("t2", "TCP", format!("127.0.0.1:{closed}")).await;
    register("h1", "HTTP", format!("http://{http}/v1/status/leader")).await;
    register("h2", "HTTP", format!("http://{http}/nope")).await;
    register("h3", "HTTP", format!("http://{open}/")).await;
    register("h4", "HTTP", format!("http://127.0.0.1:{closed}/")).await;
    turns(subject, "t1", "passing", &format!("TCP connect {open}: Success")).await;
    let refused = format!("dial tcp 127.0.0.1:{closed}: connect: connection refused");
    turns(subject, "t2", "critical", &refused).await;
    let ok = format!("HTTP GET http://{http}/v1/status/leader: 200 OK Output: \"127.0.0.1:");
    turns(subject, "h1", "passing", &ok).await;
    turns(
        subject,
        "h2",
        "critical",
        &format!("HTTP GET http://{http}/nope: 404 Not Found Output: "),
    )
    .await;
    let busy = format!("HTTP GET http://{open}/: 429 Too Many Requests Output: busy");
    turns(subject, "h3", "warning", &busy).await;
    turns(subject, "h4", "critical", "").await;
    web.abort();
}

/// A sidecar is passing soon after it listens; its alias follows its parent.
pub async fn sidecar(subject: &Subject) {
    let port = meshx_rt::net::free_port().unwrap();
    subject
        .register(&json!({
            "Name": "a", "Check": {"TTL": "60s"}, "Connect": {"SidecarService": {"Port": port}},
        }))
        .await;
    let alias = "service:a-sidecar-proxy:2";
    turns(subject, alias, "critical", "Aliased check \"Service 'a' check\" failing: ").await;
    subject.pass("service:a").await;
    turns(subject, alias, "passing", "All checks passing.").await;
    // Consul looks again only after its interval of ten seconds; the embedded agent at once.
    if !subject.is_consul() {
        turns(subject, "service:a-sidecar-proxy:1", "critical", "dial tcp").await;
    }
    let listener = meshx_rt::net::listen(([127, 0, 0, 1], port).into()).unwrap();
    let wait = if subject.is_consul() { Duration::from_secs(12) } else { Duration::from_secs(2) };
    let end = tokio::time::Instant::now() + wait;
    while subject.get("/v1/health/connect/a?passing").await.body.trim() == "[]" {
        assert!(tokio::time::Instant::now() < end, "the sidecar is not passing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(listener);
}

/// Maintenance of a service and of the node.
pub async fn maintenance(subject: &Subject) {
    subject.register(&json!({"Name": "a", "Check": {"TTL": "60s", "Status": "passing"}})).await;
    let put = async |path: &str| subject.ask("PUT", &format!("/v1/agent/{path}"), None).await;
    let health = async || {
        let answer = subject.get("/v1/agent/health/service/id/a?format=text").await;
        (answer.status, answer.body)
    };
    assert_eq!(health().await, (200, "passing".to_owned()));
    put("service/maintenance/a?enable=true&reason=up+grade").await.ok();
    let check = check(subject, "_service_maintenance:a").await;
    assert_eq!(
        (&check["Name"], &check["Notes"]),
        (&json!("Service Maintenance Mode"), &json!("up grade"))
    );
    assert_eq!((&check["Type"], &check["Status"]), (&json!("maintenance"), &json!("critical")));
    assert_eq!(health().await, (503, "maintenance".to_owned()));
    put("service/maintenance/a?enable=false").await.ok();
    assert_eq!(health().await, (200, "passing".to_owned()));
    put("maintenance?enable=true").await.ok();
    assert_eq!(health().await, (503, "maintenance".to_owned()));
    put("maintenance?enable=false").await.ok();
    put("maintenance?enable=false").await.ok();
    assert_eq!(health().await, (200, "passing".to_owned()));
    for (path, status, text) in [
        ("service/maintenance/a", 400, "Missing value for enable"),
        ("service/maintenance/a?enable=zz", 400, "Invalid value for enable: \"zz\""),
        ("service/maintenance/?enable=true", 400, "Missing service ID"),
        ("service/maintenance/zz?enable=true", 404, "No service registered with ID \"zz\""),
    ] {
        let answer = put(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{path}");
    }
}

/// The health of local services: codes, words, both forms.
pub async fn local_health(subject: &Subject) {
    let register = async |id: &str, status: &str| {
        let check = json!({"TTL": "60s", "Status": status});
        subject.register(&json!({"Name": "a", "ID": id, "Check": check})).await;
    };
    for (id, status, code) in [("p", "passing", 200), ("w", "warning", 429), ("c", "critical", 503)]
    {
        register(id, status).await;
        let answer = subject.get(&format!("/v1/agent/health/service/id/{id}")).await;
        assert_eq!((answer.status, answer.header("X-Consul-Reason")), (code, Some(status)));
        assert_eq!(answer.json()["AggregatedStatus"], status);
        assert_eq!(answer.json()["Service"]["ID"], id);
        // The worst instance speaks for the name.
        let all = subject.get("/v1/agent/health/service/name/a").await;
        assert_eq!((all.status, all.header("X-Consul-Reason")), (code, Some(status)));
        let path = format!("/v1/agent/health/service/id/{id}");
        let text = ask_with(subject.http, "GET", &path, &[("Accept", "text/plain")], None).await;
        assert_eq!((text.status, text.body.as_str()), (code, status));
    }
    assert_eq!(
        subject.get("/v1/agent/health/service/name/a").await.json().as_array().unwrap().len(),
        3
    );
    let unknown = subject.get("/v1/agent/health/service/name/zz").await;
    assert_eq!(
        (unknown.status, unknown.header("X-Consul-Reason")),
        (404, Some("ServiceName zz Not Found"))
    );
}
