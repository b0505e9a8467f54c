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
    let recent = Duration::from_secs(5);
    let to = db.name.clone();
    let cut = mesh.last_failure(&web, &to, recent).unwrap();
    assert_eq!(cut.code().to_string(), "MX0706", "{cut}");
    // The other side knows it, too, unless this one was quicker and closed it.
    assert!(mesh.last_failure(&web, &"other".parse().unwrap(), recent).is_none());
    let mut refused = net::dial(upstream.local, Duration::from_secs(2)).await.unwrap();
    assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0);
    let refused = mesh.last_failure(&web, &to, recent).unwrap();
    assert!(refused.hint().unwrap().contains("meshx why web db"), "{refused}");

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

/// Waits until the agent does not know the instance.
async fn gone(client: &Client, id: &str) -> bool {
    for _ in 0..150 {
        if client.agent_service(id).await.unwrap().is_none() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_undo_wherever_they_are_dropped() {
    let (_agent, client, mesh) = agent().await;
    let web = mesh.start(Service::named("web".parse().unwrap())).await.unwrap();
    std::thread::spawn(move || drop(web)).join().unwrap();
    assert!(gone(&client, "web").await, "dropped outside of the runtime");

    for wait in [0, 1, 2, 4, 8, 16] {
        let start = mesh.start(Service::named("never".parse().unwrap()));
        drop(tokio::time::timeout(Duration::from_millis(wait), start).await);
        assert!(gone(&client, "never").await, "start was cancelled after {wait} ms");
    }

    let web = mesh.start(Service::named("web".parse().unwrap())).await.unwrap();
    let (busy, id) = (mesh.clone(), web.id.clone());
    let copy = meshx_core::Running {
        name: web.name.clone(),
        id,
        local: web.local,
        public: web.public,
        lease: meshx_core::Lease::new(|| ()),
    };
    let waiting =
        tokio::spawn(async move { busy.ready(&copy, Duration::from_secs(5)).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(30)).await;
    mesh.stop(web).await.unwrap();
    assert!(client.agent_service("web").await.unwrap().is_none(), "stopped while in use");
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_start_together_one_gets_the_name() {
    let (_agent, client, mesh) = agent().await;
    let starts = (0..8).map(|_| {
        let mesh = mesh.clone();
        tokio::spawn(async move { mesh.start(Service::named("one".parse().unwrap())).await })
    });
    let (mut won, mut lost) = (Vec::new(), 0);
    for start in starts.collect::<Vec<_>>() {
        match start.await.unwrap() {
            Ok(running) => won.push(running),
            Err(error) => {
                assert_eq!(error.code().to_string(), "MX0307", "{error}");
                lost += 1;
            }
        }
    }
    assert_eq!((won.len(), lost), (1, 7));
    mesh.stop(won.remove(0)).await.unwrap();
    assert!(client.agent_service("one").await.unwrap().is_none());
    drop(mesh.start(Service::named("one".parse().unwrap())).await.unwrap());
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
