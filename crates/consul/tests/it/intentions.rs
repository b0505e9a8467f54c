//! Intentions are written in the way that the agent knows: `exact` from Consul 1.9, by id before.

use std::sync::{Arc, Mutex};

use meshx_core::{Action, Diagnostic, IntentionName};
use serde_json::{Value, json};

use crate::agent::{Agent, Asked, Reply, soon};

/// The store of an agent of 1.8: by id, and `exact` is taken for one (1.8.7, recorded).
fn before_1_9(intentions: &[(&str, &str, &str)]) -> (Agent, Arc<Mutex<Vec<Value>>>) {
    let entries = intentions.iter().enumerate().map(|(number, (source, destination, action))| {
        json!({"ID": format!("00000000-0000-0000-0000-{number:012}"), "SourceName": source,
               "DestinationName": destination, "Action": action})
    });
    let store = Arc::new(Mutex::new(entries.collect::<Vec<_>>()));
    let shared = Arc::clone(&store);
    let agent = Agent::new(move |asked: &Asked| {
        let mut store = shared.lock().unwrap();
        let path = asked.target.split('?').next().unwrap();
        let id = path.strip_prefix("/v1/connect/intentions/");
        match (asked.method.as_str(), id) {
            ("GET", None) => Reply::at(5, json!(*store)),
            ("POST", None) => {
                let mut entry = asked.body.clone();
                entry["ID"] = json!("00000000-0000-0000-0000-000000000099");
                store.push(entry);
                Reply::ok(json!({"ID": "00000000-0000-0000-0000-000000000099"}))
            }
            (_, Some(id)) if id.len() != 36 => Reply::status(
                500,
                "Intention lookup failed: failed intention lookup: index error: \
                 UUID must be 36 characters",
            ),
            ("PUT", Some(id)) => {
                let entry = store.iter_mut().find(|entry| entry["ID"] == id).unwrap();
                *entry = asked.body.clone();
                entry["ID"] = json!(id);
                Reply::ok(json!({"ID": id}))
            }
            ("DELETE", Some(id)) => {
                store.retain(|entry| entry["ID"] != id);
                Reply::ok("true")
            }
            _ => Reply::status(405, ""),
        }
    });
    (agent, store)
}

fn name(text: &str) -> IntentionName {
    text.parse().unwrap()
}

#[tokio::test]
async fn from_1_9_exact_is_all_it_takes() {
    let agent = Agent::new(|_| Reply::ok("true"));
    let (source, destination) = (name("node1@my-host"), name("*"));
    soon(agent.client().put_intention(&source, &destination, Action::Deny)).await.unwrap();
    assert_eq!(
        agent.lines(),
        ["PUT /v1/connect/intentions/exact?source=node1%40my%2Dhost&destination=%2A"]
    );
    assert_eq!(agent.asked()[0].body, json!({"SourceType": "consul", "Action": "deny"}));
}

#[tokio::test]
async fn before_1_9_a_new_pair_is_posted() {
    let (agent, store) = before_1_9(&[("web", "cache", "deny")]);
    soon(agent.client().put_intention(&name("web"), &name("db"), Action::Allow)).await.unwrap();
    let lines = agent.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("PUT /v1/connect/intentions/exact?"));
    assert_eq!(lines[1..], ["GET /v1/connect/intentions", "POST /v1/connect/intentions"]);
    let store = store.lock().unwrap();
    assert_eq!(store.len(), 2);
    assert_eq!(
        (&store[1]["SourceName"], &store[1]["DestinationName"]),
        (&json!("web"), &json!("db"))
    );
    assert_eq!(store[1]["Action"], "allow");
}

#[tokio::test]
async fn before_1_9_a_known_pair_is_replaced() {
    let (agent, store) = before_1_9(&[("*", "db", "allow"), ("web", "db", "allow")]);
    soon(agent.client().put_intention(&name("web"), &name("db"), Action::Deny)).await.unwrap();
    let store = store.lock().unwrap();
    assert_eq!(store.len(), 2, "no second rule for the pair");
    assert_eq!((&store[0]["Action"], &store[1]["Action"]), (&json!("allow"), &json!("deny")));
    assert_eq!(store[1]["SourceName"], "web", "the whole object is replaced, so it must be whole");
}

#[tokio::test]
async fn an_error_of_1_9_is_not_taken_for_1_8() {
    for (status, text) in [
        (403, "Permission denied"),
        (500, "No cluster leader"),
        (400, "Bad request: SourceName: wildcard character '*' cannot be used with partial values"),
        (400, "Invalid intention: Cannot use exact intentions here"),
    ] {
        let agent = Agent::new(move |_| Reply::status(status, text));
        let put = agent.client();
        let error =
            soon(put.put_intention(&name("web"), &name("db"), Action::Deny)).await.unwrap_err();
        assert_eq!(error.status(), Some(status), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.hint().is_some() == (status == 403));
        assert_eq!(agent.lines().len(), 1, "{:?}", agent.lines());
    }
}

#[tokio::test]
async fn a_pair_is_deleted_in_either_way() {
    let (agent, store) = before_1_9(&[("*", "db", "allow"), ("web", "db", "allow")]);
    let client = agent.client();
    assert!(soon(client.delete_intention(&name("web"), &name("db"))).await.unwrap());
    assert_eq!(store.lock().unwrap().len(), 1);
    assert!(!soon(client.delete_intention(&name("web"), &name("db"))).await.unwrap());
    assert!(agent.lines().contains(
        &"DELETE /v1/connect/intentions/00000000-0000-0000-0000-000000000001".to_owned()
    ));

    let agent = Agent::new(|asked| match asked.method.as_str() {
        "GET" => Reply::at(5, json!([{"SourceName": "web", "DestinationName": "db"}])),
        _ => Reply::ok(""),
    });
    assert!(soon(agent.client().delete_intention(&name("web"), &name("db"))).await.unwrap());
    let last = agent.lines().pop().unwrap();
    assert_eq!(last, "DELETE /v1/connect/intentions/exact?source=web&destination=db");
}
