//! Rust nodes under faults: what the Erlang reference manual promises, kept when processes end, nodes
//! meet, part and are lied to.
#![allow(clippy::unwrap_used, reason = "tests")]

mod flow;
mod guests;
mod hostile;
mod keep;
mod meeting;
mod old;
mod raw;
mod relations;
mod scale;
mod ticks;
mod unix;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshx_node::carrier::{Carried, Memory, Publication, Resolve, Static, Switchboard, Tcp};
use meshx_node::{Builder, Cookie, Flags, Mailbox, Node, NodeEvent, Signal};
use tokio::sync::broadcast::Receiver;

const COOKIE: &str = "a-cookie-of-tests";
/// Held for writing by tests that measure what the process has in memory, and for reading by those that
/// fill it.
static MEMORY: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(20);
/// How long one waits for what should not come.
const NOTHING: Duration = Duration::from_millis(150);

fn builder(name: &str) -> Builder {
    Node::builder(format!("{name}@127.0.0.1")).cookie(Cookie::new(COOKIE))
}

fn on(board: &Switchboard, name: &str) -> Builder {
    builder(name).carrier(Memory::new(board))
}

/// Two nodes that are connected.
async fn pair() -> (Node, Node) {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let b = on(&board, "b").start().await.unwrap();
    a.connect(b.name()).await.unwrap();
    (a, b)
}

/// Two nodes that are connected, of which one can do no more than OTP 23.2.
async fn old_pair() -> (Node, Node) {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let newer = Flags::UNLINK_ID | Flags::V4_NC | Flags::ALIAS;
    let b = on(&board, "b").without(newer).start().await.unwrap();
    a.connect(b.name()).await.unwrap();
    (a, b)
}

/// Nodes at addresses that are known beforehand, shared by several.
#[derive(Clone, Debug, Default)]
struct Known(Arc<Static>);

impl Known {
    fn tcp(&self) -> Tcp {
        Tcp::loopback(self.clone())
    }

    fn add(&self, node: &Node) {
        self.0.insert(node.name(), address(node));
    }
}

impl Resolve for Known {
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>> {
        self.0.resolve(node)
    }

    fn publish<'a>(
        &'a self,
        me: &'a meshx_node::carrier::Myself,
        at: SocketAddr,
    ) -> Carried<'a, Publication> {
        self.0.publish(me, at)
    }
}

/// Where the first carrier of a node listens.
fn address(node: &Node) -> SocketAddr {
    node.addresses()[0].parse().unwrap()
}

async fn next(mailbox: &mut Mailbox) -> Signal {
    mailbox.receive_within(LIMIT).await.expect("a signal in time")
}

async fn quiet(mailbox: &mut Mailbox) {
    let signal = mailbox.receive_within(NOTHING).await;
    assert!(signal.is_none(), "{signal:?}");
}

/// Waits until that is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How often nodes came up and went down since.
fn ups_and_downs(events: &mut Receiver<NodeEvent>) -> (usize, usize) {
    let (mut ups, mut downs) = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            NodeEvent::Up { .. } => ups += 1,
            NodeEvent::Down { .. } => downs += 1,
            _ => {}
        }
        assert!(ups == downs || ups == downs + 1, "an event out of order");
    }
    (ups, downs)
}
