//! What the embedded agent promises beyond Consul: bounds, persistence, readiness, a clear end.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use meshx_agent::{Agent, AgentConfig, AgentError, Holder};
use meshx_conformance::{Answer, Subject, ask, ask_with, skip};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIST: &str = "/v1/connect/intentions";

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn config() -> AgentConfig {
    AgentConfig { http_addr: any(), dns_addr: None, ..AgentConfig::default() }
}

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let name = format!("meshx-agent-{}", meshx_rt::random::hex(12));
        Self(std::env::temp_dir().join(name))
    }

    fn config(&self) -> AgentConfig {
        AgentConfig { data_dir: Some(self.0.clone()), ..config() }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

async fn get(agent: &Agent, path: &str) -> Answer {
    ask(agent.http_addr(), "GET", path, None).await
}

async fn create(agent: &Agent, source: &str, action: &str) -> Answer {
    let body = json!({"SourceName": source, "DestinationName": "db", "Action": action});
    ask(agent.http_addr(), "POST", LIST, Some(&body)).await
}

#[tokio::test]
async fn it_answers_when_start_returns() {
    let begun = Instant::now();
    let agent = Agent::start(config()).await.unwrap();
    let leaf = get(&agent, "/v1/agent/connect/ca/leaf/web").await.ok();
    assert!(leaf.body.contains("CertPEM"));
    // Measured in a build without optimisation, on a machine that does other things.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(get(&agent, "/").await.ok().body.contains("meshx agent"));
    agent.shutdown().await;
}

#[tokio::test]
async fn what_it_acknowledged_survives() {
    let dir = Dir::new();
    let agent = Agent::start(dir.config()).await.unwrap();
    let domain = agent.trust_domain().clone();
    create(&agent, "web", "deny").await.ok();
    let rotate = json!({"Provider": "consul", "Config": {"LeafCertTTL": "48h", "PrivateKey": ""}});
    ask(agent.http_addr(), "PUT", "/v1/connect/ca/configuration", Some(&rotate)).await.ok();
    let roots = get(&agent, "/v1/agent/connect/ca/roots").await.ok();
    let list = get(&agent, LIST).await.ok();
    let node = get(&agent, "/v1/agent/self").await.json()["Config"]["NodeID"].clone();
    agent.shutdown().await;

    let agent = Agent::start(dir.config()).await.unwrap();
    assert_eq!(*agent.trust_domain(), domain);
    let again = get(&agent, LIST).await.ok();
    assert_eq!(again.json(), list.json());
    assert_eq!(get(&agent, "/v1/agent/self").await.json()["Config"]["NodeID"], node);
    let same = get(&agent, "/v1/agent/connect/ca/roots").await.ok();
    assert_eq!(same.json(), roots.json());
    let configuration = get(&agent, "/v1/connect/ca/configuration").await.json();
    assert_eq!(configuration["Config"], json!({"LeafCertTTL": "48h"}));
    // Whoever waited before the restart is answered at once.
    for (path, before) in [(LIST, &list), ("/v1/agent/connect/ca/roots", &roots)] {
        let path = format!("{path}?index={}&wait=20s", before.index());
        assert!(get(&agent, &path).await.ok().took < Duration::from_secs(5), "{path}");
    }
    create(&agent, "other", "deny").await.ok();
    agent.shutdown().await;
}

#[tokio::test]
async fn without_a_directory_it_forgets() {
    let first = Agent::start(config()).await.unwrap();
    create(&first, "web", "deny").await.ok();
    let second = Agent::start(config()).await.unwrap();
    assert_ne!(first.trust_domain(), second.trust_domain());
    assert_eq!(get(&second, LIST).await.json(), json!([]));
}

#[tokio::test]
async fn a_write_that_cannot_be_saved_is_refused_and_changes_nothing() {
    let dir = Dir::new();
    let agent = Agent::start(dir.config()).await.unwrap();
    create(&agent, "web", "deny").await.ok();
    let blocker = dir.0.join("agent.json.new");
    std::fs::create_dir(&blocker).unwrap();
    let refused = create(&agent, "other", "deny").await;
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("nothing was changed"), "{}", refused.body);
    assert_eq!(get(&agent, LIST).await.json().as_array().unwrap().len(), 1);
    std::fs::remove_dir(&blocker).unwrap();
    create(&agent, "other", "deny").await.ok();
    agent.shutdown().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_half_write() {
    let dir = Dir::new();
    let agent = Agent::start(dir.config()).await.unwrap();
    for n in 0..20_u32 {
        let body =
            json!({"SourceName": format!("s{n}"), "DestinationName": "db", "Action": "deny"});
        let body = body.to_string();
        let patience = Duration::from_secs(1);
        let mut stream = meshx_rt::net::dial(agent.http_addr(), patience).await.unwrap();
        let head = format!(
            "POST {LIST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(u64::from(n) * 100)).await;
        drop(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = get(&agent, LIST).await.json();
    agent.shutdown().await;
    let agent = Agent::start(dir.config()).await.unwrap();
    assert_eq!(get(&agent, LIST).await.json(), before, "in force and on disk are the same");
}

#[tokio::test]
async fn a_damaged_state_is_refused() {
    let dir = Dir::new();
    Agent::start(dir.config()).await.unwrap().shutdown().await;
    let path = dir.0.join("agent.json");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    let error = Agent::start(dir.config()).await.unwrap_err();
    assert!(matches!(error, AgentError::State { .. }), "{error}");
    std::fs::write(&path, &good).unwrap();
    Agent::start(dir.config()).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn two_agents_do_not_share_a_directory() {
    let dir = Dir::new();
    let first = Agent::start(dir.config()).await.unwrap();
    let error = Agent::start(dir.config()).await.unwrap_err();
    assert!(matches!(error, AgentError::DataDirBusy { .. }), "{error}");
    first.shutdown().await;
    Agent::start(dir.config()).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn who_holds_the_port_is_said() {
    let first = Agent::start(config()).await.unwrap();
    let taken = AgentConfig { http_addr: first.http_addr(), ..config() };
    let error = Agent::start(taken).await.unwrap_err();
    let AgentError::InUse { holder, .. } = &error else { panic!("{error}") };
    assert!(matches!(holder, Holder::Meshx { .. }), "{error}");

    let silent = meshx_rt::net::listen(any()).unwrap();
    let taken = AgentConfig { http_addr: silent.local_addr().unwrap(), ..config() };
    let begun = Instant::now();
    let error = Agent::start(taken).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(error.to_string().contains("not a control plane"), "{error}");

    let Some(consul) = Subject::consul().await else { return skip() };
    let error = Agent::start(AgentConfig { http_addr: consul.http, ..config() }).await.unwrap_err();
    let text = format!(
        "{} is already in use by Consul 1.8.7 (leader elected, Connect enabled)",
        consul.http
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn bad_names_are_refused() {
    for (node_name, datacenter) in [("a b", "dc1"), ("n1", "d.c"), ("", "dc1"), ("n1", "dc\n1")] {
        let named = AgentConfig {
            node_name: node_name.to_owned(),
            datacenter: datacenter.to_owned(),
            ..config()
        };
        let error = Agent::start(named).await.unwrap_err();
        assert!(matches!(error, AgentError::Name { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[tokio::test]
async fn deny_by_default_holds_everywhere() {
    let denies = AgentConfig { default_policy: meshx_core::Action::Deny, ..config() };
    let agent = Agent::start(denies).await.unwrap();
    let check = format!("{LIST}/check?source=a&destination=b");
    assert_eq!(get(&agent, &check).await.ok().json(), json!({"Allowed": false}));
    let list = get(&agent, LIST).await.ok();
    assert_eq!(list.header("X-Consul-Default-ACL-Policy"), Some("deny"));
    let body = json!({"Target": "b", "ClientCertURI": "spiffe://x.consul/ns/default/dc/dc1/svc/a"});
    let answer =
        ask(agent.http_addr(), "POST", "/v1/agent/connect/authorize", Some(&body)).await.ok();
    let reason = "Default behavior configured by ACLs";
    assert_eq!(answer.json(), json!({"Authorized": false, "Reason": reason}));
    // A client of 1.8 reads it here, and only here.
    let debug = get(&agent, "/v1/agent/self").await.json()["DebugConfig"].clone();
    assert_eq!((&debug["ACLsEnabled"], &debug["ACLDefaultPolicy"]), (&json!(true), &json!("deny")));
    assert_eq!(debug["DefaultIntentionPolicy"], "deny");
    let allows = Agent::start(config()).await.unwrap();
    let debug = get(&allows, "/v1/agent/self").await.json()["DebugConfig"].clone();
    assert_eq!(
        (&debug["ACLsEnabled"], &debug["ACLDefaultPolicy"]),
        (&json!(false), &json!("allow"))
    );
}

#[tokio::test]
async fn what_consul_alone_has_is_said() {
    let agent = Agent::start(config()).await.unwrap();
    for path in ["kv/a", "session/list", "event/list", "query", "snapshot", "txn"] {
        let answer = get(&agent, &format!("/v1/{path}")).await;
        assert_eq!(answer.status, 501, "{path}");
        assert!(answer.body.contains("Consul has"), "{}", answer.body);
    }
}

/// Sends a request with exactly these headers; the status of the answer.
async fn raw(agent: &Agent, request: &str) -> u16 {
    let mut stream = meshx_rt::net::dial(agent.http_addr(), Duration::from_secs(1)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn pages_of_other_sites_get_and_change_nothing() {
    let denies = AgentConfig {
        default_policy: meshx_core::Action::Deny,
        node_name: "laptop".to_owned(),
        ..config()
    };
    let agent = Agent::start(denies).await.unwrap();
    let body = r#"{"SourceName":"*","DestinationName":"*","Action":"allow"}"#;
    let post = |headers: &str| {
        let length = body.len();
        format!(
            "POST {LIST} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let here = agent.http_addr();
    let origin = format!("Host: {here}\r\nOrigin: https://evil.example\r\n");
    assert_eq!(raw(&agent, &post(&origin)).await, 403);
    let rebound = "Host: evil.example\r\nOrigin: http://evil.example\r\n";
    assert_eq!(raw(&agent, &post(rebound)).await, 403);
    assert_eq!(get(&agent, LIST).await.ok().json(), json!([]), "nothing was made");

    let leaf = |headers: &str| {
        format!("GET /v1/agent/connect/ca/leaf/web HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")
    };
    assert_eq!(raw(&agent, &leaf("Host: evil.example:8500\r\n")).await, 403);
    assert_eq!(raw(&agent, &leaf(&origin)).await, 403);
    assert_eq!(raw(&agent, &leaf("Host: laptop:8500\r\n")).await, 200);
    assert_eq!(raw(&agent, &leaf("")).await, 200, "no browser leaves Host out");
    assert_eq!(raw(&agent, "GET /v1/agent/self HTTP/1.0\r\n\r\n").await, 200);
    let preflight = "OPTIONS /v1/agent/self HTTP/1.1\r\nHost: evil.example\r\n\
                     Origin: http://evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(&agent, preflight).await, 403);
}

#[tokio::test]
async fn a_directory_that_others_can_enter_gets_no_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = Dir::new();
    std::fs::create_dir(&dir.0).unwrap();
    std::fs::set_permissions(&dir.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = Agent::start(dir.config()).await.unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
    assert!(!dir.0.join("agent.json").exists());
    std::fs::set_permissions(&dir.0, std::fs::Permissions::from_mode(0o700)).unwrap();
    Agent::start(dir.config()).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let agent = Agent::start(config()).await.unwrap();
    let path = "/v1/agent/service/register";
    let large = format!("{{\"Name\":\"{}\"}}", "x".repeat(600_000));
    let answer = ask_with(agent.http_addr(), "PUT", path, &[], Some(&large)).await;
    assert_eq!(answer.status, 413);
    let deep = Value::String(format!("{{\"Meta\":{}", "[".repeat(200_000)));
    let answer = ask(agent.http_addr(), "PUT", path, Some(&deep)).await;
    assert_eq!(answer.status, 400);
    let chunked = "5\r\n{\"Nam\r\n8\r\ne\":\"ab\"}\r\n0\r\n\r\n";
    let mut stream = meshx_rt::net::dial(agent.http_addr(), Duration::from_secs(1)).await.unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all((head + chunked).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(get(&agent, "/v1/agent/service/ab").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_do_not_write() {
    let agent = Agent::start(config()).await.unwrap();
    let body = json!({"SourceName": "a", "DestinationName": "b", "Action": "allow"}).to_string();
    let own = format!("http://{}", agent.http_addr());
    for (origin, status) in [("https://evil.example", 403), ("null", 403), (own.as_str(), 200)] {
        let headers = [("Origin", origin)];
        let answer = ask_with(agent.http_addr(), "POST", LIST, &headers, Some(&body)).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.body);
    }
}

/// Reliability C3: 400 clients that never finish their requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_do_not_slow_others() {
    let agent = Agent::start(config()).await.unwrap();
    let mut slow = Vec::new();
    for n in 0..400 {
        let patience = Duration::from_secs(5);
        let mut stream = meshx_rt::net::dial(agent.http_addr(), patience).await.unwrap();
        if n % 2 == 0 {
            stream
                .write_all(b"GET /v1/agent/self HTTP/1.1\r\nHost: localhost\r\nX-Sl")
                .await
                .unwrap();
        }
        slow.push(stream);
    }
    let mut worst = Duration::ZERO;
    for _ in 0..50 {
        worst = worst.max(get(&agent, "/v1/catalog/services").await.ok().took);
    }
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    // Those who never said a word are let go after ten seconds.
    let mut silent = slow.swap_remove(1);
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(15), silent.read(&mut byte)).await;
    assert_eq!(read.expect("it is let go").unwrap(), 0);
}

/// Reliability C4: 500 blocking queries woken by one write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waiters_wake_together() {
    let agent = Agent::start(config()).await.unwrap();
    let http = agent.http_addr();
    let index = get(&agent, LIST).await.ok().index();
    let path = format!("{LIST}?index={index}&wait=30s");
    let waiters: Vec<_> = (0..500)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { ask(http, "GET", &path, None).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let written = Instant::now();
    create(&agent, "web", "deny").await.ok();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().ok().json().as_array().unwrap().len(), 1);
    }
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
}

#[tokio::test]
async fn stopping_ends_who_waits() {
    let agent = Agent::start(config()).await.unwrap();
    let http = agent.http_addr();
    let index = get(&agent, "/v1/catalog/services").await.ok().index();
    let path = format!("/v1/catalog/services?index={index}&wait=60s");
    let waiter = tokio::spawn(async move { ask(http, "GET", &path, None).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    agent.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(waiter.await.unwrap().ok().json(), json!({"consul": []}));
    let again = meshx_rt::net::dial(http, Duration::from_secs(1)).await;
    assert!(again.is_err(), "nobody listens");
}

#[tokio::test]
async fn garbage_is_survived() {
    let agent = Agent::start(config()).await.unwrap();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/catalog/services?%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
    ] {
        let patience = Duration::from_secs(1);
        let mut stream = meshx_rt::net::dial(agent.http_addr(), patience).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = [0; 64];
        let _any = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
    }
    get(&agent, "/v1/agent/self").await.ok();
}
