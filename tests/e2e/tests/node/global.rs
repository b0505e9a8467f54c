//! What a Rust node does to the `global` of stock ones.

use std::time::{Duration, Instant};

use meshx_e2e::{PlainVm, Release, skips};
use meshx_node::{Node, Visibility};

use crate::{COOKIE, Stock};

/// So long may a call take that the worst of peers would hold up for ever.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// So long is watched that nothing happens; what `global` does, it does within a second.
const QUIET: Duration = Duration::from_secs(3);
const RUST: &str = "'rust@127.0.0.1'";
const ONLY_A: &str = "['a@127.0.0.1']";
const ONLY_B: &str = "['b@127.0.0.1']";

/// Everything that a silent visible node holds up or makes fail.
pub(crate) fn nothing_blocks(vm: &mut PlainVm) {
    let rows = [
        ("global:set_lock({row, self()})".to_owned(), "true"),
        ("global:del_lock({row, self()})".to_owned(), "true"),
        ("global:trans({row, self()}, fun() -> done end)".to_owned(), "done"),
        ("global:sync()".to_owned(), "ok"),
        ("global:register_name(row, self())".to_owned(), "yes"),
        ("global:whereis_name(row) =:= self()".to_owned(), "true"),
        ("global:unregister_name(row)".to_owned(), "ok"),
        (format!("net_adm:ping({RUST})"), "pong"),
        (format!("lists:member({RUST}, net_adm:world_list(['127.0.0.1']))"), "true"),
    ];
    for (row, expected) in rows {
        let value = vm.try_eval_within(&row, SOON);
        assert_eq!(value.as_deref(), Ok(expected), "{row}");
    }
}

async fn rust(stock: &Stock, visibility: Visibility) -> Node {
    stock.beside("rust").visibility(visibility).start().await.unwrap()
}

pub(crate) async fn meets(release: Release, visibility: Visibility) {
    if skips(release.needs()) {
        return;
    }
    let mut stock = Stock::start(release, "a");
    let node = rust(&stock, visibility).await;
    // We dial, and then the other side does.
    node.connect(&stock.name).await.unwrap();
    nothing_blocks(&mut stock.vm);
    assert!(node.disconnect(&stock.name));
    stock.vm.await_eval("nodes(connected)", "[]", SOON);
    assert_eq!(stock.vm.connect("rust@127.0.0.1"), "true");
    nothing_blocks(&mut stock.vm);
    let seen = if visibility == Visibility::Hidden { "[]" } else { "['rust@127.0.0.1']" };
    assert_eq!(stock.vm.nodes(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_node_holds_nobody_up() {
    meets(Release::Machine, Visibility::Hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_node_holds_nobody_up() {
    meets(Release::Machine, Visibility::VISIBLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_node_holds_up_no_node_of_otp_27() {
    meets(Release::Otp27, Visibility::VISIBLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_up_a_node_of_otp_23() {
    meets(Release::Otp23, Visibility::Hidden).await;
    meets(Release::Otp23, Visibility::VISIBLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_node_keeps_locks() {
    let mut stock = Stock::start(Release::Machine, "a");
    let _node = rust(&stock, Visibility::VISIBLE).await;
    // Nobody else is asked, so it is our word alone.
    stock.vm.eval(&format!("At = [{RUST}]"));
    stock.vm.eval(
        "P = spawn(fun() -> receive {From, F} -> From ! F() end, receive stop -> ok end end)",
    );
    stock.vm.eval("P ! {self(), fun() -> global:set_lock({thing, 1}, At, 0) end}");
    assert_eq!(stock.vm.eval("receive Is -> Is after 5000 -> timeout end"), "true");
    assert_eq!(stock.vm.eval("global:set_lock({thing, 2}, At, 0)"), "false");
    assert_eq!(stock.vm.eval("global:set_lock({thing, 1}, At, 0)"), "true");
    assert_eq!(stock.vm.eval("global:del_lock({thing, 1}, At)"), "true");
    assert_eq!(stock.vm.eval("global:set_lock({thing, 2}, At, 0)"), "false");
    // The holder ends, and so does its lock.
    stock.vm.eval("P ! stop");
    stock.vm.await_eval("global:set_lock({thing, 2}, At, 0)", "true", SOON);
}

/// Two stock nodes and a Rust one, all connected.
async fn three(release: Release, visibility: Visibility) -> (Stock, PlainVm, Node) {
    let mut a = Stock::start(release, "a");
    let mut b = PlainVm::start(release, "b@127.0.0.1", COOKIE, a.epmd.port());
    assert_eq!(a.vm.connect("b@127.0.0.1"), "true");
    a.vm.await_eval("global:sync()", "ok", SOON);
    let node = rust(&a, visibility).await;
    node.connect("a@127.0.0.1").await.unwrap();
    node.connect("b@127.0.0.1").await.unwrap();
    in_sync(&mut a.vm);
    in_sync(&mut b);
    (a, b, node)
}

/// Waits until a stock node has said all that it says to a new one. What it says later it says to
/// whoever is there by then, and connects for it (`gen_server:cast/2`).
fn in_sync(vm: &mut PlainVm) {
    let synced = "gen_server:call(global_name_server, get_synced)";
    vm.await_eval(&format!("lists:member({RUST}, {synced})"), "true", SOON);
}

/// Each sees whom it should, and goes on to.
pub(crate) fn undisturbed(cut: &str, vms: [(&mut PlainVm, &str); 2]) {
    let [(a, a_sees), (b, b_sees)] = vms;
    let start = Instant::now();
    a.await_eval("lists:sort(nodes())", a_sees, SOON);
    b.await_eval("lists:sort(nodes())", b_sees, SOON);
    while start.elapsed() < QUIET {
        assert_eq!((a.nodes().as_str(), b.nodes().as_str()), (a_sees, b_sees), "{cut}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn polite_with_cut_links(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let (mut a, mut b, node) = three(release, Visibility::VISIBLE).await;
    assert_eq!(a.vm.eval(&format!("erlang:disconnect_node({RUST})")), "true");
    let sees = (ONLY_B, "['a@127.0.0.1','rust@127.0.0.1']");
    undisturbed("A drops R", [(&mut a.vm, sees.0), (&mut b, sees.1)]);
    node.connect("a@127.0.0.1").await.unwrap();
    in_sync(&mut a.vm);
    assert!(node.disconnect("b@127.0.0.1"));
    let sees = ("['b@127.0.0.1','rust@127.0.0.1']", ONLY_A);
    undisturbed("R drops B", [(&mut a.vm, sees.0), (&mut b, sees.1)]);
    node.connect("b@127.0.0.1").await.unwrap();
    in_sync(&mut b);
    assert!(node.disconnect("a@127.0.0.1"));
    assert!(node.disconnect("b@127.0.0.1"));
    undisturbed("R drops both", [(&mut a.vm, ONLY_B), (&mut b, ONLY_A)]);
    node.connect("a@127.0.0.1").await.unwrap();
    node.connect("b@127.0.0.1").await.unwrap();
    nothing_blocks(&mut a.vm);
    assert!(!a.vm.output().contains("overlapping"), "{}", a.vm.output());
    assert!(!b.output().contains("overlapping"), "{}", b.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_links_of_a_polite_node_concern_nobody_else() {
    polite_with_cut_links(Release::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_links_of_a_polite_node_concern_nobody_else_of_otp_23() {
    polite_with_cut_links(Release::Otp23).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_links_of_a_polite_node_concern_nobody_else_of_otp_27() {
    polite_with_cut_links(Release::Otp27).await;
}
