//! Refusals in Consul's words.

use serde_json::{Value, json};

use crate::{Recording, Subject};

/// Everything recorded that needs nothing to be there before.
pub async fn are_as_recorded(subject: &Subject) {
    let mut wrong = Vec::new();
    for recording in Recording::of_errors() {
        // The embedded agent knows this kind of entry, as Consul from 1.9 does.
        if recording.name == "config_intentions_187" && !subject.is_consul() {
            continue;
        }
        let answer = recording.replay(subject).await;
        if let Err(error) = recording.matches(&answer) {
            wrong.push(error);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What each path takes, in `Allow` and in the refusal.
pub async fn methods(subject: &Subject) {
    for (path, allowed) in [
        ("agent/self", "GET"),
        ("agent/services", "GET"),
        ("agent/service/x", "GET"),
        ("agent/service/register", "PUT"),
        ("agent/service/deregister/x", "PUT"),
        ("agent/service/maintenance/x", "PUT"),
        ("agent/checks", "GET"),
        ("agent/check/register", "PUT"),
        ("agent/check/pass/x", "PUT"),
        ("agent/check/update/x", "PUT"),
        ("agent/maintenance", "PUT"),
        ("agent/members", "GET"),
        ("agent/health/service/id/x", "GET"),
        ("agent/connect/authorize", "POST"),
        ("agent/connect/ca/roots", "GET"),
        ("agent/connect/ca/leaf/x", "GET"),
        ("connect/ca/roots", "GET"),
        ("connect/ca/configuration", "GET,PUT"),
        ("connect/intentions", "GET,POST"),
        ("connect/intentions/match", "GET"),
        ("connect/intentions/check", "GET"),
        ("connect/intentions/xx", "GET,PUT,DELETE"),
        ("health/service/x", "GET"),
        ("health/connect/x", "GET"),
        ("health/state/any", "GET"),
        ("catalog/services", "GET"),
        ("catalog/register", "PUT"),
        ("catalog/deregister", "PUT"),
        ("status/leader", "GET"),
    ] {
        let path = format!("/v1/{path}");
        let allowed = format!("OPTIONS,{allowed}");
        let options = subject.ask("OPTIONS", &path, None).await;
        assert_eq!(
            (options.status, options.header("Allow")),
            (200, Some(allowed.as_str())),
            "{path}"
        );
        let head = subject.ask("HEAD", &path, None).await;
        assert_eq!((head.status, head.header("Allow")), (405, Some(allowed.as_str())), "{path}");
        let patch = subject.ask("PATCH", &path, None).await;
        assert_eq!(
            (patch.status, patch.body.as_str()),
            (405, "method PATCH not allowed"),
            "{path}"
        );
    }
}

/// Names that are missing from a path.
pub async fn missing_names(subject: &Subject) {
    for (path, status, text) in [
        ("agent/service/", 404, "unknown service ID: "),
        ("health/service/", 400, "Missing service name"),
        ("health/connect/", 400, "Missing service name"),
        ("health/checks/", 400, "Missing service name"),
        ("health/node/", 400, "Missing node name"),
        ("health/state/", 400, "Missing check state"),
        ("catalog/service/", 400, "Missing service name"),
        ("catalog/node/", 400, "Missing node name"),
        ("agent/health/service/id/", 500, "Bad request: Missing serviceID"),
        ("agent/health/service/name/", 500, "Bad request: Missing service Name"),
        ("agent/connect/ca/leaf/", 500, "URI must be either service or agent"),
        ("agent/self/", 404, ""),
    ] {
        let answer = subject.get(&format!("/v1/{path}")).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{path}");
    }
    let nothing = subject.ask("PUT", "/v1/agent/service/deregister/", None).await;
    assert_eq!((nothing.status, nothing.body.as_str()), (500, "ServiceID missing"));
}

/// Registrations that Consul refuses, and how.
pub async fn registrations(subject: &Subject) {
    let proxy = |rest: Value| {
        let mut service = json!({"Name": "p", "Kind": "connect-proxy", "Port": 5});
        service["Proxy"] = rest;
        service
    };
    let upstream = |rest: Value| proxy(json!({"DestinationServiceName": "q", "Upstreams": rest}));
    let sidecar = |rest: Value| json!({"Name": "s", "Connect": {"SidecarService": rest}});
    let check = |rest: Value| json!({"Name": "c", "Check": rest});
    let one = |problem: &str| format!("1 error occurred:\n\t* {problem}\n\n");
    let unknown = || "Request decode failed: json: unknown field \"Bogus\"".to_owned();
    let cases: Vec<(Value, u16, String)> = vec![
        (json!({"Name": "x", "Bogus": 1}), 400, unknown()),
        (check(json!({"TTL": "5s", "Bogus": 1})), 400, unknown()),
        (sidecar(json!({"Bogus": 1})), 400, unknown()),
        (sidecar(json!({"Proxy": {"Bogus": 1}})), 400, unknown()),
        (upstream(json!([{"Bogus": 1}])), 400, unknown()),
        (json!({"Name": "x", "Weights": {"Bogus": 1}}), 400, unknown()),
        (
            check(json!({"TTL": "abc"})),
            400,
            "Request decode failed: time: invalid duration \"abc\"".into(),
        ),
        (check(json!({"TTL": "-5s"})), 400, "Invalid check: TTL must be > 0 for TTL checks".into()),
        (
            check(json!({"TTL": "5s", "TCP": "a:1", "Interval": "5s"})),
            400,
            "Invalid check: Interval and TTL cannot both be specified".into(),
        ),
        (
            json!({"Name": "x", "Checks": [{}]}),
            400,
            "Invalid check: TTL must be > 0 for TTL checks".into(),
        ),
        (
            check(json!({"TTL": "5s", "Status": "green"})),
            400,
            "Status for checks must 'passing', 'warning', 'critical'".into(),
        ),
        (
            check(json!({"ScriptArgs": ["true"], "Interval": "10s"})),
            500,
            "Scripts are disabled on this agent from remote calls; to enable, configure \
             'enable_script_checks' to true"
                .into(),
        ),
        (
            sidecar(json!({"ID": "o"})),
            400,
            one("A SidecarService cannot specify an ID as this is managed by the agent"),
        ),
        (
            sidecar(json!({"Connect": {"SidecarService": {}}})),
            400,
            one("A SidecarService cannot have a nested SidecarService"),
        ),
        (
            json!({"Name": "p", "Kind": "connect-proxy"}),
            400,
            "2 errors occurred:\n\t* Proxy.DestinationServiceName must be non-empty for Connect \
             proxy services\n\t* Port must be set for a Connect proxy\n\n"
                .into(),
        ),
        (upstream(json!([{}])), 400, one("upstream destination name cannot be empty")),
        (
            upstream(json!([{"DestinationName": "a"}])),
            400,
            one("upstream local bind port cannot be zero"),
        ),
        (
            upstream(
                json!([{"DestinationName": "a", "LocalBindPort": 3, "DestinationType": "zz"}]),
            ),
            400,
            one("unknown upstream destination type: \"zz\""),
        ),
        (
            upstream(json!([
                {"DestinationName": "a", "LocalBindPort": 3},
                {"DestinationName": "b", "LocalBindPort": 3},
            ])),
            400,
            one("upstreams cannot contain duplicates by local bind address and port; \
                 \"127.0.0.1:3\" is specified twice"),
        ),
        (json!({"Name": "x", "Address": "0.0.0.0"}), 400, "Invalid service address".into()),
        (
            json!({"Name": "x", "Weights": {"Passing": 0}}),
            400,
            "Invalid Weights: Passing must be greater than 0".into(),
        ),
        (
            json!({"Name": "x", "Meta": {"bad key!": "v"}}),
            400,
            "Invalid Service Meta: Couldn't load metadata pair ('bad key!', 'v'): Key contains \
             invalid characters"
                .into(),
        ),
    ];
    for (body, status, text) in cases {
        let answer = subject.put("/v1/agent/service/register", &body).await;
        assert_eq!((answer.status, answer.body), (status, text), "{body}");
    }
    assert_eq!(subject.get("/v1/agent/services").await.json(), json!({}), "nothing was registered");
}
