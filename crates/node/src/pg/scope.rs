//! The process of a scope.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use meshx_dist::control::Target;
use meshx_etf::{Atom, Pid, Reference, Term, term};
use meshx_rt::Seldom;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::groups::{Groups, take_each};
use super::{Event, EventKind, Scope};
use crate::builder::Visibility;
use crate::envelope::{Envelope, cast};
use crate::membership::{Change, Membership};
use crate::node::Inner;
use crate::process::{Down, Mailbox, Signal};
use crate::to::To;

/// So often a hidden node looks again where it found no scope: one that starts later looks for visible
/// nodes only.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A node has one scope of a name. When that has ended and another has begun, the end may be told last;
/// so many at a time are believed.
const SCOPES_OF_A_NODE: usize = 16;
/// How often operators are told that other nodes have more than is kept here.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// What is asked of a scope from within the program.
#[derive(Debug)]
pub(super) enum Command {
    Join(Term, Pid, oneshot::Sender<()>),
    Leave(Term, Pid, oneshot::Sender<bool>),
}

pub(super) struct Server {
    node: Arc<Inner>,
    name: Atom,
    pid: Pid,
    groups: Arc<RwLock<Groups>>,
    events: broadcast::Sender<Event>,
    /// Members of this node: how they are watched, and each group as often as they joined it.
    local: HashMap<Pid, (Reference, Vec<Term>)>,
    /// Scopes of other nodes, and what they said, as far as it is kept.
    remote: HashMap<Pid, (Reference, HashMap<Term, Vec<Pid>>)>,
    /// How often operators hear that it is not.
    full: Seldom,
}

impl Server {
    pub(super) fn new(node: Arc<Inner>, scope: &Scope) -> Self {
        Self {
            node,
            name: scope.name.clone(),
            pid: scope.pid.clone(),
            groups: Arc::clone(&scope.groups),
            events: scope.events.clone(),
            local: HashMap::new(),
            remote: HashMap::new(),
            full: Seldom::new(1, WARN_EVERY),
        }
    }

