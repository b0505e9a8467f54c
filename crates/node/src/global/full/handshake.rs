//! How a node that is connected becomes known: sessions.

use meshx_etf::{Atom, Term, term};

use super::super::VERSION;
use super::locker::{Him, Order};
use super::partition::Loss;
use super::state::{Act, Exchange, News, Operations, State};
use crate::envelope::cast;

/// So many nodes are known; what others say of further ones is not believed.
const KNOWN: usize = 1 << 14;

impl State {
    /// A visible node is connected: we introduce ourselves.
    pub(super) fn node_up(&mut self, node: &Atom) {
        self.connected.insert(node.clone());
        self.lost.remove(node);
        self.removing.remove(node);
        self.introduce(node);
    }

    fn introduce(&mut self, node: &Atom) {
        if self.shared.known().contains_key(node) || self.tag_with(node).is_some() {
            return;
        }
        let tag = self.next_tag();
        let session = self.sessions.entry(node.clone()).or_default();
        session.my_tag = Some(tag);
        let early = session.early.take();
        let (me, locker) = (self.me.clone(), self.locker.clone());
        let locker = term!({locker, no_longer_a_pid, #{}, (locker)});
        self.tell(node, cast(term!({init_connect, {(VERSION), (tag)}, (me), (locker)})));
        if let Some(early) = early {
            self.cast(&early);
        }
    }

    pub(super) fn tag_with(&self, node: &Atom) -> Option<i64> {
        self.sessions.get(node)?.my_tag
    }

    /// Whether a message is of the session that there is. If not, the locker has nothing to wait for.
    fn is_current(&mut self, node: &Atom, tag: &Term) -> bool {
        let tag = tag.as_i64();
        if tag.is_some() && self.tag_with(node) == tag {
            return true;
        }
        if let Some(tag) = tag
            && self.connected.contains(node)
        {
            let announce = Vec::new();
            self.act(Act::Locker(Order::Cancel { node: node.clone(), tag, announce }));
        }
        false
    }

    /// A cast.
    pub(super) fn cast(&mut self, request: &Term) {
        let Some([Term::Atom(kind), rest @ ..]) = request.as_tuple() else { return };
        match (kind.as_str(), rest) {
            ("init_connect", [version, Term::Atom(node), locker]) => {
                self.introduced(request, version, node, locker);
            }
            ("exchange", [Term::Atom(node), Term::List(names), _, tag]) => {
                if self.is_current(node, tag) {
                    self.exchange(node, names.clone());
                }
            }
            ("resolved", [Term::Atom(node), Term::List(theirs), Term::List(known), _, _, tag]) => {
                if self.is_current(node, tag) {
                    self.operations_of(node, theirs.clone(), known.clone());
                }
            }
            (
                "new_nodes",
                [Term::Atom(_), Term::List(operations), _, Term::List(nodes), Term::List(extra)],
            ) => self.new_nodes(operations, nodes, extra),
            ("in_sync", [Term::Atom(node), _]) if self.connected.contains(node) => {
                self.pending.remove(node);
                self.shared.set_synced(node, true);
                self.end_session(node, Vec::new());
            }
            ("lock_set", [Term::Pid(pid), set, _, tag]) => {
                let tag = tag.as_i64();
                if tag.is_some() && self.tag_with(pid.node.name()) == tag {
                    let set = set.is_atom("true");
                    self.act(Act::Locker(Order::LockSet { locker: pid.clone(), set, tag }));
                }
            }
            ("lock_set", [Term::Pid(pid), set, _]) if self.connected.contains(pid.node.name()) => {
                let set = set.is_atom("true");
                self.act(Act::Locker(Order::LockSet { locker: pid.clone(), set, tag: None }));
            }
            _ => tracing::debug!(%request, "a cast that no global_name_server sends"),
        }
    }

    /// A bare message.
    pub(super) fn info(&mut self, message: &Term) {
        let Some([Term::Atom(kind), rest @ ..]) = message.as_tuple() else { return };
        match (kind.as_str(), rest) {
            ("init_connect_ack", [Term::Atom(node), my_tag, his_tag]) => {
                let session = self.sessions.get(node);
                let is_ours = session.is_some_and(|session| {
                    session.my_tag.is_some()
                        && session.my_tag == my_tag.as_i64()
                        && session.his_tag.as_ref() == Some(his_tag)
                });
                if !is_ours {
                    let me = self.me.clone();
                    self.tell(node, term!({cancel_connect, (me), (his_tag.clone())}));
                    self.restart(node);
                }
            }
            ("cancel_connect", [Term::Atom(node), tag]) => {
                if tag.as_i64().is_some() && self.tag_with(node) == tag.as_i64() {
                    self.restart(node);
                }
            }
            ("lost_connection", [Term::Atom(a), creation, report, Term::Atom(b)]) => {
                self.told_of_loss(a, creation, report, b);
            }
            ("remove_connection", [Term::Atom(node)]) => self.removed_by(node),
            _ => tracing::debug!(%message, "a message that no global_name_server sends"),
        }
    }

    /// Something from our own processes.
    pub(super) fn news(&mut self, news: News) {
        match news {
            News::LockIsSet { node, tag, lock } => {
                if self.is_current(&node, &tag.into()) {
                    self.lock_is_set(&node, lock);
                }
            }
            News::Resolved { node, tag, ours, theirs } => {
                if self.is_current(&node, &tag.into()) {
                    self.compared(&node, ours, theirs);
                }
            }
            News::Unreachable(node) => self.lose(&node, Loss::Disconnected),
            News::Stuck { node, tag } => {
                if self.tag_with(&node) == Some(tag) {
                    self.restart(&node);
                }
            }
            News::StillLost(node) => self.still_lost(&node),
        }
    }

    /// `{init_connect, {Version, HisTag}, Node, {locker, _, _, HisLocker}}`.
    fn introduced(&mut self, request: &Term, version: &Term, node: &Atom, locker: &Term) {
        let Some([his_version, his_tag, ..]) = version.as_tuple() else { return };
        let Some(his_version) = his_version.as_i64() else { return };
        let Some([_, _, _, Term::Pid(locker)]) = locker.as_tuple() else { return };
        if self.pending.contains_key(node) {
            // We are in the midst of a session already: both sides begin anew.
            if his_version < 8 {
                return self.act(Act::Disconnect(node.clone()));
            }
            let me = self.me.clone();
            self.tell(node, term!({cancel_connect, (me), (his_tag.clone())}));
            return self.restart(node);
        }
        let session = self.sessions.entry(node.clone()).or_default();
        let Some(my_tag) = session.my_tag else {
            session.early = Some(request.clone());
            if !self.connected.contains(node) {
                // Nobody whom we see: he is not waited for.
                self.sessions.remove(node);
            }
            return;
        };
        session.version = his_version.min(VERSION);
        session.his_tag = Some(his_tag.clone());
        self.act(Act::Locker(Order::Meet(Him {
            node: node.clone(),
            locker: locker.clone(),
            version: his_version.min(VERSION),
            my_tag,
            his_tag: his_tag.clone(),
        })));
        if his_version >= 8 {
            let me = self.me.clone();
            self.tell(node, term!({init_connect_ack, (me), (his_tag.clone()), (my_tag)}));
        }
        self.pending.insert(node.clone(), his_version);
    }

    /// The session with a node is over, and another one begins.
    fn restart(&mut self, node: &Atom) {
        let tag = self.tag_with(node);
        self.cancel(node, tag, Vec::new());
        self.sessions.remove(node);
        self.pending.remove(node);
        if tag.is_some() && self.connected.contains(node) {
            self.introduce(node);
        }
    }

    /// The session is over. The locker says this first to others, then gives its locks back.
    fn end_session(&mut self, node: &Atom, announce: Vec<(Atom, Term)>) {
        let tag = self.tag_with(node);
        self.pending.remove(node);
        self.cancel(node, tag, announce);
        self.sessions.remove(node);
    }

    fn lock_is_set(&mut self, node: &Atom, lock: Term) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        session.lock = Some(lock);
        let his_tag = session.his_tag.clone().unwrap_or_else(|| term!(undefined));
        let exchange = std::mem::replace(&mut session.exchange, Exchange::LockIsSet);
        let (me, names) = (self.me.clone(), self.names_list());
        self.tell(node, cast(term!({exchange, (me), (names), [], (his_tag)})));
        if let Exchange::Names(names) = exchange {
            self.exchange(node, names);
        }
    }

    fn exchange(&mut self, node: &Atom, names: Vec<Term>) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        match (&session.exchange, session.my_tag) {
            (Exchange::LockIsSet, Some(tag)) => {
                session.exchange = Exchange::Nothing;
                self.act(Act::Resolve(node.clone(), tag, names));
            }
            _ => session.exchange = Exchange::Names(names),
        }
    }

