//! Which nodes come and go, without a gap.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use meshx_etf::Atom;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::connection::Peers;
use crate::node::NodeEvent;

/// What happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is connected.
    Up {
        /// Which.
        node: Atom,
        /// Whether one of both sides is hidden.
        hidden: bool,
    },
    /// It is not connected any more.
    Down {
        /// Which.
        node: Atom,
        /// Whether one of both sides was hidden.
        hidden: bool,
    },
}

/// Follows the nodes, beginning with those that are connected already. Who is far behind sees all
/// of them go and come again.
#[derive(Debug)]
pub(crate) struct Membership {
    peers: Arc<Peers>,
    events: Receiver<NodeEvent>,
    connected: HashMap<Atom, bool>,
    ready: VecDeque<Change>,
}

impl Membership {
    pub(crate) fn of(peers: &Arc<Peers>) -> Self {
        let events = peers.events();
        let (connected, ready) = (HashMap::new(), VecDeque::new());
        let mut membership = Self { peers: Arc::clone(peers), events, connected, ready };
        membership.look();
        membership
    }

    /// The next change. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            match self.events.recv().await {
                Ok(event) => self.take(event),
                Err(RecvError::Lagged(_)) => self.look_again(),
                // The node itself has the sender.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The next change, if there is one.
    pub(crate) fn poll(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            match self.events.try_recv() {
                Ok(event) => self.take(event),
                Err(TryRecvError::Lagged(_)) => self.look_again(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    fn take(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Up { node, hidden, .. } => self.up(node, hidden),
            NodeEvent::Down { node, .. } => {
                if let Some(hidden) = self.connected.remove(&node) {
                    self.ready.push_back(Change::Down { node, hidden });
                }
            }
        }
    }

    fn up(&mut self, node: Atom, hidden: bool) {
        if self.connected.insert(node.clone(), hidden).is_none() {
            self.ready.push_back(Change::Up { node, hidden });
        }
    }

    fn look_again(&mut self) {
        let gone = self.connected.drain();
        self.ready.extend(gone.map(|(node, hidden)| Change::Down { node, hidden }));
        self.look();
    }

    fn look(&mut self) {
        for connection in self.peers.all() {
            self.up(connection.name().clone(), connection.is_hidden());
        }
    }
}
