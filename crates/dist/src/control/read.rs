//! Bytes to control messages.

use std::sync::Arc;

use meshx_etf::{
    Atom, AtomRef, DecodeError, Decoder, Node, Pid, PidRef, Reference, ReferenceRef, TermReader,
};

use super::{Control, Destination, Spawned, Target, op};
use crate::handshake::Flags;
use crate::payload::decoder;

/// A control message that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<'a> {
    /// The message.
    pub control: Control,
    /// The bytes of its payload, which were not looked at; for the exits whose reason is inside, that.
    /// Empty if none belongs to it.
    pub payload: &'a [u8],
    /// Whether the payload was inside of the control message.
    pub inside: bool,
    /// Whether the sender marked it as urgent (operation 37).
    pub priority: bool,
}

/// Why a control message is not one. A VM drops the connection then, and so must the caller: the
/// sender is wrong about what it says, or we are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is no term.
    #[error("the control message is not a term: {0}")]
    Term(#[from] DecodeError),
    /// No operation of this number and number of elements.
    #[error("no operation {operation} with {elements} elements is known")]
    Operation {
        /// Its number.
        operation: i64,
        /// How many elements there are, with the number.
        elements: usize,
    },
    /// A process of another node as sender, where only one of the peer may be.
    #[error("operation {operation} in the name of a process of {node}")]
    Foreign {
        /// Its number.
        operation: i64,
        /// Whose process it is.
        node: Atom,
    },
    /// No payload where one belongs, or something behind where none does.
    #[error("operation {operation} has too little or too much behind it")]
    Payload {
        /// Its number.
        operation: i64,
    },
}

/// The nodes that pids and references of a connection are of, so that each need not be made anew.
#[derive(Debug, Clone)]
pub struct Nodes {
    peer: Node,
    own: Node,
    other: Node,
}

impl Nodes {
    /// Of a connection between these.
    pub fn new(own: Node, peer: Node) -> Self {
        Self { other: peer.clone(), own, peer }
    }

    fn node(&mut self, name: AtomRef<'_>, creation: u32) -> Node {
        for known in [&self.peer, &self.own, &self.other] {
            if known.creation() == creation && is_named(known, name) {
                return known.clone();
            }
        }
        self.other = Node::new(name.to_atom(), creation);
        self.other.clone()
    }

    fn pid(&mut self, pid: &PidRef<'_>) -> Pid {
        Pid { node: self.node(pid.node, pid.creation), id: pid.id, serial: pid.serial }
    }

    fn reference(&mut self, reference: &ReferenceRef<'_>) -> Result<Reference, DecodeError> {
        let node = self.node(reference.node, reference.creation);
        Reference::new(node, reference.words())
            .ok_or(DecodeError::Kind { wanted: "a reference of at most 5 words" })
    }
}

/// By their bytes, which need no check that they are text.
fn is_named(node: &Node, name: AtomRef<'_>) -> bool {
    match name {
        AtomRef::Cached(atom) => node.name() == atom,
        AtomRef::Text(text) => node.name() == text,
        AtomRef::Latin1(_) => *node.name() == name.to_atom(),
    }
}

/// Reads operands one after the other.
struct Operands<'a, 'n> {
    reader: TermReader<'a>,
    nodes: &'n mut Nodes,
    operation: i64,
}

impl Operands<'_, '_> {
    fn pid(&mut self) -> Result<Pid, ReadError> {
        let pid = self.reader.pid()?;
        Ok(self.nodes.pid(&pid))
    }

    /// A sender that must be of the peer.
    fn sender(&mut self) -> Result<Pid, ReadError> {
        let pid = self.pid()?;
        if pid.node.name() != self.nodes.peer.name() {
            let node = pid.node.name().clone();
            return Err(ReadError::Foreign { operation: self.operation, node });
        }
        Ok(pid)
    }

    fn atom(&mut self) -> Result<Atom, ReadError> {
        Ok(self.reader.atom()?.to_atom())
    }

    fn reference(&mut self) -> Result<Reference, ReadError> {
        let reference = self.reader.reference()?;
        Ok(self.nodes.reference(&reference)?)
    }

    fn target(&mut self) -> Result<Target, ReadError> {
        Ok(if self.reader.at_atom() {
            Target::Name(self.atom()?)
        } else {
            Target::Pid(self.pid()?)
        })
    }

