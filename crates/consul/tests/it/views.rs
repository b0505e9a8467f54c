//! What a sidecar needs to know, and keeps while the agent is away.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use meshx_consul::{Client, follow_endpoints, follow_identity, follow_intentions, policy_now};
use meshx_core::{Code, Diagnostic, Endpoint, ServiceName, SpiffeId};
use meshx_identity::ca::CertificateAuthority;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Asked, Reply, eventually, nobody, soon};

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A value with an index, as blocking queries see it: a question that knows the index waits.
#[derive(Clone)]
struct Source(Arc<Mutex<(u64, Value)>>);

impl Source {
    fn new(value: Value) -> Self {
        Self(Arc::new(Mutex::new((10, value))))
    }

    fn set(&self, value: Value) {
        let mut source = self.0.lock().unwrap();
        *source = (source.0 + 1, value);
    }

    /// Waiting is asking again soon: a script cannot be woken.
    fn reply(&self, asked: &Asked) -> Reply {
        let (index, value) = &*self.0.lock().unwrap();
        let known = asked.parameter("index") == Some(&index.to_string());
        let wait = if known { Duration::from_millis(50) } else { Duration::ZERO };
        Reply::at(*index, value).after(wait)
    }
}

fn rules(list: &[(&str, &str, &str)]) -> Value {
    list.iter()
        .map(|(source, destination, action)| {
            json!({"SourceName": source, "DestinationName": destination, "Action": action})
        })
        .collect()
}

/// An agent of 1.8 with these intentions and this default of its access lists.
fn agent_of_1_8(intentions: &Source, default: &'static str) -> impl Fn(&Asked) -> Reply + use<> {
    let intentions = intentions.clone();
    move |asked| {
        if asked.target.starts_with("/v1/agent/self") {
            let enabled = default == "deny";
            return Reply::ok(json!({
                "Config": {"Datacenter": "dc1", "NodeName": "n", "Version": "1.8.7"},
                "DebugConfig": {"ACLsEnabled": enabled, "ACLDefaultPolicy": default},
                "Member": {"Name": "n"},
            }));
        }
        intentions.reply(asked)
    }
}

#[tokio::test]
async fn intentions_follow_the_agent() {
    let source = Source::new(rules(&[("web", "db", "deny"), ("web", "not a name", "deny")]));
    let agent = Agent::new(agent_of_1_8(&source, "allow"));
    let stop = CancellationToken::new();
    let policy = soon(follow_intentions(&agent.client(), &stop)).await.unwrap();
    let verdict = || policy.borrow().judge(&name("web"), &name("db")).to_string();
    assert_eq!(verdict(), "denied by web → db (precedence 9)");
    source.set(rules(&[("web", "db", "allow"), ("*", "*", "deny")]));
    eventually("the change", || verdict() == "allowed by web → db (precedence 9)").await;
    source.set(rules(&[]));
    eventually("the change", || verdict() == "allowed by default").await;
    assert_eq!(*soon(policy_now(&agent.client())).await.unwrap().intentions(), []);
    stop.cancel();
}

#[tokio::test]
async fn the_default_is_the_headers_or_that_of_the_access_lists() {
    let none = Source::new(rules(&[]));
    for (policy, allowed) in [("deny", false), ("allow", true)] {
        let agent = Agent::new(agent_of_1_8(&none, policy));
        let set = soon(policy_now(&agent.client())).await.unwrap();
        assert_eq!(set.judge(&name("a"), &name("b")).is_allowed(), allowed, "1.8, {policy}");
        let agent = Agent::new(move |_| Reply::at(5, "[]").policy(policy));
        let set = soon(policy_now(&agent.client())).await.unwrap();
        assert_eq!(set.judge(&name("a"), &name("b")).is_allowed(), allowed, "1.9, {policy}");
    }
}

