//! A process, as the program that is it sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshx_dist::Payload;
use meshx_dist::control::{Control, Target};
use meshx_dist::handshake::Flags;
use meshx_etf::{Atom, Pid, Reference, Term, term};
use serde::Serialize;

use super::{Cell, LinkProtocol, LinkStep, Signal, Spawning, Watcher, sender};
use crate::connection::{Connection, Unsent};
use crate::error::{ConnectError, NameError, SendError};
use crate::node::{Inner, Node};
use crate::to::{Content, To, Typed};

/// A process of the node: receives, sends, links, monitors.
///
/// Dropping it ends the process with the reason `normal` (`panic`, if the drop is part of a panic),
/// and what is linked to it or monitors it is told. A process that has ended otherwise, of an exit
/// signal, say, receives no more.
///
/// Its queue is bounded ([`crate::Builder::mailbox_limit`]): while it is full, nothing is read from
/// the connections that feed it, and their peers are held back. A process that waits for the answer
/// of a call, or until there is room for what it sends, holds nobody back before sixteen times as much
/// waits: that answer might be behind, and two processes that send to each other wait for each other.
#[derive(Debug)]
pub struct Mailbox {
    node: Arc<Inner>,
    cell: Arc<Cell>,
    /// The connection that it used last: mostly it uses it again.
    route: Mutex<Option<Arc<Connection>>>,
}

impl Mailbox {
    pub(crate) fn new(node: Arc<Inner>, cell: Arc<Cell>) -> Self {
        Self { node, cell, route: Mutex::default() }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.node
    }

    /// Its pid.
    pub fn pid(&self) -> &Pid {
        &self.cell.pid
    }

    /// Its node.
    pub fn node(&self) -> Node {
        Node::of(Arc::clone(&self.node))
    }

    /// Gives it a name, under which it is found from everywhere; one at most.
    pub fn register(&self, name: &str) -> Result<(), NameError> {
        let atom = Atom::new(name).map_err(|_| NameError::Invalid(name.to_owned()))?;
        if name.is_empty() || name == "undefined" {
            return Err(NameError::Invalid(name.to_owned()));
        }
        if self.node.processes.register(&atom, &self.cell) {
            Ok(())
        } else {
            Err(NameError::Taken(name.to_owned()))
        }
    }

    /// The name it has.
    pub fn name(&self) -> Option<Atom> {
        self.cell.name()
    }

    /// Takes its name away again.
    pub fn unregister(&self, name: &str) -> bool {
        self.node.processes.unregister(name, Some(self.pid()))
    }

    /// With `true`, exit signals arrive as [`Signal::Exit`] and do not end the process, except
    /// `kill`.
    pub fn trap_exits(&self, trap: bool) {
        self.cell.trap_exits(trap);
    }

