//! What all processes of `global` on this node see; only the server changes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use meshx_etf::{Atom, Pid, Reference, Term};
use tokio::sync::watch;

use super::turns::Turns;

/// Names, known nodes, and whether somebody changes them.
#[derive(Debug, Default)]
pub(in crate::global) struct Shared {
    names: RwLock<HashMap<Term, Entry>>,
    known: RwLock<BTreeMap<Atom, i64>>,
    locked: AtomicBool,
    synced: watch::Sender<HashSet<Atom>>,
    /// Of the locker.
    pub(super) turns: Turns,
}

/// A registered name.
#[derive(Debug, Clone)]
pub(in crate::global) struct Entry {
    pub(in crate::global) pid: Pid,
    /// The function that decides between two processes of the name.
    pub(super) method: Term,
    pub(super) monitor: Reference,
}

impl Shared {
    pub(in crate::global) fn names(&self) -> RwLockReadGuard<'_, HashMap<Term, Entry>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names_mut(&self) -> RwLockWriteGuard<'_, HashMap<Term, Entry>> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes that have the same names, and the version of the protocol that they speak.
    pub(in crate::global) fn known(&self) -> RwLockReadGuard<'_, BTreeMap<Atom, i64>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Atom, i64>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_nodes(&self) -> Vec<Atom> {
        self.known().keys().cloned().collect()
    }

    /// Whether somebody holds the lock of the names.
    pub(super) fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Acquire)
    }

    pub(super) fn set_locked(&self, locked: bool) {
        self.locked.store(locked, Ordering::Release);
    }

    /// The nodes that have said that they have our names, and those of which we have theirs.
    pub(in crate::global) fn synced(&self) -> watch::Receiver<HashSet<Atom>> {
        self.synced.subscribe()
    }

    pub(super) fn set_synced(&self, node: &Atom, synced: bool) {
        self.synced.send_if_modified(|nodes| {
            if synced { nodes.insert(node.clone()) } else { nodes.remove(node) }
        });
    }
}
