//! The state of the server alone: what stock nodes do not do, or not when one wants them to.

use std::sync::Arc;

use meshx_dist::handshake::Cookie;
use meshx_etf::{Atom, Node as NodeId, Pid, Reference, Term, term};

use tokio::sync::mpsc;

use super::locker::{Him, Locker, Order};
use super::shared::Shared;
use super::state::{Act, News, State};
use crate::builder::Visibility;
use crate::call::Caller;
use crate::carrier::{Memory, Switchboard};
use crate::envelope::Envelope;
use crate::node::Node;

const A: &str = "a@h";
const B: &str = "b@h";

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: NodeId::new(Atom::cut(node), 7), id, serial: 0 }
}

fn state() -> State {
    let mut count = 0;
    let own = NodeId::new(Atom::cut("me@h"), 9);
    let references = move || {
        count += 1;
        Reference::new(own.clone(), &[count, 0, 0]).unwrap()
    };
    State::with(pid("me@h", 1), Arc::new(Shared::default()), Box::new(references))
}

/// What is told to a node.
fn told(acts: &[Act], to: &str) -> Vec<Term> {
    let tell = |act: &Act| match act {
        Act::Tell(node, message) if *node == to => Some(message.clone()),
        _ => None,
    };
    acts.iter().filter_map(tell).collect()
}

fn from(node: &str) -> Caller {
    let call = term!({atom "$gen_call", {(pid(node, 5)), tag}, get_known});
    match Envelope::open(&meshx_dist::Payload::of(&call).unwrap()).unwrap() {
        Envelope::Call(from, _) => from,
        other => panic!("{other:?}"),
    }
}

