//! Certificates and authorisation.

use std::time::{Duration, Instant, SystemTime};

use meshx_identity::Material;
use meshx_identity::ca::CertificateAuthority;
use serde_json::{Value, json};

use crate::{Answer, Recording, Subject, eventually, like};

const LEAF: &str = "/v1/agent/connect/ca/leaf";
const ROOTS: &str = "/v1/agent/connect/ca/roots";
const CONFIGURATION: &str = "/v1/connect/ca/configuration";

/// Reads a leaf as a sidecar does: chain, key, roots, identity.
fn material(leaf: &Value, roots: &Value) -> Material {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let roots: Vec<String> =
        roots["Roots"].as_array().unwrap().iter().map(|root| text(&root["RootCert"])).collect();
    Material::from_pem(
        &text(&leaf["CertPEM"]),
        &text(&leaf["PrivateKeyPEM"]),
        roots.iter().map(String::as_str),
    )
    .unwrap()
}

async fn leaf(subject: &Subject, service: &str) -> Answer {
    subject.get(&format!("{LEAF}/{service}")).await.ok()
}

/// Roots, leaf and configuration in the recorded shapes.
pub async fn shapes(subject: &Subject) {
    for path in [ROOTS, "/v1/connect/ca/roots"] {
        let roots = subject.get(path).await.ok();
        like(&Recording::load("state/connect_ca_roots").answer, &roots.json()).unwrap();
        assert!(roots.index() > 0);
    }
    let roots = subject.get(ROOTS).await.ok();
    assert!(roots.header("X-Cache").is_some());
    assert_eq!(roots.json()["ActiveRootID"], roots.json()["Roots"][0]["ID"]);
    let echo = leaf(subject, "echo").await;
    let mut recorded = Recording::load("state/connect_ca_leaf_echo").answer;
    recorded["ServiceURI"] = echo.json()["ServiceURI"].clone();
    like(&recorded, &echo.json()).unwrap();
    assert!(echo.index() > 0 && echo.header("X-Cache").is_some());
    let pem = subject.get("/v1/connect/ca/roots?pem=true").await.ok();
    assert_eq!(pem.header("Content-Type"), Some("application/pem-certificate-chain"));
    assert_eq!(pem.body, roots.json()["Roots"][0]["RootCert"].as_str().unwrap());
    let configuration = subject.get(CONFIGURATION).await.ok().json();
    like(&Recording::load("state/connect_ca_configuration").answer, &configuration).unwrap();
}

/// A leaf proves its service and nothing else, for 72 hours, and stays the same.
pub async fn leaves(subject: &Subject) {
    let roots = subject.get(ROOTS).await.ok().json();
    for service in ["web", "node1@my-host", "never-registered"] {
        let answer = leaf(subject, service).await;
        let first = answer.json();
        let material = material(&first, &roots);
        assert_eq!(material.id().to_string(), first["ServiceURI"].as_str().unwrap());
        assert_eq!(material.id().service().as_str(), service);
        assert_eq!(material.id().trust_domain().as_str(), roots["TrustDomain"].as_str().unwrap());
        let now = SystemTime::now();
        let hours = |hours| Duration::from_hours(hours);
        assert!(material.valid_after() <= now && material.valid_after() > now - hours(1));
        assert!(
            material.valid_before() > now + hours(70) && material.valid_before() < now + hours(73)
        );
        assert!(
            first["PrivateKeyPEM"].as_str().unwrap().starts_with("-----BEGIN EC PRIVATE KEY-----")
        );
        let again = leaf(subject, service).await;
        assert_eq!(again.json(), first);
        assert_eq!(again.header("X-Cache"), Some("HIT"));
        let path = format!("{LEAF}/{service}?index={}&wait=400ms", answer.index());
        let waited = subject.get(&path).await.ok();
        assert!(waited.took >= Duration::from_millis(400), "nothing is new");
        assert_eq!(waited.json(), first);
    }
}

