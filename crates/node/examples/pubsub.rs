//! A subscriber of `Phoenix.PubSub`, and a publisher.
//!
//! `Phoenix.PubSub` with its default adapter keeps a process in a group of the scope
//! `Phoenix.PubSub` on each node, and sends it what is published on any other node. So does this
//! program. It shows what is published on one topic, and greets on it every node that it meets.
//!
//! In two terminals; the first is the Elixir program, or one that stands for it:
//!
//! ```console
//! $ iex --name shop@127.0.0.1 -S mix
//! $ cargo run -p meshx-node --example pubsub -- \
//!       rust@127.0.0.1 ~/.erlang.cookie shop@127.0.0.1 Shop.PubSub orders
//! ```
//!
//! Then in the shell of Elixir:
//!
//! ```console
//! iex> Phoenix.PubSub.broadcast(Shop.PubSub, "orders", {:paid, 7})
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::process::ExitCode;

use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::etf::{Atom, Term, term};
use meshx_node::pg::{EventKind, Scope};
use meshx_node::{Cookie, Mailbox, Node, Signal};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pubsub: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file, peer, pubsub, topic] = &arguments[..] else {
        return Err("usage: pubsub NAME COOKIE_FILE NODE PUBSUB TOPIC".into());
    };
    let cookie = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let node = Node::builder(name)
        .cookie(Cookie::new(cookie.trim()))
        .carrier(Tcp::loopback(Epmd::local()?))
        .start()
        .await?;
    let pubsub = PubSub::new(&node, pubsub)?;
    node.connect(peer).await?;
    println!("{name} listens to {topic}");
    tokio::select! {
        ended = pubsub.run(topic) => ended?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    node.stop().await;
    Ok(())
}

/// What stands here for the processes that `Phoenix.PubSub` has on each node.
struct PubSub {
    node: Node,
    scope: Scope,
    /// The name of the group, and of its process on each node. With a `pool_size` there are more:
    /// `Adapter_2` and so on, of which each publisher uses one.
    adapter: String,
}

impl PubSub {
    fn new(node: &Node, name: &str) -> Result<Self, Box<dyn Error>> {
        let adapter = format!("Elixir.{name}.Adapter");
        Ok(Self { node: node.clone(), scope: node.pg("Elixir.Phoenix.PubSub")?, adapter })
    }

    /// Shows what is published on the topic, until the node ends.
    async fn run(&self, topic: &str) -> Result<(), Box<dyn Error>> {
        let (published, mut incoming) = mpsc::channel(64);
        let (groups, mut events) = self.scope.monitor();
        let mut listening = HashSet::new();
        self.listen(&Term::atom(&self.adapter), &mut listening, &published).await?;
        for (group, pids) in groups {
            self.listen(&group, &mut listening, &published).await?;
            if group.is_atom(&self.adapter) {
                self.greet(topic, &pids).await?;
            }
        }
        loop {
            tokio::select! {
                Some((on, message)) = incoming.recv() => {
                    if on == topic {
                        println!("{on}: {message}");
                    }
                }
                event = events.recv() => {
                    let event = event?;
                    if event.kind == EventKind::Join {
                        self.listen(&event.group, &mut listening, &published).await?;
                    }
                    if event.kind == EventKind::Join && event.group.is_atom(&self.adapter) {
                        self.greet(topic, &event.pids).await?;
                    }
                }
            }
        }
    }

    /// Joins a group of ours, once, by a process that has its name.
    async fn listen(
        &self,
        group: &Term,
        listening: &mut HashSet<Atom>,
        published: &mpsc::Sender<(String, Term)>,
    ) -> Result<(), Box<dyn Error>> {
        let Term::Atom(name) = group else { return Ok(()) };
        let Some(rest) = name.strip_prefix(&self.adapter) else { return Ok(()) };
        if !(rest.is_empty() || rest.starts_with('_')) || !listening.insert(name.clone()) {
            return Ok(());
        }
        let worker = self.node.mailbox()?;
        worker.register(name)?;
        self.scope.join(group, worker.pid()).await?;
        tokio::spawn(forward(worker, published.clone()));
        Ok(())
    }

    /// Publishes a greeting, as `Phoenix.PubSub.broadcast/3` does, but to some nodes only.
    async fn greet(
        &self,
        topic: &str,
        nodes: &[meshx_node::etf::Pid],
    ) -> Result<(), Box<dyn Error>> {
        let (topic, name) = (Term::from(topic), Term::from(self.node.name().as_str()));
        let dispatcher = Term::atom("Elixir.Phoenix.PubSub");
        let message = term!({forward_to_local, (topic), {hello, (name)}, (dispatcher)});
        let publisher = self.node.mailbox()?;
        for worker in nodes.iter().filter(|pid| pid.node.name() != self.node.name()) {
            publisher.send_term(worker, &message).await?;
        }
        Ok(())
    }
}

/// `{forward_to_local, Topic, Message, Dispatcher}` is a message on a topic; there is no other.
async fn forward(mut worker: Mailbox, published: mpsc::Sender<(String, Term)>) {
    while let Some(signal) = worker.receive().await {
        let Signal::Message(message) = signal else { continue };
        let Ok(Term::Tuple(message)) = message.body.term() else { continue };
        let [kind, topic, message, _dispatcher] = &message[..] else { continue };
        let topic = topic.as_binary().and_then(|it| std::str::from_utf8(it).ok());
        let (true, Some(topic)) = (kind.is_atom("forward_to_local"), topic) else { continue };
        if published.send((topic.to_owned(), message.clone())).await.is_err() {
            return;
        }
    }
}
