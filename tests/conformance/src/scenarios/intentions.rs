//! Intentions: made, changed, judged.

use serde_json::{Value, json};

use crate::{Recording, Subject, like};

const LIST: &str = "/v1/connect/intentions";

async fn create(subject: &Subject, source: &str, destination: &str, action: &str) -> String {
    let body = json!({"SourceName": source, "DestinationName": destination, "Action": action});
    let answer = subject.ask("POST", LIST, Some(&body)).await.ok();
    answer.json()["ID"].as_str().unwrap().to_owned()
}

async fn allowed(subject: &Subject, source: &str, destination: &str) -> Value {
    let path = format!("{LIST}/check?source={source}&destination={destination}");
    subject.get(&path).await.ok().json()["Allowed"].clone()
}

/// The recorded life of two intentions.
pub async fn as_recorded(subject: &Subject) {
    let request = Recording::load("state/intention_create").body.unwrap();
    let created = subject.ask("POST", LIST, Some(&request)).await.ok().json();
    let id = created["ID"].as_str().unwrap();
    let one = subject.get(&format!("{LIST}/{id}")).await.ok();
    like(&Recording::load("state/intention_get").answer, &one.json()).unwrap();
    let deny = json!({
        "SourceName": "web", "DestinationName": "echo", "SourceType": "consul", "Action": "deny",
    });
    assert_eq!(subject.put(&format!("{LIST}/{id}"), &deny).await.ok().json(), created);
    let wild = create(subject, "*", "*", "deny").await;
    let list = subject.get(LIST).await.ok();
    like(&Recording::load("state/intention_list").answer, &list.json()).unwrap();
    assert_eq!(list.header("X-Consul-KnownLeader"), Some("true"));
    let all = list.json();
    assert_eq!(all[0]["CreatedAt"], one.json()["CreatedAt"], "a change keeps the beginning");
    assert_ne!(all[0]["UpdatedAt"], one.json()["UpdatedAt"]);
    assert_ne!(all[0]["Hash"], one.json()["Hash"]);
    let matches =
        subject.get(&format!("{LIST}/match?by=destination&name=echo&name=web")).await.ok();
    assert_eq!(matches.json(), json!({"echo": all, "web": [all[1]]}));
    let matches = subject.get(&format!("{LIST}/match?by=source&name=web")).await.ok();
    assert_eq!(matches.json(), json!({"web": all}));
    let duplicate = subject.ask("POST", LIST, Some(&deny)).await;
    let text = format!(
        "duplicate intention found: DENY default/web => default/echo (ID: {id}, Precedence: 9)"
    );
    assert_eq!((duplicate.status, duplicate.body), (500, text));
    for id in [id, &wild] {
        let gone = subject.ask("DELETE", &format!("{LIST}/{id}"), None).await.ok();
        assert_eq!(gone.json(), true);
    }
    assert_eq!(subject.get(LIST).await.ok().json(), json!([]));
}

/// The most precise intention decides.
pub async fn precedence(subject: &Subject) {
    assert_eq!(allowed(subject, "web", "db").await, true, "allow by default");
    create(subject, "*", "*", "deny").await;
    assert_eq!(allowed(subject, "web", "db").await, false);
    create(subject, "web", "*", "allow").await;
    assert_eq!(allowed(subject, "web", "db").await, true);
    create(subject, "*", "db", "deny").await;
    assert_eq!(allowed(subject, "web", "db").await, false);
    create(subject, "web", "db", "allow").await;
    assert_eq!(allowed(subject, "web", "db").await, true);
    assert_eq!(allowed(subject, "db", "web").await, false, "an intention has a direction");
    assert_eq!(allowed(subject, "*", "db").await, false);
    let list = subject.get(LIST).await.ok().json();
    let precedence: Vec<&Value> =
        list.as_array().unwrap().iter().map(|intention| &intention["Precedence"]).collect();
    assert_eq!(precedence, [9, 8, 6, 5]);
}

/// Names of Erlang nodes.
pub async fn erlang_nodes(subject: &Subject) {
    create(subject, "node2@h", "node1@h", "deny").await;
    for (source, destination) in [("node2@h", "node1@h"), ("node2%40h", "node1%40h")] {
        assert_eq!(allowed(subject, source, destination).await, false);
        assert_eq!(allowed(subject, destination, source).await, true);
        let path = format!("{LIST}/match?by=destination&name={destination}");
        assert_eq!(subject.get(&path).await.ok().json()["node1@h"][0]["Action"], "deny");
    }
}

