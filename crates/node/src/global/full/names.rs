//! Names, as the server keeps them.

use meshx_etf::{Pid, Term};

use super::shared::Entry;
use super::state::{Act, State};

/// No node keeps more names; further ones are not known here.
const NAMES: usize = 1 << 20;

impl State {
    /// A name, in the place of who had it. It stays only if who gives it still has the lock.
    pub(super) fn insert(&mut self, name: &Term, pid: &Pid, method: &Term, allowed: bool) {
        self.delete(name);
        if !allowed || self.watched.len() >= NAMES {
            return;
        }
        let monitor = self.watch(pid);
        self.watched.insert(monitor.clone(), name.clone());
        let entry = Entry { pid: pid.clone(), method: method.clone(), monitor };
        self.shared.names_mut().insert(name.clone(), entry);
    }

    pub(super) fn delete(&mut self, name: &Term) {
        let entry = self.shared.names_mut().remove(name);
        if let Some(Entry { monitor, .. }) = entry {
            self.watched.remove(&monitor);
            self.act(Act::Unwatch(monitor));
        }
    }

    /// Whether a process has the lock of the names, or nobody needs it.
    pub(super) fn holds_the_lock(&self, pid: &Pid) -> bool {
        match self.locks.holders(&Term::atom("global")) {
            Some((_, mut holders)) => holders.any(|holder| holder == pid),
            None => !self.lock_lost,
        }
    }

    /// What two partitions agreed on: `{insert, {Name, Pid, Method}}` and `{delete, Name}`. `lock` is
    /// the lock under which they did.
    pub(super) fn operate(&mut self, operations: &[Term], lock: Option<&Term>) {
        let requester = lock.and_then(Term::as_tuple).and_then(|lock| lock.get(1));
        let allowed = match self.locks.holders(&Term::atom("global")) {
            Some((holder, _)) => requester == Some(holder),
            None => !self.lock_lost,
        };
        for operation in operations {
            if let Some([kind, entry]) = operation.as_tuple()
                && kind.is_atom("insert")
                && let Some([name, Term::Pid(pid), method]) = entry.as_tuple()
            {
                self.insert(name, pid, method, allowed);
            }
        }
        for operation in operations {
            if let Some([kind, name]) = operation.as_tuple()
                && kind.is_atom("delete")
            {
                self.delete(name);
            }
        }
    }

    /// All names, as they are told to others.
    pub(super) fn names_list(&self) -> Term {
        let names = self.shared.names();
        let entry = |(name, entry): (&Term, &Entry)| {
            Term::Tuple(vec![name.clone(), Term::Pid(entry.pid.clone()), entry.method.clone()])
        };
        Term::List(names.iter().map(entry).collect())
    }
}
