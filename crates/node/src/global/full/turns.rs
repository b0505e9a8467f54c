//! How much of what each node says waits for the locker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshx_etf::Atom;

/// So much of one node may wait. A stock node says a handful of things, and waits for an answer.
const OF_A_NODE: usize = 256;

/// What waits, by node.
#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Waiting>);

/// Something of a node waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    waiting: Arc<Waiting>,
    node: Atom,
}

#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<Atom, usize>>);

impl Turns {
    /// Something of that node is to wait; `None` if too much does.
    pub(super) fn enter(&self, node: &Atom) -> Option<Turn> {
        let mut waiting = self.0.lock();
        let count = waiting.entry(node.clone()).or_default();
        if *count >= OF_A_NODE {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Turn { waiting: Arc::clone(&self.0), node: node.clone() })
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<Atom, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        if let Some(count) = waiting.get_mut(&self.node) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                waiting.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_own_share() {
        let turns = Turns::default();
        let (a, b) = (Atom::cut("a@h"), Atom::cut("b@h"));
        let mut taken: Vec<_> = (0..OF_A_NODE).map(|_| turns.enter(&a).unwrap()).collect();
        assert!(turns.enter(&a).is_none());
        assert!(turns.enter(&b).is_some());
        taken.pop();
        assert!(turns.enter(&a).is_some());
        drop(taken);
        assert!(turns.0.lock().is_empty());
    }
}