/// What is refused, and how.
pub async fn refusals(subject: &Subject) {
    let one = |problem: &str| format!("1 error occurred:\n\t* {problem}\n\n");
    for (body, text) in [
        (
            json!({"Action": "allow"}),
            "2 errors occurred:\n\t* SourceName must be set\n\t* DestinationName must be set\n\n"
                .to_owned(),
        ),
        (
            json!({"SourceName": "a", "DestinationName": "b*", "Action": "allow"}),
            one("DestinationName: wildcard character '*' cannot be used with partial values"),
        ),
        (
            json!({"SourceName": "a", "DestinationName": "b", "SourceType": "zz", "Action": "allow"}),
            one("SourceType must be set to 'consul'"),
        ),
        (
            json!({"SourceName": "a", "DestinationName": "b", "Action": "ALLOW"}),
            one("Action must be set to 'allow' or 'deny'"),
        ),
        (
            json!({"SourceName": "a", "DestinationName": "b", "Action": "deny", "Description": "x".repeat(513)}),
            one("Description exceeds maximum length 512"),
        ),
        (
            json!({"SourceName": "a", "DestinationName": "b", "Action": "deny",
                   "ID": "8f246b77-f3e1-ff88-5b48-8ec93abf3e05"}),
            "ID must be empty when creating a new intention".to_owned(),
        ),
        (
            json!({"source_name": "a"}),
            "Failed to decode request body: json: unknown field \"source_name\"".to_owned(),
        ),
        (json!(""), "Failed to decode request body: EOF".to_owned()),
    ] {
        let answer = subject.ask("POST", LIST, Some(&body)).await;
        assert_eq!((answer.status, answer.body), (500, text), "{body}");
    }
    for (path, text) in [
        ("match", "required query parameter 'by' not set"),
        ("match?by=foo&name=a", "'by' parameter must be one of 'source' or 'destination'"),
        ("match?by=source", "required query parameter 'name' not set"),
        ("check?destination=a", "required query parameter 'source' not set"),
        ("check?source=a&destination=b&source-type=foo", "unsupported SourceType: \"foo\""),
    ] {
        let answer = subject.get(&format!("{LIST}/{path}")).await;
        assert_eq!((answer.status, answer.body.as_str()), (500, text), "{path}");
    }
    let none = subject.get(&format!("{LIST}/match?by=source&name=a")).await.ok();
    assert_eq!(none.json(), json!({"a": null}));
    let text =
        "Intention lookup failed: failed intention lookup: index error: UUID must be 36 characters";
    let short = subject.ask("DELETE", &format!("{LIST}/xyz"), None).await;
    assert_eq!((short.status, short.body.as_str()), (500, text));
    assert_eq!(subject.get(LIST).await.ok().json(), json!([]));
}

/// `exact` of Consul 1.9. Consul 1.8 takes it for an id: how clients tell the two apart.
pub async fn exact(subject: &Subject) {
    let pair = format!("{LIST}/exact?source=web&destination=db");
    let allow = json!({"SourceType": "consul", "Action": "allow", "Description": "d"});
    if subject.is_consul() {
        let answer = subject.put(&pair, &allow).await;
        assert!(answer.status == 500 && answer.body.contains("UUID must be 36 characters"));
        return;
    }
    assert_eq!(subject.get(&pair).await.status, 404);
    assert_eq!(subject.put(&pair, &allow).await.ok().json(), true);
    let first = subject.get(&pair).await.ok().json();
    assert_eq!((&first["Action"], &first["Precedence"]), (&json!("allow"), &json!(9)));
    let deny = json!({"SourceType": "consul", "Action": "deny"});
    assert_eq!(subject.put(&pair, &deny).await.ok().json(), true);
    let second = subject.get(&pair).await.ok().json();
    assert_eq!((&second["Action"], &second["ID"]), (&json!("deny"), &first["ID"]));
    assert_eq!(subject.get(LIST).await.ok().json(), json!([second]), "one store, both forms");
    assert_eq!(allowed(subject, "web", "db").await, false);
    for _ in 0..2 {
        assert_eq!(subject.ask("DELETE", &pair, None).await.ok().json(), true);
    }
    assert_eq!(subject.get(LIST).await.ok().json(), json!([]));
    assert_eq!(subject.get(&format!("{LIST}/exact?source=web")).await.status, 400);
}

/// `service-intentions` of Consul 1.9: the sources of one destination, as a whole.
pub async fn config_entries(subject: &Subject) {
    let entry = json!({"Kind": "service-intentions", "Name": "db", "Sources": [
        {"Name": "web", "Action": "allow"}, {"Name": "*", "Action": "deny"},
    ]});
    let answer = subject.put("/v1/config", &entry).await;
    if subject.is_consul() {
        let text =
            "Bad request: Request decoding failed: invalid config entry kind: service-intentions";
        assert_eq!((answer.status, answer.body.as_str()), (400, text));
        return;
    }
    assert_eq!(answer.ok().json(), true);
    assert_eq!(subject.get(LIST).await.ok().json().as_array().unwrap().len(), 2);
    let path = "/v1/config/service-intentions/db";
    let sources = subject.get(path).await.ok().json()["Sources"].clone();
    assert_eq!((&sources[0]["Name"], &sources[1]["Precedence"]), (&json!("web"), &json!(8)));
    let fewer = json!({"Kind": "service-intentions", "Name": "db", "Sources": [
        {"Name": "*", "Action": "allow"},
    ]});
    subject.put("/v1/config", &fewer).await.ok();
    let list = subject.get(LIST).await.ok().json();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["Action"]), (1, &json!("allow")));
    subject.ask("DELETE", path, None).await.ok();
    assert_eq!(subject.get(path).await.status, 404);
    assert_eq!(subject.get(LIST).await.ok().json(), json!([]));
}
