//! Consul's own clients, against both subjects: its command line, and two of its sidecars.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use meshx_agent::AgentConfig;
use meshx_conformance::{Subject, consul_binary, skip};
use meshx_core::Action;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Consul's command line, told where the control plane is.
struct Cli<'a> {
    binary: &'a Path,
    address: String,
}

impl Cli<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command.args(arguments).env("CONSUL_HTTP_ADDR", &self.address).stdin(Stdio::null());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What a command prints, which must succeed.
    async fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "consul {arguments:?}: {said}{error}");
        said
    }

    /// What a command complains of, which must fail.
    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "consul {arguments:?}");
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

async fn command_line(subject: &Subject, cli: &Cli<'_>) {
    let members = cli.says(&["members"]).await;
    let words: Vec<&str> = members.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((words[0], words[2], words[3], words[4]), ("n1", "alive", "server", "1.8.7"));
    assert_eq!(cli.says(&["catalog", "datacenters"]).await.trim(), "dc1");
    assert!(cli.says(&["catalog", "nodes"]).await.contains("127.0.0.1"));
    let service = "services";
    cli.says(&[service, "register", "-name=web", "-port=80", "-tag=v1", "-id=node1@h"]).await;
    assert!(cli.says(&["catalog", "services", "-tags"]).await.contains("v1"));
    assert!(cli.says(&["catalog", "nodes", "-service=web"]).await.contains("n1"));
    cli.says(&["maint", "-enable", "-service=node1@h", "-reason=why"]).await;
    assert!(cli.says(&["maint"]).await.contains("why"));
    cli.says(&["maint", "-disable", "-service=node1@h"]).await;
    cli.says(&[service, "deregister", "-id=node1@h"]).await;
    assert_eq!(subject.get("/v1/agent/services").await.json(), json!({}));
    assert!(cli.says(&["info"]).await.contains("leader = true"));

    assert!(
        cli.says(&["intention", "create", "-deny", "web", "db"]).await.contains("web => db (deny)")
    );
    assert!(
        cli.fails(&["intention", "create", "web", "db"])
            .await
            .contains("duplicate intention found")
    );
    assert_eq!(cli.fails(&["intention", "check", "web", "db"]).await.trim(), "Denied");
    cli.says(&["intention", "create", "-replace", "-allow", "-meta", "a=b", "web", "db"]).await;
    assert_eq!(cli.says(&["intention", "check", "web", "db"]).await.trim(), "Allowed");
    assert!(cli.says(&["intention", "get", "web", "db"]).await.contains("Meta[a]:"));
    assert!(cli.says(&["intention", "match", "db"]).await.contains("web => db (allow)"));
    cli.says(&["intention", "delete", "web", "db"]).await;
    assert!(cli.fails(&["intention", "delete", "web", "db"]).await.contains("not found"));
    assert!(cli.says(&["connect", "ca", "get-config"]).await.contains("\"Provider\": \"consul\""));
    assert!(cli.fails(&["acl", "token", "list"]).await.contains("401 (ACL support disabled)"));
    if !subject.is_consul() {
        let kv = cli.fails(&["kv", "get", "a"]).await;
        assert!(kv.contains("501"), "what is missing is said, not found empty: {kv}");
    }
}

/// Sends a line through the mesh and reads it back; `None` when the connection is refused or cut.
async fn ping(port: u16) -> Option<()> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = meshx_rt::net::dial(address, Duration::from_secs(2)).await.ok()?;
    stream.write_all(b"hello").await.ok()?;
    let mut back = [0; 5];
    let read = tokio::time::timeout(Duration::from_secs(3), stream.read_exact(&mut back)).await;
    read.ok()?.ok()?;
    (back == *b"hello").then_some(())
}

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ended = tokio::io::copy(&mut read, &mut write).await;
}

/// Two of Consul's own sidecars find each other through the subject, obey its intentions at once
/// and go on through a rotation of the root.
async fn two_sidecars(subject: &Subject, cli: &Cli<'_>) {
    let listener = meshx_rt::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let backend = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    let free = || meshx_rt::net::free_port().unwrap();
    let (echo_port, web_port, upstream) = (free(), free(), free());
    let check = json!({"TTL": "300s", "Status": "passing"});
    subject
        .register(&json!({
            "Name": "echo", "Port": backend, "Address": "127.0.0.1", "Check": check,
            "Connect": {"SidecarService": {"Port": echo_port}},
        }))
        .await;
    let upstreams = json!([{"DestinationName": "echo", "LocalBindPort": upstream}]);
    subject
        .register(&json!({
            "Name": "web", "Check": check,
            "Connect": {"SidecarService": {"Port": web_port, "Proxy": {"Upstreams": upstreams}}},
        }))
        .await;
    let start = |id: &str| {
        let mut command = cli.command(&["connect", "proxy", "-sidecar-for", id]);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let _sidecars = (start("echo"), start("web"));
    // Consul probes a sidecar only every ten seconds.
    let patience = Duration::from_secs(if subject.is_consul() { 25 } else { 5 });
    let begun = Instant::now();
    while ping(upstream).await.is_none() {
        assert!(begun.elapsed() < patience, "the sidecars do not connect");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let list = "/v1/connect/intentions";
    let deny = json!({"SourceName": "web", "DestinationName": "echo", "Action": "deny"});
    let id = subject.ask("POST", list, Some(&deny)).await.ok().json()["ID"].clone();
    let end = Instant::now() + Duration::from_secs(5);
    while ping(upstream).await.is_some() {
        assert!(Instant::now() < end, "a denied connection is made");
    }
    subject.ask("DELETE", &format!("{list}/{}", id.as_str().unwrap()), None).await.ok();
    let end = Instant::now() + Duration::from_secs(5);
    while ping(upstream).await.is_none() {
        assert!(Instant::now() < end, "an allowed connection is not made");
    }
    if !subject.is_consul() {
        let rotate = json!({"Provider": "consul", "Config": {"PrivateKey": "", "RootCert": ""}});
        for _ in 0..2 {
            subject.put("/v1/connect/ca/configuration", &rotate).await.ok();
            for n in 0..30 {
                assert!(ping(upstream).await.is_some(), "connection {n} after a rotation");
            }
        }
    }
    server.abort();
}

macro_rules! clients {
    ($($scenario:ident),+) => {
        mod agent {
            $(#[tokio::test]
            async fn $scenario() {
                let Some(binary) = super::consul_binary() else { return super::skip() };
                let subject = super::Subject::agent().await;
                let cli = super::Cli { binary: &binary, address: subject.http.to_string() };
                super::$scenario(&subject, &cli).await;
            })+
        }

        mod consul {
            $(#[tokio::test]
            async fn $scenario() {
                let Some(binary) = super::consul_binary() else { return super::skip() };
                let subject = super::Subject::consul().await.unwrap();
                let cli = super::Cli { binary: &binary, address: subject.http.to_string() };
                super::$scenario(&subject, &cli).await;
            })+
        }
    };
}

clients!(command_line, two_sidecars);

/// An agent that denies by default says so where a client of 1.8 reads it, as a setting of ACLs that
/// it has not. Consul's command line does not mind.
#[tokio::test]
async fn the_command_line_works_with_an_agent_that_denies() {
    let Some(binary) = consul_binary() else { return skip() };
    let denies = AgentConfig { default_policy: Action::Deny, ..AgentConfig::default() };
    let subject = Subject::agent_with(denies).await;
    let cli = Cli { binary: &binary, address: subject.http.to_string() };
    assert_eq!(cli.fails(&["intention", "check", "a", "b"]).await.trim(), "Denied");
    command_line(&subject, &cli).await;
}
