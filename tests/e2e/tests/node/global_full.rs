//! Rust nodes with a full part in the `global` of stock ones.

use std::time::{Duration, Instant};

use meshx_e2e::{PlainVm, Release, skips};
use meshx_node::etf::{Atom, Pid, Term, term};
use meshx_node::global::{Global, GlobalError, GlobalNames};
use meshx_node::{Node, Signal, Visibility};

use crate::global::{SOON, meets, nothing_blocks, undisturbed};
use crate::{COOKIE, LIMIT, Stock};

const FULL: Visibility = Visibility::Visible { global: Global::Full };

async fn rust(stock: &Stock, name: &str) -> (Node, GlobalNames) {
    let node = stock.beside(name).visibility(FULL).start().await.unwrap();
    let names = node.global().unwrap();
    (node, names)
}

/// Waits until a name has the process that it should have.
async fn awaits(names: &GlobalNames, name: &Term, expected: impl Fn(Option<&Pid>) -> bool) {
    let start = Instant::now();
    loop {
        let found = names.whereis(name);
        if expected(found.as_ref()) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{name} is {found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_holds_nobody_up() {
    meets(Release::Machine, FULL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_holds_up_no_node_of_otp_27() {
    meets(Release::Otp27, FULL).await;
}

async fn names_are_shared(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let mut stock = Stock::start(release, "a");
    let (node, names) = rust(&stock, "rust").await;
    // Names that are there before the nodes meet.
    let mut ours = node.mailbox().unwrap();
    let (early, theirs) = (term!({early, 1}), term!("theirs"));
    assert_eq!(names.register(&early, ours.pid()).await, Ok(true));
    stock.vm.eval("yes = global:register_name(<<\"theirs\">>, self())");
    node.connect(&stock.name).await.unwrap();
    names.sync(SOON).await.unwrap();
    awaits(&names, &theirs, |pid| pid.is_some()).await;
    stock.vm.await_eval("node(global:whereis_name({early, 1}))", "'rust@127.0.0.1'", SOON);
    assert_eq!(names.nodes(), [stock.name.as_str()]);

    // The processes behind them.
    stock.vm.eval("global:send({early, 1}, {hello, self()})");
    let Some(Signal::Message(message)) = ours.receive_within(LIMIT).await else { panic!() };
    let hello = message.body.term().unwrap();
    assert_eq!(hello, term!({hello, (names.whereis(&theirs).unwrap())}));
    ours.send(names.whereis(&theirs).unwrap(), "back").await.unwrap();
    assert_eq!(stock.vm.eval("receive Back -> Back after 5000 -> timeout end"), "<<\"back\">>");

    // New ones, of both sides; one that is taken; one process with two names.
    let second = node.mailbox().unwrap();
    assert_eq!(names.register(&term!(second), second.pid()).await, Ok(true));
    assert_eq!(stock.vm.eval("node(global:whereis_name(second))"), "'rust@127.0.0.1'");
    assert_eq!(stock.vm.eval("global:register_name(second, self())"), "no");
    assert_eq!(names.register(&theirs, ours.pid()).await, Ok(false));
    assert_eq!(names.register(&term!(third), second.pid()).await, Ok(false));
    stock.vm.eval("P = spawn(fun() -> receive stop -> ok end end)");
    assert_eq!(stock.vm.eval("global:register_name(fourth, P)"), "yes");
    assert!(names.whereis(&term!(fourth)).is_some());

    // They end, or are taken away.
    stock.vm.eval("P ! stop");
    awaits(&names, &term!(fourth), |pid| pid.is_none()).await;
    drop(second);
    stock.vm.await_eval("global:whereis_name(second)", "undefined", SOON);
    assert_eq!(names.unregister(&theirs).await, Ok(true));
    assert_eq!(names.unregister(&theirs).await, Ok(false));
    assert_eq!(stock.vm.eval("global:whereis_name(<<\"theirs\">>)"), "undefined");
    stock.vm.eval("global:unregister_name({early, 1})");
    assert_eq!(names.whereis(&early), None);

    // One takes the place of another, from either side.
    stock.vm.eval("yes = global:register_name(place, self())");
    let third = node.mailbox().unwrap();
    names.reregister(&term!(place), third.pid()).await.unwrap();
    assert_eq!(stock.vm.eval("node(global:whereis_name(place))"), "'rust@127.0.0.1'");
    assert_eq!(stock.vm.eval("global:re_register_name(place, self())"), "yes");
    assert_ne!(names.whereis(&term!(place)).as_ref(), Some(third.pid()));

    // The node goes, and its names with it; ours stay with us, and are there again when it comes.
    assert_eq!(names.register(&term!(stays), third.pid()).await, Ok(true));
    assert!(node.disconnect(&stock.name));
    awaits(&names, &term!(place), |pid| pid.is_none()).await;
    assert_eq!(names.whereis(&term!(stays)).as_ref(), Some(third.pid()));
    stock.vm.await_eval("global:whereis_name(stays)", "undefined", SOON);
    stock.vm.eval("net_kernel:connect_node('rust@127.0.0.1')");
    awaits(&names, &term!(place), |pid| pid.is_some()).await;
    stock.vm.await_eval("node(global:whereis_name(stays))", "'rust@127.0.0.1'", SOON);
    stock.vm.eval("global:unregister_name(place)");
    nothing_blocks(&mut stock.vm);
    node.stop().await;
    stock.vm.await_eval("global:whereis_name(stays)", "undefined", SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_shared_with_otp_25() {
    names_are_shared(Release::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_shared_with_otp_27() {
    names_are_shared(Release::Otp27).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_shared_with_otp_23() {
    names_are_shared(Release::Otp23).await;
    for name in ["z", "b"] {
        two_of_a_name(Release::Otp23, name).await;
    }
}

/// Both partitions have a name when they meet. The node of the lesser name chooses, and its process
/// stays.
async fn two_of_a_name(release: Release, rust_name: &str) {
    if skips(release.needs()) {
        return;
    }
    let mut stock = Stock::start(release, "m");
    let (node, names) = rust(&stock, rust_name).await;
    let ours = node.mailbox().unwrap();
    let boss = term!(boss);
    assert_eq!(names.register(&boss, ours.pid()).await, Ok(true));
    stock.vm.eval("P = spawn(fun() -> receive stop -> ok end end)");
    stock.vm.eval("yes = global:register_name(boss, P)");
    node.connect(&stock.name).await.unwrap();
    names.sync(SOON).await.unwrap();
    if rust_name < "m" {
        stock.vm.await_eval("is_process_alive(P)", "false", SOON);
        awaits(&names, &boss, |pid| pid == Some(ours.pid())).await;
        let expected = node.name().to_string();
        stock.vm.await_eval("node(global:whereis_name(boss))", &expected, SOON);
        assert_eq!(ours.ended_with(), None);
    } else {
        awaits(&names, &boss, |pid| pid.is_some_and(|pid| pid != ours.pid())).await;
        stock.vm.await_eval("global:whereis_name(boss) =:= P", "true", SOON);
        assert_eq!(stock.vm.eval("is_process_alive(P)"), "true");
        let start = Instant::now();
        while ours.ended_with() != Some(term!(killed)) {
            assert!(start.elapsed() < LIMIT, "{:?}", ours.ended_with());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_a_name_one_stays() {
    for name in ["z", "b"] {
        two_of_a_name(Release::Machine, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_a_name_one_stays_with_otp_27() {
    for name in ["z", "b"] {
        two_of_a_name(Release::Otp27, name).await;
    }
}

/// A name may have another function that chooses.
#[tokio::test(flavor = "multi_thread")]
async fn we_choose_as_a_name_says() {
    let mut stock = Stock::start(Release::Machine, "m");
    let (node, names) = rust(&stock, "b").await;
    node.connect(&stock.name).await.unwrap();
    names.sync(SOON).await.unwrap();
    let mut ours = Vec::new();
    let functions = ["fun global:random_notify_name/3", "fun global:notify_all_name/3"];
    for (n, function) in functions.into_iter().chain(["fun(_, _, _) -> none end"]).enumerate() {
        let mailbox = node.mailbox().unwrap();
        stock.vm.eval("register(me, self())");
        mailbox
            .send_term(("me", stock.name.as_str()), &term!({me, (mailbox.pid().clone())}))
            .await
            .unwrap();
        let register = format!(
            "receive {{me, Pid{n}}} -> global:register_name({{n, {n}}}, Pid{n}, {function}) end"
        );
        assert_eq!(stock.vm.eval(&register), "yes");
        stock.vm.eval("unregister(me)");
        ours.push(mailbox);
    }
    assert!(node.disconnect(&stock.name));
    let theirs = "[begin P = spawn(fun L() -> receive {ask, S} -> S ! {got, self(), process_info(self(), messages)}, L() end end), \
        yes = global:register_name({n, N}, P), P end || N <- [0, 1, 2]]";
    stock.vm.await_eval("global:registered_names()", "[]", SOON);
    stock.vm.eval(&format!("[P0, P1, P2] = {theirs}"));
    node.connect(&stock.name).await.unwrap();
    names.sync(SOON).await.unwrap();
    // One stays, and the other is told; none stays, and both are told.
    assert_eq!(names.whereis(&term!({n, 0})).as_ref(), Some(ours[0].pid()));
    assert_eq!(names.whereis(&term!({n, 1})), None);
    stock.vm.await_eval(
        "process_info(P0, messages)",
        "{messages,[{global_name_conflict,{n,0}}]}",
        SOON,
    );
    stock.vm.await_eval("element(2, hd(element(2, process_info(P1, messages))))", "{n,1}", SOON);
    let Some(Signal::Message(message)) = ours[1].receive_within(LIMIT).await else { panic!() };
    assert_eq!(message.body.term().unwrap().as_tuple().unwrap()[1], term!({n, 1}));
    // A fun cannot be run here: then theirs stays, as when a node does not answer OTP.
    assert!(names.whereis(&term!({n, 2})).is_some_and(|pid| pid != *ours[2].pid()));
    stock.vm.await_eval("global:whereis_name({n, 2}) =:= P2", "true", SOON);
    assert!(ours.iter().all(|mailbox| mailbox.ended_with().is_none()));
}

/// Two stock nodes and a Rust one that all know each other, though ours connected to one only.
async fn three(release: Release) -> (Stock, PlainVm, Node, GlobalNames) {
    let mut a = Stock::start(release, "a");
    let mut b = PlainVm::start(release, "b@127.0.0.1", COOKIE, a.epmd.port());
    assert_eq!(a.vm.connect("b@127.0.0.1"), "true");
    a.vm.await_eval("global:sync()", "ok", SOON);
    let (node, names) = rust(&a, "rust").await;
    node.connect("a@127.0.0.1").await.unwrap();
    knows(&mut a.vm, "['b@127.0.0.1','rust@127.0.0.1']");
    knows(&mut b, "['a@127.0.0.1','rust@127.0.0.1']");
    let start = Instant::now();
    while names.nodes() != ["a@127.0.0.1", "b@127.0.0.1"] {
        assert!(start.elapsed() < LIMIT, "{:?}", names.nodes());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    names.sync(SOON).await.unwrap();
    (a, b, node, names)
}

/// Waits until a stock node counts those, and says no more to any.
fn knows(vm: &mut PlainVm, nodes: &str) {
    for which in ["get_known", "get_synced"] {
        let known = format!("lists:sort(gen_server:call(global_name_server, {which}))");
        vm.await_eval(&known, nodes, SOON);
    }
}

async fn all_three(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let (mut a, mut b, node, names) = three(release).await;
    nothing_blocks(&mut a.vm);
    nothing_blocks(&mut b);
    let ours = node.mailbox().unwrap();
    assert_eq!(names.register(&term!(ours), ours.pid()).await, Ok(true));
    assert_eq!(b.eval("node(global:whereis_name(ours))"), "'rust@127.0.0.1'");

    // All three register at the same time: every name goes through, and everybody has it.
    let registers = "S = self(), spawn(fun() -> \
        R = [global:register_name({node(), N}, spawn(fun() -> receive stop -> ok end end)) \
             || N <- lists:seq(1, 10)], S ! {all, lists:usort(R)} end)";
    a.vm.eval(registers);
    b.eval(registers);
    let mut mailboxes = Vec::new();
    for n in 1..=10 {
        let mailbox = node.mailbox().unwrap();
        let name = term!({rust, (n)});
        assert_eq!(names.register(&name, mailbox.pid()).await, Ok(true));
        mailboxes.push(mailbox);
    }
    for vm in [&mut a.vm, &mut b] {
        assert_eq!(vm.eval("receive {all, R} -> R after 20000 -> timeout end"), "[yes]");
        vm.await_eval("length(global:registered_names())", "31", SOON);
    }
    assert_eq!(names.names().len(), 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_know_each_other() {
    all_three(Release::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_of_otp_27_and_ours_know_each_other() {
    all_three(Release::Otp27).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_of_otp_23_and_ours_know_each_other() {
    all_three(Release::Otp23).await;
}

/// The link to one node breaks: we lose all of them, as OTP has it, and they do not lose each other.
async fn a_cut_link(release: Release) {
    const A: &str = "['a@127.0.0.1']";
    const B: &str = "['b@127.0.0.1']";
    if skips(release.needs()) {
        return;
    }
    let (mut a, mut b, node, names) = three(release).await;
    for (who, cut) in [("A", "a"), ("R", "rust")] {
        match cut {
            "a" => assert_eq!(a.vm.eval("erlang:disconnect_node('rust@127.0.0.1')"), "true"),
            _ => assert!(node.disconnect("a@127.0.0.1")),
        }
        let what = format!("{who} cuts the link");
        undisturbed(&what, [(&mut a.vm, B), (&mut b, A)]);
        // Longer than we take to report a loss.
        std::thread::sleep(Duration::from_secs(4));
        undisturbed(&what, [(&mut a.vm, B), (&mut b, A)]);
        assert_eq!(node.nodes(), Vec::<Atom>::new());
        // And back again.
        node.connect("b@127.0.0.1").await.unwrap();
        knows(&mut a.vm, "['b@127.0.0.1','rust@127.0.0.1']");
        knows(&mut b, "['a@127.0.0.1','rust@127.0.0.1']");
        names.sync(SOON).await.unwrap();
    }
    nothing_blocks(&mut a.vm);
    nothing_blocks(&mut b);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_link_breaks_leaves_alone() {
    a_cut_link(Release::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_link_breaks_leaves_nodes_of_otp_27_alone() {
    a_cut_link(Release::Otp27).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_nodes_share_names_and_a_hidden_one_has_no_part() {
    let stock = Stock::start(Release::Machine, "a");
    let (one, first) = rust(&stock, "one").await;
    let (two, second) = rust(&stock, "two").await;
    let hidden = stock.beside("hidden").start().await.unwrap();
    assert_eq!(hidden.global().unwrap_err(), GlobalError::NotPart(hidden.name().clone()));
    hidden.connect("one@127.0.0.1").await.unwrap();
    let ours = one.mailbox().unwrap();
    assert_eq!(first.register(&term!(name), ours.pid()).await, Ok(true));
    two.connect("one@127.0.0.1").await.unwrap();
    second.sync(SOON).await.unwrap();
    awaits(&second, &term!(name), |pid| pid == Some(ours.pid())).await;
    drop(ours);
    awaits(&second, &term!(name), |pid| pid.is_none()).await;
    one.stop().await;
    let theirs = two.mailbox().unwrap();
    let start = Instant::now();
    assert_eq!(second.register(&term!(name), theirs.pid()).await, Ok(true));
    assert!(start.elapsed() < SOON);
}

/// Links come and go faster than anybody can agree on anything; afterwards all is as before.
async fn churn(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let (mut a, mut b, node, names) = three(release).await;
    for round in 0..24 {
        let name = term!({round, (round)});
        let mailbox = node.mailbox().unwrap();
        match round % 4 {
            0 => drop(a.vm.eval("erlang:disconnect_node('rust@127.0.0.1')")),
            1 => _ = node.disconnect("b@127.0.0.1"),
            2 => drop(b.eval("erlang:disconnect_node('rust@127.0.0.1')")),
            _ => _ = node.disconnect("a@127.0.0.1"),
        }
        // Sometimes in the midst of it, sometimes after.
        tokio::time::sleep(Duration::from_millis(round * 7 % 60)).await;
        drop(node.connect("a@127.0.0.1").await);
        drop(node.connect("b@127.0.0.1").await);
        assert_eq!(names.register(&name, mailbox.pid()).await, Ok(true), "round {round}");
        drop(mailbox);
    }
    // Whoever was told to leave has left by then, and comes again.
    let start = Instant::now();
    while names.nodes() != ["a@127.0.0.1", "b@127.0.0.1"] || names.sync(SOON).await.is_err() {
        assert!(start.elapsed() < 2 * LIMIT, "{:?} {:?}", names.nodes(), node.nodes());
        drop(node.connect("a@127.0.0.1").await);
        drop(node.connect("b@127.0.0.1").await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    knows(&mut a.vm, "['b@127.0.0.1','rust@127.0.0.1']");
    knows(&mut b, "['a@127.0.0.1','rust@127.0.0.1']");
    nothing_blocks(&mut a.vm);
    nothing_blocks(&mut b);
    let ours = node.mailbox().unwrap();
    assert_eq!(names.register(&term!(last), ours.pid()).await, Ok(true));
    assert_eq!(b.eval("node(global:whereis_name(last))"), "'rust@127.0.0.1'");
    a.vm.await_eval("global:registered_names()", "[last]", SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_come_and_go() {
    churn(Release::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_otp_27_come_and_go() {
    churn(Release::Otp27).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_kills_the_processes_of_global() {
    for visibility in [Visibility::VISIBLE, FULL] {
        let mut stock = Stock::start(Release::Machine, "a");
        let node = stock.beside("rust").visibility(visibility).start().await.unwrap();
        node.connect(&stock.name).await.unwrap();
        nothing_blocks(&mut stock.vm);
        let killer = node.mailbox().unwrap();
        let before = node.whereis("global_name_server").unwrap();
        killer.exit(&before, &term!(kill)).await.unwrap();
        let start = Instant::now();
        while node.whereis("global_name_server").is_none_or(|pid| pid == before) {
            assert!(start.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if visibility == FULL {
            stock.vm.await_eval("nodes()", "[]", SOON);
            node.connect(&stock.name).await.unwrap();
            node.global().unwrap().sync(SOON).await.unwrap();
        }
        nothing_blocks(&mut stock.vm);
        node.stop().await;
    }
}
