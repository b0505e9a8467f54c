//! Asking many name servers at once, on behalf of one process.

use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, Term, term};
use tokio::task::JoinSet;

use super::super::NAME;
use crate::envelope::TERMS;
use crate::node::Inner;
use crate::process::{Cell, Mailbox};
use crate::to::To;

/// Stock nodes wait without end for the answer to any of these. Who is that slow hangs, and his
/// connection will be given up by its ticks; a lock that we may have got of him is given back.
const LIMIT: Duration = Duration::from_secs(15);

/// A process that asks.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    node: Arc<Inner>,
    cell: Arc<Cell>,
}

impl Asker {
    pub(super) fn new(node: &Arc<Inner>, mailbox: &Mailbox) -> Self {
        Self { node: Arc::clone(node), cell: Arc::clone(mailbox.cell()) }
    }

    /// As `gen_server:multi_call/3`: the answers of those that gave one. Nodes that cannot be reached
    /// do not count; those that are late are told apart.
    pub(super) async fn ask(&self, nodes: &[Atom], request: &Term) -> (Vec<(Atom, Term)>, bool) {
        let mut asked = JoinSet::new();
        for node in nodes {
            let (asker, node, request) = (self.clone(), node.clone(), request.clone());
            asked.spawn(async move {
                let server = To::NameAt(Atom::cut(NAME), node.clone());
                let Asker { node: inner, cell } = asker;
                let answer = inner.call(&cell, server, "$gen_call", &request, LIMIT).await;
                (node, answer)
            });
        }
        let (mut answers, mut late) = (Vec::new(), false);
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((node, Ok(answer))) => {
                    if let Ok(answer) = answer.term_up_to(TERMS) {
                        answers.push((node, answer));
                    }
                }
                Ok((_, Err(crate::CallError::Timeout(_)))) => late = true,
                _ => {}
            }
        }
        (answers, late)
    }

    /// Locks at all these nodes, or at none.
    pub(super) async fn set_lock(&self, id: &Term, nodes: &[Atom]) -> bool {
        if nodes.is_empty() {
            return true;
        }
        let (answers, late) = self.ask(nodes, &term!({set_lock, (id.clone())})).await;
        if !late && answers.iter().all(|(_, answer)| answer.is_atom("true")) {
            return true;
        }
        if late {
            self.del_lock(id, nodes).await;
        } else {
            let set = answers.into_iter().filter(|(_, answer)| answer.is_atom("true"));
            let set: Vec<Atom> = set.map(|(node, _)| node).collect();
            self.del_lock(id, &set).await;
        }
        false
    }

    pub(super) async fn del_lock(&self, id: &Term, nodes: &[Atom]) {
        self.ask(nodes, &term!({del_lock, (id.clone())})).await;
    }

    /// Gives the lock back everywhere, at the boss last: who wants it asks him first.
    pub(super) async fn release(&self, id: &Term, nodes: &[Atom]) {
        let Some(boss) = boss(nodes) else { return };
        let others: Vec<Atom> = nodes.iter().filter(|node| **node != boss).cloned().collect();
        self.del_lock(id, &others).await;
        self.del_lock(id, &[boss]).await;
    }
}

/// The node that is asked for a lock before all others, so that nobody who wants it too is half
/// way: the one of the greatest name.
pub(super) fn boss(nodes: &[Atom]) -> Option<Atom> {
    nodes.iter().max_by(|a, b| a.as_bytes().cmp(b.as_bytes())).cloned()
}

/// How long to wait before the next attempt to get a lock; the more there were, the longer it may be.
pub(super) fn pause(attempts: u32) -> Duration {
    let longest = if attempts > 5 { 8000 } else { (1_u64 << attempts) * 125 };
    let longest = usize::try_from(longest).unwrap_or(8000);
    Duration::from_millis(1 + meshx_rt::random::below(longest) as u64)
}
