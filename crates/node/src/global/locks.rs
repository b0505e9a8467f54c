//! The locks of `global` that this node keeps.

use std::collections::HashMap;

use meshx_etf::{Pid, Reference, Term};

/// No node keeps locks for more holders at a time; further ones are refused, as if somebody else had
/// them. Who holds two locks counts twice, and so do two who share one.
const LOCKS: usize = 1 << 16;

/// Who locks what. A lock is asked for as `{Resource, Requester}`; processes that name the same
/// requester share it (`global:set_lock/3`).
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: HashMap<Term, Lock>,
    /// Of whom and of which resource a monitor is; each is of one holder.
    watched: HashMap<Reference, (Pid, Term)>,
}

#[derive(Debug)]
struct Lock {
    requester: Term,
    holders: HashMap<Pid, Reference>,
}

/// What an attempt to lock came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Somebody else has the lock.
    Refused,
    /// The process has it already.
    Held,
    /// It may have it: watch it, and say so to [`Locks::hold`].
    Free,
}

impl Locks {
    /// Whether a process could have a lock.
    pub(super) fn attempt(&self, id: &Term, pid: &Pid) -> Attempt {
        let Some((resource, requester)) = parts(id) else { return Attempt::Refused };
        match self.held.get(resource) {
            Some(lock) if lock.requester != *requester => Attempt::Refused,
            Some(lock) if lock.holders.contains_key(pid) => Attempt::Held,
            _ if self.watched.len() >= LOCKS => Attempt::Refused,
            _ => Attempt::Free,
        }
    }

    /// The process has the lock, and is watched.
    pub(super) fn hold(&mut self, id: &Term, pid: Pid, monitor: Reference) {
        let Some((resource, requester)) = parts(id) else { return };
        self.watched.insert(monitor.clone(), (pid.clone(), resource.clone()));
        let free = || Lock { requester: requester.clone(), holders: HashMap::new() };
        self.held.entry(resource.clone()).or_insert_with(free).holders.insert(pid, monitor);
    }

    /// The process gives the lock back; its monitor is of no use any more.
    pub(super) fn release(&mut self, id: &Term, pid: &Pid) -> Option<Reference> {
        let (resource, requester) = parts(id)?;
        let lock = self.held.get_mut(resource).filter(|lock| lock.requester == *requester)?;
        let monitor = lock.holders.remove(pid)?;
        if lock.holders.is_empty() {
            self.held.remove(resource);
        }
        self.watched.remove(&monitor);
        Some(monitor)
    }

    /// A process that was watched ended. Gives the resource if it is free now.
    pub(super) fn ended(&mut self, monitor: &Reference) -> Option<Term> {
        let (pid, resource) = self.watched.remove(monitor)?;
        let lock = self.held.get_mut(&resource)?;
        lock.holders.remove(&pid);
        if !lock.holders.is_empty() {
            return None;
        }
        self.held.remove(&resource);
        Some(resource)
    }

    /// Who locks `resource`: the requester and the processes.
    pub(super) fn holders(&self, resource: &Term) -> Option<(&Term, impl Iterator<Item = &Pid>)> {
        let lock = self.held.get(resource)?;
        Some((&lock.requester, lock.holders.keys()))
    }
}

fn parts(id: &Term) -> Option<(&Term, &Term)> {
    match id.as_tuple()? {
        [resource, requester] => Some((resource, requester)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use meshx_etf::{Node, term};

    use super::*;

    fn pid(id: u32) -> Pid {
        Pid { node: Node::new("a@h".parse().unwrap(), 7), id, serial: 0 }
    }

    fn monitor(id: u32) -> Reference {
        Reference::new(Node::new("a@h".parse().unwrap(), 7), &[id, 0, 0]).unwrap()
    }

    #[test]
    fn a_lock_is_shared_by_one_requester_and_free_after_the_last_holder() {
        let mut locks = Locks::default();
        let (ours, theirs) = (term!({x, ours}), term!({x, theirs}));
        assert_eq!(locks.attempt(&ours, &pid(1)), Attempt::Free);
        locks.hold(&ours, pid(1), monitor(1));
        assert_eq!(locks.attempt(&ours, &pid(1)), Attempt::Held);
        assert_eq!(locks.attempt(&ours, &pid(2)), Attempt::Free);
        locks.hold(&ours, pid(2), monitor(2));
        assert_eq!(locks.attempt(&theirs, &pid(3)), Attempt::Refused);
        // Who does not hold it, or names another requester, gives nothing back.
        assert_eq!(locks.release(&ours, &pid(3)), None);
        assert_eq!(locks.release(&theirs, &pid(1)), None);
        assert_eq!(locks.release(&ours, &pid(1)), Some(monitor(1)));
        assert_eq!(locks.attempt(&theirs, &pid(3)), Attempt::Refused);
        assert_eq!(locks.ended(&monitor(1)), None);
        assert_eq!(locks.ended(&monitor(2)), Some(term!(x)));
        assert_eq!(locks.attempt(&theirs, &pid(3)), Attempt::Free);
        assert_eq!(locks.attempt(&term!(nonsense), &pid(3)), Attempt::Refused);
    }

    /// Of one lock or of many: what peers can have kept here is bounded by its holders.
    #[test]
    fn all_holders_count() {
        let mut locks = Locks::default();
        let shared = term!({x, ours});
        for number in 0..u32::try_from(LOCKS).unwrap() {
            assert_eq!(locks.attempt(&shared, &pid(number)), Attempt::Free);
            locks.hold(&shared, pid(number), monitor(number));
        }
        assert_eq!(locks.attempt(&shared, &pid(1 << 20)), Attempt::Refused);
        assert_eq!(locks.attempt(&term!({y, ours}), &pid(1)), Attempt::Refused);
        assert_eq!(locks.attempt(&shared, &pid(1)), Attempt::Held);
        assert_eq!(locks.release(&shared, &pid(1)), Some(monitor(1)));
        assert_eq!(locks.attempt(&term!({y, ours}), &pid(1)), Attempt::Free);
    }
}