/// Intentions with HTTP permissions deny, as far as connections go (Consul 1.9, `authorize`).
#[tokio::test]
async fn permissions_deny() {
    let agent = Agent::new(|_| {
        let entry = json!({"SourceName": "web", "DestinationName": "db", "Action": "",
            "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}]});
        Reply::at(5, json!([entry])).policy("allow")
    });
    let set = soon(policy_now(&agent.client())).await.unwrap();
    assert!(!set.judge(&name("web"), &name("db")).is_allowed());
}

#[tokio::test]
async fn intentions_stay_while_the_agent_is_away_and_heal_when_it_is_back() {
    let source = Source::new(rules(&[("web", "db", "deny")]));
    let address = nobody();
    let agent = Agent::at(address, agent_of_1_8(&source, "allow"));
    let stop = CancellationToken::new();
    let policy = soon(follow_intentions(&agent.client(), &stop)).await.unwrap();
    agent.kill().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!policy.borrow().judge(&name("web"), &name("db")).is_allowed());
    assert!(policy.borrow().judge(&name("x"), &name("y")).is_allowed());

    // Another agent comes, with other rules and another default, and its index is lower.
    let source = Source::new(rules(&[("web", "db", "allow")]));
    source.0.lock().unwrap().0 = 2;
    let _agent = Agent::at(address, agent_of_1_8(&source, "deny"));
    eventually("the rule", || policy.borrow().judge(&name("web"), &name("db")).is_allowed()).await;
    eventually("the default", || !policy.borrow().judge(&name("x"), &name("y")).is_allowed()).await;
}

/// The default is asked for in a request of its own; that it failed once must not leave the old.
#[tokio::test]
async fn a_default_that_could_not_be_read_is_read_later() {
    let source = Source::new(rules(&[]));
    let address = nobody();
    let agent = Agent::at(address, agent_of_1_8(&source, "allow"));
    let stop = CancellationToken::new();
    let policy = soon(follow_intentions(&agent.client(), &stop)).await.unwrap();
    assert!(policy.borrow().judge(&name("x"), &name("y")).is_allowed());
    agent.kill().await;
    let (answers, failed) = (agent_of_1_8(&source, "deny"), Mutex::new(0));
    let _agent = Agent::at(address, move |asked| {
        let mut failed = failed.lock().unwrap();
        if asked.target.starts_with("/v1/agent/self") && *failed < 2 {
            *failed += 1;
            return Reply::status(500, "not yet");
        }
        answers(asked)
    });
    eventually("the default", || !policy.borrow().judge(&name("x"), &name("y")).is_allowed()).await;
}

/// An agent that is replaced between two questions, by one that lets everybody wait.
#[tokio::test]
async fn a_default_that_changed_with_the_agent_is_seen() {
    let source = Source::new(rules(&[]));
    let address = nobody();
    let agent = Agent::at(address, agent_of_1_8(&source, "allow"));
    let stop = CancellationToken::new();
    let policy = soon(follow_intentions(&agent.client(), &stop)).await.unwrap();
    agent.kill().await;
    // At once, so that a client which only reconnects meets the new one with the old index.
    let _agent = Agent::at(address, agent_of_1_8(&source, "deny"));
    eventually("the default", || !policy.borrow().judge(&name("x"), &name("y")).is_allowed()).await;
}

fn entry(id: &str, address: &str, port: u16, status: &str) -> Value {
    json!({
        "Node": {"Node": "n", "Address": "127.0.0.9", "Datacenter": "dc7"},
        "Service": {"ID": id, "Service": "web-sidecar-proxy", "Address": address, "Port": port},
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "c", "Status": status}],
    })
}

#[tokio::test]
async fn endpoints_are_the_passing_instances_and_stay_while_the_agent_is_away() {
    let source = Source::new(json!([
        entry("b", "127.0.0.1", 20001, "passing"),
        entry("a", "", 20002, "warning"),
        entry("c", "127.0.0.1", 20003, "critical"),
        entry("not an id", "127.0.0.1", 20004, "passing"),
        entry("d", "localhost", 20005, "passing"),
    ]));
    let shared = source.clone();
    let agent = Agent::new(move |asked| shared.reply(asked));
    let stop = CancellationToken::new();
    let view =
        soon(follow_endpoints(&agent.client(), &name("web"), &stop, |list, known| (list, known)))
            .await
            .unwrap();
    let text = |endpoint: &Endpoint| format!("{} {}", endpoint.id, endpoint.address);
    let now = || (view.borrow().0.iter().map(text).collect::<Vec<_>>(), view.borrow().1);
    let (list, known) = now();
    assert!(known);
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(list.contains(&"b 127.0.0.1:20001".to_owned()), "{list:?}");
    assert!(list.contains(&"a 127.0.0.9:20002".to_owned()), "its node's address: {list:?}");
    assert_eq!(view.borrow().0[0].datacenter, "dc7");
    assert_eq!(agent.lines()[0], "GET /v1/health/connect/web");

    source.set(json!([entry("c", "127.0.0.1", 20003, "critical")]));
    eventually("registered, none passing", || now() == (vec![], true)).await;
    source.set(json!([]));
    eventually("not registered", || now() == (vec![], false)).await;
    source.set(json!([entry("b", "127.0.0.1", 20001, "passing")]));
    eventually("back", || now().0.len() == 1).await;
    agent.kill().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(now(), (vec!["b 127.0.0.1:20001".to_owned()], true));
}

