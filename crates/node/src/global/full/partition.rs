//! Nodes that are lost, so that no two partitions overlap (`prevent_overlapping_partitions`).
//!
//! A stock node that loses a known one says so to all others at once, and they cut their own
//! connections to one of the two: to the one that was lost, or, if that one reports the loss, to
//! the reporter's counterpart. When the link between two nodes breaks, both report, and both are cut
//! from everybody. Here a node is more careful: it reports a loss only after a while, and only if
//! nobody has heard the same from the other side by then. So a broken link of this node costs itself
//! its place in the cluster, and nobody else.

use meshx_etf::{Atom, Term, compare, term};

use super::locker::Order;
use super::state::{Act, State};

/// So many reports of others are remembered; then the memory begins anew, and an old report that
/// still goes round may be passed on once more.
const REMEMBERED: usize = 4096;

/// How a node came to be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its connection ended.
    Disconnected,
    /// We want it to end.
    Removed,
}

impl State {
    pub(super) fn node_down(&mut self, node: &Atom) {
        self.connected.remove(node);
        self.lose(node, Loss::Disconnected);
    }

    /// A node is not known any more.
    pub(super) fn lose(&mut self, node: &Atom, loss: Loss) {
        let tag = self.tag_with(node);
        self.cancel(node, tag, Vec::new());
        self.sessions.remove(node);
        match loss {
            Loss::Removed => {
                self.removing.insert(node.clone());
            }
            Loss::Disconnected => {
                if !self.removing.remove(node) && self.potentially_known(node) {
                    self.lost.insert(node.clone());
                    self.act(Act::ReportLater(node.clone()));
                }
            }
        }
        self.pending.remove(node);
        self.shared.known_mut().remove(node);
        self.shared.set_synced(node, false);
    }

    /// The while is over.
    pub(super) fn still_lost(&mut self, node: &Atom) {
        if !self.lost.remove(node) {
            return;
        }
        self.reports += 1;
        let (me, creation, report) = (self.me.clone(), self.creation, self.reports);
        let message = term!({lost_connection, (me), (creation), (report), (node.clone())});
        self.tell_all(&message, node);
    }

    fn potentially_known(&self, node: &Atom) -> bool {
        self.shared.known().contains_key(node) || self.pending.contains_key(node)
    }

    /// To all who understand it, but one.
    fn tell_all(&mut self, message: &Term, but: &Atom) {
        let known = self.shared.known().clone();
        let pending = self.pending.iter().map(|(node, version)| (node.clone(), *version));
        let all: Vec<(Atom, i64)> = known.into_iter().chain(pending).collect();
        for (node, version) in all {
            if node != *but && version >= 7 {
                self.tell(&node, message.clone());
            }
        }
    }

    /// Somebody lost somebody: `{lost_connection, A, CreationOfA, Report, B}`.
    pub(super) fn told_of_loss(&mut self, a: &Atom, creation: &Term, report: &Term, b: &Atom) {
        let pair = (a.clone(), b.clone());
        let known = self.told.get(&pair);
        let is_old = |(of, last): &(Term, Term)| of == creation && compare(report, last).is_le();
        if known.is_some_and(is_old) {
            return;
        }
        let message = term!({
            lost_connection, (a.clone()), (creation.clone()), (report.clone()), (b.clone())
        });
        self.tell_all(&message, a);
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(pair, (creation.clone(), report.clone()));
        let remove = if *b == self.me {
            // Everybody knows already, and leaves us: nothing is left to be told.
            self.lost.remove(a);
            a
        } else {
            b
        };
        if !self.potentially_known(remove) {
            return;
        }
        if self.version_of(remove) < 7 {
            self.act(Act::Disconnect(remove.clone()));
        } else {
            let me = self.me.clone();
            self.tell(remove, term!({remove_connection, (me)}));
        }
        tracing::warn!(node = %remove, lost = %a, "left, so that no partitions overlap");
        self.lose(remove, Loss::Removed);
    }

    /// `{remove_connection, Node}`: it wants us to go.
    pub(super) fn removed_by(&mut self, node: &Atom) {
        if self.potentially_known(node) {
            tracing::warn!(%node, "asked to leave, so that no partitions overlap");
            self.act(Act::Disconnect(node.clone()));
            self.lose(node, Loss::Removed);
        }
    }

    /// The locker does not wait for a node any more, and says this first to others.
    pub(super) fn cancel(&mut self, node: &Atom, tag: Option<i64>, announce: Vec<(Atom, Term)>) {
        let Some(tag) = tag else { return };
        self.act(Act::Locker(Order::Cancel { node: node.clone(), tag, announce }));
        if self.pending.get(node).is_some_and(|version| *version >= 8) {
            self.cancel_connect(node);
        }
    }

    /// Tells a node that the session with it is not to go on.
    pub(super) fn cancel_connect(&mut self, node: &Atom) {
        let his_tag = self.sessions.get(node).and_then(|session| session.his_tag.clone());
        if let Some(his_tag) = his_tag {
            let me = self.me.clone();
            self.tell(node, term!({cancel_connect, (me), (his_tag)}));
        }
    }
}