fn introduction(node: &str, tag: i64) -> Term {
    let locker = pid(node, 8);
    term!({init_connect, {8, (tag)}, (Atom::cut(node)), {locker, no_longer_a_pid, #{}, (locker)}})
}

/// A node that is connected and has introduced itself, with this tag. Gives ours.
fn meets(state: &mut State, node: &str, tag: i64) -> i64 {
    state.node_up(&Atom::cut(node));
    let ours = state.tag_with(&Atom::cut(node)).unwrap();
    state.cast(&introduction(node, tag));
    ours
}

/// A node that is known.
fn unites(state: &mut State, node: &str, operations: &[Term], known: &[Term]) {
    let name = Atom::cut(node);
    let tag = meets(state, node, 70);
    state.news(News::LockIsSet { node: name.clone(), tag, lock: term!({global, [l]}) });
    state.cast(&term!({exchange, (name.clone()), [], [], (tag)}));
    let theirs = Term::List(operations.to_vec());
    let known = Term::List(known.to_vec());
    state.cast(&term!({resolved, (name.clone()), (theirs), (known), unused, [], (tag)}));
    state.news(News::Resolved { node: name.clone(), tag, ours: Vec::new(), theirs: Vec::new() });
    assert!(state.shared.known().contains_key(&name));
}

#[test]
fn a_session_has_tags_and_begins_anew_when_they_differ() {
    let mut state = state();
    let ours = meets(&mut state, A, 70);
    let acts = state.acts();
    let me = Atom::cut("me@h");
    assert_eq!(told(&acts, A)[1], term!({init_connect_ack, (me.clone()), 70, (ours)}));
    assert!(acts.iter().any(|act| matches!(act, Act::Locker(Order::Meet(_)))));

    // His answer to ours is right, and then one of another session comes.
    state.info(&term!({init_connect_ack, (Atom::cut(A)), (ours), 70}));
    assert!(state.acts().is_empty());
    state.info(&term!({init_connect_ack, (Atom::cut(A)), (ours), 69}));
    let acts = state.acts();
    let cancel = |tag: i64| term!({cancel_connect, (me.clone()), (tag)});
    assert_eq!(told(&acts, A)[..2], [cancel(69), cancel(70)]);
    let again = state.tag_with(&Atom::cut(A)).unwrap();
    assert_ne!(again, ours);
    // What is of the old session changes nothing.
    state.cast(&term!({exchange, (Atom::cut(A)), [{n, (pid(A, 1)), m}], [], (ours)}));
    state.cast(&term!({resolved, (Atom::cut(A)), [], [], unused, [], (ours)}));
    state.info(&term!({cancel_connect, (Atom::cut(A)), (ours)}));
    assert_eq!(state.tag_with(&Atom::cut(A)), Some(again));
    assert!(told(&state.acts(), A).is_empty());
}

#[test]
fn whoever_is_not_connected_is_not_waited_for() {
    let mut state = state();
    state.cast(&introduction(A, 70));
    assert!(state.acts().is_empty());
    assert!(state.sessions.is_empty());
    for nonsense in [
        term!(x),
        term!({}),
        term!({init_connect, 8, b, c}),
        term!({init_connect, {8, 1}, (Atom::cut(A)), {locker, a, b, c}}),
        term!({exchange, (Atom::cut(A)), [x | y], [], 1}),
        term!({resolved, (Atom::cut(A)), [{insert}], [{}], x, y, undefined}),
        term!({new_nodes, (Atom::cut(A)), [{insert, {n}}, {delete}, z], [], [{x, y, z}, 1], [q]}),
        term!({lock_set, (pid(A, 1)), true, [], 99}),
        term!({lost_connection, (Atom::cut(A)), x, y, (Atom::cut(B))}),
        term!({remove_connection, (Atom::cut(A))}),
    ] {
        state.cast(&nonsense);
        state.info(&nonsense);
        state.call(from(A), &nonsense);
    }
    assert!(state.shared.known().is_empty());
    assert!(state.acts().iter().all(|act| !matches!(act, Act::Reply(..))));
}

#[test]
fn names_are_given_under_the_lock_of_all_only() {
    let mut state = state();
    let name = |state: &State, name: &Term| state.shared.names().get(name).map(|it| it.pid.clone());
    let (lock, method) = (term!({global, a}), term!(m));
    let register = |n: &Term| term!({register, (n.clone()), (pid(A, 1)), (method.clone())});
    state.call(from(A), &term!({set_lock, (lock.clone())}));
    assert!(state.shared.is_locked());
    state.call(from(B), &register(&term!(one)));
    state.call(from(A), &register(&term!(two)));
    assert_eq!((name(&state, &term!(one)), name(&state, &term!(two))), (None, Some(pid(A, 1))));
    // The holder ends: what it had begun is void, until somebody locks again.
    let watched = state.acts().into_iter().find_map(|act| match act {
        Act::Watch(of, reference) if of == *from(A).pid() => Some(reference),
        _ => None,
    });
    state.ended(&watched.unwrap());
    assert!(!state.shared.is_locked());
    state.call(from(A), &register(&term!(three)));
    assert_eq!(name(&state, &term!(three)), None);
    state.call(from(B), &term!({set_lock, {global, b}}));
    state.call(from(B), &register(&term!(three)));
    state.call(from(B), &term!({del_lock, {global, b}}));
    state.call(from(B), &register(&term!(four)));
    assert!(name(&state, &term!(three)).is_some() && name(&state, &term!(four)).is_some());
    // Its process ends.
    let monitor = state.shared.names()[&term!(four)].monitor.clone();
    state.ended(&monitor);
    assert_eq!(name(&state, &term!(four)), None);
}

#[test]
fn two_partitions_become_one_whoever_decides_first() {
    let mut state = state();
    let insert = term!({insert, {n, (pid(B, 1)), m}});
    unites(&mut state, A, &[insert], &[term!({(Atom::cut(B)), 8})]);
    let known: Vec<Atom> = state.shared.known_nodes();
    assert_eq!(known, [A, B]);
    assert_eq!(state.shared.names()[&term!(n)].pid, pid(B, 1));
    let acts = state.acts();
    assert!(acts.iter().any(|act| matches!(act, Act::Introduce(node) if *node == *B)));
    // The locker gives the locks back, as the session is over; nobody else knew us.
    let ends = acts.iter().filter_map(|act| match act {
        Act::Locker(Order::Cancel { announce, .. }) => Some(announce.len()),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [0]);
    // The next one is announced to both.
    unites(&mut state, "c@h", &[], &[]);
    let announced = state.acts().into_iter().find_map(|act| match act {
        Act::Locker(Order::Cancel { announce, .. }) => Some(announce),
        _ => None,
    });
    assert_eq!(
        announced.unwrap().iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(),
        [A, B]
    );
}

#[test]
fn a_loss_is_reported_after_a_while_unless_the_other_side_has() {
    let mut state = state();
    unites(&mut state, A, &[], &[]);
    unites(&mut state, B, &[], &[]);
    state.acts();
    state.node_down(&Atom::cut(A));
    assert!(state.acts().iter().any(|act| matches!(act, Act::ReportLater(node) if *node == *A)));
    state.news(News::StillLost(Atom::cut(A)));
    let acts = state.acts();
    assert_eq!(told(&acts, B)[0].as_tuple().unwrap()[4], Term::atom(A));

    // It comes again in time, and goes again.
    unites(&mut state, A, &[], &[]);
    state.node_down(&Atom::cut(A));
    state.node_up(&Atom::cut(A));
    state.acts();
    state.news(News::StillLost(Atom::cut(A)));
    assert!(told(&state.acts(), B).is_empty());

    // It says that it has lost us; we hear of it, pass it on once, and say nothing ourselves.
    unites(&mut state, A, &[], &[]);
    state.node_down(&Atom::cut(A));
    state.acts();
    let lost = term!({lost_connection, (Atom::cut(A)), 11, 3, (Atom::cut("me@h"))});
    state.info(&lost);
    assert_eq!(told(&state.acts(), B), std::slice::from_ref(&lost));
    state.info(&lost);
    state.news(News::StillLost(Atom::cut(A)));
    assert!(state.acts().is_empty());
}

#[test]
fn who_was_lost_by_another_is_left() {
    let mut state = state();
    unites(&mut state, A, &[], &[]);
    unites(&mut state, B, &[], &[]);
    state.acts();
    state.info(&term!({lost_connection, (Atom::cut(A)), 11, 3, (Atom::cut(B))}));
    let acts = state.acts();
    let me = Atom::cut("me@h");
    assert!(told(&acts, B).contains(&term!({remove_connection, (me)})));
    assert!(told(&acts, A).is_empty());
    assert_eq!(state.shared.known_nodes(), [A]);
    // Its end is no news.
    state.node_down(&Atom::cut(B));
    assert!(state.acts().iter().all(|act| !matches!(act, Act::ReportLater(_))));
    // And we go if we are asked to.
    state.info(&term!({remove_connection, (Atom::cut(A))}));
    let acts = state.acts();
    assert!(acts.iter().any(|act| matches!(act, Act::Disconnect(node) if *node == *A)));
    assert!(state.shared.known().is_empty());
}

/// What a node says of ever new nodes is believed up to a bound: each of them would be dialled.
#[test]
fn nobody_makes_a_node_know_more_than_a_cluster_has() {
    let mut state = state();
    unites(&mut state, A, &[], &[]);
    state.acts();
    let mut introduced = 0;
    for round in 0..5 {
        let node = |number: i64| term!({(Atom::cut(&format!("n{round}-{number}@h"))), 8});
        let nodes: Vec<Term> = (0..4000).map(node).collect();
        state.cast(&term!({new_nodes, (Atom::cut(A)), [], [], (Term::List(nodes)), []}));
        introduced += state.acts().iter().filter(|act| matches!(act, Act::Introduce(_))).count();
    }
    assert_eq!((introduced, state.shared.known().len()), ((1 << 14) - 1, 1 << 14));
    // Nor by what it says when two partitions become one.
    let many: Vec<Term> = (0..100).map(|n| Term::Atom(Atom::cut(&format!("m{n}@h")))).collect();
    let tag = meets(&mut state, B, 70);
    let b = Atom::cut(B);
    state.news(News::LockIsSet { node: b.clone(), tag, lock: term!({global, [l]}) });
    state.cast(&term!({exchange, (b.clone()), [], [], (tag)}));
    state.cast(&term!({resolved, (b.clone()), [], (Term::List(many)), unused, [], (tag)}));
    state.acts();
    state.news(News::Resolved { node: b, tag, ours: Vec::new(), theirs: Vec::new() });
    assert!(!state.acts().iter().any(|act| matches!(act, Act::Introduce(_))));
}

/// Of those who are not connected the locker knows nobody, and hears nothing.
#[test]
fn the_locker_hears_of_connected_nodes_only() {
    let mut state = state();
    for number in 0..10 {
        let node = format!("n{number}@h");
        state.cast(&term!({exchange, (Atom::cut(&node)), [], [], 7}));
        state.cast(&term!({lock_set, (pid(&node, 8)), true, []}));
    }
    assert!(state.acts().is_empty());
}

/// What waits for the locker while it is in the midst of something is bounded for each node.
#[tokio::test]
async fn a_locker_that_waits_keeps_little_of_each_node() {
    let board = Switchboard::new();
    let node = |name: &str, visibility| {
        let builder = Node::builder(name).cookie(Cookie::new("secret")).visibility(visibility);
        builder.carrier(Memory::new(&board)).start()
    };
    let me = node("me@h", Visibility::Hidden).await.unwrap();
    let b = node(B, Visibility::VISIBLE).await.unwrap();
    me.connect(B).await.unwrap();
    let (mailbox, shared) = (me.mailbox().unwrap(), Arc::new(Shared::default()));
    let ((orders, ordered), (news, mut told)) = (mpsc::channel(4096), mpsc::channel(4096));
    let locker = Locker::new(Arc::clone(me.inner()), &mailbox, Arc::clone(&shared), news);
    me.inner().run(mailbox, |mailbox| locker.run(mailbox, ordered));
    let his = b.mailbox().unwrap().pid().clone();
    let give = async |order: Order| {
        let Some(turn) = shared.turns.enter(order.node()) else { return false };
        orders.send((order, turn)).await.unwrap();
        true
    };
    let set = || Order::LockSet { locker: his.clone(), set: true, tag: Some(1) };
    let (my_tag, his_tag) = (1, term!(2));
    let him = Him { node: Atom::cut(B), locker: his.clone(), version: 8, my_tag, his_tag };
    assert!(give(Order::Meet(him)).await && give(set()).await);
    assert!(matches!(told.recv().await, Some(News::LockIsSet { .. })));
    // Both have locked; it waits for the end of that.
    for _ in 0..256 {
        assert!(give(set()).await);
    }
    while orders.capacity() < orders.max_capacity() {
        tokio::task::yield_now().await;
    }
    assert!(!give(set()).await, "256 wait already");
    let other = Order::LockSet { locker: pid(A, 1), set: true, tag: None };
    assert!(give(other).await, "another node is heard");
}
