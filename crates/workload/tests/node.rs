//! Erlang nodes in Rust that reach each other through the mesh, against the embedded agent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use meshx_agent::{Agent, AgentConfig};
use meshx_consul::{Client, Config};
use meshx_core::{Action, Diagnostic as _};
use meshx_node::carrier;
use meshx_node::etf::Term;
use meshx_node::{ConnectError, Cookie, Node, NodeEvent, Signal};
use meshx_workload::Mesh;
use tokio::sync::broadcast::Receiver;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(10);

struct Stage {
    _agent: Agent,
    client: Client,
}

impl Stage {
    async fn open() -> Self {
        let config = AgentConfig {
            http_addr: "127.0.0.1:0".parse().unwrap(),
            dns_addr: None,
            ..AgentConfig::default()
        };
        let agent = Agent::start(config).await.unwrap();
        let client = Client::new(Config::at(&agent.http_addr().to_string()).unwrap()).unwrap();
        Self { _agent: agent, client }
    }

    async fn node(&self, name: &str) -> Node {
        self.node_with(name, "secret").await
    }

    async fn node_with(&self, name: &str, cookie: &str) -> Node {
        let carrier = carrier::Mesh::new(Mesh::new(self.client.clone()));
        let builder = Node::builder(name).cookie(Cookie::new(cookie)).carrier(carrier);
        builder.start().await.unwrap()
    }

    async fn intend(&self, from: &str, to: &str, action: Action) {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        self.client.put_intention(&from, &to, action).await.unwrap();
    }
}

/// Waits for a node to be lost, and says why.
async fn down(events: &mut Receiver<NodeEvent>, name: &str) -> String {
    let lost = async {
        loop {
            match events.recv().await.unwrap() {
                NodeEvent::Down { node, reason, .. } if node == name => return reason,
                _ => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, lost).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deny_cuts_and_says_so_and_an_allow_heals() {
    let stage = Stage::open().await;
    let (a, b) = (stage.node("a@h").await, stage.node("b@h").await);
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.connect(to.name()).await.unwrap();
        let watched = to.mailbox().unwrap();
        let mut watcher = from.mailbox().unwrap();
        watcher.monitor(watched.pid()).await;
        let (mut here, mut there) = (from.monitor_nodes(), to.monitor_nodes());

        let begun = Instant::now();
        stage.intend("a@h", "b@h", Action::Deny).await;
        stage.intend("b@h", "a@h", Action::Deny).await;
        let reasons = [down(&mut here, to.name()).await, down(&mut there, from.name()).await];
        assert!(begun.elapsed() < Duration::from_secs(1), "cut after {:?}", begun.elapsed());
        assert!(reasons.iter().any(|reason| reason.contains("denied by")), "{reasons:?}");
        let Some(Signal::Down(fired)) = watcher.receive_within(LIMIT).await else {
            panic!("the monitor did not fire");
        };
        assert!(fired.reason.is_atom("noconnection"), "{fired:?}");

        let error = from.connect(to.name()).await.unwrap_err();
        assert_eq!(error.code().to_string(), "MX0706", "{error}");
        assert!(error.to_string().contains("denied by"), "{error}");
        assert!(error.hint().unwrap().starts_with("`meshx why"), "{error}");

        stage.intend("a@h", "b@h", Action::Allow).await;
        stage.intend("b@h", "a@h", Action::Allow).await;
        let begun = Instant::now();
        while from.connect(to.name()).await.is_err() {
            assert!(begun.elapsed() < LIMIT, "an allow heals");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        from.disconnect(to.name());
        down(&mut here, to.name()).await;
        down(&mut there, from.name()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_reached_is_named_with_the_reason() {
    let stage = Stage::open().await;
    let a = stage.node("a@h").await;
    let unknown = a.connect("nobody@h").await.unwrap_err();
    assert_eq!(unknown.code().to_string(), "MX0201", "{unknown}");
    assert!(unknown.to_string().contains("nobody@h"), "{unknown}");
    let _other = stage.node_with("other@h", "another").await;
    let cookies = a.connect("other@h").await.unwrap_err();
    assert!(cookies.to_string().contains("cookie"), "{cookies}");
    assert_eq!(cookies.code().to_string(), "MX0204", "{cookies}");
    // One that stopped is not there any more.
    let b = stage.node("b@h").await;
    b.stop().await;
    let gone = a.connect("b@h").await.unwrap_err();
    assert!(matches!(gone, ConnectError::Reach { .. }), "{gone}");
    // Its name is free.
    stage.node("b@h").await;
    a.connect("b@h").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_stop_arrives() {
    let stage = Stage::open().await;
    let (a, b) = (stage.node("a@h").await, stage.node("b@h").await);
    let mut inbox = b.mailbox().unwrap();
    let large = Term::from(vec![7_u8; 1 << 20].as_slice());
    let from = a.mailbox().unwrap();
    for number in 0..40_i64 {
        let message = Term::Tuple(vec![Term::from(number), large.clone()]);
        from.send_term(inbox.pid(), &message).await.unwrap();
    }
    let stopped = tokio::spawn(async move { a.stop().await });
    for number in 0..40_i64 {
        let Some(Signal::Message(message)) = inbox.receive_within(LIMIT).await else {
            panic!("message {number} is lost");
        };
        let body = message.body.term().unwrap();
        assert_eq!(body.as_tuple().unwrap().first(), Some(&Term::from(number)));
    }
    stopped.await.unwrap();
    assert!(stage.client.agent_service("a@h").await.unwrap().is_none(), "out of the catalog");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_dial_each_other_at_once_have_one_link() {
    let stage = Stage::open().await;
    let (a, b) = (stage.node("a@h").await, stage.node("b@h").await);
    for _ in 0..20 {
        let (there, back) = tokio::join!(a.connect("b@h"), b.connect("a@h"));
        there.unwrap();
        back.unwrap();
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
        let mut events = b.monitor_nodes();
        a.disconnect("b@h");
        down(&mut events, "a@h").await;
        while !a.peers().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
