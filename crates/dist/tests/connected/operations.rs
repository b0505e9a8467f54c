//! Every operation of the table (`erl_dist_protocol`, "Protocol between Connected Nodes"; 37 from
//! OTP 28's `dist.h`), from terms that were written by hand.

use meshx_dist::control::{Control, Destination, ReadError, Spawned, Target};
use meshx_dist::handshake::Flags;
use meshx_dist::link::{LinkError, Outbox};
use meshx_etf::dist::Draft;
use meshx_etf::{Pid, Reference, Term, term};

use crate::common::{
    Seen, drain, feed, forms, own, pass_through, peer, pid, read, receiver, reference,
};

fn from() -> Pid {
    pid(peer(), 9)
}

fn to() -> Pid {
    pid(own(), 5)
}

fn ours() -> Reference {
    reference(own())
}

fn is_read(control: &Term, payload: Option<&Term>, as_control: &Control, as_payload: Option<Term>) {
    let expected =
        Seen::Message { control: as_control.clone(), payload: as_payload, priority: false };
    assert_eq!(read(&pass_through(control, payload)), Ok(vec![expected]), "{control}");
}

/// A message without a payload.
fn alone(control: &Term, expected: &Control) {
    is_read(control, None, expected, None);
}

/// A message with one.
fn with(control: &Term, expected: &Control) {
    let payload = term!({a, ["payload"]});
    is_read(control, Some(&payload), expected, Some(payload.clone()));
}

/// A message whose reason is inside.
fn inside(control: &Term, expected: &Control) {
    is_read(control, None, expected, Some(term!({reason, 1})));
}

#[test]
fn links() {
    alone(&term!({1, (from()), (to())}), &Control::Link { from: from(), to: to() });
    let exit = Control::Exit { from: from(), to: to() };
    inside(&term!({3, (from()), (to()), {reason, 1}}), &exit);
    inside(&term!({13, (from()), (to()), {token}, {reason, 1}}), &exit);
    with(&term!({24, (from()), (to())}), &exit);
    with(&term!({25, (from()), (to()), {token}}), &exit);
    for id in [1, 255, 256, 1 << 32, 1 << 63, u64::MAX] {
        let number = Term::from(i128::from(id));
        let unlink = Control::Unlink { id, from: from(), to: to() };
        alone(&term!({35, (number.clone()), (from()), (to())}), &unlink);
        let ack = Control::UnlinkAck { id, from: from(), to: to() };
        alone(&term!({36, (number), (from()), (to())}), &ack);
    }
}

/// The link protocol before OTP 23.3: operation 4 in place of 35 and 36, and the other way round.
#[test]
fn unlinks_without_an_answer() {
    let old = forms()[2].without(Flags::UNLINK_ID);
    let unlink = term!({4, (from()), (to())});
    let unlinked = Control::Unlink { id: 0, from: from(), to: to() };
    let seen = |flags, term: &Term| {
        feed(&mut receiver(flags), &pass_through(term, None), usize::MAX).map_err(|error| {
            let LinkError::Control(error) = error else { panic!("{error}") };
            error
        })
    };
    let message = Seen::Message { control: unlinked, payload: None, priority: false };
    assert_eq!(seen(old, &unlink), Ok(vec![message]));
    let unknown = |operation, elements| Err(ReadError::Operation { operation, elements });
    assert_eq!(seen(forms()[2], &unlink), unknown(4, 3));
    for operation in [35, 36] {
        let term = term!({(operation), 7, (from()), (to())});
        assert_eq!(seen(old, &term), unknown(operation, 4));
    }
    let foreign = term!({4, (to()), (from())});
    assert!(matches!(seen(old, &foreign), Err(ReadError::Foreign { operation: 4, .. })));

    for (flags, expected) in
        [(old, unlink), (old | Flags::UNLINK_ID, term!({35, 7, (from()), (to())}))]
    {
        let mut outbox = Outbox::new(flags);
        let control = Control::Unlink { id: 7, from: from(), to: to() };
        let mut sent = Draft::new(outbox.form());
        assert!(!control.write(flags, None, &mut sent).unwrap());
        outbox.push(1, &mut sent);
        assert_eq!(drain(&mut outbox), pass_through(&expected, None));
    }
}

#[test]
fn messages() {
    let bare = Control::Send { from: None, to: to() };
    with(&term!({2, "", (to())}), &bare);
    with(&term!({12, atom "", (to()), []}), &bare);
    let send = Control::Send { from: Some(from()), to: to() };
    with(&term!({22, (from()), (to())}), &send);
    with(&term!({23, (from()), (to()), {token}}), &send);
    let name = Control::SendName { from: from(), to: "counter".parse().unwrap() };
    with(&term!({6, (from()), atom "", counter}), &name);
    with(&term!({16, (from()), atom "", counter, {token}}), &name);
    let alias = Control::SendAlias { from: from(), to: ours() };
    with(&term!({33, (from()), (ours())}), &alias);
    with(&term!({34, (from()), (ours()), {token}}), &alias);
}

