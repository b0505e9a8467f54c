//! What is judged.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use meshx_agent::{Agent, AgentConfig};
use serde_json::Value;

use crate::{Answer, ask};

/// A control plane to judge, with its own registry; it ends when it is dropped.
#[derive(Debug)]
pub struct Subject {
    /// Its HTTP API.
    pub http: SocketAddr,
    /// Its DNS.
    pub dns: SocketAddr,
    run: Run,
}

#[derive(Debug)]
enum Run {
    // Held for its end.
    Agent(#[expect(dead_code, reason = "dropping it stops the agent")] Agent),
    Consul(Child),
}

impl Subject {
    /// The embedded agent.
    pub async fn agent() -> Self {
        Self::agent_with(AgentConfig::default()).await
    }

    /// The embedded agent with this configuration, on ports of its own.
    pub async fn agent_with(config: AgentConfig) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node_name = "n1".to_owned();
        let config = AgentConfig { http_addr: any, dns_addr: Some(any), node_name, ..config };
        let agent = Agent::start(config).await.expect("an agent");
        let dns = agent.dns_addr().expect("DNS");
        Self { http: agent.http_addr(), dns, run: Run::Agent(agent) }
    }

    /// Consul in development mode; `None` when there is no program to start.
    pub async fn consul() -> Option<Self> {
        let binary = consul_binary()?;
        // Another process may take a port between its choice and its use.
        for _ in 0..5 {
            if let Some(subject) = Self::try_consul(&binary).await {
                return Some(subject);
            }
        }
        panic!("Consul does not start");
    }

    async fn try_consul(binary: &PathBuf) -> Option<Self> {
        let port = || meshx_rt::net::free_port().expect("a free port");
        let (http, dns) = (port(), port());
        let mut command = Command::new(binary);
        command
            .args(["agent", "-dev", "-node=n1", "-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-log-level=err", "-grpc-port=-1"])
            .arg(format!("-http-port={http}"))
            .arg(format!("-dns-port={dns}"))
            .arg(format!("-server-port={}", port()))
            .arg(format!("-serf-lan-port={}", port()))
            .arg(format!("-serf-wan-port={}", port()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = command.spawn().expect("to start Consul");
        let mut subject = Self { http: at(http), dns: at(dns), run: Run::Consul(child) };
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            let Run::Consul(child) = &mut subject.run else { return None };
            if child.try_wait().expect("the state of Consul").is_some() {
                return None;
            }
            if subject.is_ready().await {
                return Some(subject);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    async fn is_ready(&self) -> bool {
        if meshx_rt::net::dial(self.http, Duration::from_secs(1)).await.is_err() {
            return false;
        }
        // Elected, registered, and able to issue certificates.
        let leader = self.get("/v1/status/leader").await.body.len() > 4;
        leader
            && self.get("/v1/catalog/service/consul").await.body.len() > 10
            && self.get("/v1/agent/connect/ca/leaf/probe").await.status == 200
    }

    /// True for the real program. What the embedded agent does otherwise is asked here.
    pub fn is_consul(&self) -> bool {
        matches!(self.run, Run::Consul(_))
    }

    /// Asks.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        ask(self.http, method, path, body).await
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    /// `PUT` with a body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, Some(body)).await
    }

    /// Registers a service, which must succeed.
    pub async fn register(&self, service: &Value) {
        let answer = self.put("/v1/agent/service/register", service).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{service}");
    }

    /// Reports a TTL check as passing.
    pub async fn pass(&self, check: &str) {
        self.ask("PUT", &format!("/v1/agent/check/pass/{check}"), None).await.ok();
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Run::Consul(child) = &mut self.run {
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}

/// The Consul to compare with.
pub fn consul_binary() -> Option<PathBuf> {
    std::env::var_os("MESHX_TEST_CONSUL").map(PathBuf::from)
}

/// Notes that a test found no Consul. Under `CI=true` that is a failure.
pub fn skip() {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: no Consul (MESHX_TEST_CONSUL)\n");
    let mut screen = std::io::stderr();
    screen.write_all(line.as_bytes()).expect("stderr");
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!is_ci, "CI=true allows no skipped test: {line}");
    if let Some(path) = std::env::var_os("MESHX_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.expect("the list of skips").write_all(line.as_bytes()).expect("to note a skip");
    }
}