/// A rotation: the old root stays trusted, the new leaf leads to both, who waits is told.
pub async fn rotation(subject: &Subject) {
    let old_roots = subject.get(ROOTS).await.ok();
    let old_leaf = leaf(subject, "web").await;
    let domain = old_roots.json()["TrustDomain"].as_str().unwrap().parse().unwrap();
    let new = CertificateAuthority::generate(&domain, 4_711, SystemTime::now()).unwrap();
    let body = json!({"Provider": "consul", "Config": {
        "LeafCertTTL": "72h", "PrivateKey": new.key_pem().as_str(), "RootCert": new.cert_pem(),
    }});
    let waiting = [
        format!("{ROOTS}?index={}&wait=25s", old_roots.index()),
        format!("{LEAF}/web?index={}&wait=25s", old_leaf.index()),
    ];
    let rotate = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        subject.put(CONFIGURATION, &body).await.ok();
    };
    let begun = Instant::now();
    let (roots, new_leaf, ()) =
        tokio::join!(subject.get(&waiting[0]), subject.get(&waiting[1]), rotate);
    let (roots, mut new_leaf) = (roots.ok(), new_leaf.ok());
    // Consul lets leaves follow in their own time, spread over half a minute.
    let patience = Duration::from_secs(if subject.is_consul() { 60 } else { 2 });
    while new_leaf.index() == old_leaf.index() && begun.elapsed() < patience {
        new_leaf = subject.get(&waiting[1]).await.ok();
    }
    assert!(roots.took < Duration::from_secs(10), "{:?}", roots.took);
    assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
    assert!(roots.index() > old_roots.index() && new_leaf.index() > old_leaf.index());
    let list = roots.json();
    assert_eq!(list["ActiveRootID"], new.root_id());
    let all = list["Roots"].as_array().unwrap();
    let (active, retired): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|root| root["Active"] == true);
    assert_eq!((active.len(), retired.len()), (1, 1));
    assert_eq!(active[0]["ID"], new.root_id());
    assert_eq!(retired[0]["ID"], old_roots.json()["ActiveRootID"]);
    assert_eq!(active[0]["IntermediateCerts"].as_array().unwrap().len(), 1);
    let new_leaf = eventually(async || {
        let leaf = leaf(subject, "web").await.json();
        let certificates = leaf["CertPEM"].as_str().unwrap().matches("BEGIN CERT").count();
        if certificates == 2 { Ok(leaf) } else { Err("the leaf has no bridge") }
    })
    .await;
    // Good for who knows both roots, and for who knows one of them.
    for root in list["Roots"].as_array().unwrap() {
        material(&new_leaf, &json!({"Roots": [root]}));
    }
    material(&new_leaf, &list);
    let configuration = subject.get(CONFIGURATION).await.ok().json();
    if !subject.is_consul() {
        assert!(!configuration.to_string().contains("PRIVATE"), "keys are not told");
    }
}

/// Configurations that are refused.
pub async fn configuration(subject: &Subject) {
    let before = subject.get(ROOTS).await.ok().json();
    for (body, status, text) in [
        (
            json!({"Provider": "zz"}),
            500,
            "could not initialize provider: unknown CA provider \"zz\"",
        ),
        (
            json!({"Provider": "consul", "Config": {"LeafCertTTL": "1m"}}),
            500,
            "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s",
        ),
        (json!(""), 400, "Bad request: Request decode failed: EOF"),
    ] {
        let answer = subject.put(CONFIGURATION, &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{body}");
    }
    let shorter = json!({"Provider": "consul", "Config": {"LeafCertTTL": "24h"}});
    subject.put(CONFIGURATION, &shorter).await.ok();
    assert_eq!(
        subject.get(CONFIGURATION).await.ok().json()["Config"],
        json!({"LeafCertTTL": "24h"})
    );
    assert_eq!(
        subject.get(ROOTS).await.ok().json(),
        before,
        "a configuration without a key rotates nothing"
    );
}

/// The verdict on a connection, with its reason.
pub async fn authorize(subject: &Subject) {
    let ask = async |target: &str, uri: &str| {
        let body = json!({"Target": target, "ClientCertURI": uri, "ClientCertSerial": "04"});
        subject.ask("POST", "/v1/agent/connect/authorize", Some(&body)).await
    };
    // Trust comes from the chain: the domain of the URI is not looked at.
    let uri = |service: &str| format!("spiffe://other.consul/ns/default/dc/dc1/svc/{service}");
    let default =
        json!({"Authorized": true, "Reason": "ACLs disabled, access is allowed by default"});
    let answer = ask("db", &uri("web")).await.ok();
    assert_eq!(answer.json(), default);
    assert!(answer.header("X-Cache").is_some());
    for (source, action, authorized) in [("web", "allow", true), ("*", "deny", false)] {
        let body = json!({"SourceName": source, "DestinationName": "db", "Action": action});
        let id = subject.ask("POST", "/v1/connect/intentions", Some(&body)).await.ok().json();
        let id = id["ID"].as_str().unwrap();
        let caller = if source == "*" { "other" } else { source };
        let precedence = if source == "*" { 8 } else { 9 };
        let reason = format!(
            "Matched intention: {} default/{source} => default/db (ID: {id}, Precedence: {precedence})",
            action.to_uppercase()
        );
        eventually(async || {
            let answer = ask("db", &uri(caller)).await.ok();
            like(&json!({"Authorized": authorized, "Reason": reason}), &answer.json())
        })
        .await;
    }
    for (uri, text) in [
        ("https://foo", "Bad request: ClientCertURI not a valid Connect identifier"),
        ("", "Bad request: ClientCertURI not a valid Connect identifier"),
        (
            "spiffe://x.consul/ns/default/dc/dc1/svc/a/b",
            "Bad request: ClientCertURI not a valid Connect identifier",
        ),
        ("spiffe://x.consul", "Bad request: ClientCertURI not a valid Service identifier"),
        (
            "spiffe://x.consul/agent/client/dc/dc1/id/n",
            "Bad request: ClientCertURI not a valid Service identifier",
        ),
    ] {
        let answer = ask("db", uri).await;
        assert_eq!((answer.status, answer.body.as_str()), (400, text), "{uri}");
    }
}
