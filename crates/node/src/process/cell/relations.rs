//! Links and monitors.

use std::collections::HashMap;

use meshx_dist::control::Target;
use meshx_etf::{Atom, Pid, Reference, Term};

use super::{Cell, Fate, Link, LinkProtocol, LinkStep, Reply, State, Via, Watch, Watcher};
use crate::process::signal::{Down, Signal};

/// Others may link so many of their processes to one.
const LINKS: usize = 1 << 20;

impl Cell {
    /// `link/1` here. If the other side is to be told, `tell` does so at once: what the peer says of
    /// the link is looked at before or after both, not between.
    pub(crate) fn link(
        &self,
        to: &Pid,
        via: Via,
        protocol: LinkProtocol,
        tell: impl FnOnce(),
    ) -> LinkStep {
        let mut state = self.state();
        if state.ended.is_some() {
            return LinkStep::Ended;
        }
        let link =
            state.links.entry(to.clone()).or_insert(Link { via, active: false, unlinking: None });
        if link.active && protocol == LinkProtocol::Answered {
            return LinkStep::Nothing;
        }
        *link = Link { via, active: true, unlinking: None };
        tell();
        LinkStep::Tell
    }

    /// The other side linked.
    pub(crate) fn linked_by(&self, from: &Pid, via: Via) -> LinkStep {
        let mut state = self.state();
        if state.ended.is_some() {
            return LinkStep::Ended;
        }
        if state.links.len() >= LINKS && !state.links.contains_key(from) {
            return LinkStep::TooMany;
        }
        state.links.entry(from.clone()).or_insert(Link { via, active: true, unlinking: None });
        LinkStep::Nothing
    }

    /// `unlink/1` here; if there was a link, `tell` says so to the other side, with this id, as
    /// [`Cell::link`] does.
    pub(crate) fn unlink(&self, to: &Pid, id: u64, tell: impl FnOnce(Via)) {
        let mut state = self.state();
        let Some(link) = state.links.get_mut(to).filter(|link| link.active) else { return };
        let via = link.via;
        if via.is_none() {
            state.links.remove(to);
            // The other side is a process with a lock of its own.
            drop(state);
            return tell(via);
        }
        link.active = false;
        link.unlinking = Some(id);
        tell(via);
    }