#[test]
fn exit_signals_and_group_leaders() {
    let signal = Control::ExitSignal { from: from(), to: Destination::Pid(to()) };
    inside(&term!({8, (from()), (to()), {reason, 1}}), &signal);
    inside(&term!({18, (from()), (to()), {token}, {reason, 1}}), &signal);
    with(&term!({26, (from()), (to())}), &signal);
    with(&term!({27, (from()), (to()), {token}}), &signal);
    let leader = Control::GroupLeader { leader: from(), to: to() };
    alone(&term!({7, (from()), (to())}), &leader);
}

#[test]
fn monitors() {
    for (term, target) in [
        (Term::from(to()), Target::Pid(to())),
        (term!(counter), Target::Name("counter".parse().unwrap())),
    ] {
        let (from, reference) = (from(), ours());
        alone(
            &term!({19, (from.clone()), (term.clone()), (reference.clone())}),
            &Control::Monitor {
                from: from.clone(),
                to: target.clone(),
                reference: reference.clone(),
            },
        );
        alone(
            &term!({20, (from.clone()), (term), (reference.clone())}),
            &Control::Demonitor { from, to: target, reference },
        );
    }
    for (term, target) in [
        (Term::from(from()), Target::Pid(from())),
        (term!(counter), Target::Name("counter".parse().unwrap())),
    ] {
        let down = Control::Down { from: target, to: to(), reference: ours() };
        inside(&term!({21, (term.clone()), (to()), (ours()), {reason, 1}}), &down);
        with(&term!({28, (term), (to()), (ours())}), &down);
    }
}

#[test]
fn spawns() {
    let wanted = |arity| Control::Spawn {
        reference: reference(peer()),
        from: from(),
        leader: pid(peer(), 10),
        module: "erlang".parse().unwrap(),
        function: "send".parse().unwrap(),
        arity,
        options: term!([link, {priority, high}]),
    };
    let request = |operation: i64, arity: i64| {
        let (reference, leader) = (reference(peer()), pid(peer(), 10));
        let mut elements =
            vec![Term::from(operation), reference.into(), from().into(), leader.into()];
        elements.extend([term!({erlang, send, (arity)}), term!([link, {priority, high}])]);
        elements.extend((operation == 30).then(|| term!({ token })));
        Term::Tuple(elements)
    };
    with(&request(29, 2), &wanted(2));
    with(&request(30, 2), &wanted(2));
    with(&request(29, 255), &wanted(255));
    // `erlang:spawn_request/5` of a list of 300 arguments.
    with(&request(29, 300), &wanted(255));
    for (flags, linked, monitored) in
        [(0, false, false), (1, true, false), (2, false, true), (3, true, true), (7, true, true)]
    {
        for (term, result) in [
            (Term::from(from()), Spawned::Pid(from())),
            (term!(notsup), Spawned::Error("notsup".parse().unwrap())),
        ] {
            let reply =
                Control::SpawnReply { reference: ours(), to: to(), linked, monitored, result };
            alone(&term!({31, (ours()), (to()), (flags), (term.clone())}), &reply);
            alone(&term!({32, (ours()), (to()), (flags), (term), {token}}), &reply);
        }
    }
}

/// All combinations of the flags of operation 37, with as many elements as they need and more; an
/// unknown flag changes nothing.
#[test]
fn operation_37() {
    for (flags, elements) in (0..64_i64).flat_map(|flags| [(flags, 4), (flags, 5), (flags, 7)]) {
        let [priority, token, alias, name, exit] = [1, 2, 4, 8, 16].map(|bit| flags & bit != 0);
        let (term, destination) = match (alias, name) {
            (true, _) => (Term::from(ours()), Destination::Alias(ours())),
            (_, true) => (term!(counter), Destination::Name("counter".parse().unwrap())),
            _ => (Term::from(to()), Destination::Pid(to())),
        };
        let mut tuple = vec![Term::from(37), flags.into(), from().into(), term];
        tuple.resize(elements, term!({ token }));
        let payload = term!([payload]);
        let read = read(&pass_through(&Term::Tuple(tuple), Some(&payload)));
        if (alias && name) || (token && elements == 4) {
            assert!(read.is_err(), "flags {flags} with {elements} elements");
            continue;
        }
        let from = from();
        let control = match destination {
            to if exit => Control::ExitSignal { from, to },
            Destination::Pid(to) => Control::Send { from: Some(from), to },
            Destination::Name(to) => Control::SendName { from, to },
            Destination::Alias(to) => Control::SendAlias { from, to },
        };
        let expected = Seen::Message { control, payload: Some(payload), priority };
        assert_eq!(read, Ok(vec![expected]), "flags {flags} with {elements} elements");
    }
}

/// One message byte by byte, without any encoder.
#[test]
fn a_message_by_hand() {
    let mut bytes = vec![0, 0, 0, 50, 112, 131, 104, 4, 97, 6];
    bytes.extend_from_slice(&[88, 119, 7]);
    bytes.extend_from_slice(b"a@host1");
    bytes.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 77]);
    bytes.extend_from_slice(&[119, 0, 119, 7]);
    bytes.extend_from_slice(b"counter");
    bytes.extend_from_slice(&[131, 119, 4]);
    bytes.extend_from_slice(b"next");
    bytes[3] = u8::try_from(bytes.len() - 4).unwrap();
    let control = Control::SendName { from: from(), to: "counter".parse().unwrap() };
    let expected = Seen::Message { control, payload: Some(term!(next)), priority: false };
    assert_eq!(read(&bytes), Ok(vec![expected]));
}
