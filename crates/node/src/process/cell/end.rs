//! Exit signals, the end of a process, and that of a connection.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use meshx_etf::{Atom, Pid, Reference, Term, term};

use super::{Cell, Farewell, Fate, State};
use crate::process::signal::Signal;

impl Cell {
    /// An exit signal that somebody sent (`exit/2`).
    pub(crate) fn exit_signal(&self, from: &Pid, reason: Term) -> Fate {
        let state = self.state();
        if state.only_answers {
            return Fate::Lives;
        }
        if reason == term!(kill) {
            return self.end(state, term!(killed));
        }
        if reason == term!(normal) && !state.trap_exits && *from != self.pid {
            return Fate::Lives;
        }
        self.exit(state, from, reason)
    }

    pub(super) fn exit(&self, mut state: MutexGuard<'_, State>, from: &Pid, reason: Term) -> Fate {
        if state.only_answers {
            return Fate::Lives;
        }
        if state.trap_exits {
            state.push(Signal::Exit { from: from.clone(), reason }, self.limit);
            drop(state);
            self.arrived.notify_one();
            return Fate::Lives;
        }
        if reason == term!(normal) && *from != self.pid {
            return Fate::Lives;
        }
        self.end(state, reason)
    }

    /// The process ends of itself.
    pub(crate) fn finish(&self, reason: Term) -> Fate {
        self.end(self.state(), reason)
    }

    fn end(&self, mut state: MutexGuard<'_, State>, reason: Term) -> Fate {
        if state.ended.is_some() {
            return Fate::Lives;
        }
        state.ended = Some(reason.clone());
        let before = std::mem::take(&mut *state);
        state.ended = before.ended;
        self.has_ended.store(true, Ordering::Release);
        drop(state);
        self.ended.cancel();
        self.arrived.notify_one();
        self.drained.notify_waiters();
        let links = before.links.into_iter().filter(|(_, link)| link.active);
        let watched = before.watching.into_iter();
        Fate::Ends(Farewell {
            name: before.name,
            reason,
            links: links.map(|(pid, link)| (pid, link.via)).collect(),
            watchers: before.watchers.into_values().flatten().collect(),
            watched: watched.map(|(of, watch)| (of, watch.target, watch.node, watch.via)).collect(),
        })
    }

    /// A connection is gone: everything over it ends, once.
    pub(crate) fn lost(&self, connection: u64) -> Vec<Farewell> {
        let via = Some(connection);
        let mut state = self.state();
        state.watchers.remove(&via);
        let links: Vec<(Pid, bool)> = state
            .links
            .extract_if(|_, link| link.via == via)
            .map(|(pid, link)| (pid, link.active))
            .collect();
        let watching = of_connection(&state.watching, |watch| watch.via == via);
        let spawning = of_connection(&state.spawning, |spawning| spawning.via == via);
        drop(state);
        for reference in watching {
            self.watched_ended(&reference, via, term!(noconnection));
        }
        for reference in spawning {
            self.spawned(reference, via, Err(Atom::cut("noconnection")), false, false);
        }
        let mut ends = Vec::new();
        for (pid, _) in links.into_iter().filter(|(_, active)| *active) {
            if let Fate::Ends(farewell) = self.exit(self.state(), &pid, term!(noconnection)) {
                ends.push(farewell);
            }
        }
        ends
    }
}

fn of_connection<T>(all: &HashMap<Reference, T>, lost: impl Fn(&T) -> bool) -> Vec<Reference> {
    let lost = all.iter().filter(|(_, entry)| lost(entry));
    lost.map(|(reference, _)| reference.clone()).collect()
}