    fn compared(&mut self, node: &Atom, ours: Vec<Term>, theirs: Vec<Term>) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        let his_tag = session.his_tag.clone().unwrap_or_else(|| term!(undefined));
        let before = std::mem::replace(&mut session.operations, Operations::Ours(ours));
        let (me, known) = (self.me.clone(), self.known_list(self.version_of(node)));
        let theirs = Term::List(theirs);
        let resolved = term!({resolved, (me), (theirs), (known), unused, [], (his_tag)});
        self.tell(node, cast(resolved));
        if let Operations::Theirs(operations, known) = before {
            self.operations_of(node, operations, known);
        }
    }

    fn operations_of(&mut self, node: &Atom, theirs: Vec<Term>, known: Vec<Term>) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        match std::mem::take(&mut session.operations) {
            Operations::Ours(mut operations) => {
                operations.extend(theirs);
                self.unite(node, operations, &known);
            }
            _ => session.operations = Operations::Theirs(theirs, known),
        }
    }

    /// Both sides have decided: two partitions become one.
    fn unite(&mut self, node: &Atom, operations: Vec<Term>, his_known: &[Term]) {
        let mut nodes = vec![(node.clone(), self.version_of(node))];
        let room = KNOWN.saturating_sub(self.shared.known().len());
        for entry in his_known.iter().take(room) {
            let Some((other, version)) = node_and_version(entry) else { continue };
            let version = if version == 0 { self.version_of(&other) } else { version };
            nodes.push((other, version));
        }
        for (other, _) in nodes.iter().skip(1) {
            if *other != self.me {
                self.act(Act::Introduce(other.clone()));
            }
        }
        let session = self.sessions.get(node);
        let version = session.map_or(VERSION, |session| session.version);
        let lock = session.and_then(|session| session.lock.clone());
        self.operate(&operations, lock.as_ref());
        for (other, _) in nodes.iter().skip(1) {
            self.end_session(other, Vec::new());
        }
        let extra = term!([{vsn, (version)}, {lock, (lock.unwrap_or_else(|| term!(undefined)))}]);
        let announce = self.announcement(&nodes, operations, &extra);
        self.end_session(node, announce);
        self.know(&nodes);
        self.shared.set_synced(node, true);
    }

    /// What those are told who were known before.
    fn announcement(
        &self,
        nodes: &[(Atom, i64)],
        operations: Vec<Term>,
        extra: &Term,
    ) -> Vec<(Atom, Term)> {
        let operations = Term::List(operations);
        let known = self.shared.known();
        let message = |version: i64| {
            let entry = |(node, of): &(Atom, i64)| match version {
                7.. => term!({(node.clone()), (*of)}),
                _ => Term::Atom(node.clone()),
            };
            let nodes = Term::List(nodes.iter().map(entry).collect());
            let (me, operations) = (self.me.clone(), operations.clone());
            cast(term!({new_nodes, (me), (operations), [], (nodes), (extra.clone())}))
        };
        known.iter().map(|(node, version)| (node.clone(), message(*version))).collect()
    }

    /// `{new_nodes, Node, Operations, _, Nodes, Extra}`: somebody whom we know united with others.
    fn new_nodes(&mut self, operations: &[Term], nodes: &[Term], extra: &[Term]) {
        let nodes: Vec<_> = nodes.iter().filter_map(node_and_version).collect();
        for node in self.know(&nodes) {
            self.act(Act::Introduce(node));
        }
        let lock = extra.iter().find_map(|entry| match entry.as_tuple() {
            Some([key, lock]) if key.is_atom("lock") => Some(lock),
            _ => None,
        });
        self.operate(operations, lock);
    }

    /// Those are known now, if they are not too many; gives those that were not before.
    fn know(&mut self, nodes: &[(Atom, i64)]) -> Vec<Atom> {
        let mut known = self.shared.known_mut();
        let mut added = Vec::new();
        for (node, version) in nodes {
            if known.len() >= KNOWN {
                tracing::warn!("more than {KNOWN} nodes in global: the others are not known here");
                break;
            }
            if *node != self.me && !known.contains_key(node) {
                known.insert(node.clone(), *version);
                added.push(node.clone());
            }
        }
        added
    }
}

/// `{Node, Version}`, or a node of which the version is not known.
fn node_and_version(entry: &Term) -> Option<(Atom, i64)> {
    match entry {
        Term::Atom(node) => Some((node.clone(), 0)),
        entry => match entry.as_tuple()? {
            [Term::Atom(node), version] => Some((node.clone(), version.as_i64()?)),
            _ => None,
        },
    }
}