    /// Serves until the process ends.
    pub(super) async fn run(mut self, mut mailbox: Mailbox, mut commands: mpsc::Receiver<Command>) {
        let mut membership = Membership::of(&self.node.peers);
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = membership.next() => self.change(change),
                _ = look_again.tick(), if self.is_hidden() => self.look_again(),
                // The node keeps a scope, and so a sender, as long as it lives.
                Some(command) = commands.recv() => self.command(command, &mailbox).await,
                signal = mailbox.receive() => match signal {
                    Some(signal) => self.signal(signal, &mailbox).await,
                    None => return,
                },
            }
        }
    }

    fn change(&self, change: Change) {
        let Change::Up { node, hidden } = change else { return };
        // Who is hidden from us is left alone; if it is we who are hidden, nobody else would begin.
        if !hidden || self.is_hidden() {
            self.discover(node);
        }
    }

    fn is_hidden(&self) -> bool {
        self.node.config.visibility == Visibility::Hidden
    }

    fn look_again(&self) {
        for connection in self.node.peers.all() {
            let node = connection.name();
            if self.remote.keys().all(|scope| scope.node.name() != node) {
                self.discover(node.clone());
            }
        }
    }

    fn discover(&self, node: Atom) {
        let scope = To::NameAt(self.name.clone(), node);
        self.node.post(&self.pid, &scope, &term!({discover, (self.pid.clone())}));
    }

    async fn command(&mut self, command: Command, mailbox: &Mailbox) {
        match command {
            Command::Join(group, pid, done) => {
                if let Some((_, joined)) = self.local.get_mut(&pid) {
                    joined.push(group.clone());
                } else {
                    let monitor = mailbox.monitor(&pid).await;
                    self.local.insert(pid.clone(), (monitor, vec![group.clone()]));
                }
                _ = self.joined(&group, std::slice::from_ref(&pid), true);
                let (scope, group, pid) = (self.pid.clone(), group, pid);
                self.broadcast(&term!({join, (scope), (group), (pid)}));
                // Whoever joined may not wait to hear so.
                let _ignored = done.send(());
            }
            Command::Leave(group, pid, done) => {
                let left = self.leave_local(&group, &pid, mailbox);
                if left {
                    let (scope, group, pid) = (self.pid.clone(), group, pid);
                    self.broadcast(&term!({leave, (scope), (pid), [(group)]}));
                }
                let _ignored = done.send(left);
            }
        }
    }

    fn leave_local(&mut self, group: &Term, pid: &Pid, mailbox: &Mailbox) -> bool {
        let Some((monitor, joined)) = self.local.get_mut(pid) else { return false };
        let Some(at) = joined.iter().position(|it| it == group) else { return false };
        joined.swap_remove(at);
        if joined.is_empty() {
            mailbox.demonitor(monitor);
            self.local.remove(pid);
        }
        self.left(group, std::slice::from_ref(pid), true);
        true
    }

    async fn signal(&mut self, signal: Signal, mailbox: &Mailbox) {
        match signal {
            Signal::Down(down) => self.ended(&down),
            Signal::Message(message) => match Envelope::open_small(&message.body) {
                Ok(Envelope::Cast(request) | Envelope::Other(request)) => {
                    if is_of(&request, message.from.as_ref()) {
                        self.told(&request, mailbox).await;
                    }
                }
                Ok(Envelope::Call(..)) => {}
                Err(error) => tracing::debug!(scope = %self.name, %error, "nonsense"),
            },
            _ => {}
        }
    }

    /// What the scope of another node says.
    async fn told(&mut self, request: &Term, mailbox: &Mailbox) {
        match request.as_tuple() {
            // Since OTP 26 there may be a version behind it.
            Some([Term::Atom(kind), Term::Pid(peer), ..]) if *kind == "discover" => {
                if !self.may_meet(peer) {
                    return;
                }
                let groups = self.read(Groups::local);
                let sync = cast(term!({sync, (self.pid.clone()), (groups)}));
                self.node.post(&self.pid, &To::from(peer), &sync);
                if !self.remote.contains_key(peer) {
                    self.meet(peer, mailbox).await;
                    let discover = term!({discover, (self.pid.clone())});
                    self.node.post(&self.pid, &To::from(peer), &discover);
                }
            }
            Some([Term::Atom(kind), Term::Pid(peer), Term::List(groups)]) if *kind == "sync" => {
                if !self.may_meet(peer) {
                    return;
                }
                if !self.remote.contains_key(peer) {
                    self.meet(peer, mailbox).await;
                }
                self.synchronize(peer, groups);
            }
            Some([Term::Atom(kind), Term::Pid(peer), group, pids]) if *kind == "join" => {
                let pids = pids_of(pids);
                if pids.is_empty() || !self.remote.contains_key(peer) {
                    return;
                }
                if self.joined(group, &pids, false)
                    && let Some((_, said)) = self.remote.get_mut(peer)
                {
                    said.entry(group.clone()).or_default().extend(pids);
                }
            }
            Some([Term::Atom(kind), Term::Pid(peer), pids, Term::List(groups)])
                if *kind == "leave" =>
            {
                let pids = pids_of(pids);
                for group in groups {
                    let Some((_, said)) = self.remote.get_mut(peer) else { return };
                    let Some(members) = said.get_mut(group) else { continue };
                    let left = take_each(members, &pids);
                    if members.is_empty() {
                        said.remove(group);
                    }
                    self.left(group, &left, false);
                }
            }
            _ => tracing::debug!(scope = %self.name, "a message that no scope sends"),
        }
    }

    /// Whether that scope is known, or may become so.
    fn may_meet(&self, peer: &Pid) -> bool {
        let node = peer.node.name();
        let known = || self.remote.keys().filter(|scope| scope.node.name() == node).count();
        if self.remote.contains_key(peer) || known() < SCOPES_OF_A_NODE {
            return true;
        }
        if let Some(unsaid) = self.full.occurs() {
            let scope = &self.name;
            tracing::warn!(%scope, %node, unsaid, "one node has many of it: not all are heard");
        }
        false
    }

    async fn meet(&mut self, peer: &Pid, mailbox: &Mailbox) {
        let monitor = self.node.watch(mailbox, peer).await;
        self.remote.insert(peer.clone(), (monitor, HashMap::new()));
    }

    /// A scope says all that it has; what it said before is of no account any more.
    #[expect(
        clippy::mutable_key_type,
        reason = "what is mutable in a term is no part of its value"
    )]
    fn synchronize(&mut self, peer: &Pid, groups: &[Term]) {
        let mut new: HashMap<Term, Vec<Pid>> = HashMap::new();
        for group in groups {
            if let Some([group, pids]) = group.as_tuple() {
                new.entry(group.clone()).or_default().extend(pids_of(pids));
            }
        }
        let Some((_, said)) = self.remote.get_mut(peer) else { return };
        let mut said = std::mem::take(said);
        // Who is gone makes room for who has come.
        for (group, before) in &mut said {
            let come = new.entry(group.clone()).or_default();
            let both = take_each(come, before);
            self.left(group, &without(std::mem::replace(before, both.clone()), &both), false);
        }
        for (group, come) in new {
            if !come.is_empty() && self.joined(&group, &come, false) {
                said.entry(group).or_default().extend(come);
            }
        }
        said.retain(|_, pids| !pids.is_empty());
        if let Some((_, kept)) = self.remote.get_mut(peer) {
            *kept = said;
        }
    }

    /// A member, or the scope of another node, is not there any more.
    fn ended(&mut self, down: &Down) {
        let Target::Pid(pid) = &down.target else { return };
        if self.local.get(pid).is_some_and(|(monitor, _)| *monitor == down.reference)
            && let Some((_, groups)) = self.local.remove(pid)
        {
            for group in &groups {
                self.left(group, std::slice::from_ref(pid), true);
            }
            let (scope, pid, groups) = (self.pid.clone(), pid.clone(), Term::List(groups));
            self.broadcast(&term!({leave, (scope), (pid), (groups)}));
        }
        if self.remote.get(pid).is_some_and(|(monitor, _)| *monitor == down.reference)
            && let Some((_, groups)) = self.remote.remove(pid)
        {
            for (group, pids) in groups {
                self.left(&group, &pids, false);
            }
        }
    }

    fn broadcast(&self, message: &Term) {
        for peer in self.remote.keys() {
            self.node.post(&self.pid, &To::from(peer), message);
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Groups) -> T) -> T {
        read(&self.groups.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there was room for them.
    #[must_use]
    fn joined(&self, group: &Term, pids: &[Pid], local: bool) -> bool {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let joined = groups.join(group, pids, local);
        if joined {
            self.tell(EventKind::Join, group, pids.to_vec());
        } else if let Some(unsaid) = self.full.occurs() {
            tracing::warn!(
                scope = %self.name, unsaid, "other nodes have more members than are kept here"
            );
        }
        joined
    }

    fn left(&self, group: &Term, pids: &[Pid], local: bool) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let left = groups.leave(group, pids, local);
        self.tell(EventKind::Leave, group, left);
    }

    /// Nobody may listen.
    fn tell(&self, kind: EventKind, group: &Term, pids: Vec<Pid>) {
        if !pids.is_empty() {
            drop(self.events.send(Event { kind, group: group.clone(), pids }));
        }
    }
}

/// Whether the scope that a message is of is of the node that sent it: each speaks for itself.
fn is_of(request: &Term, sender: Option<&Pid>) -> bool {
    match (request.as_tuple(), sender) {
        (Some([_, Term::Pid(scope), ..]), Some(sender)) => scope.node.name() == sender.node.name(),
        _ => false,
    }
}

/// What is in `pids` more often than in `others`.
fn without(mut pids: Vec<Pid>, others: &[Pid]) -> Vec<Pid> {
    take_each(&mut pids, others);
    pids
}

/// One process, or a list of them.
fn pids_of(term: &Term) -> Vec<Pid> {
    match term {
        Term::Pid(pid) => vec![pid.clone()],
        Term::List(pids) => {
            let pid =
                |term: &Term| if let Term::Pid(pid) = term { Some(pid.clone()) } else { None };
            pids.iter().filter_map(pid).collect()
        }
        _ => Vec::new(),
    }
}
