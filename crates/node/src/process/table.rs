//! The processes of a node, by number and by name.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use meshx_etf::{Atom, Node, Pid};

use super::cell::Cell;

/// No node has more processes at a time.
pub(crate) const PROCESSES: usize = 1 << 20;

/// As many processes have pids that every release can read: numbers and serials from 1 and 0 to what
/// 15 and 13 bits hold (`Pid::is_narrow`). Others only exist while all of these are taken.
const NARROW: usize = (1 << 15) - 1;
const SERIALS: u32 = 1 << 13;

/// All processes that live.
#[derive(Debug)]
pub(crate) struct Table {
    node: Node,
    limit: usize,
    slots: RwLock<Slots>,
    names: RwLock<HashMap<Atom, Arc<Cell>>>,
    /// Counts the changes of names.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Slots {
    held: Vec<Slot>,
    /// Those below [`NARROW`], in the order in which they became free: each pid is used again as late
    /// as can be.
    free: VecDeque<u32>,
    /// The others.
    wide: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    serial: u32,
    cell: Option<Arc<Cell>>,
}

impl Slots {
    /// One that is free: a narrow one that never was in use, one that was longest ago, or a wide one.
    fn take(&mut self) -> Option<u32> {
        let new = self.held.len();
        let free = (new >= NARROW).then(|| self.free.pop_front().or_else(|| self.wide.pop()));
        if let Some(index) = free.flatten() {
            return Some(index);
        }
        if new >= PROCESSES {
            return None;
        }
        self.held.push(Slot::default());
        u32::try_from(new).ok()
    }
}

impl Table {
    /// `limit` is that of each mailbox, in bytes.
    pub(crate) fn new(node: Node, limit: usize) -> Self {
        Self {
            node,
            limit,
            slots: RwLock::default(),
            names: RwLock::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// A new process; `None` if there are [`PROCESSES`] already.
    pub(crate) fn insert(&self) -> Option<Arc<Cell>> {
        let mut slots = write(&self.slots);
        let index = slots.take()?;
        let slot = slots.held.get_mut(index as usize)?;
        let pid = Pid { node: self.node.clone(), id: index + 1, serial: slot.serial };
        let cell = Arc::new(Cell::new(pid, self.limit));
        slot.cell = Some(Arc::clone(&cell));
        Some(cell)
    }

    /// The process ended: its number is free for another, with another serial.
    pub(crate) fn remove(&self, pid: &Pid) {
        let mut slots = write(&self.slots);
        let Some(index) = pid.id.checked_sub(1) else { return };
        let Some(slot) = slots.held.get_mut(index as usize) else { return };
        if slot.serial == pid.serial && slot.cell.take().is_some() {
            slot.serial = slot.serial.wrapping_add(1);
            if (index as usize) < NARROW {
                slot.serial %= SERIALS;
                slots.free.push_back(index);
            } else {
                slots.wide.push(index);
            }
        }
    }

    /// The process, if it lives and is of this life of the node.
    pub(crate) fn get(&self, pid: &Pid) -> Option<Arc<Cell>> {
        if pid.node != self.node {
            return None;
        }
        self.numbered(pid.id).filter(|cell| cell.pid.serial == pid.serial)
    }

    /// The process that has this number now.
    pub(crate) fn numbered(&self, id: u32) -> Option<Arc<Cell>> {
        let slots = read(&self.slots);
        slots.held.get(id.checked_sub(1)? as usize)?.cell.clone()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Cell>> {
        read(&self.names).get(name).cloned()
    }

    /// How often names have changed: as long as that is the same, so is who has which.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// False if the name is taken, or the process has one or has ended.
    pub(crate) fn register(&self, name: &Atom, cell: &Arc<Cell>) -> bool {
        let mut names = write(&self.names);
        if names.contains_key(name) || !cell.take_name(name) {
            return false;
        }
        names.insert(name.clone(), Arc::clone(cell));
        self.changes.fetch_add(1, Ordering::Release);
        true
    }

    /// Takes the name from who has it; from `pid` only, if given.
    pub(crate) fn unregister(&self, name: &str, pid: Option<&Pid>) -> bool {
        let mut names = write(&self.names);
        let held = names.get(name).is_some_and(|cell| pid.is_none_or(|pid| cell.pid == *pid));
        if held && let Some(cell) = names.remove(name) {
            cell.drop_name();
            self.changes.fetch_add(1, Ordering::Release);
        }
        held
    }

    pub(crate) fn names(&self) -> Vec<Atom> {
        read(&self.names).keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        let slots = read(&self.slots);
        slots.held.len() - slots.free.len() - slots.wide.len()
    }

    /// There is no number for one more process, until one of those that live ends.
    #[cfg(test)]
    pub(crate) fn fill(&self) {
        let mut slots = write(&self.slots);
        slots.held.resize_with(PROCESSES, Slot::default);
        slots.free.clear();
        slots.wide.clear();
    }

    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        read(&self.slots).held.iter().filter_map(|slot| slot.cell.clone()).collect()
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