/// The control plane's authority: roots and leaves with their indexes.
struct Authority {
    ca: Mutex<CertificateAuthority>,
    roots: Source,
    leaf: Source,
}

impl Authority {
    fn domain() -> meshx_core::TrustDomain {
        "11111111-2222-3333-4444-555555555555.consul".parse().unwrap()
    }

    fn new() -> Arc<Self> {
        let ca = CertificateAuthority::generate(&Self::domain(), 7, SystemTime::now()).unwrap();
        let roots = Source::new(Self::list(&[&ca]));
        let leaf = Source::new(Self::issue(&ca, 20));
        Arc::new(Self { ca: Mutex::new(ca), roots, leaf })
    }

    fn list(roots: &[&CertificateAuthority]) -> Value {
        let roots: Vec<_> =
            roots.iter().map(|root| json!({"RootCert": root.cert_pem(), "Active": true})).collect();
        json!({"TrustDomain": Self::domain().as_str(), "Roots": roots})
    }

    fn issue(ca: &CertificateAuthority, serial: u64) -> Value {
        let id = SpiffeId::new(Self::domain(), "dc1", name("web"));
        let leaf = ca.issue(&id, serial, SystemTime::now(), Duration::from_hours(72)).unwrap();
        json!({"SerialNumber": serial.to_string(), "CertPEM": leaf.cert_pem,
               "PrivateKeyPEM": leaf.key_pem.as_str(), "Service": "web",
               "ValidAfter": "2026-01-01T00:00:00Z", "ValidBefore": "2026-01-04T00:00:00Z"})
    }

    fn answer(&self, asked: &Asked) -> Reply {
        match asked.target.split('?').next().unwrap() {
            "/v1/agent/connect/ca/roots" => self.roots.reply(asked),
            "/v1/agent/connect/ca/leaf/web" => self.leaf.reply(asked),
            _ => Reply::status(404, ""),
        }
    }
}

async fn identity(client: &Client) -> Result<meshx_identity::Identity, meshx_consul::ConsulError> {
    soon(follow_identity(client, &name("web"), &CancellationToken::new())).await
}

#[tokio::test]
async fn a_certificate_is_rotated_with_its_roots() {
    let authority = Authority::new();
    let shared = Arc::clone(&authority);
    let agent = Agent::new(move |asked| shared.answer(asked));
    let identity = identity(&agent.client()).await.unwrap();
    assert_eq!(identity.id().service().as_str(), "web");
    let serial = || identity.with_material(|material| material.serial().to_owned());
    assert_eq!(serial(), "14");
    authority.leaf.set(Authority::issue(&authority.ca.lock().unwrap(), 21));
    eventually("the new leaf", || serial() == "15").await;

    // A new root: first the roots, then the leaf.
    let next = CertificateAuthority::generate(&Authority::domain(), 8, SystemTime::now()).unwrap();
    authority.roots.set(Authority::list(&[&next, &authority.ca.lock().unwrap()]));
    authority.leaf.set(Authority::issue(&next, 22));
    eventually("the new leaf", || serial() == "16").await;

    // One that cannot be used is passed over, and the next is taken.
    authority.leaf.set(json!({"CertPEM": "-----BEGIN nothing", "PrivateKeyPEM": "",
        "ValidAfter": "", "ValidBefore": ""}));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(serial(), "16");
    authority.leaf.set(Authority::issue(&next, 23));
    eventually("the new leaf", || serial() == "17").await;
    agent.kill().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(serial(), "17", "kept while the agent is away");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_an_error_without_the_key() {
    let authority = Authority::new();
    let shared = Arc::clone(&authority);
    authority.leaf.set(json!({"CertPEM": "c4na7y", "PrivateKeyPEM": "c4na7y",
        "ValidAfter": "", "ValidBefore": ""}));
    let agent = Agent::new(move |asked| shared.answer(asked));
    let error = identity(&agent.client()).await.unwrap_err();
    assert_eq!(error.code(), Code(505));
    let text = format!("{error} {error:?}");
    assert!(!text.contains("c4na7y"), "{text}");

    // Nor does one that does not even parse.
    authority.leaf.set(json!({"CertPEM": ["c4na7y"], "PrivateKeyPEM": {"x": "c4na7y"}}));
    let error = identity(&agent.client()).await.unwrap_err();
    assert_eq!(error.code(), Code(110));
    let text = format!("{error} {error:?}");
    assert!(!text.contains("c4na7y"), "{text}");
}
