//! Control messages: what travels between connected nodes (`erl_dist_protocol`, "Protocol between
//! Connected Nodes"; operation 37 from OTP 28's `dist.h`).
//!
//! [`Control`] is a message without regard to which of several operations carries it: with or
//! without a trace token, the reason of an exit inside or behind, an alias message as operation 33
//! or 37. [`Control::read`] accepts all of them; [`Control::write`] chooses by the flags of the
//! connection.

use meshx_etf::dist::Draft;
use meshx_etf::{Atom, EncodeError, Pid, Reference, Term};

use crate::handshake::Flags;

mod op;
mod read;
mod write;

pub use read::{Nodes, Read, ReadError};

/// A process of the other node, or a registered name of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A process.
    Pid(Pid),
    /// Whatever process has this name.
    Name(Atom),
}

/// Where a signal may go that is not bound to a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A process.
    Pid(Pid),
    /// Whatever process has this name.
    Name(Atom),
    /// The process that made this alias.
    Alias(Reference),
}

/// To whom a message goes, borrowed: as [`Destination`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipient<'a> {
    /// A process.
    Pid(&'a Pid),
    /// Whatever process has this name.
    Name(&'a Atom),
    /// The process that made this alias.
    Alias(&'a Reference),
}

/// Writes the control message of a message into a draft, and ends it there; the payload follows. The
/// same as [`Control::write`] of [`Control::Send`] and its kin, without making one of these.
pub fn write_message(
    from: &Pid,
    to: Recipient<'_>,
    flags: Flags,
    draft: &mut Draft,
) -> Result<(), EncodeError> {
    write::message(from, to, flags, draft)?;
    draft.end_control();
    Ok(())
}

/// What a [`Control::SpawnReply`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spawned {
    /// The new process.
    Pid(Pid),
    /// Why there is none, `notsup` or `badopt`, say.
    Error(Atom),
}

/// A message between nodes.
///
/// What follows as payload is said with each; [`Control::has_payload`] asks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Control {
    /// The two processes are linked from now on.
    Link {
        /// Who links.
        from: Pid,
        /// To whom.
        to: Pid,
    },
    /// A message to a process. Payload: the message.
    Send {
        /// Who sends, unless the connection has no [`Flags::SEND_SENDER`].
        from: Option<Pid>,
        /// To whom.
        to: Pid,
    },
    /// A message to a name. Payload: the message.
    SendName {
        /// Who sends.
        from: Pid,
        /// To whom.
        to: Atom,
    },
    /// A message to a process alias. Payload: the message.
    SendAlias {
        /// Who sends.
        from: Pid,
        /// To whom.
        to: Reference,
    },
    /// The group leader of a process is another one from now on.
    GroupLeader {
        /// The group leader.
        leader: Pid,
        /// Whose.
        to: Pid,
    },
    /// A link is broken because its process ended. Payload: the reason.
    Exit {
        /// Who ended.
        from: Pid,
        /// Who was linked to it.
        to: Pid,
    },
    /// An exit signal that was sent on purpose (`exit/2`). Payload: the reason.
    ExitSignal {
        /// Who sent it.
        from: Pid,
        /// To whom; anything but a pid needs [`Flags::ALTACT_SIG`].
        to: Destination,
    },
    /// Watch a process.
    Monitor {
        /// Who watches.
        from: Pid,
        /// Whom.
        to: Target,
        /// Under which reference.
        reference: Reference,
    },
    /// Watch no longer.
    Demonitor {
        /// Who watched.
        from: Pid,
        /// Whom.
        to: Target,
        /// Under which reference.
        reference: Reference,
    },
    /// A watched process ended. Payload: the reason.
    Down {
        /// Who ended, named as it was in [`Control::Monitor`].
        from: Target,
        /// Who watched.
        to: Pid,
        /// Under which reference.
        reference: Reference,
    },
    /// Start a process. Payload: the list of arguments.
    Spawn {
        /// The reference of the reply, and of the monitor, if one is asked for.
        reference: Reference,
        /// Who asks.
        from: Pid,
        /// The group leader of the new process.
        leader: Pid,
        /// Module.
        module: Atom,
        /// Function.
        function: Atom,
        /// Number of arguments; 255 stands for all that are more, as a VM may ask for what no
        /// module can have.
        arity: u8,
        /// A list of options.
        options: Term,
    },
    /// The answer to [`Control::Spawn`].
    SpawnReply {
        /// The reference of the request.
        reference: Reference,
        /// Who asked.
        to: Pid,
        /// Whether a link was made with the new process.
        linked: bool,
        /// Whether a monitor was.
        monitored: bool,
        /// What came of it.
        result: Spawned,
    },
    /// The link is no more.
    Unlink {
        /// To be repeated in the answer. 0 if the connection has no [`Flags::UNLINK_ID`], as with OTP
        /// 23.2 and before: then there is no answer.
        id: u64,
        /// Who unlinks.
        from: Pid,
        /// From whom.
        to: Pid,
    },
    /// The answer to [`Control::Unlink`], before anything else to that process; only with
    /// [`Flags::UNLINK_ID`].
    UnlinkAck {
        /// As it came.
        id: u64,
        /// Who answers.
        from: Pid,
        /// To whom.
        to: Pid,
    },
}

impl Control {
    /// Whether a payload belongs to it.
    pub fn has_payload(&self) -> bool {
        matches!(
            self,
            Self::Send { .. }
                | Self::SendName { .. }
                | Self::SendAlias { .. }
                | Self::Exit { .. }
                | Self::ExitSignal { .. }
                | Self::Down { .. }
                | Self::Spawn { .. }
        )
    }

    /// Whether the payload is the reason of an exit and inside of the control message, where a
    /// connection without [`Flags::EXIT_PAYLOAD`] has it; but never that of operation 37.
    fn has_reason_inside(&self, flags: Flags) -> bool {
        let reason = match self {
            Self::Exit { .. } | Self::Down { .. } => true,
            Self::ExitSignal { to, .. } => matches!(to, Destination::Pid(_)),
            _ => false,
        };
        reason && !flags.contains(Flags::EXIT_PAYLOAD)
    }

    /// Writes the control message into a draft, and ends it there; unless it is one with a reason and
    /// the connection has no [`Flags::EXIT_PAYLOAD`]: then `reason` is in it, too.
    ///
    /// The caller writes the payload afterwards if `true` is the answer. Whether the peer understands
    /// the message is the caller's business: an exit signal to anything but a pid needs
    /// [`Flags::ALTACT_SIG`], an alias one of [`Flags::ALIAS`] and that, and so on.
    pub fn write(
        &self,
        flags: Flags,
        reason: Option<&Term>,
        draft: &mut Draft,
    ) -> Result<bool, EncodeError> {
        write::write(self, flags, reason, draft)
    }
}