    /// What may be a pid or a name, and must be of the peer if it is a pid.
    fn sending_target(&mut self) -> Result<Target, ReadError> {
        Ok(if self.reader.at_atom() {
            Target::Name(self.atom()?)
        } else {
            Target::Pid(self.sender()?)
        })
    }

    fn id(&mut self) -> Result<u64, ReadError> {
        let wrong = DecodeError::Kind { wanted: "a number from 1 to 2^64 - 1" };
        let id = Decoder::new().bare_typed::<u64>(self.reader.skip()?);
        Ok(id.ok().map(|(id, _)| id).filter(|&id| id != 0).ok_or(wrong)?)
    }
}

impl Control {
    /// Reads the control message at the beginning of `body`, which has no version byte; `atoms` are
    /// those of the header before it. Trace tokens are read over. Of the negotiated `flags`,
    /// [`Flags::UNLINK_ID`] decides which operations of links there are; for the others it is enough
    /// what they are made of.
    pub fn read<'a>(
        body: &'a [u8],
        atoms: &'a Arc<[Atom]>,
        nodes: &mut Nodes,
        flags: Flags,
    ) -> Result<Read<'a>, ReadError> {
        let mut reader = decoder(atoms).reader(body)?;
        let elements = reader.tuple()?;
        let operation = reader.integer()?;
        let unknown = ReadError::Operation { operation, elements };
        let mut operands = Operands { reader, nodes, operation };
        let with = &mut operands;
        let (mut inside, mut priority) = (None, false);
        let acknowledged = flags.contains(Flags::UNLINK_ID);
        let control = match (operation, elements) {
            (op::LINK, 3) => Control::Link { from: with.sender()?, to: with.pid()? },
            (op::SEND, 3) | (op::SEND_TT, 4) => {
                with.reader.skip()?;
                Control::Send { from: None, to: with.pid()? }
            }
            (op::SEND_SENDER, 3) | (op::SEND_SENDER_TT, 4) => {
                Control::Send { from: Some(with.pid()?), to: with.pid()? }
            }
            (op::REG_SEND, 4) | (op::REG_SEND_TT, 5) => {
                let from = with.pid()?;
                with.reader.skip()?;
                Control::SendName { from, to: with.atom()? }
            }
            (op::ALIAS_SEND, 3) | (op::ALIAS_SEND_TT, 4) => {
                Control::SendAlias { from: with.pid()?, to: with.reference()? }
            }
            (op::GROUP_LEADER, 3) => Control::GroupLeader { leader: with.pid()?, to: with.pid()? },
            (op::EXIT, 4) | (op::EXIT_TT, 5) => {
                let (from, to) = (with.sender()?, with.pid()?);
                if elements == 5 {
                    with.reader.skip()?;
                }
                inside = Some(with.reader.skip()?);
                Control::Exit { from, to }
            }
            (op::PAYLOAD_EXIT, 3) | (op::PAYLOAD_EXIT_TT, 4) => {
                Control::Exit { from: with.sender()?, to: with.pid()? }
            }
            (op::EXIT2, 4) | (op::EXIT2_TT, 5) => {
                // A VM checks only the one with a token. Nobody sends the other for others, either, and
                // what was read must be writable as what takes its place (26).
                let from = with.sender()?;
                let to = Destination::Pid(with.pid()?);
                if elements == 5 {
                    with.reader.skip()?;
                }
                inside = Some(with.reader.skip()?);
                Control::ExitSignal { from, to }
            }
            (op::PAYLOAD_EXIT2, 3) | (op::PAYLOAD_EXIT2_TT, 4) => {
                Control::ExitSignal { from: with.sender()?, to: Destination::Pid(with.pid()?) }
            }
            (op::MONITOR_P, 4) => Control::Monitor {
                from: with.sender()?,
                to: with.target()?,
                reference: with.reference()?,
            },
            (op::DEMONITOR_P, 4) => Control::Demonitor {
                from: with.sender()?,
                to: with.target()?,
                reference: with.reference()?,
            },
            (op::MONITOR_P_EXIT, 5) => {
                let (from, to) = (with.sending_target()?, with.pid()?);
                let reference = with.reference()?;
                inside = Some(with.reader.skip()?);
                Control::Down { from, to, reference }
            }
            (op::PAYLOAD_MONITOR_P_EXIT, 4) => Control::Down {
                from: with.sending_target()?,
                to: with.pid()?,
                reference: with.reference()?,
            },
            (op::SPAWN_REQUEST, 6) | (op::SPAWN_REQUEST_TT, 7) => {
                let (reference, from, leader) = (with.reference()?, with.sender()?, with.pid()?);
                let wrong = DecodeError::Kind { wanted: "module, function and arity" };
                if with.reader.tuple()? != 3 {
                    return Err(wrong.into());
                }
                let (module, function) = (with.atom()?, with.atom()?);
                let arity = with.reader.integer()?;
                let arity = u64::try_from(arity).map_err(|_| wrong)?;
                // A VM's user may ask for more than any function has.
                let arity = u8::try_from(arity).unwrap_or(u8::MAX);
                let (options, _) = decoder(atoms).bare(with.reader.skip()?)?;
                Control::Spawn { reference, from, leader, module, function, arity, options }
            }
            (op::SPAWN_REPLY, 5) | (op::SPAWN_REPLY_TT, 6) => {
                let (reference, to) = (with.reference()?, with.pid()?);
                let flags = with.reader.integer()?;
                let result = match with.sending_target()? {
                    Target::Pid(pid) => Spawned::Pid(pid),
                    Target::Name(reason) => Spawned::Error(reason),
                };
                let (linked, monitored) = (flags & 1 != 0, flags & 2 != 0);
                Control::SpawnReply { reference, to, linked, monitored, result }
            }
            (op::UNLINK, 3) if !acknowledged => {
                Control::Unlink { id: 0, from: with.sender()?, to: with.pid()? }
            }
            (op::UNLINK_ID, 4) if acknowledged => {
                Control::Unlink { id: with.id()?, from: with.sender()?, to: with.pid()? }
            }
            (op::UNLINK_ID_ACK, 4) if acknowledged => {
                Control::UnlinkAck { id: with.id()?, from: with.sender()?, to: with.pid()? }
            }
            (op::ALTACT_SIG_SEND, 4..) => {
                let flags = with.reader.integer()?;
                if flags < 0 || (flags & op::ALTACT_TOKEN != 0 && elements < 5) {
                    return Err(unknown);
                }
                priority = flags & op::ALTACT_PRIO != 0;
                let exit = flags & op::ALTACT_EXIT != 0;
                let from = if exit { with.sender()? } else { with.pid()? };
                let to = match (flags & op::ALTACT_ALIAS != 0, flags & op::ALTACT_NAME != 0) {
                    (true, true) => return Err(unknown),
                    (true, false) => Destination::Alias(with.reference()?),
                    (false, true) => Destination::Name(with.atom()?),
                    (false, false) => Destination::Pid(with.pid()?),
                };
                // A token, and what later releases append: a receiver is to ignore it, as it is to
                // ignore flags that it does not know.
                for _ in 4..elements {
                    with.reader.skip()?;
                }
                match to {
                    to if exit => Control::ExitSignal { from, to },
                    Destination::Pid(to) => Control::Send { from: Some(from), to },
                    Destination::Name(to) => Control::SendName { from, to },
                    Destination::Alias(to) => Control::SendAlias { from, to },
                }
            }
            _ => return Err(unknown),
        };
        if is_token_last(operation) {
            with.reader.skip()?;
        }
        let behind = with.reader.rest();
        let wants_payload = control.has_payload() && inside.is_none();
        if behind.is_empty() == wants_payload {
            return Err(ReadError::Payload { operation });
        }
        let (payload, inside) = (inside.unwrap_or(behind), inside.is_some());
        Ok(Read { control, payload, inside, priority })
    }
}

/// Whether the last element is a trace token, which nobody has read yet.
fn is_token_last(operation: i64) -> bool {
    matches!(
        operation,
        op::SEND_TT
            | op::REG_SEND_TT
            | op::SEND_SENDER_TT
            | op::PAYLOAD_EXIT_TT
            | op::PAYLOAD_EXIT2_TT
            | op::SPAWN_REQUEST_TT
            | op::SPAWN_REPLY_TT
            | op::ALIAS_SEND_TT
    )
}
