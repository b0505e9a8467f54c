//! How many calls run at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshx_etf::Atom;

/// So many calls of one node run, or have answers that wait to be sent.
pub(crate) const AT_ONCE: usize = 4096;
/// So many of all nodes together.
pub(crate) const ALL_AT_ONCE: usize = 1 << 16;

/// Those that run.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<Atom, usize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    node: Atom,
}

impl Places {
    /// Room for a call of this node, unless it has too many, or all have.
    pub(crate) fn take(self: &Arc<Self>, node: &Atom) -> Option<Place> {
        let mut taken = self.taken();
        let of = taken.of.get(node).copied().unwrap_or_default();
        if taken.all >= ALL_AT_ONCE || of >= AT_ONCE {
            return None;
        }
        taken.all += 1;
        taken.of.insert(node.clone(), of + 1);
        Some(Place { places: Arc::clone(self), node: node.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(of) = taken.of.get_mut(&self.node) {
            *of -= 1;
            if *of == 0 {
                taken.of.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_its_part_and_all_no_more_than_there_are() {
        let places = Arc::new(Places::default());
        let node = |number: usize| Atom::cut(&format!("n{number}@host"));
        let mut held: Vec<Place> = (0..AT_ONCE).map_while(|_| places.take(&node(0))).collect();
        assert_eq!(held.len(), AT_ONCE);
        assert!(places.take(&node(0)).is_none());
        for number in 1..ALL_AT_ONCE / AT_ONCE {
            held.extend((0..AT_ONCE).map_while(|_| places.take(&node(number))));
        }
        assert_eq!(held.len(), ALL_AT_ONCE);
        assert!(places.take(&node(99)).is_none());
        held.pop();
        assert!(places.take(&node(99)).is_some());
        held.clear();
        assert!(places.taken().of.is_empty() && places.taken().all == 0);
    }
}
