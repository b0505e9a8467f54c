//! Messages of a peer, to whom they are for.

use std::sync::Arc;

use meshx_dist::Payload;
use meshx_dist::control::{Control, Destination, Spawned, Target};
use meshx_dist::link;
use meshx_etf::{Atom, DecodeError, Pid, Reference, Term, term};

use super::Connection;
use crate::node::Inner;
use crate::process::{Cell, LinkProtocol, LinkStep, Message, SpawnStep, Watcher, sender};
use crate::spawned::Request;

/// So many messages at most are delivered at one go.
const HELD: usize = 256;

/// Routes the messages of one connection.
pub(super) struct Incoming<'n> {
    node: &'n Arc<Inner>,
    connection: &'n Arc<Connection>,
    /// Who gets the messages that are held.
    last: Option<Arc<Cell>>,
    /// Under which name that was found, and at which count of changes.
    name: Option<(Atom, u64)>,
    /// Messages for `last`, delivered at one go.
    held: Vec<Message>,
}

impl<'n> Incoming<'n> {
    pub(super) fn new(node: &'n Arc<Inner>, connection: &'n Arc<Connection>) -> Self {
        Self { node, connection, last: None, name: None, held: Vec::new() }
    }

    /// Delivers what is held. Gives the process if its mailbox is full now.
    pub(super) fn flush(&mut self) -> Option<Arc<Cell>> {
        let cell = self.last.as_ref().filter(|_| !self.held.is_empty())?;
        cell.deliver(self.held.drain(..)).then(|| Arc::clone(cell))
    }

    /// Takes a message for a process, the same as the last one or not.
    fn hold(&mut self, cell: Option<Arc<Cell>>, message: Message) -> Option<Arc<Cell>> {
        let mut full = None;
        if let Some(cell) = cell {
            full = self.flush();
            self.last = Some(cell);
        }
        self.held.push(message);
        if self.held.len() >= HELD { full.or(self.flush()) } else { full }
    }

    /// Takes a message; messages to processes are held until [`Incoming::flush`], or until something
    /// else comes. Gives the process whose mailbox is full now. An error is a payload that is no term,
    /// and the end of the connection.
    pub(super) fn message(
        &mut self,
        message: link::Message,
    ) -> Result<Option<Arc<Cell>>, DecodeError> {
        let link::Message { control, payload, .. } = message;
        match (control, payload) {
            (Control::Send { from, to }, Some(body)) => {
                let message = Message { from: from.filter(|from| self.is_of_peer(from)), body };
                if self.last.as_ref().is_some_and(|last| last.pid == to) {
                    return Ok(self.hold(None, message));
                }
                let Some(cell) = self.node.processes.get(&to) else { return Ok(None) };
                self.name = None;
                Ok(self.hold(Some(cell), message))
            }
            (Control::SendName { from, to }, Some(body)) => {
                let message = Message { from: Some(from).filter(|it| self.is_of_peer(it)), body };
                let changes = self.node.processes.changes();
                if self.name.as_ref().is_some_and(|(name, at)| *at == changes && *name == to) {
                    return Ok(self.hold(None, message));
                }
                let Some(cell) = self.node.processes.named(&to) else { return Ok(None) };
                let full = self.hold(Some(cell), message);
                self.name = Some((to, changes));
                Ok(full)
            }
            (control, payload) => {
                let before = self.flush();
                self.signal(control, payload).map(|full| full.or(before))
            }
        }
    }

