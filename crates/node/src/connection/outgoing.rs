//! What an end here means over there.

use std::sync::Arc;

use meshx_dist::control::{Control, Target};
use meshx_etf::{Pid, Reference, Term};

use crate::node::Inner;
use crate::process::{Cell, Farewell, Fate, Via, sender};

impl Inner {
    /// Does what an exit signal asks for.
    pub(crate) fn after(&self, cell: &Arc<Cell>, fate: Fate) {
        if let Fate::Ends(farewell) = fate {
            self.ended(&cell.pid, farewell);
        }
    }

    /// A process has ended: its name and number are free, and everyone is told, until nobody is left
    /// who ended of it.
    pub(crate) fn ended(&self, pid: &Pid, farewell: Farewell) {
        let mut ends = vec![(pid.clone(), farewell)];
        while let Some((pid, farewell)) = ends.pop() {
            if let Some(name) = &farewell.name {
                self.processes.unregister(name, Some(&pid));
            }
            self.processes.remove(&pid);
            for (reference, target, _, via) in farewell.watched {
                self.demonitor(&pid, reference, target, via);
            }
            for (reference, watcher) in farewell.watchers {
                self.tell_watcher(
                    &pid,
                    reference,
                    watcher.target,
                    watcher.via,
                    &watcher.pid,
                    &farewell.reason,
                );
            }
            for (other, via) in farewell.links {
                if via.is_some() {
                    let exit = Control::Exit { from: pid.clone(), to: other };
                    self.over(via, |connection| {
                        connection.signal_reason(sender(&pid), &exit, &farewell.reason);
                    });
                } else if let Some(cell) = self.processes.get(&other)
                    && let Fate::Ends(next) = cell.link_broke(&pid, farewell.reason.clone())
                {
                    ends.push((other, next));
                }
            }
        }
    }

    /// A monitor of `watcher` on `pid` fires.
    pub(crate) fn tell_watcher(
        &self,
        pid: &Pid,
        reference: Reference,
        target: Target,
        via: Via,
        watcher: &Pid,
        reason: &Term,
    ) {
        if via.is_none() {
            if let Some(cell) = self.processes.get(watcher) {
                cell.watched_ended(&reference, via, reason.clone());
            }
            return;
        }
        self.over(via, |connection| {
            connection.demonitored(&reference);
            let down = Control::Down { from: target, to: watcher.clone(), reference };
            connection.signal_reason(sender(pid), &down, reason);
        });
    }

    /// `pid` does not watch `target` any more.
    pub(crate) fn demonitor(&self, pid: &Pid, reference: Reference, target: Target, via: Via) {
        if via.is_some() {
            let demonitor = Control::Demonitor { from: pid.clone(), to: target, reference };
            self.over(via, |connection| connection.signal(sender(pid), &demonitor));
            return;
        }
        // The process that was watched knows the reference, whatever it was called.
        let cell = match &target {
            Target::Pid(pid) => self.processes.get(pid),
            Target::Name(name) => self.processes.named(name),
        };
        if let Some(cell) = cell {
            cell.unwatched_by(&reference, via);
        }
    }

    /// A connection is gone.
    pub(crate) fn connection_down(&self, connection: &super::Connection) {
        connection.close("it ended");
        for process in connection.end_relations() {
            let Some(cell) = self.processes.numbered(process) else { continue };
            for farewell in cell.lost(connection.id) {
                self.ended(&cell.pid, farewell);
            }
        }
        self.peers.down(connection);
    }
}
