//! Who is in which group.

use std::collections::HashMap;

use meshx_etf::{Pid, Term};

/// The members of all groups of a scope, as known here. A process that joined twice is there twice.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<Term, Members>);

#[derive(Debug, Default)]
struct Members {
    local: Vec<Pid>,
    remote: Vec<Pid>,
}

impl Groups {
    pub(super) fn members(&self, group: &Term) -> Vec<Pid> {
        let found = self.0.get(group);
        found.map_or_else(Vec::new, |it| it.local.iter().chain(&it.remote).cloned().collect())
    }

    pub(super) fn local_members(&self, group: &Term) -> Vec<Pid> {
        self.0.get(group).map_or_else(Vec::new, |members| members.local.clone())
    }

    pub(super) fn names(&self) -> Vec<Term> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<(Term, Vec<Pid>)> {
        self.0.keys().map(|group| (group.clone(), self.members(group))).collect()
    }

    /// Groups with members here, as they are told to other nodes.
    pub(super) fn local(&self) -> Term {
        let local = self.0.iter().filter(|(_, members)| !members.local.is_empty());
        let entry = |(group, members): (&Term, &Members)| {
            let pids = members.local.iter().cloned().map(Term::Pid).collect();
            Term::Tuple(vec![group.clone(), Term::List(pids)])
        };
        Term::List(local.map(entry).collect())
    }

    pub(super) fn join(&mut self, group: &Term, pids: &[Pid], local: bool) {
        if pids.is_empty() {
            return;
        }
        let members = self.0.entry(group.clone()).or_default();
        let side = if local { &mut members.local } else { &mut members.remote };
        side.extend_from_slice(pids);
    }

    /// Takes each of `pids` out once. Gives those that were in.
    pub(super) fn leave(&mut self, group: &Term, pids: &[Pid], local: bool) -> Vec<Pid> {
        let Some(members) = self.0.get_mut(group) else { return Vec::new() };
        let side = if local { &mut members.local } else { &mut members.remote };
        let left = take_each(side, pids);
        if members.local.is_empty() && members.remote.is_empty() {
            self.0.remove(group);
        }
        left
    }
}

/// Takes each of `pids` out of `from` once. Gives those that were in.
pub(super) fn take_each(from: &mut Vec<Pid>, pids: &[Pid]) -> Vec<Pid> {
    let mut taken = Vec::new();
    for pid in pids {
        if let Some(at) = from.iter().position(|it| it == pid) {
            taken.push(from.remove(at));
        }
    }
    taken
}
