//! What a process receives.

use std::fmt;

use meshx_dist::Payload;
use meshx_dist::control::Target;
use meshx_etf::{Atom, Pid, Reference, Term};

/// One thing that arrived in a mailbox, in the order of arrival.
///
/// Signals of one sender come in the order in which it sent them; nothing is promised about those of
/// different senders (Erlang reference manual, "Processes: Delivery of Signals").
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Signal {
    /// A message.
    Message(Message),
    /// A linked process ended, or somebody sent an exit signal. Only if exits are trapped
    /// ([`crate::Mailbox::trap_exits`]); else the process itself ends.
    Exit {
        /// Who.
        from: Pid,
        /// Why.
        reason: Term,
    },
    /// A monitored process ended.
    Down(Down),
    /// A process that was asked for is there, or is not ([`crate::Mailbox::spawn_request`]).
    Spawned {
        /// Of which request.
        reference: Reference,
        /// The process, or why there is none.
        result: Result<Pid, Atom>,
    },
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who sent it, if the connection tells: a process of this node or of the peer that it came from. A
    /// message that a peer sent in the name of another node's process is from nobody.
    pub from: Option<Pid>,
    /// What it says.
    pub body: Payload,
}

/// A monitor fired. It does so once; the reference is of no use afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Down {
    /// What [`crate::Mailbox::monitor`] gave.
    pub reference: Reference,
    /// Who ended, as it was named to the monitor.
    pub target: Target,
    /// On which node.
    pub node: Atom,
    /// Why: its exit reason, `noproc` if there was no such process, `noconnection` if the node is gone.
    pub reason: Term,
}

/// For people: who, and why.
impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Pid(pid) => write!(f, "{pid}")?,
            Target::Name(name) => write!(f, "{name} of {}", self.node)?,
        }
        write!(f, " is down: {}", self.reason)
    }
}

impl Signal {
    /// How much of a mailbox's bound it takes.
    pub(crate) fn size(&self) -> usize {
        const FIXED: usize = 128;
        match self {
            Self::Message(message) => message.body.bytes().len().saturating_add(FIXED),
            Self::Exit { reason, .. } | Self::Down(Down { reason, .. }) => {
                weight(reason).saturating_add(FIXED)
            }
            Self::Spawned { .. } => FIXED,
        }
    }
}

/// About how much memory a term takes.
fn weight(term: &Term) -> usize {
    let within = match term {
        Term::Tuple(elements) | Term::List(elements) => weights(elements),
        Term::Improper(list) => weights(list.elements()).saturating_add(weight(list.tail())),
        Term::Map(map) => weights(map.iter().flat_map(|(key, value)| [key, value])),
        Term::Binary(binary) => binary.as_slice().len(),
        Term::Bits(bits) => bits.as_slice().len(),
        Term::Big(big) => big.magnitude().len(),
        Term::Fun(fun) => weights(&fun.free),
        Term::Record(record) => weights(record.fields.iter().map(|(_, value)| value)),
        _ => 0,
    };
    within.saturating_add(size_of::<Term>())
}

fn weights<'t>(terms: impl IntoIterator<Item = &'t Term>) -> usize {
    terms.into_iter().map(weight).fold(0, usize::saturating_add)
}