    /// The next signal; waits for one. `None`: the process has ended.
    ///
    /// Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Option<Signal> {
        loop {
            if let Some(signal) = self.cell.take() {
                return Some(signal);
            }
            if self.cell.ended.is_cancelled() {
                return None;
            }
            self.cell.arrived.notified().await;
        }
    }

    /// The next signal, if one comes in time.
    pub async fn receive_within(&mut self, limit: Duration) -> Option<Signal> {
        tokio::time::timeout(limit, self.receive()).await.ok().flatten()
    }

    /// The next signal, if one is there.
    pub fn try_receive(&mut self) -> Option<Signal> {
        self.cell.take()
    }

    /// The first signal that `wanted` wants; others stay where they are. As Erlang's selective
    /// `receive`, this looks at everything that waits, and then at what arrives: at each signal once.
    pub async fn receive_where(
        &mut self,
        mut wanted: impl FnMut(&Signal) -> bool,
    ) -> Option<Signal> {
        let mut seen = 0;
        loop {
            if let Some(signal) = self.cell.take_if(&mut seen, &mut wanted) {
                return Some(signal);
            }
            if self.cell.ended.is_cancelled() {
                return None;
            }
            self.cell.arrived.notified().await;
        }
    }

    /// How many signals wait.
    pub fn queue_len(&self) -> usize {
        self.cell.queue_len()
    }

    /// Why the process has ended, if it has.
    pub fn ended_with(&self) -> Option<Term> {
        self.cell.ended_with()
    }

    /// Sends a value as a message. Connects to the node first if need be, and waits while what waits
    /// for that connection is too much already.
    ///
    /// `Ok` says that the message is on its way, not that it arrived; as in Erlang, a message to a
    /// process that is not there is lost without a word.
    pub async fn send<T: Serialize + Sync + ?Sized>(
        &self,
        to: impl Into<To>,
        message: &T,
    ) -> Result<(), SendError> {
        self.send_content(to.into(), &Typed(message)).await
    }

    /// Sends a term; large binaries in it are not copied.
    pub async fn send_term(&self, to: impl Into<To>, message: &Term) -> Result<(), SendError> {
        self.send_content(to.into(), message).await
    }

    async fn send_content(&self, to: To, content: &(dyn Content + Sync)) -> Result<(), SendError> {
        match self.send_by_route(&to, content) {
            Some(Ok(())) => Ok(()),
            Some(Err((connection, Unsent::Busy { large, .. }))) => {
                self.node.deliver_later(&connection, self.pid(), &to, content, large).await
            }
            Some(Err((_, unsent))) => Err(unsent.into()),
            None => self.node.send(self.pid(), to, content).await,
        }
    }

    /// Sends at once by the connection to where that is, if there is one; it is given if that did not
    /// work.
    fn send_by_route(
        &self,
        to: &To,
        content: &dyn Content,
    ) -> Option<Result<(), (Arc<Connection>, Unsent)>> {
        let node = to.node()?;
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        let last = route.as_ref().filter(|it| it.name() == node && !it.is_closing());
        if last.is_none() {
            *route = Some(self.node.peers.up_to(node)?);
        }
        route.as_ref().map(|connection| {
            let sent = connection.deliver_now(self.pid(), to, content);
            sent.map_err(|unsent| (Arc::clone(connection), unsent))
        })
    }

    /// As [`Mailbox::send`], at once: an error if the node is not connected or busy.
    pub fn try_send<T: Serialize + Sync + ?Sized>(
        &self,
        to: impl Into<To>,
        message: &T,
    ) -> Result<(), SendError> {
        self.node.try_send(self.pid(), &to.into(), &Typed(message))
    }

    /// As [`Mailbox::send_term`], at once: an error if the node is not connected or busy.
    pub fn try_send_term(&self, to: impl Into<To>, message: &Term) -> Result<(), SendError> {
        self.node.try_send(self.pid(), &to.into(), message)
    }

    /// Links with a process: when one of both ends with another reason than `normal`, so does the
    /// other, unless it traps exits. If that process or its node is not there, this one gets the exit
    /// signal `noproc` or `noconnection`.
    pub async fn link(&self, to: &Pid) {
        self.node.link(&self.cell, to).await;
    }

    /// Takes the link away: what the other process does afterwards does not matter here any more.
    pub fn unlink(&self, to: &Pid) {
        self.node.unlink(&self.cell, to);
    }

    /// Watches a process, or whatever has a name now: [`Signal::Down`] comes once, when it ends, or at
    /// once with `noproc` or `noconnection` if it is not there.
    pub async fn monitor(&self, of: impl Into<To>) -> Reference {
        let reference = self.node.reference(&self.cell.pid);
        self.node.monitor(&self.cell, of.into(), reference.clone()).await;
        reference
    }

    /// Watches no more; a [`Signal::Down`] that waits already is taken out.
    pub fn demonitor(&self, reference: &Reference) {
        if let Some((target, _, via)) = self.cell.unwatch(reference) {
            self.node.demonitor(self.pid(), reference.clone(), target, via);
        }
    }

    /// An alias: a reference to which messages can be sent until it is taken back.
    pub fn alias(&self) -> Reference {
        let alias = self.node.reference(&self.cell.pid);
        self.cell.add_alias(alias.clone());
        alias
    }

    /// Takes an alias back; messages to it are dropped from now on.
    pub fn unalias(&self, alias: &Reference) -> bool {
        self.cell.drop_alias(alias)
    }

    /// Sends an exit signal (`exit/2`).
    pub async fn exit(&self, to: &Pid, reason: &Term) -> Result<(), SendError> {
        self.node.exit(self.pid(), to, reason).await
    }

    /// Asks another node to start a process; [`Signal::Spawned`] tells what came of it. With `monitor`,
    /// the reference is that of the monitor, too. Here, processes are started with [`Node::spawn`]: the
    /// answer is `notsup`.
    pub async fn spawn_request(
        &self,
        node: &str,
        function: (&str, &str),
        arguments: &[Term],
        link: bool,
        monitor: bool,
    ) -> Result<Reference, SendError> {
        let reference = self.node.reference(self.pid());
        self.node
            .spawn_request(&self.cell, node, function, arguments, (link, monitor), &reference)
            .await?;
        Ok(reference)
    }

    /// Ends the process with this reason.
    pub fn end(self, reason: Term) {
        self.node.finish(&self.cell, reason);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { term!(panic) } else { term!(normal) };
        self.node.finish(&self.cell, reason);
    }
}

