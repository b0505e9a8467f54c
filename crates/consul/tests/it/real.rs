//! The same adapter against the real program, where `MESHX_TEST_CONSUL` names one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use meshx_consul::{
    Client, Instance, Registration, follow_endpoints, follow_identity, follow_intentions,
    policy_now,
};
use meshx_core::{Action, Diagnostic, Health, IntentionName, ServiceName};
use meshx_rt::net;
use tokio_util::sync::CancellationToken;

use crate::agent::client;

/// A `consul agent -dev` of one's own; killed when dropped.
struct Consul {
    child: Child,
}

/// Ports that nobody else uses: HTTP, server, and the two of Serf.
struct Ports([u16; 4]);

impl Consul {
    fn start(program: &str, ports: &Ports) -> Self {
        let [http, server, lan, wan] = ports.0.map(|port| port.to_string());
        let child = Command::new(program)
            .args(["agent", "-dev", "-node=meshx-test", "-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-log-level=err", "-dns-port=-1", "-grpc-port=-1"])
            .args(["-http-port", &http, "-server-port", &server])
            .args(["-serf-lan-port", &lan, "-serf-wan-port", &wan])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// Waits until `check` gives something, for as long as a real agent may take.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_up(client: &Client) {
    // Certificates come from the leader, so a list of roots says that there is one.
    until("a leader", async || {
        client.ca_roots().await.ok().filter(|roots| !roots.roots.is_empty())
    })
    .await;
}

async fn speaks_like_the_recordings(client: &Client) {
    assert!(client.agent_self().await.unwrap().config.is_some());
    assert_eq!(client.agent_service("unknown").await.unwrap(), None);
    client.deregister("unknown").await.unwrap();
    let update = meshx_consul_api::CheckUpdate { status: "passing".into(), ..Default::default() };
    assert!(
        !client.update_check("unknown", &update).await.unwrap(),
        "that is how a loss is noticed"
    );
    let error = client.get::<serde_json::Value>("/v1/connect/intentions/x").await.unwrap_err();
    assert!(error.status().is_some() && error.hint().is_none(), "{error}");
}

async fn intentions(client: &Client) {
    let stop = CancellationToken::new();
    let policy = follow_intentions(client, &stop).await.unwrap();
    let judged = || policy.borrow().judge(&name("node1@h"), &name("db")).to_string();
    assert_eq!(judged(), "allowed by default");
    let (source, destination): (IntentionName, IntentionName) =
        ("node1@h".parse().unwrap(), "db".parse().unwrap());
    for action in [Action::Deny, Action::Allow, Action::Deny] {
        client.put_intention(&source, &destination, action).await.unwrap();
        let set = policy_now(client).await.unwrap();
        assert_eq!(set.intentions().len(), 1, "one rule for the pair, whatever was before");
        assert_eq!(set.intentions()[0].action, action);
        let begun = Instant::now();
        let word = if action == Action::Deny { "denied" } else { "allowed" };
        let wanted = format!("{word} by node1@h → db (precedence 9)");
        until("the change", async || (judged() == wanted).then_some(())).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    client.put_intention(&IntentionName::Any, &destination, Action::Deny).await.unwrap();
    assert!(client.delete_intention(&source, &destination).await.unwrap());
    assert!(!client.delete_intention(&source, &destination).await.unwrap());
    until("the wildcard decides", async || {
        (judged() == "denied by * → db (precedence 8)").then_some(())
    })
    .await;
    assert!(client.delete_intention(&IntentionName::Any, &destination).await.unwrap());
    stop.cancel();
}

#[tokio::test]
async fn the_adapter_against_real_consul() {
    let Ok(program) = std::env::var("MESHX_TEST_CONSUL") else {
        println!("skipped: MESHX_TEST_CONSUL names no consul binary");
        return;
    };
    let ports = Ports(std::array::from_fn(|_| net::free_port().unwrap()));
    let client = client(&format!("127.0.0.1:{}", ports.0[0]));
    let consul = Consul::start(&program, &ports);
    is_up(&client).await;
    speaks_like_the_recordings(&client).await;
    intentions(&client).await;

    let public: SocketAddr = ([127, 0, 0, 1], 20555).into();
    let instance = Instance::new(
        name("web@host"),
        "web-1".parse().unwrap(),
        Some(([127, 0, 0, 1], 8080).into()),
        Some(public),
        vec![],
        BTreeMap::new(),
    );
    let registration = Registration::start(client.clone(), instance).await.unwrap();
    let stop = CancellationToken::new();
    let view = follow_endpoints(&client, &name("web@host"), &stop, |list, _| list).await.unwrap();
    assert!(view.borrow().is_empty(), "critical until somebody says otherwise");
    registration.set_health(Health::Passing, "it listens");
    registration.visible(Duration::from_secs(5)).await.unwrap();
    let seen = || view.borrow().first().map(|endpoint| endpoint.address);
    until("the endpoint", async || (seen() == Some(public)).then_some(())).await;
    registration.set_health(Health::Critical, "it crashed");
    until("no endpoint", async || seen().is_none().then_some(())).await;
    registration.set_health(Health::Passing, "it listens");
    until("the endpoint", async || seen()).await;

    let identity = follow_identity(&client, &name("web@host"), &stop).await.unwrap();
    assert_eq!(identity.id().service(), &name("web@host"));

    // Killed, and back without any memory (`-dev` keeps nothing).
    drop(consul);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen(), Some(public), "the last good answer stays");
    let before = identity.id();
    let _consul = Consul::start(&program, &ports);
    until("an answer", async || client.agent_self().await.ok()).await;
    let back = Instant::now();
    until("the registration", async || client.agent_service("web-1").await.ok().flatten()).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    is_up(&client).await;
    until("a certificate of the new authority", async || {
        (identity.id().trust_domain() != before.trust_domain()).then_some(())
    })
    .await;
    registration.visible(Duration::from_secs(5)).await.unwrap();
    registration.deregister().await.unwrap();
    assert_eq!(client.agent_service("web-1").await.unwrap(), None);
    until("no endpoint", async || seen().is_none().then_some(())).await;
    stop.cancel();
}