    /// What is not a message to a process.
    fn signal(
        &mut self,
        control: Control,
        payload: Option<Payload>,
    ) -> Result<Option<Arc<Cell>>, DecodeError> {
        let (node, connection) = (self.node, self.connection);
        let via = Some(connection.id);
        // It may wait long.
        let reason =
            |payload: Option<Payload>| payload.map_or(Ok(Term::nil()), |it| it.compact().term());
        let full = |cell: Arc<Cell>| cell.is_full().then_some(cell);
        match control {
            Control::SendAlias { from, to } => {
                let Some(cell) = node.holder(&to) else { return Ok(None) };
                let from = Some(from).filter(|from| self.is_of_peer(from));
                let deliver = |body| cell.deliver_to_alias(&to, Message { from, body });
                let full = payload.is_some_and(deliver);
                return Ok(full.then_some(cell));
            }
            Control::Link { from, to } => {
                let linked = node.processes.get(&to).map(|cell| {
                    let step = cell.linked_by(&from, via);
                    connection.relate(cell.pid.id, &node.processes);
                    step
                });
                match linked.unwrap_or(LinkStep::Ended) {
                    LinkStep::Ended => self.no_process(to, from),
                    LinkStep::TooMany => connection.close("it made too many links"),
                    LinkStep::Nothing | LinkStep::Tell => {}
                }
            }
            Control::Unlink { id, from, to } => {
                // Not before a link that the process made itself, which may wait behind a message.
                let order = sender(&to);
                let cell = node.processes.get(&to);
                let ack = Control::UnlinkAck { id, from: to, to: from.clone() };
                let tell = || {
                    if connection.link_protocol() == LinkProtocol::Answered {
                        connection.signal(order, &ack);
                    }
                };
                match cell {
                    Some(cell) => cell.unlinked_by(&from, tell),
                    None => tell(),
                }
            }
            Control::UnlinkAck { id, from, to } => {
                if let Some(cell) = node.processes.get(&to) {
                    cell.unlink_seen(&from, id);
                }
            }
            Control::Exit { from, to } => {
                let reason = reason(payload)?;
                if let Some(cell) = node.processes.get(&to) {
                    node.after(&cell, cell.link_broke(&from, reason));
                    return Ok(full(cell));
                }
            }
            Control::ExitSignal { from, to } => {
                let reason = reason(payload)?;
                let cell = match &to {
                    Destination::Pid(to) => node.processes.get(to),
                    Destination::Name(to) => node.processes.named(to),
                    Destination::Alias(to) => node.holder(to),
                };
                if let Some(cell) = cell {
                    node.after(&cell, cell.exit_signal(&from, reason));
                    return Ok(full(cell));
                }
            }
            Control::Monitor { from, to, reference } => self.monitor(from, to, reference),
            Control::Demonitor { reference, .. } => {
                let process = connection.demonitored(&reference);
                if let Some(cell) = process.and_then(|id| node.processes.numbered(id)) {
                    cell.unwatched_by(&reference, via);
                }
            }
            Control::Down { to, reference, .. } => {
                let reason = reason(payload)?;
                if let Some(cell) = node.processes.get(&to) {
                    cell.watched_ended(&reference, via, reason);
                    return Ok(full(cell));
                }
            }
            Control::Spawn { reference, from, module, function, arity, options, .. } => {
                let arguments = reason(payload)?;
                let request =
                    Request { reference, from, module, function, arity, options, arguments };
                node.spawn_for(connection, request);
            }
            Control::SpawnReply { reference, to, linked, monitored, result } => {
                let result = match result {
                    Spawned::Pid(pid) => Ok(pid),
                    Spawned::Error(reason) => Err(reason),
                };
                let started = result.as_ref().ok().cloned();
                let step = node.processes.get(&to).map_or(SpawnStep::Ended, |cell| {
                    cell.spawned(reference.clone(), via, result, linked, monitored)
                });
                match (step, started) {
                    (SpawnStep::Unwanted(pid), _) => {
                        node.demonitor(&to, reference, Target::Pid(pid), via);
                    }
                    // Who asked has ended since, which the new process cannot know.
                    (SpawnStep::Ended, Some(pid)) if linked => self.no_process(to, pid),
                    (SpawnStep::Ended | SpawnStep::Nothing, _) => {}
                }
            }
            // A group leader is of no use here: nothing writes to a terminal on somebody's behalf.
            _ => {}
        }
        Ok(None)
    }

    /// Whether a process may have sent what came from the peer. A VM does not look at that, so a message
    /// in another's name is no violation; but nobody is to believe it.
    fn is_of_peer(&self, process: &Pid) -> bool {
        let peer = &self.connection.peer;
        // Mostly both are the same value.
        process.node == *peer || process.node.name() == peer.name()
    }

    fn no_process(&self, ended: Pid, linked: Pid) {
        let order = sender(&ended);
        let exit = Control::Exit { from: ended, to: linked };
        self.connection.signal_reason(order, &exit, &term!(noproc));
    }

    fn monitor(&self, from: Pid, to: Target, reference: Reference) {
        let cell = match &to {
            Target::Pid(pid) => self.node.processes.get(pid),
            Target::Name(name) => self.node.processes.named(name),
        };
        let via = Some(self.connection.id);
        let watcher = Watcher { pid: from.clone(), via, target: to.clone(), guard: None };
        let watched = cell.is_some_and(|cell| {
            // In this order: once the process knows, it may end and take it back.
            self.connection.monitored(reference.clone(), cell.pid.id, &self.node.processes)
                && cell.watched_by(reference.clone(), watcher)
        });
        if !watched {
            self.connection.demonitored(&reference);
            // Behind what the process sent while it lived.
            let order = match &to {
                Target::Pid(pid) => sender(pid),
                Target::Name(_) => 0,
            };
            let down = Control::Down { from: to, to: from, reference };
            self.connection.signal_reason(order, &down, &term!(noproc));
        }
    }
}