/// The operations of a process, for those that have no mailbox, too.
impl Inner {
    pub(crate) async fn send(
        self: &Arc<Self>,
        from: &Pid,
        to: To,
        content: &(dyn Content + Sync),
    ) -> Result<(), SendError> {
        if let Some(node) = self.elsewhere(&to) {
            let connection = self.connect(&node).await?;
            return self.deliver_by(&connection, from, &to, content).await;
        }
        self.deliver(from, &to, content)
    }

    /// Sends to a process of a peer when there is room.
    async fn deliver_by(
        &self,
        connection: &Connection,
        from: &Pid,
        to: &To,
        content: &(dyn Content + Sync),
    ) -> Result<(), SendError> {
        match connection.deliver_now(from, to, content) {
            Err(Unsent::Busy { large, .. }) => {
                self.deliver_later(connection, from, to, content, large).await
            }
            done => Ok(done?),
        }
    }

    /// Sends when there is room, which there was not. Meanwhile the sender's own mailbox holds nobody back.
    async fn deliver_later(
        &self,
        connection: &Connection,
        from: &Pid,
        to: &To,
        content: &(dyn Content + Sync),
        large: bool,
    ) -> Result<(), SendError> {
        let cell = self.processes.get(from);
        let _waits = cell.as_ref().map(|cell| cell.sending());
        connection.deliver(from, to, content, large).await
    }

    /// Sends an answer; to the pid of who asked where aliases were not negotiated. Whoever asked over
    /// a connection that is gone has been told so, and does not wait any more.
    pub(crate) async fn send_back(
        self: &Arc<Self>,
        from: &Pid,
        to: &To,
        caller: &Pid,
        content: &(dyn Content + Sync),
    ) -> Result<(), SendError> {
        let Some(node) = self.elsewhere(to) else { return self.deliver(from, to, content) };
        let connection = self.peers.up_to(&node).ok_or(ConnectError::NotConnected(node))?;
        if matches!(to, To::Alias(_)) && !connection.takes_aliases() {
            return self.deliver_by(&connection, from, &To::from(caller), content).await;
        }
        self.deliver_by(&connection, from, to, content).await
    }

    pub(crate) fn try_send(
        self: &Arc<Self>,
        from: &Pid,
        to: &To,
        content: &dyn Content,
    ) -> Result<(), SendError> {
        let Some(node) = self.elsewhere(to) else { return self.deliver(from, to, content) };
        let connection = self.peers.up_to(&node).ok_or(ConnectError::NotConnected(node))?;
        Ok(connection.deliver_now(from, to, content)?)
    }

