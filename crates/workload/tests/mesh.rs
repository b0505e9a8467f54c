//! The four operations of the mesh for a Rust program, against the embedded agent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshx_agent::{Agent, AgentConfig};
use meshx_consul::{Client, Config};
use meshx_core::{Action, Diagnostic as _, Service, ServiceMesh as _, Upstream};
use meshx_rt::net;
use meshx_workload::Mesh;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn agent() -> (Agent, Client, Mesh) {
    let config = AgentConfig {
        http_addr: "127.0.0.1:0".parse().unwrap(),
        dns_addr: None,
        ..AgentConfig::default()
    };
    let agent = Agent::start(config).await.unwrap();
    let address = agent.http_addr().to_string();
    let client = Client::new(Config::at(&address).unwrap()).unwrap();
    (agent, client.clone(), Mesh::new(client))
}

/// A program that echoes.
fn echo() -> SocketAddr {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn ping(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = net::dial(address, Duration::from_secs(2)).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn start_means_that_a_peer_can_connect() {
    let (_agent, client, mesh) = agent().await;
    let mut db = Service::named("db".parse().unwrap());
    db.local = Some(echo());
    let db = mesh.start(db).await.unwrap();
    let web = mesh.start(Service::named("web".parse().unwrap())).await.unwrap();
    let upstream = mesh.connect(&web, Upstream::to("db".parse().unwrap())).await.unwrap();
    // At once: no waiting for a health check.
    assert_eq!(ping(upstream.local).await.unwrap(), b"hello");

    let (any, to) = ("*".parse().unwrap(), "db".parse().unwrap());
    let mut live = net::dial(upstream.local, Duration::from_secs(2)).await.unwrap();
    live.write_all(b"x").await.unwrap();
    live.read_exact(&mut [0]).await.unwrap();
    client.put_intention(&any, &to, Action::Deny).await.unwrap();
    let begun = Instant::now();
    assert_eq!(live.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(begun.elapsed() < Duration::from_secs(1), "deny means cut");

    let local = upstream.local;
    mesh.disconnect(upstream).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(net::dial(local, Duration::from_millis(200)).await.is_err());
    mesh.stop(db).await.unwrap();
    assert!(client.agent_service("db").await.unwrap().is_none());
    drop(web);
    for _ in 0..100 {
        if client.agent_service("web").await.unwrap().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a dropped guard takes its service out");
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_follows_the_programs_port() {
    let (_agent, client, mesh) = agent().await;
    let late = mesh.start(Service::named("late".parse().unwrap())).await.unwrap();
    assert!(mesh.ready(&late, Duration::from_millis(100)).await.is_err());
    let listener = net::listen(late.local).unwrap();
    mesh.ready(&late, Duration::from_secs(5)).await.unwrap();
    drop(listener);
    for _ in 0..200 {
        let entries = client.health_connect("late").await.unwrap();
        if entries.iter().all(|e| e.status() == meshx_consul_api::CheckStatus::Critical) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("an instance whose program does not listen is critical");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_control_plane_the_error_says_what_to_do() {
    let port = net::free_port().unwrap();
    let mesh = Mesh::at(&format!("127.0.0.1:{port}")).unwrap();
    let error = mesh.start(Service::named("web".parse().unwrap())).await.unwrap_err();
    assert_eq!(error.code().to_string(), "MX0101");
    assert!(error.hint().unwrap().contains("meshx agent"), "{error}");
    assert!(error.is_retryable());
}
