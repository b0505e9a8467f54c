//! A full part in `global`: the protocol of OTP 25 and later (`global.erl`, protocol version 8;
//! recorded with 25 and 27).
//!
//! Four kinds of processes, as there: the **server** holds names, locks and what is known of other
//! nodes, and never waits for anybody; the **locker** agrees with a new node's locker on who locks
//! what while both partitions become one; the **registrar** changes names, one after the other, under
//! the lock of all nodes; a **resolver** compares the names of two partitions.

mod ask;
mod handshake;
mod locker;
mod names;
mod partition;
mod registrar;
mod resolver;
mod server;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;

use tokio::sync::mpsc;

pub(super) use registrar::{Change, LIMIT, Transaction};
pub(super) use shared::Shared;

use crate::node::{Inner, Node};
use crate::process::Cell;

/// So much may wait for the locker, for the registrar, and for the server from the two of them.
const WAITING: usize = 4096;

/// What the rest of the node has of it.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) shared: Arc<Shared>,
    pub(super) transactions: mpsc::Sender<Transaction>,
}

/// Starts the processes, and gives them. `None` if the node has no room for them, or the name is taken.
pub(super) fn start(node: &Arc<Inner>) -> Option<(Full, Vec<Arc<Cell>>)> {
    let server = super::server(node)?;
    let process = || Node::of(Arc::clone(node)).mailbox().ok();
    let (locker, registrar) = (process()?, process()?);
    let processes = [&server, &locker, &registrar].map(|it| Arc::clone(it.cell())).to_vec();
    let shared = Arc::new(Shared::default());
    let (orders, ordered) = mpsc::channel(WAITING);
    let (news, told) = mpsc::channel(WAITING);
    let (transactions, waiting) = mpsc::channel(WAITING);
    let state = state::State::new(node, server.pid(), locker.pid(), Arc::clone(&shared));
    let serving = server::Server::new(Arc::clone(node), state, orders, news.clone());
    node.run(server, |mailbox| serving.run(mailbox, told));
    let locking = locker::Locker::new(Arc::clone(node), &locker, Arc::clone(&shared), news);
    node.run(locker, |mailbox| locking.run(mailbox, ordered));
    let registering = registrar::Registrar::new(Arc::clone(node), Arc::clone(&shared));
    node.run(registrar, |mailbox| registering.run(mailbox, waiting));
    Some((Full { shared, transactions }, processes))
}
