//! Aliases, answers to calls, and processes that were asked for.

use meshx_dist::control::Target;
use meshx_etf::{Atom, Pid, Reference};
use tokio::sync::oneshot;

use super::{Cell, Link, Reply, SpawnStep, Spawning, Via, Watch};
use crate::process::signal::Signal;

impl Cell {
    pub(crate) fn add_alias(&self, alias: Reference) {
        self.state().aliases.insert(alias);
    }

    pub(crate) fn drop_alias(&self, alias: &Reference) -> bool {
        self.state().aliases.remove(alias)
    }

    /// From now on the answer to `reference`, or the end of who should give it, goes to the receiver.
    pub(crate) fn expect_reply(&self, reference: Reference) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.ended.is_some() {
            return receiver;
        }
        state.aliases.insert(reference.clone());
        state.callers.insert(reference, sender);
        drop(state);
        // Who waits for a full queue may have the answer.
        self.drained.notify_waiters();
        receiver
    }

    /// The caller gives up: what comes later is dropped. Gives whom it watched for that.
    pub(crate) fn forget_reply(&self, reference: &Reference) -> Option<(Target, Atom, Via)> {
        let mut state = self.state();
        state.aliases.remove(reference);
        state.callers.remove(reference);
        if let Some(spawning) = state.spawning.get_mut(reference) {
            spawning.abandoned = true;
        }
        state.watching.remove(reference).map(|watch| (watch.target, watch.node, watch.via))
    }

    pub(crate) fn spawning(&self, reference: Reference, spawning: Spawning) {
        self.state().spawning.insert(reference, spawning);
    }

    /// The request was not sent; false if it was answered nevertheless, since its connection has ended.
    pub(crate) fn not_spawning(&self, reference: &Reference) -> bool {
        self.state().spawning.remove(reference).is_some()
    }

    /// The answer to a request, from where it was sent.
    pub(crate) fn spawned(
        &self,
        reference: Reference,
        via: Via,
        result: Result<Pid, Atom>,
        linked: bool,
        monitored: bool,
    ) -> SpawnStep {
        let mut state = self.state();
        if state.ended.is_some() {
            return SpawnStep::Ended;
        }
        if state.spawning.get(&reference).is_none_or(|it| it.via != via) {
            return SpawnStep::Nothing;
        }
        let Some(Spawning { node, abandoned, .. }) = state.spawning.remove(&reference) else {
            return SpawnStep::Nothing;
        };
        if abandoned {
            return match result {
                Ok(pid) if monitored => SpawnStep::Unwanted(pid),
                _ => SpawnStep::Nothing,
            };
        }
        if let Ok(pid) = &result {
            if linked {
                let link = Link { via, active: true, unlinking: None };
                state.links.insert(pid.clone(), link);
            }
            if monitored {
                let target = Target::Pid(pid.clone());
                let watch = Watch { via, target, node, silent: false };
                state.watching.insert(reference.clone(), watch);
            }
        }
        match (result, state.callers.remove(&reference)) {
            (Err(reason), Some(caller)) => {
                state.aliases.remove(&reference);
                drop(state);
                drop(caller.send(Reply::Refused(reason)));
            }
            // Its end is what is waited for.
            (Ok(_), Some(caller)) => {
                state.callers.insert(reference, caller);
            }
            (result, None) => {
                state.push(Signal::Spawned { reference, result }, self.limit);
                drop(state);
                self.arrived.notify_one();
            }
        }
        SpawnStep::Nothing
    }
}