    /// Delivers to a process here.
    fn deliver(&self, from: &Pid, to: &To, content: &dyn Content) -> Result<(), SendError> {
        let cell = match to {
            To::Pid(pid) => self.processes.get(pid),
            To::Name(name) | To::NameAt(name, _) => self.processes.named(name),
            To::Alias(alias) => self.holder(alias),
        };
        let Some(cell) = cell else { return Ok(()) };
        let body: Payload = content.payload()?;
        let message = super::Message { from: Some(from.clone()), body };
        match to {
            To::Alias(alias) => cell.deliver_to_alias(alias, message),
            _ => cell.deliver_message(message),
        };
        Ok(())
    }

    async fn link(self: &Arc<Self>, cell: &Arc<Cell>, to: &Pid) {
        if *to == cell.pid {
            return;
        }
        if to.node.name() == self.id.name() {
            return self.link_here(cell, to);
        }
        let connection = self.connect(to.node.name()).await;
        let Some(connection) = connection.ok().filter(|it| it.reads(&cell.pid)) else {
            // As if it had been there, and was lost.
            cell.link(to, Some(0), LinkProtocol::Answered, || {});
            return self.after(cell, cell.link_broke(to, term!(noconnection)));
        };
        let link = Control::Link { from: cell.pid.clone(), to: to.clone() };
        let tell = || connection.signal(sender(&cell.pid), &link);
        let protocol = connection.link_protocol();
        if cell.link(to, Some(connection.id), protocol, tell) != LinkStep::Tell {
            return;
        }
        // Not before: the connection may have ended since, and with it what it knew of then.
        if connection.relate(cell.pid.id, &self.processes) {
            if let Some(reason) = cell.ended_with() {
                // Its farewell may have gone before the link.
                let exit = Control::Exit { from: cell.pid.clone(), to: to.clone() };
                connection.signal_reason(sender(&cell.pid), &exit, &reason);
            }
        } else {
            self.after(cell, cell.link_broke(to, term!(noconnection)));
        }
    }

    /// Links two processes of this node.
    fn link_here(&self, cell: &Arc<Cell>, to: &Pid) {
        let one_at_a_time = self.linking();
        if cell.link(to, None, LinkProtocol::Answered, || {}) != LinkStep::Tell {
            return;
        }
        let other = self.processes.get(to);
        let step = other.as_ref().map_or(LinkStep::Ended, |it| it.linked_by(&cell.pid, None));
        drop(one_at_a_time);
        if step != LinkStep::Nothing {
            self.after(cell, cell.link_broke(to, term!(noproc)));
        } else if let (Some(other), Some(reason)) = (other, cell.ended_with()) {
            // Its farewell may have gone before the link.
            self.after(&other, other.link_broke(&cell.pid, reason));
        }
    }

    fn unlink(&self, cell: &Arc<Cell>, to: &Pid) {
        let connection = self.peers.up_to(to.node.name());
        if let Some(connection) = connection
            && connection.link_protocol() == LinkProtocol::Unanswered
        {
            let unlink = Control::Unlink { id: 0, from: cell.pid.clone(), to: to.clone() };
            let tell = || connection.signal(sender(&cell.pid), &unlink);
            return cell.unlink_unanswered(to, tell);
        }
        let id = self.unlink_id();
        let _one_at_a_time = self.linking();
        cell.unlink(to, id, |via| {
            if via.is_some() {
                let unlink = Control::Unlink { id, from: cell.pid.clone(), to: to.clone() };
                self.over(via, |connection| connection.signal(sender(&cell.pid), &unlink));
            } else if let Some(other) = self.processes.get(to) {
                other.unlinked_by(&cell.pid, || {});
            }
        });
    }