    /// `unlink/1` here, where the other side does not answer: it is told whether there was a link or not.
    pub(crate) fn unlink_unanswered(&self, to: &Pid, tell: impl FnOnce()) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.links.remove(to);
            tell();
        }
    }

    /// The other side unlinked, and `tell` says that this was seen, as [`Cell::link`] does.
    pub(crate) fn unlinked_by(&self, from: &Pid, tell: impl FnOnce()) {
        let mut state = self.state();
        if state.links.get(from).is_some_and(|link| link.active) {
            state.links.remove(from);
        }
        tell();
    }

    /// The other side has seen our unlink.
    pub(crate) fn unlink_seen(&self, from: &Pid, id: u64) {
        let mut state = self.state();
        if state.links.get(from).is_some_and(|link| !link.active && link.unlinking == Some(id)) {
            state.links.remove(from);
        }
    }

    /// The other side of a link ended.
    pub(crate) fn link_broke(&self, from: &Pid, reason: Term) -> Fate {
        let mut state = self.state();
        match state.links.remove(from) {
            Some(link) if link.active => self.exit(state, from, reason),
            _ => Fate::Lives,
        }
    }

    /// `monitor/2` here; false if this process has ended.
    pub(crate) fn watch(&self, reference: Reference, target: Target, node: Atom, via: Via) -> bool {
        let mut state = self.state();
        let lives = state.ended.is_none();
        if lives {
            state.watching.insert(reference, Watch { via, target, node, silent: false });
        }
        lives
    }

    /// `demonitor/1` here: whom to tell. A signal of it that is queued already is taken out.
    pub(crate) fn unwatch(&self, reference: &Reference) -> Option<(Target, Atom, Via)> {
        let fired =
            |signal: &Signal| matches!(signal, Signal::Down(down) if down.reference == *reference);
        let mut state = self.state();
        let watch = state.watching.remove(reference);
        drop(state);
        if watch.is_none() {
            drop(self.take_if(&mut 0, fired));
        }
        watch.map(|watch| (watch.target, watch.node, watch.via))
    }

    /// Whom we watch ended, as is said where he is: nobody else says so.
    pub(crate) fn watched_ended(&self, reference: &Reference, via: Via, reason: Term) {
        let mut state = self.state();
        if state.watching.get(reference).is_none_or(|watch| watch.via != via) {
            return;
        }
        let Some(watch) = state.watching.remove(reference).filter(|it| !it.silent) else { return };
        if let Some(caller) = state.callers.remove(reference) {
            state.aliases.remove(reference);
            drop(state);
            drop(caller.send(Reply::Down(reason)));
            return;
        }
        let reference = reference.clone();
        let (target, node) = (watch.target, watch.node);
        state.push(Signal::Down(Down { reference, target, node, reason }), self.limit);
        drop(state);
        self.arrived.notify_one();
    }

    /// Somebody watches us; false if there is nothing to watch any more.
    pub(crate) fn watched_by(&self, reference: Reference, watcher: Watcher) -> bool {
        let mut state = self.state();
        if state.ended.is_some() {
            return false;
        }
        state.watchers.entry(watcher.via).or_default().insert(reference, watcher);
        true
    }

    pub(crate) fn unwatched_by(&self, reference: &Reference, via: Via) {
        let mut state = self.state();
        let watcher = state.watchers.get_mut(&via).and_then(|all| all.remove(reference));
        // Not under the lock: somebody may be told of it.
        drop(state);
        drop(watcher);
    }

    /// Takes out the monitor that a process set up for its call: that of `reference`, or, if the call
    /// names none, the only one of that process.
    pub(crate) fn take_watcher(
        &self,
        pid: &Pid,
        reference: Option<&Reference>,
    ) -> Option<(Reference, Watcher)> {
        let mut state = self.state();
        let (via, found) = state.watcher(pid, reference)?;
        state.watchers.get_mut(&via)?.remove_entry(&found)
    }

    /// The reference of the monitor that [`Cell::take_watcher`] would take, and what it calls us.
    pub(crate) fn watcher(
        &self,
        pid: &Pid,
        reference: Option<&Reference>,
    ) -> Option<(Reference, Target)> {
        let state = self.state();
        let (via, found) = state.watcher(pid, reference)?;
        let target = state.watchers.get(&via)?.get(&found)?.target.clone();
        Some((found, target))
    }

    /// How many watch us.
    #[cfg(test)]
    pub(crate) fn watcher_count(&self) -> usize {
        self.state().watchers.values().map(HashMap::len).sum()
    }

    /// How many we watch, answers we wait for, aliases we have.
    #[cfg(test)]
    pub(crate) fn expecting(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.watching.len(), state.callers.len(), state.aliases.len())
    }

    /// How many requests to start a process are not answered.
    #[cfg(test)]
    pub(crate) fn spawning_count(&self) -> usize {
        self.state().spawning.len()
    }
}

impl State {
    fn watcher(&self, pid: &Pid, reference: Option<&Reference>) -> Option<(Via, Reference)> {
        let named = reference.and_then(|reference| {
            let mut all = self.watchers.iter();
            let of =
                |all: &HashMap<_, Watcher>| all.get(reference).is_some_and(|it| it.pid == *pid);
            all.find(|(_, all)| of(all)).map(|(via, _)| (*via, reference.clone()))
        });
        named.or_else(|| {
            let all = self.watchers.values().flatten();
            let mut all = all.filter(|(_, watcher)| watcher.pid == *pid);
            let first = all.next().map(|(reference, watcher)| (watcher.via, reference.clone()));
            first.filter(|_| all.next().is_none())
        })
    }
}
