//! The process `global_name_server`.

use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, term};
use tokio::sync::mpsc;

use super::super::NAME;
use super::locker::Order;
use super::resolver::resolve;
use super::state::{Act, News, State};
use crate::envelope::{Envelope, cast};
use crate::membership::{Change, Membership};
use crate::node::Inner;
use crate::process::{Mailbox, Signal};
use crate::to::To;

/// So long a lost node may come again, or others hear of it from its own side, before we report it.
const REPORT_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Server {
    node: Arc<Inner>,
    state: State,
    orders: mpsc::Sender<Order>,
    news: mpsc::Sender<News>,
}

impl Server {
    pub(super) fn new(
        node: Arc<Inner>,
        state: State,
        orders: mpsc::Sender<Order>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self { node, state, orders, news }
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

    /// The locker takes orders whenever it waits; that it has thousands of them is the doing of who
    /// sends them to us.
    fn order(&mut self, order: Order) {
        let node = match &order {
            Order::Meet(him) => him.node.clone(),
            Order::Cancel { node, .. } => node.clone(),
            Order::LockSet { locker, .. } => locker.node.name().clone(),
        };
        if self.orders.try_send(order).is_err()
            && let Some(connection) = self.node.peers.up_to(&node)
        {
            connection.close("it sends more to global than can be done");
        }
    }

    /// Connects to a node that others know, and says that we have their names.
    fn introduce(&self, mailbox: &Mailbox, peer: Atom) {
        let (node, news, pid) = (Arc::clone(&self.node), self.news.clone(), mailbox.pid().clone());
        self.node.tasks.spawn(async move {
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
