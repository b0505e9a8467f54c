//! Who is in which group.

use std::collections::HashMap;

use meshx_etf::{Pid, Term};

/// The members of all groups of a scope, as known here. A process that joined twice is there twice.
#[derive(Debug)]
pub(super) struct Groups {
    named: HashMap<Term, Members>,
    /// How many memberships others have, and may have.
    remote: usize,
    pub(super) limit: usize,
}

/// So many memberships of other nodes' processes are kept in a scope.
const REMOTE: usize = 1 << 20;

#[derive(Debug, Default)]
struct Members {
    local: Vec<Pid>,
    remote: Vec<Pid>,
}

impl Default for Groups {
    fn default() -> Self {
        Self { named: HashMap::new(), remote: 0, limit: REMOTE }
    }
}

impl Groups {
    pub(super) fn members(&self, group: &Term) -> Vec<Pid> {
        let found = self.named.get(group);
        found.map_or_else(Vec::new, |it| it.local.iter().chain(&it.remote).cloned().collect())
    }

    pub(super) fn local_members(&self, group: &Term) -> Vec<Pid> {
        self.named.get(group).map_or_else(Vec::new, |members| members.local.clone())
    }

    pub(super) fn names(&self) -> Vec<Term> {
        self.named.keys().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<(Term, Vec<Pid>)> {
        self.named.keys().map(|group| (group.clone(), self.members(group))).collect()
    }

    /// Groups with members here, as they are told to other nodes.
    pub(super) fn local(&self) -> Term {
        let local = self.named.iter().filter(|(_, members)| !members.local.is_empty());
        let entry = |(group, members): (&Term, &Members)| {
            let pids = members.local.iter().cloned().map(Term::Pid).collect();
            Term::Tuple(vec![group.clone(), Term::List(pids)])
        };
        Term::List(local.map(entry).collect())
    }

    /// False, and nobody has joined, if others had more memberships then than they may have.
    pub(super) fn join(&mut self, group: &Term, pids: &[Pid], local: bool) -> bool {
        if pids.is_empty() {
            return true;
        }
        if !local {
            if self.remote.saturating_add(pids.len()) > self.limit {
                return false;
            }
            self.remote += pids.len();
        }
        let members = self.named.entry(group.clone()).or_default();
        let side = if local { &mut members.local } else { &mut members.remote };
        side.extend_from_slice(pids);
        true
    }

    /// Takes each of `pids` out once. Gives those that were in.
    pub(super) fn leave(&mut self, group: &Term, pids: &[Pid], local: bool) -> Vec<Pid> {
        let Some(members) = self.named.get_mut(group) else { return Vec::new() };
        let side = if local { &mut members.local } else { &mut members.remote };
        let left = take_each(side, pids);
        if !local {
            self.remote -= left.len();
        }
        if members.local.is_empty() && members.remote.is_empty() {
            self.named.remove(group);
        }
        left
    }
}

/// Takes each of `pids` out of `from` once. Gives those that were in, in the order of `from`.
pub(super) fn take_each(from: &mut Vec<Pid>, pids: &[Pid]) -> Vec<Pid> {
    let mut wanted: HashMap<&Pid, usize> = HashMap::new();
    for pid in pids {
        *wanted.entry(pid).or_default() += 1;
    }
    let taken = from.extract_if(.., |pid| match wanted.get_mut(pid) {
        Some(times) if *times > 0 => {
            *times -= 1;
            true
        }
        _ => false,
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use meshx_etf::{Atom, Node};

    use super::*;

    #[test]
    fn each_is_taken_as_often_as_it_is_named() {
        let node = Node::new(Atom::cut("a@b"), 4);
        let pid = |id| Pid { node: node.clone(), id, serial: 0 };
        let mut members = vec![pid(1), pid(2), pid(1), pid(3)];
        assert_eq!(take_each(&mut members, &[pid(1), pid(9), pid(3)]), [pid(1), pid(3)]);
        assert_eq!(members, [pid(2), pid(1)]);
        assert_eq!(take_each(&mut members, &[pid(1), pid(1)]), [pid(1)]);
        assert_eq!(members, [pid(2)]);
    }
}
