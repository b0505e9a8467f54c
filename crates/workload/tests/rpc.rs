//! RPC between services of a mesh: found by name, encrypted, and judged by proven identity.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use meshx_agent::{Agent, AgentConfig};
use meshx_consul::{Client as Control, Config};
use meshx_core::{Action, Service};
use meshx_rpc::transport::{Mesh as Member, Tcp};
use meshx_rpc::{Client, Context, Functions, Kind, Policy, Rule, Server};
use meshx_workload::Mesh;

fn service(name: &str) -> Service {
    Service::named(name.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called_by_who_may() {
    let config = AgentConfig {
        http_addr: "127.0.0.1:0".parse().unwrap(),
        dns_addr: None,
        ..AgentConfig::default()
    };
    let agent = Agent::start(config).await.unwrap();
    let control = Control::new(Config::at(&agent.http_addr().to_string()).unwrap()).unwrap();

    let functions = Functions::new()
        .add("who", async |()| Ok::<_, String>(Context::current().unwrap().peer().identity.clone()))
        .add("secret", async |()| Ok::<_, String>(42))
        .add("open", async |()| Ok::<_, String>(1));
    let rules = vec![
        Rule::allow(["secret", "who"], ["web"]),
        Rule::allow(["who"], ["batch"]),
        Rule::allow(["open"], ["*"]),
    ];
    let policy = Policy::new(rules, Action::Deny).unwrap();
    let (_stock, listener) =
        Member::serve(Mesh::new(control.clone()), service("stock")).await.unwrap();
    let server = Server::new(functions).policy(policy).listen(listener).start();

    let member = async |name: &str| {
        let joined = Member::join(Mesh::new(control.clone()), service(name)).await.unwrap();
        Client::to(joined.connect("stock".parse().unwrap()).await.unwrap()).start()
    };
    let (web, batch) = (member("web").await, member("batch").await);
    let who: Option<String> = web.call("who", &()).await.unwrap();
    assert!(who.as_deref().unwrap().ends_with("/svc/web"), "{who:?}");
    assert_eq!(web.call::<_, u8>("secret", &()).await.unwrap(), 42);
    let who: Option<String> = batch.call("who", &()).await.unwrap();
    assert!(who.as_deref().unwrap().ends_with("/svc/batch"), "{who:?}");
    let denied = batch.call::<_, u8>("secret", &()).await.unwrap_err();
    assert_eq!(denied.kind(), Kind::Denied, "{denied}");

    // Who goes around the sidecar has proven nothing.
    let ports = control.agent_service("stock").await.unwrap().unwrap();
    let local = Client::to(Tcp::to(format!("127.0.0.1:{}", ports.port))).start();
    assert_eq!(local.call::<_, u8>("open", &()).await.unwrap(), 1);
    assert_eq!(local.call::<_, u8>("secret", &()).await.unwrap_err().kind(), Kind::Denied);

    // An intention cuts all of it.
    let (any, to) = ("*".parse().unwrap(), "stock".parse().unwrap());
    control.put_intention(&any, &to, Action::Deny).await.unwrap();
    let call = web.function("open").timeout(Duration::from_millis(500));
    let cut = call.call::<_, u8>(&()).await.unwrap_err();
    assert!(matches!(cut.kind(), Kind::Transport | Kind::Deadline), "{cut}");
    server.stop().await;
}