    pub(crate) async fn monitor(self: &Arc<Self>, cell: &Arc<Cell>, of: To, reference: Reference) {
        let (target, node) = match &of {
            To::Pid(pid) => (Target::Pid(pid.clone()), pid.node.name().clone()),
            To::Name(name) => (Target::Name(name.clone()), self.id.name().clone()),
            To::NameAt(name, node) => (Target::Name(name.clone()), node.clone()),
            To::Alias(_) => (Target::Name(Atom::cut("")), self.id.name().clone()),
        };
        if node == *self.id.name() {
            if !cell.watch(reference.clone(), target.clone(), node, None) {
                return;
            }
            let other = match &of {
                To::Pid(pid) => self.processes.get(pid),
                To::Name(name) | To::NameAt(name, _) => self.processes.named(name),
                To::Alias(_) => None,
            };
            let watcher = Watcher { pid: cell.pid.clone(), via: None, target, guard: None };
            let other = other.filter(|other| other.watched_by(reference.clone(), watcher));
            match other {
                None => cell.watched_ended(&reference, None, term!(noproc)),
                // Its farewell may have gone before the monitor.
                Some(other) if cell.ended.is_cancelled() => other.unwatched_by(&reference, None),
                Some(_) => {}
            }
            return;
        }
        let connection = self.connect(&node).await;
        let via = connection.as_ref().map_or(0, |connection| connection.id);
        if !cell.watch(reference.clone(), target.clone(), node, Some(via)) {
            return;
        }
        match connection {
            Ok(connection)
                if connection.reads(&cell.pid)
                    && connection.relate(cell.pid.id, &self.processes) =>
            {
                let from = cell.pid.clone();
                let (to, again) = (target.clone(), reference.clone());
                let monitor = Control::Monitor { from, to, reference };
                connection.signal(sender(&cell.pid), &monitor);
                if cell.ended.is_cancelled() {
                    self.demonitor(&cell.pid, again, target, Some(via));
                }
            }
            _ => cell.watched_ended(&reference, Some(via), term!(noconnection)),
        }
    }

    async fn exit(self: &Arc<Self>, from: &Pid, to: &Pid, reason: &Term) -> Result<(), SendError> {
        if to.node.name() == self.id.name() {
            if let Some(cell) = self.processes.get(to) {
                self.after(&cell, cell.exit_signal(from, reason.clone()));
            }
            return Ok(());
        }
        let connection = self.connect(to.node.name()).await?;
        if !connection.reads(from) {
            return Err(connection.incapable(Flags::V4_NC).into());
        }
        let to = meshx_dist::control::Destination::Pid(to.clone());
        let exit = Control::ExitSignal { from: from.clone(), to };
        connection.signal_reason(sender(from), &exit, reason);
        Ok(())
    }

    pub(crate) async fn spawn_request(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        node: &str,
        (module, function): (&str, &str),
        arguments: &[Term],
        (link, monitor): (bool, bool),
        reference: &Reference,
    ) -> Result<(), SendError> {
        let node = Atom::new(node).map_err(|_| ConnectError::Name(node.to_owned()))?;
        let arity = u8::try_from(arguments.len()).map_err(|_| SendError::Arity(arguments.len()))?;
        if node == *self.id.name() {
            cell.spawning(reference.clone(), Spawning { via: None, node, abandoned: false });
            cell.spawned(reference.clone(), None, Err(Atom::cut("notsup")), false, false);
            return Ok(());
        }
        let mut options = Vec::new();
        options.extend(link.then(|| term!(link)));
        options.extend(monitor.then(|| term!(monitor)));
        let spawn = Control::Spawn {
            reference: reference.clone(),
            from: cell.pid.clone(),
            leader: self.leader(&cell.pid),
            module: Atom::cut(module),
            function: Atom::cut(function),
            arity,
            options: Term::List(options),
        };
        let connection = self.connect(&node).await?;
        if !connection.flags.contains(Flags::SPAWN) {
            return Err(connection.incapable(Flags::SPAWN).into());
        }
        let draft = connection.draft(&spawn, &Term::List(arguments.to_vec()))?;
        let (lane, large) = (sender(&cell.pid), connection.is_large(&draft));
        if connection.is_busy(lane, large) {
            let _waits = cell.sending();
            connection.room(lane, large).await;
        }
        let via = Some(connection.id);
        cell.spawning(reference.clone(), Spawning { via, node, abandoned: false });
        if !connection.relate(cell.pid.id, &self.processes) {
            let lost = Err(Atom::cut("noconnection"));
            cell.spawned(reference.clone(), via, lost, false, false);
            return Ok(());
        }
        match connection.send(lane, draft) {
            // If the end of the connection came between, it has been told as it always is.
            Err(error) if cell.not_spawning(reference) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
