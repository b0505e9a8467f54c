//! The process `global_name_server`.

use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, Pid, Term, term};
use tokio::sync::{Semaphore, mpsc};

use super::super::NAME;
use super::locker::{Order, Waiting};
use super::resolver::resolve;
use super::state::{Act, News, State};
use crate::envelope::{Envelope, cast};
use crate::membership::{Change, Membership};
use crate::node::Inner;
use crate::process::{Mailbox, Signal};
use crate::to::To;

/// So long a lost node may come again, or others hear of it from its own side, before we report it.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// So many nodes that others know are dialled at a time.
const INTRODUCTIONS: usize = 64;

pub(super) struct Server {
    node: Arc<Inner>,
    state: State,
    orders: mpsc::Sender<Waiting>,
    news: mpsc::Sender<News>,
    introductions: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(
        node: Arc<Inner>,
        state: State,
        orders: mpsc::Sender<Waiting>,
        news: mpsc::Sender<News>,
    ) -> Self {
        let introductions = Arc::new(Semaphore::new(INTRODUCTIONS));
        Self { node, state, orders, news, introductions }
    }

    /// Serves until the process ends.
    pub(super) async fn run(mut self, mut mailbox: Mailbox, mut told: mpsc::Receiver<News>) {
        let mut membership = Membership::of(&self.node.peers);
        loop {
            tokio::select! {
                biased;
                change = membership.next() => self.change(change),
                Some(news) = told.recv() => self.state.news(news),
                signal = mailbox.receive() => {
                    let Some(signal) = signal else { return };
                    // A node is connected before it says anything.
                    while let Some(change) = membership.poll() {
                        self.change(change);
                    }
                    self.signal(signal);
                }
            }
            self.act(&mailbox).await;
        }
    }

    /// Hidden nodes have no part in this.
    fn change(&mut self, change: Change) {
        match change {
            Change::Up { node, hidden: false } => self.state.node_up(&node),
            Change::Down { node, hidden: false } => self.state.node_down(&node),
            _ => {}
        }
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Message(message) => match Envelope::open_small(&message.body) {
                Ok(Envelope::Call(from, request)) => self.state.call(from, &request),
                Ok(Envelope::Cast(said) | Envelope::Other(said))
                    if !is_of(&said, message.from.as_ref()) =>
                {
                    tracing::debug!(%said, "said in the name of another node");
                }
                Ok(Envelope::Cast(request)) => self.state.cast(&request),
                Ok(Envelope::Other(message)) => self.state.info(&message),
                Err(error) => tracing::debug!(%error, "nonsense for global_name_server"),
            },
            Signal::Down(down) => self.state.ended(&down.reference),
            _ => {}
        }
    }

    async fn act(&mut self, mailbox: &Mailbox) {
        for act in self.state.acts() {
            match act {
                Act::Tell(node, message) => {
                    let to = To::NameAt(Atom::cut(NAME), node);
                    self.node.post(mailbox.pid(), &to, &message);
                }
                Act::Reply(from, answer) => {
                    let (to, answer) = from.answer(answer);
                    self.node.post(mailbox.pid(), &to, &answer);
                }
                Act::Watch(pid, reference) if self.is_expected(&pid) => {
                    self.node.watch_soon(mailbox, &pid, reference).await;
                }
                Act::Watch(pid, reference) => {
                    self.node.watch_by(mailbox, &pid, reference).await;
                }
                Act::Unwatch(reference) => mailbox.demonitor(&reference),
                Act::Locker(order) => self.order(order),
                Act::Introduce(node) => self.introduce(mailbox, node),
                Act::Resolve(peer, tag, names) => {
                    let (node, shared) = (Arc::clone(&self.node), Arc::clone(&self.state.shared));
                    let news = self.news.clone();
                    self.node.tasks.spawn(async move {
                        drop(news.send(resolve(node, shared, peer, tag, names).await).await);
                    });
                }
                Act::Disconnect(node) => {
                    if let Some(connection) = self.node.peers.up_to(&node) {
                        connection.close("global: so that no partitions overlap");
                    }
                }
                Act::ReportLater(node) => {
                    let (news, stop) = (self.news.clone(), self.node.stop.clone());
                    self.node.tasks.spawn(async move {
                        tokio::select! {
                            () = tokio::time::sleep(REPORT_AFTER) => {}
                            () = stop.cancelled() => return,
                        }
                        drop(news.send(News::StillLost(node)).await);
                    });
                }
            }
        }
    }

    fn order(&self, order: Order) {
        let node = order.node().clone();
        let turn = self.state.shared.turns.enter(&node);
        let sent = turn.is_some_and(|turn| self.orders.try_send((order, turn)).is_ok());
        if !sent {
            self.node.too_much(&node);
        }
    }

    /// Whether that process is of a node which we connect to in any case: names may come before that.
    fn is_expected(&self, pid: &Pid) -> bool {
        self.state.shared.known().contains_key(pid.node.name())
    }

    /// Connects to a node that others know, and says that we have their names.
    fn introduce(&self, mailbox: &Mailbox, peer: Atom) {
        let (node, news, pid) = (Arc::clone(&self.node), self.news.clone(), mailbox.pid().clone());
        let introductions = Arc::clone(&self.introductions);
        self.node.tasks.spawn(async move {
            // It is never closed.
            let _turn = introductions.acquire().await;
            if node.connect(&peer).await.is_err() {
                tracing::warn!(node = %peer, "global: it cannot be reached, though others know it");
                drop(news.send(News::Unreachable(peer)).await);
                return;
            }
            let me = node.id.name().clone();
            let to = To::NameAt(Atom::cut(NAME), peer);
            node.post(&pid, &to, &cast(term!({in_sync, (me), true})));
        });
    }
}

/// Whether what a name server or locker says of its node comes from there: each speaks for itself. That
/// a node was lost is passed on by all.
fn is_of(said: &Term, sender: Option<&Pid>) -> bool {
    let node = match said.as_tuple() {
        Some([kind, ..]) if kind.is_atom("lost_connection") => return true,
        Some([kind, _, Term::Atom(node), _]) if kind.is_atom("init_connect") => node,
        Some([_, Term::Atom(node), ..]) => node,
        Some([_, Term::Pid(locker), ..]) => locker.node.name(),
        _ => return false,
    };
    sender.is_some_and(|sender| sender.node.name() == node)
}
