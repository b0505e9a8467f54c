//! Control messages to bytes.

use meshx_etf::dist::Draft;
use meshx_etf::{Atom, EncodeError, Pid, Term};

use super::{Control, Destination, Recipient, Spawned, Target, op};
use crate::handshake::Flags;

pub(super) fn write(
    control: &Control,
    flags: Flags,
    reason: Option<&Term>,
    draft: &mut Draft,
) -> Result<bool, EncodeError> {
    let inside = control.has_reason_inside(flags);
    fields(control, flags, inside, draft)?;
    if inside {
        match reason {
            Some(reason) => draft.term(reason)?,
            None => draft.atom(&Atom::cut("normal")),
        }
    }
    draft.end_control();
    Ok(control.has_payload() && !inside)
}

/// All but a reason that is inside.
fn fields(
    control: &Control,
    flags: Flags,
    inside: bool,
    draft: &mut Draft,
) -> Result<(), EncodeError> {
    // A reason inside is one element more, under another number.
    let ending = |draft: &mut Draft, with_reason: i64, without: i64, len: u8| {
        if inside {
            head(draft, with_reason, len.saturating_add(1));
        } else {
            head(draft, without, len);
        }
    };
    match control {
        Control::Link { from, to } => {
            head(draft, op::LINK, 3);
            draft.pid(from);
            draft.pid(to);
        }
        Control::Send { from: Some(from), to } => {
            message(from, Recipient::Pid(to), flags, draft)?;
        }
        Control::Send { from: None, to } => {
            head(draft, op::SEND, 3);
            unused(draft);
            draft.pid(to);
        }
        Control::SendName { from, to } => message(from, Recipient::Name(to), flags, draft)?,
        Control::SendAlias { from, to } => message(from, Recipient::Alias(to), flags, draft)?,
        Control::GroupLeader { leader, to } => {
            head(draft, op::GROUP_LEADER, 3);
            draft.pid(leader);
            draft.pid(to);
        }
        Control::Exit { from, to } => {
            ending(draft, op::EXIT, op::PAYLOAD_EXIT, 3);
            draft.pid(from);
            draft.pid(to);
        }
        Control::ExitSignal { from, to: Destination::Pid(to) } => {
            ending(draft, op::EXIT2, op::PAYLOAD_EXIT2, 3);
            draft.pid(from);
            draft.pid(to);
        }
        Control::ExitSignal { from, to: Destination::Name(to) } => {
            head(draft, op::ALTACT_SIG_SEND, 4);
            draft.integer(op::ALTACT_EXIT | op::ALTACT_NAME);
            draft.pid(from);
            draft.atom(to);
        }
        Control::ExitSignal { from, to: Destination::Alias(to) } => {
            head(draft, op::ALTACT_SIG_SEND, 4);
            draft.integer(op::ALTACT_EXIT | op::ALTACT_ALIAS);
            draft.pid(from);
            draft.reference(to)?;
        }
        Control::Monitor { from, to, reference } => {
            head(draft, op::MONITOR_P, 4);
            draft.pid(from);
            target(draft, to);
            draft.reference(reference)?;
        }
        Control::Demonitor { from, to, reference } => {
            head(draft, op::DEMONITOR_P, 4);
            draft.pid(from);
            target(draft, to);
            draft.reference(reference)?;
        }
        Control::Down { from, to, reference } => {
            ending(draft, op::MONITOR_P_EXIT, op::PAYLOAD_MONITOR_P_EXIT, 4);
            target(draft, from);
            draft.pid(to);
            draft.reference(reference)?;
        }
        Control::Spawn { reference, from, leader, module, function, arity, options } => {
            head(draft, op::SPAWN_REQUEST, 6);
            draft.reference(reference)?;
            draft.pid(from);
            draft.pid(leader);
            draft.tuple(3);
            draft.atom(module);
            draft.atom(function);
            draft.integer((*arity).into());
            draft.term(options)?;
        }
        Control::SpawnReply { reference, to, linked, monitored, result } => {
            head(draft, op::SPAWN_REPLY, 5);
            draft.reference(reference)?;
            draft.pid(to);
            draft.integer(i64::from(*linked) | (i64::from(*monitored) << 1));
            match result {
                Spawned::Pid(pid) => draft.pid(pid),
                Spawned::Error(reason) => draft.atom(reason),
            }
        }
        Control::Unlink { from, to, .. } if !flags.contains(Flags::UNLINK_ID) => {
            head(draft, op::UNLINK, 3);
            draft.pid(from);
            draft.pid(to);
        }
        Control::Unlink { id, from, to } => {
            head(draft, op::UNLINK_ID, 4);
            draft.unsigned(*id)?;
            draft.pid(from);
            draft.pid(to);
        }
        Control::UnlinkAck { id, from, to } => {
            head(draft, op::UNLINK_ID_ACK, 4);
            draft.unsigned(*id)?;
            draft.pid(from);
            draft.pid(to);
        }
    }
    Ok(())
}

/// The control message of a message.
pub(super) fn message(
    from: &Pid,
    to: Recipient<'_>,
    flags: Flags,
    draft: &mut Draft,
) -> Result<(), EncodeError> {
    match to {
        Recipient::Pid(to) if flags.contains(Flags::SEND_SENDER) => {
            head(draft, op::SEND_SENDER, 3);
            draft.pid(from);
            draft.pid(to);
        }
        Recipient::Pid(to) => {
            head(draft, op::SEND, 3);
            unused(draft);
            draft.pid(to);
        }
        Recipient::Name(to) => {
            head(draft, op::REG_SEND, 4);
            draft.pid(from);
            unused(draft);
            draft.atom(to);
        }
        Recipient::Alias(to) => {
            if flags.contains(Flags::ALTACT_SIG) {
                head(draft, op::ALTACT_SIG_SEND, 4);
                draft.integer(op::ALTACT_ALIAS);
            } else {
                head(draft, op::ALIAS_SEND, 3);
            }
            draft.pid(from);
            draft.reference(to)?;
        }
    }
    Ok(())
}

/// `len` counts the operation.
fn head(draft: &mut Draft, operation: i64, len: u8) {
    draft.tuple(len);
    draft.integer(operation);
}

/// What was the cookie once.
fn unused(draft: &mut Draft) {
    draft.atom_named("");
}

fn target(draft: &mut Draft, target: &Target) {
    match target {
        Target::Pid(pid) => draft.pid(pid),
        Target::Name(name) => draft.atom(name),
    }
}
