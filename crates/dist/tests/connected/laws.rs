//! Every message is read as it was written, whatever was negotiated.

use meshx_dist::control::{Control, Destination, Spawned, Target};
use meshx_dist::handshake::Flags;
use meshx_dist::link::Outbox;
use meshx_etf::{Pid, Reference, Term};
use proptest::prelude::*;

use crate::common::{Seen, draft, drain, feed, flag_sets, own, peer, receiver};
use crate::random;

fn theirs() -> impl Strategy<Value = Pid> {
    (any::<u32>(), any::<u32>()).prop_map(|(id, serial)| Pid { node: peer(), id, serial })
}

/// Of us, of them, or of any other node.
fn any_pid() -> impl Strategy<Value = Pid> {
    let ours =
        (any::<u32>(), any::<u32>()).prop_map(|(id, serial)| Pid { node: own(), id, serial });
    prop_oneof![ours, theirs(), random::pid()]
}

fn reference() -> impl Strategy<Value = Reference> {
    let ours = prop::collection::vec(any::<u32>(), 1..=5);
    let ours = ours.prop_map(|words| Reference::new(own(), &words).unwrap());
    prop_oneof![ours, random::reference()]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![any_pid().prop_map(Target::Pid), random::atom().prop_map(Target::Name)]
}

fn sending_target() -> impl Strategy<Value = Target> {
    prop_oneof![theirs().prop_map(Target::Pid), random::atom().prop_map(Target::Name)]
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        any_pid().prop_map(Destination::Pid),
        random::atom().prop_map(Destination::Name),
        reference().prop_map(Destination::Alias),
    ]
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![1..9_u64, 1..=u64::MAX, Just(u64::MAX), Just(1 << 63)]
}

fn spawn() -> impl Strategy<Value = Control> {
    let function = (random::atom(), random::atom(), any::<u8>(), random::term());
    (reference(), theirs(), any_pid(), function).prop_map(
        |(reference, from, leader, (module, function, arity, options))| Control::Spawn {
            reference,
            from,
            leader,
            module,
            function,
            arity,
            options,
        },
    )
}

fn spawn_reply() -> impl Strategy<Value = Control> {
    let result =
        prop_oneof![theirs().prop_map(Spawned::Pid), random::atom().prop_map(Spawned::Error)];
    (reference(), any_pid(), any::<bool>(), any::<bool>(), result).prop_map(
        |(reference, to, linked, monitored, result)| Control::SpawnReply {
            reference,
            to,
            linked,
            monitored,
            result,
        },
    )
}

fn control() -> impl Strategy<Value = Control> {
    let watching = || (theirs(), target(), reference());
    prop_oneof![
        (theirs(), any_pid()).prop_map(|(from, to)| Control::Link { from, to }),
        (any_pid(), any_pid()).prop_map(|(from, to)| Control::Send { from: Some(from), to }),
        (any_pid(), random::atom()).prop_map(|(from, to)| Control::SendName { from, to }),
        (any_pid(), reference()).prop_map(|(from, to)| Control::SendAlias { from, to }),
        (any_pid(), any_pid()).prop_map(|(leader, to)| Control::GroupLeader { leader, to }),
        (theirs(), any_pid()).prop_map(|(from, to)| Control::Exit { from, to }),
        (theirs(), destination()).prop_map(|(from, to)| Control::ExitSignal { from, to }),
        watching().prop_map(|(from, to, reference)| Control::Monitor { from, to, reference }),
        watching().prop_map(|(from, to, reference)| Control::Demonitor { from, to, reference }),
        (sending_target(), any_pid(), reference())
            .prop_map(|(from, to, reference)| Control::Down { from, to, reference }),
        spawn(),
        spawn_reply(),
        (id(), theirs(), any_pid()).prop_map(|(id, from, to)| Control::Unlink { id, from, to }),
        (id(), theirs(), any_pid()).prop_map(|(id, from, to)| Control::UnlinkAck { id, from, to }),
    ]
}

/// What of a message arrives under these flags.
fn arriving(control: &Control, flags: Flags) -> Control {
    match control {
        Control::Send { to, .. } if !flags.contains(Flags::SEND_SENDER) => {
            Control::Send { from: None, to: to.clone() }
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn messages_are_read_as_they_were_written(
        messages in prop::collection::vec((control(), random::term()), 1..6),
        flags in prop::sample::select(flag_sets()),
        chunk in prop_oneof![1..9_usize, Just(usize::MAX)],
    ) {
        let mut outbox = Outbox::new(flags);
        let mut expected = Vec::new();
        for (control, payload) in &messages {
            outbox.push(1, &mut draft(&outbox, flags, control, payload));
            outbox.tick();
            let payload = control.has_payload().then(|| payload.clone());
            let control = arriving(control, flags);
            expected.extend([Seen::Message { control, payload, priority: false }, Seen::Tick]);
        }
        let bytes = drain(&mut outbox);
        prop_assert_eq!(feed(&mut receiver(flags), &bytes, chunk), Ok(expected));
    }
}

/// Without [`Flags::EXIT_PAYLOAD`] a reason that is not given is `normal`.
#[test]
fn no_reason_is_normal() {
    let [.., flags] = crate::common::forms();
    let flags = flags.without(Flags::EXIT_PAYLOAD);
    let (from, to) = (crate::common::pid(peer(), 1), crate::common::pid(own(), 2));
    let control = Control::Exit { from, to };
    let mut outbox = Outbox::new(flags);
    let mut draft = meshx_etf::dist::Draft::new(outbox.form());
    assert_eq!(control.write(flags, None, &mut draft), Ok(false));
    outbox.push(1, &mut draft);
    let seen = feed(&mut receiver(flags), &drain(&mut outbox), usize::MAX);
    let payload = Some(Term::atom("normal"));
    assert_eq!(seen, Ok(vec![Seen::Message { control, payload, priority: false }]));
}
