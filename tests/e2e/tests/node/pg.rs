//! Process groups that Rust nodes and stock ones share.

use std::time::{Duration, Instant};

use meshx_e2e::{Release, skips};
use meshx_node::etf::{Pid, Term, term};
use meshx_node::pg::{EventKind, PgError, Scope};
use meshx_node::{Mailbox, Node, Signal, Visibility};

use crate::{LIMIT, Stock};

async fn rust(stock: &Stock, visibility: Visibility) -> Node {
    stock.beside("rust").visibility(visibility).start().await.unwrap()
}

/// Waits until a group has as many members.
async fn awaits(scope: &Scope, group: &Term, count: usize) -> Vec<Pid> {
    let start = Instant::now();
    loop {
        let members = scope.members(group);
        if members.len() == count {
            return members;
        }
        assert!(start.elapsed() < LIMIT, "{group} has {members:?}, not {count}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the stock node's shell process is sent.
const RECEIVED: &str = "receive {got, X} -> X after 5000 -> timeout end";
const OURS: &str = "[P || P <- pg:get_members(workers), node(P) =/= node()]";

async fn groups_are_shared(release: Release, visibility: Visibility) {
    if skips(release.needs()) {
        return;
    }
    let mut stock = Stock::start(release, "a");
    // Members are there before the nodes meet, and the scopes before each other.
    stock.vm.eval("{ok, _} = pg:start(pg)");
    stock.vm.eval("Loop = fun L() -> receive {To, M} -> To ! {got, M}, L(); stop -> ok end end");
    stock.vm.eval("Theirs = spawn(Loop)");
    stock.vm.eval("pg:join(workers, Theirs)");
    let node = rust(&stock, visibility).await;
    let scope = node.pg("pg").unwrap();
    let (workers, others) = (term!(workers), term!({other, 1}));
    let mut ours = node.mailbox().unwrap();
    scope.join(&workers, ours.pid()).await.unwrap();
    assert_eq!(scope.members(&workers), std::slice::from_ref(ours.pid()));
    let (_, mut events) = scope.monitor();
    node.connect(&stock.name).await.unwrap();

    let members = awaits(&scope, &workers, 2).await;
    assert_eq!(scope.local_members(&workers), std::slice::from_ref(ours.pid()));
    stock.vm.await_eval(&format!("length({OURS})"), "1", LIMIT);
    let event = events.recv().await.unwrap();
    assert_eq!(
        (event.kind, &event.group, &event.pids[0]),
        (EventKind::Join, &workers, &members[1])
    );

    // They send to ours, and we to theirs.
    stock.vm.eval(&format!("[P ! {{hello, self()}} || P <- {OURS}]"));
    let Some(Signal::Message(message)) = ours.receive_within(LIMIT).await else { panic!() };
    let hello = message.body.term().unwrap();
    let Some([_, Term::Pid(shell)]) = hello.as_tuple() else { panic!("{hello}") };
    ours.send_term(&members[1], &term!({(shell.clone()), again})).await.unwrap();
    assert_eq!(stock.vm.eval(RECEIVED), "again");

    // Joined twice, left twice; another group comes and goes.
    scope.join(&workers, ours.pid()).await.unwrap();
    scope.join(&others, ours.pid()).await.unwrap();
    stock.vm.await_eval(&format!("length({OURS})"), "2", LIMIT);
    stock.vm.await_eval("lists:sort(pg:which_groups())", "[workers,{other,1}]", LIMIT);
    assert_eq!(scope.leave(&workers, ours.pid()).await, Ok(true));
    stock.vm.await_eval(&format!("length({OURS})"), "1", LIMIT);
    assert_eq!(scope.leave(&workers, ours.pid()).await, Ok(true));
    assert_eq!(scope.leave(&workers, ours.pid()).await, Ok(false));
    stock.vm.await_eval(&format!("length({OURS})"), "0", LIMIT);

    // Ours ends without leaving.
    scope.join(&workers, ours.pid()).await.unwrap();
    stock.vm.await_eval(&format!("length({OURS})"), "1", LIMIT);
    drop(ours);
    stock.vm.await_eval(&format!("length({OURS})"), "0", LIMIT);
    stock.vm.await_eval("pg:which_groups()", "[workers]", LIMIT);
    awaits(&scope, &workers, 1).await;
    assert_eq!(scope.which_groups(), std::slice::from_ref(&workers));

    // And theirs: a list of processes that joins and leaves, one that ends.
    stock.vm.eval("Two = [spawn(Loop), spawn(Loop)]");
    stock.vm.eval("pg:join(workers, Two)");
    awaits(&scope, &workers, 3).await;
    stock.vm.eval("pg:leave(workers, Two)");
    awaits(&scope, &workers, 1).await;
    stock.vm.eval("pg:join(workers, Two)");
    awaits(&scope, &workers, 3).await;
    stock.vm.eval("[P ! stop || P <- Two]");
    awaits(&scope, &workers, 1).await;

    // The nodes lose each other, and what changed meanwhile is known when they meet again.
    let ours = node.mailbox().unwrap();
    scope.join(&workers, ours.pid()).await.unwrap();
    stock.vm.await_eval(&format!("length({OURS})"), "1", LIMIT);
    assert!(node.disconnect(&stock.name));
    awaits(&scope, &workers, 1).await;
    stock.vm.await_eval(&format!("length({OURS})"), "0", LIMIT);
    stock.vm.eval("pg:join(late, Theirs)");
    assert_eq!(stock.vm.connect("rust@127.0.0.1"), "true");
    awaits(&scope, &workers, 2).await;
    awaits(&scope, &term!(late), 1).await;
    stock.vm.await_eval(&format!("length({OURS})"), "1", LIMIT);
    // A scope that ends and comes again has no members, until they join again.
    stock.vm.eval("exit(whereis(pg), kill)");
    awaits(&scope, &term!(late), 0).await;
    awaits(&scope, &workers, 1).await;
    stock.vm.await_eval("whereis(pg)", "undefined", LIMIT);
    stock.vm.eval("{ok, _} = pg:start(pg)");
    // It looks for the visible nodes only; a hidden one looks for it.
    stock.vm.await_eval(&format!("length({OURS})"), "1", LIMIT);
    stock.vm.eval("pg:join(late, Theirs)");
    awaits(&scope, &term!(late), 1).await;
    drop(stock);
    awaits(&scope, &term!(late), 0).await;
    assert_eq!(scope.members(&workers), std::slice::from_ref(ours.pid()));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_shared_with_otp_25() {
    groups_are_shared(Release::Machine, Visibility::VISIBLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_shared_by_a_hidden_node() {
    groups_are_shared(Release::Machine, Visibility::Hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_shared_with_otp_23() {
    groups_are_shared(Release::Otp23, Visibility::VISIBLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_shared_with_otp_27() {
    groups_are_shared(Release::Otp27, Visibility::VISIBLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_shared_with_otp_27_by_a_hidden_node() {
    groups_are_shared(Release::Otp27, Visibility::Hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_nodes_share_groups_and_a_version_may_stand_behind_a_discovery() {
    let stock = Stock::start(Release::Machine, "a");
    let one = rust(&stock, Visibility::Hidden).await;
    let two = stock.beside("two").start().await.unwrap();
    let (first, second) = (one.pg("scope").unwrap(), two.pg("scope").unwrap());
    let (here, there) = (one.mailbox().unwrap(), two.mailbox().unwrap());
    first.join(&term!(g), here.pid()).await.unwrap();
    second.join(&term!(g), there.pid()).await.unwrap();
    assert_eq!(
        first.join(&term!(g), there.pid()).await,
        Err(PgError::NotLocal(two.name().clone()))
    );
    one.connect("two@127.0.0.1").await.unwrap();
    awaits(&first, &term!(g), 2).await;
    awaits(&second, &term!(g), 2).await;
    // One scope to a name, and none where a process has it.
    assert_eq!(one.pg("scope").unwrap().pid(), first.pid());
    here.register("taken").unwrap();
    assert_eq!(one.pg("taken").unwrap_err(), PgError::Name("taken".to_owned()));

    let mut peer: Mailbox = two.mailbox().unwrap();
    let discover = term!({discover, (peer.pid().clone()), {version, 2}});
    peer.send_term(first.pid(), &discover).await.unwrap();
    let Some(Signal::Message(sync)) = peer.receive_within(LIMIT).await else { panic!() };
    let expected = term!({sync, (first.pid().clone()), [{g, [(here.pid().clone())]}]});
    assert_eq!(sync.body.term().unwrap(), term!({atom "$gen_cast", (expected)}));
    let Some(Signal::Message(back)) = peer.receive_within(LIMIT).await else { panic!() };
    assert_eq!(back.body.term().unwrap(), term!({discover, (first.pid().clone())}));
    // Nonsense does no harm.
    for nonsense in
        [term!(x), term!({ join }), term!({leave, 1, 2, 3}), term!({atom "$gen_cast", {}})]
    {
        peer.send_term(first.pid(), &nonsense).await.unwrap();
    }
    first.leave(&term!(g), here.pid()).await.unwrap();
    let Some(Signal::Message(leave)) = peer.receive_within(LIMIT).await else { panic!() };
    let expected = term!({leave, (first.pid().clone()), (here.pid().clone()), [g]});
    assert_eq!(leave.body.term().unwrap(), expected);
}
