//! Functions of stock nodes, called from a Rust one.

use std::time::Duration;

use meshx_e2e::{PlainVm, Release, skips};
use meshx_node::etf::{Binary, Term, term};
use meshx_node::{ConnectError, Flags, Node, Raise, RpcError, RpcTable};

use crate::{COOKIE, LIMIT, Stock};

async fn call(node: &Node, stock: &str, function: (&str, &str), arguments: Term) -> String {
    let Term::List(arguments) = arguments else { panic!() };
    let limit = Duration::from_secs(5);
    match node.rpc_term(stock, function.0, function.1, arguments, limit).await {
        Ok(value) => format!("ok {value}"),
        Err(RpcError::Throw(value)) => format!("throw {value}"),
        Err(RpcError::Exit(reason)) => format!("exit {reason}"),
        Err(RpcError::Signal(reason)) => format!("signal {reason}"),
        Err(RpcError::Error { reason, .. }) => format!("error {reason}"),
        Err(other) => format!("{other:?}"),
    }
}

async fn all_classes(node: &Node, stock: &str) {
    let cases = [
        (("lists", "reverse"), term!([[1, 2, 3]]), "ok [3,2,1]"),
        (("erlang", "throw"), term!([{up, 1}]), "throw {up,1}"),
        (("erlang", "exit"), term!([{over, 1}]), "exit {over,1}"),
        (("erlang", "exit"), term!([normal]), "exit normal"),
        (("erlang", "error"), term!([bad]), "error bad"),
        (("erlang", "div"), term!([1, 0]), "error badarith"),
        (("nomodule", "nofunction"), term!([1]), "error undef"),
        (("erlang", "apply"), term!([lists, sum, [[1, 2]]]), "ok 3"),
        // As far as its text: whoever prints is not held up.
        (("io", "format"), term!([charlist "hello ~p~n", [1]]), "ok ok"),
        (("io", "put_chars"), term!(["hello"]), "ok ok"),
        (("io", "get_line"), term!([charlist ">"]), "ok eof"),
    ];
    for (function, arguments, expected) in cases {
        let answer = call(node, stock, function, arguments).await;
        assert_eq!(answer, expected, "{function:?} at {stock}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_stock_nodes_end_in_every_way() {
    for release in Release::ALL {
        if skips(release.needs()) {
            continue;
        }
        let stock = Stock::start(release, "a");
        let node = stock.beside("rust").start().await.unwrap();
        all_classes(&node, &stock.name).await;
        let undef = node.rpc::<Term>(&stock.name, "nomodule", "f", (1,), LIMIT).await.unwrap_err();
        assert_eq!(undef.to_string(), "the function raised undef in nomodule:f/1");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_spawn_is_asked_through_rex() {
    let stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").without(Flags::SPAWN).start().await.unwrap();
    let answer = call(&node, &stock.name, ("lists", "reverse"), term!([[1, 2, 3]])).await;
    assert_eq!(answer, "ok [3,2,1]");
    let answer = call(&node, &stock.name, ("erlang", "exit"), term!([why])).await;
    assert_eq!(answer, "exit why");
    let answer = call(&node, &stock.name, ("nomodule", "f"), term!([])).await;
    assert_eq!(answer, "error undef");
    node.rpc_cast(&stock.name, "erlang", "apply", (Term::atom("nomodule"), Term::atom("f"), ()))
        .await
        .unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_arguments_and_values() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let name = stock.name.as_str();
    let sum: u64 = node.rpc(name, "lists", "sum", (vec![1, 2, 3],), LIMIT).await.unwrap();
    assert_eq!(sum, 6);
    let text: String =
        node.rpc(name, "erlang", "atom_to_binary", (Term::atom("x"),), LIMIT).await.unwrap();
    assert_eq!(text, "x");
    let wrong = node.rpc::<u64>(name, "erlang", "node", (), LIMIT).await.unwrap_err();
    assert!(matches!(wrong, RpcError::Answer(_)), "{wrong:?}");
    // Casts.
    stock.vm.eval("register(me, self())");
    let send = (term!(me), term!({hello, (node.name().clone())}));
    node.rpc_cast(name, "erlang", "send", send).await.unwrap();
    let got = "receive {hello, Who} -> Who after 5000 -> none end";
    assert_eq!(stock.vm.eval(got), "'rust@127.0.0.1'");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_arguments_and_values_arrive_whole() {
    let stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let large: Vec<u8> = (0..50_000_000_u32).map(|n| n.wrapping_mul(7).to_le_bytes()[1]).collect();
    let argument = Term::Binary(Binary::shared(large.clone().into()));
    let copy = vec![argument, Term::from(2_i64)];
    let value = node.rpc_term(&stock.name, "binary", "copy", copy, LIMIT).await.unwrap();
    assert!(value.as_binary() == Some(&large.repeat(2)));
    let calls = (0..64_u64).map(|n| {
        let (node, name) = (node.clone(), stock.name.clone());
        tokio::spawn(async move {
            let list: Vec<u64> = (0..n * 100).collect();
            let sum: u64 = node.rpc(&name, "lists", "sum", (&list,), LIMIT).await.unwrap();
            assert_eq!(sum, list.iter().sum::<u64>());
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_no_more_leaves_nothing_behind() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let short = Duration::from_millis(100);
    let name = stock.name.clone();
    let late = node.rpc::<Term>(&name, "timer", "sleep", (500,), short).await.unwrap_err();
    assert!(matches!(late, RpcError::Timeout(limit) if limit == short), "{late:?}");
    // The stock node was told: nobody here watches the process there.
    let watched = "[P || P <- processes(), {monitored_by, [W]} <- [process_info(P, monitored_by)], \
                   is_pid(W), node(W) =:= 'rust@127.0.0.1']";
    stock.vm.await_eval(watched, "[]", Duration::from_millis(300));
    // The request may not even have been answered yet.
    for limit in 0..20 {
        let limit = Duration::from_micros(limit * 50);
        drop(node.rpc::<Term>(&name, "timer", "sleep", (60_000,), limit).await);
    }
    stock.vm.await_eval(watched, "[]", LIMIT);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_nodes_and_ended_processes_are_told_apart() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let name = stock.name.clone();
    let unknown = node.rpc::<Term>("nobody@127.0.0.1", "erlang", "node", (), LIMIT).await;
    assert!(matches!(unknown, Err(RpcError::Connect(ConnectError::Reach { .. }))), "{unknown:?}");

    // Somebody ends the process.
    let sleeper = {
        let (node, name) = (node.clone(), name.clone());
        tokio::spawn(
            async move { node.rpc::<Term>(&name, "timer", "sleep", (60_000,), LIMIT).await },
        )
    };
    let kill = "[exit(P, boom) || P <- processes(), \
                {current_function, {timer, sleep, 1}} <- [process_info(P, current_function)]]";
    stock.vm.await_eval(kill, "[true]", LIMIT);
    let ended = sleeper.await.unwrap().unwrap_err();
    assert!(matches!(&ended, RpcError::Signal(reason) if *reason == term!(boom)), "{ended:?}");

    // The node goes.
    let sleeper = {
        let (node, name) = (node.clone(), name.clone());
        tokio::spawn(
            async move { node.rpc::<Term>(&name, "timer", "sleep", (60_000,), LIMIT).await },
        )
    };
    let sleeps = "[P || P <- processes(), \
                  {current_function, {timer, sleep, 1}} <- [process_info(P, current_function)]] =/= []";
    stock.vm.await_eval(sleeps, "true", LIMIT);
    drop(stock);
    let lost = sleeper.await.unwrap().unwrap_err();
    assert!(matches!(lost, RpcError::NoConnection), "{lost:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_nodes_call_each_other_and_themselves() {
    let stock = Stock::start(Release::Machine, "a");
    let table = RpcTable::new()
        .function("math", "add", |(a, b): (i64, i64)| async move {
            a.checked_add(b).ok_or(Raise::error("badarith"))
        })
        .terms("rust", "panics", 0, |_| async { panic!("on purpose") });
    let server = stock.beside("server").rpc(table).start().await.unwrap();
    let client = stock.beside("client").start().await.unwrap();
    let name = "server@127.0.0.1";
    for node in [&server, &client] {
        let sum: i64 = node.rpc(name, "math", "add", (1, 2), LIMIT).await.unwrap();
        assert_eq!(sum, 3);
        let error = node.rpc::<i64>(name, "math", "add", (1, i64::MAX), LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "the function raised badarith in math:add/2");
        let error = node.rpc::<i64>(name, "math", "add", ("one", 2), LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "the function raised function_clause in math:add/2");
        let error = node.rpc::<i64>(name, "math", "add", (1,), LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "the function raised undef in math:add/1");
        let error = node.rpc::<i64>(name, "rust", "panics", (), LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "the function raised panic in rust:panics/0");
    }
    // And what a node offers is not what another does.
    let error = server.rpc::<i64>("client@127.0.0.1", "math", "add", (1, 2), LIMIT).await;
    assert_eq!(error.unwrap_err().to_string(), "the function raised undef in math:add/2");
    let mut vm = PlainVm::start(Release::Machine, "b@127.0.0.1", COOKIE, stock.epmd.port());
    assert_eq!(vm.eval("erpc:call('server@127.0.0.1', math, add, [1, 2])"), "3");
    server.stop().await;
    client.stop().await;
}
