//! The registrar: changes names on all known nodes, under the lock of all of them.

use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, Export, Pid, Term, term};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ask::{Asker, boss, pause};
use super::shared::Shared;
use crate::node::Inner;
use crate::process::Mailbox;

/// So long is the lock of all nodes tried for. Stock nodes try without end.
pub(in crate::global) const LIMIT: Duration = Duration::from_secs(30);

/// A change of names that somebody waits for.
#[derive(Debug)]
pub(in crate::global) struct Transaction {
    pub(in crate::global) change: Change,
    /// Whether it was made; `None`: the lock could not be had.
    pub(in crate::global) done: oneshot::Sender<Option<bool>>,
}

#[derive(Debug)]
pub(in crate::global) enum Change {
    Register(Term, Pid),
    /// In the place of who has the name.
    Reregister(Term, Pid),
    Unregister(Term),
}

pub(super) struct Registrar {
    node: Arc<Inner>,
    shared: Arc<Shared>,
}

impl Registrar {
    pub(super) fn new(node: Arc<Inner>, shared: Arc<Shared>) -> Self {
        Self { node, shared }
    }

    pub(super) async fn run(self, mailbox: Mailbox, mut waiting: mpsc::Receiver<Transaction>) {
        mailbox.trap_exits(true);
        let asker = Asker::new(&self.node, &mailbox);
        let id = Term::Tuple(vec![Term::atom("global"), Term::Pid(mailbox.pid().clone())]);
        while let Some(Transaction { change, done }) = waiting.recv().await {
            let made = match self.lock(&asker, &id).await {
                None => None,
                Some(nodes) => {
                    let made = self.make(&asker, &nodes, change).await;
                    asker.release(&id, &nodes).await;
                    Some(made)
                }
            };
            // Whoever asked may not wait any more.
            let _ignored = done.send(made);
        }
    }

    /// Locks this node and all known ones. The boss is asked first, so that of two who want the lock
    /// one has it at once.
    async fn lock(&self, asker: &Asker, id: &Term) -> Option<Vec<Atom>> {
        let end = Instant::now() + LIMIT;
        let mut attempts = 0;
        loop {
            let mut nodes = self.shared.known_nodes();
            nodes.push(self.node.id.name().clone());
            let first: Vec<Atom> = boss(&nodes).into_iter().collect();
            if asker.set_lock(id, &first).await {
                if asker.set_lock(id, &nodes).await {
                    let known = self.shared.known_nodes();
                    if known.iter().all(|node| nodes.contains(node)) {
                        return Some(nodes);
                    }
                    asker.release(id, &nodes).await;
                } else {
                    asker.del_lock(id, &first).await;
                }
            }
            if Instant::now() >= end {
                return None;
            }
            tokio::time::sleep(pause(attempts)).await;
            attempts += 1;
        }
    }

    async fn make(&self, asker: &Asker, nodes: &[Atom], change: Change) -> bool {
        let request = match change {
            Change::Register(name, pid) => {
                let is_free = {
                    let names = self.shared.names();
                    // One name to a process, as OTP has it.
                    !names.contains_key(&name) && names.values().all(|entry| entry.pid != pid)
                };
                if !is_free {
                    return false;
                }
                register(name, pid)
            }
            Change::Reregister(name, pid) => register(name, pid),
            Change::Unregister(name) => {
                if !self.shared.names().contains_key(&name) {
                    return false;
                }
                term!({unregister, (name)})
            }
        };
        asker.ask(nodes, &request).await;
        true
    }
}

/// With the function that OTP chooses if none is given: of two processes, it kills one.
fn register(name: Term, pid: Pid) -> Term {
    let method =
        Export { module: Atom::cut("global"), function: Atom::cut("random_exit_name"), arity: 3 };
    term!({register, (name), (pid), (Term::Export(Box::new(method)))})
}
