//! Blocking queries: when they wait, when they wake, what they say.

use std::time::Duration;

use serde_json::json;

use crate::{Subject, eventually};

const MS: Duration = Duration::from_millis(1);

/// Registers `a` with a passing check and waits until the catalog knows.
async fn with_a(subject: &Subject) {
    subject.register(&json!({"Name": "a", "Check": {"TTL": "60s", "Status": "passing"}})).await;
    eventually(async || {
        let body = subject.get("/v1/health/service/a?passing").await.ok().body;
        if body.trim() == "[]" { Err("not there") } else { Ok(()) }
    })
    .await;
}

/// Waits as long as it was told, and not where there is nothing to wait for.
pub async fn time_out(subject: &Subject) {
    with_a(subject).await;
    let query =
        async |rest: String| subject.get(&format!("/v1/health/service/a?{rest}")).await.ok();
    let index = query(String::new()).await.index();
    for index in [0, index - 1] {
        let answer = query(format!("index={index}&wait=10s")).await;
        assert!(answer.took < 2_000 * MS, "{index} is old: {:?}", answer.took);
    }
    for index in [index, index + 1_000_000] {
        let answer = query(format!("index={index}&wait=480ms")).await;
        assert!(answer.took >= 480 * MS && answer.took < 1_500 * MS, "{:?}", answer.took);
        assert!(answer.index() <= index, "nothing changed");
        assert_ne!(answer.body.trim(), "[]", "an answer that did not change is an answer");
    }
}

/// Wakes on a change of its own result, within a moment.
pub async fn wake(subject: &Subject) {
    with_a(subject).await;
    let index = subject.get("/v1/health/service/a").await.ok().index();
    let path = format!("/v1/health/service/a?index={index}&wait=20s");
    let change = async {
        tokio::time::sleep(100 * MS).await;
        subject.ask("PUT", "/v1/agent/check/fail/service:a", None).await.ok();
    };
    let (woken, ()) = tokio::join!(subject.get(&path), change);
    assert!(woken.took >= 100 * MS && woken.took < 3_000 * MS, "{:?}", woken.took);
    assert!(woken.ok().index() > index);
}

/// Sleeps through writes that do not change its result.
pub async fn sleep_on(subject: &Subject) {
    with_a(subject).await;
    tokio::time::sleep(300 * MS).await;
    for path in [
        "health/service/a",
        "health/connect/a",
        "health/service/nobody",
        "catalog/service/a",
        "catalog/nodes",
        "connect/intentions",
        "agent/connect/ca/roots",
        "connect/ca/roots",
    ] {
        // As long as no service ever went, Consul wakes who waits for one that is not there.
        if path.ends_with("nobody") && subject.is_consul() {
            continue;
        }
        let index = subject.get(&format!("/v1/{path}")).await.ok().index();
        let path = format!("/v1/{path}?index={index}&wait=600ms");
        let noise = async {
            tokio::time::sleep(100 * MS).await;
            subject
                .register(
                    &json!({"Name": "noise", "Port": index % 60_000, "Check": {"TTL": "60s"}}),
                )
                .await;
            subject.pass("service:noise").await;
            subject.pass("service:a?note=still+well").await;
        };
        let (slept, ()) = tokio::join!(subject.get(&path), noise);
        assert!(slept.took >= 600 * MS, "{path} woke after {:?}", slept.took);
    }
}

/// Lists wake on what they list.
pub async fn lists_wake(subject: &Subject) {
    with_a(subject).await;
    tokio::time::sleep(300 * MS).await;
    for (number, path) in
        ["catalog/services", "catalog/node/n1", "health/state/any", "health/node/n1"]
            .into_iter()
            .enumerate()
    {
        let index = subject.get(&format!("/v1/{path}")).await.ok().index();
        let path = format!("/v1/{path}?index={index}&wait=20s");
        let change = async {
            tokio::time::sleep(100 * MS).await;
            subject
                .register(&json!({"Name": format!("new{number}"), "Check": {"TTL": "60s"}}))
                .await;
        };
        let (woken, ()) = tokio::join!(subject.get(&path), change);
        assert!(woken.took >= 100 * MS && woken.took < 3_000 * MS, "{path}: {:?}", woken.took);
        assert!(woken.ok().index() > index);
    }
}

/// The intentions wake who waits for them.
pub async fn intentions_wake(subject: &Subject) {
    let list = "/v1/connect/intentions";
    let index = subject.get(list).await.ok().index();
    assert!(index > 0);
    let path = format!("{list}?index={index}&wait=20s");
    let change = async {
        tokio::time::sleep(100 * MS).await;
        let body = json!({"SourceName": "a", "DestinationName": "b", "Action": "deny"});
        subject.ask("POST", list, Some(&body)).await.ok();
    };
    let (woken, ()) = tokio::join!(subject.get(&path), change);
    assert!(woken.took < 3_000 * MS);
    assert_eq!(woken.json().as_array().unwrap().len(), 1);
    assert!(woken.index() > index);
}

/// The index of a result set only rises, whatever comes and goes.
pub async fn indexes_rise(subject: &Subject) {
    let mut last = 0;
    for round in 0..3 {
        with_a(subject).await;
        let index = subject.get("/v1/health/service/a").await.ok().index();
        assert!(index > last, "round {round}: {index} after {last}");
        last = index;
        subject.ask("PUT", "/v1/agent/service/deregister/a", None).await.ok();
        let gone = eventually(async || {
            let answer = subject.get("/v1/health/service/a").await.ok();
            if answer.body.trim() == "[]" { Ok(answer) } else { Err("still there") }
        })
        .await;
        assert!(gone.index() > last, "round {round}: {} after {last}", gone.index());
        last = gone.index();
    }
}
