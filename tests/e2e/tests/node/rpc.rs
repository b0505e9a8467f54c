//! Functions of a Rust node, called from stock ones; each beside what two stock nodes say to each other
//! in the same case.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_e2e::{Need, PlainVm, Release, skips, wait_until};
use meshx_node::etf::{Binary, Term, term};
use meshx_node::{Node, Raise, RpcTable, Signal};

use crate::{COOKIE, LIMIT, Stock};

/// Gives what a function gives, or the class and reason of what it raises.
const TRIES: &str = "T = fun(F) -> try {ok, F()} catch C:R -> {C, R} end end";
/// Where in a file something was raised is not compared, nor whether a stack has the arguments.
const PLACES: &str = "A = fun(L) when is_list(L) -> length(L); (N) -> N end, \
    P = fun({error, {exception, R, S}}) -> \
    {error, {exception, R, [{M, F, A(X)} || {M, F, X, _} <- S]}}; \
    ({badrpc, {'EXIT', {R, S}}}) when is_list(S) -> \
    {badrpc, {'EXIT', {R, [{M, F, A(X)} || {M, F, X, _} <- S]}}}; (V) -> V end";

/// Functions that a stock node has under the same names.
fn table() -> RpcTable {
    RpcTable::new()
        .function("lists", "reverse", |(mut list,): (Vec<Term>,)| async move {
            list.reverse();
            Ok(list)
        })
        .terms("erlang", "throw", 1, |mut call| async move {
            Err(Raise::Throw(call.arguments.remove(0)))
        })
        .terms(
            "erlang",
            "exit",
            1,
            |mut call| async move { Err(Raise::Exit(call.arguments.remove(0))) },
        )
        .function("maps", "get", |(key, map): (Term, Term)| async move {
            let map = map.as_map().ok_or_else(|| Raise::Error(term!({badmap, (map.clone())})))?;
            map.get(&key).cloned().ok_or_else(|| Raise::Error(term!({badkey, (key)})))
        })
        .terms("erlang", "self", 0, |call| async move { Ok(Term::Pid(call.process)) })
        .function("timer", "sleep", |(time,): (u64,)| async move {
            tokio::time::sleep(Duration::from_millis(time)).await;
            Ok(Term::atom("ok"))
        })
        .terms("erlang", "size", 1, |call| async move {
            let size = call.arguments[0].as_binary().map_or(0, <[u8]>::len);
            Ok(Term::from(size as u64))
        })
        .terms("binary", "copy", 2, |call| async move {
            let times = call.arguments[1].as_i64().unwrap_or(0);
            let bytes = call.arguments[0].as_binary().unwrap_or_default();
            let copies = bytes.repeat(usize::try_from(times).unwrap_or(0));
            Ok(Term::Binary(Binary::shared(copies.into())))
        })
        .terms("rust", "panics", 0, |_| async { panic!("on purpose") })
}

/// Two stock nodes, `a` and `b`, and a Rust one.
async fn three(release: Release) -> (Stock, PlainVm, Node) {
    let mut a = Stock::start(release, "a");
    let mut b = PlainVm::start(release, "b@127.0.0.1", COOKIE, a.epmd.port());
    let node = a.beside("rust").rpc(table()).start().await.unwrap();
    a.vm.eval(TRIES);
    a.vm.eval(PLACES);
    b.eval("ok");
    (a, b, node)
}

/// What a call gives at the stock node, and at the Rust one, if that differs. `NODE` stands for its name,
/// which in what is given is `node`.
fn difference(a: &mut Stock, call: &str) -> Option<String> {
    let [stock, rust] = ["b@127.0.0.1", "rust@127.0.0.1"].map(|node| {
        let call = call.replace("NODE", &format!("'{node}'"));
        let answer = a.vm.eval(&format!("P(T(fun() -> P({call}) end))"));
        a.vm.forget();
        a.vm.eval(TRIES);
        a.vm.eval(PLACES);
        answer.replace(&format!("'{node}'"), "node")
    });
    (stock != rust).then(|| format!("{call}\n  stock: {stock}\n  rust:  {rust}\n"))
}

fn all_classes(a: &mut Stock, release: Release) {
    let calls = [
        "erpc:call(NODE, lists, reverse, [[1, 2, {three}]])",
        "erpc:call(NODE, erlang, node, [])",
        "erpc:call(NODE, erlang, is_alive, [])",
        "erpc:call(NODE, erlang, throw, [{thrown, 1}])",
        "erpc:call(NODE, erlang, exit, [{over, 1}])",
        "erpc:call(NODE, erlang, exit, [normal])",
        "erpc:call(NODE, maps, get, [key, #{}])",
        "erpc:call(NODE, maps, get, [key, nomap])",
        "erpc:call(NODE, nomodule, nofunction, [1, {a}])",
        "erpc:call(NODE, lists, nofunction, [])",
        "erpc:call(NODE, lists, reverse, [])",
        "erpc:call(NODE, lists, reverse, [a | b])",
        "erpc:call(NODE, lists, reverse, lists:seq(1, 300))",
        "erpc:call(NODE, timer, sleep, [5000], 50)",
        "erpc:cast(NODE, nomodule, nofunction, [])",
        "erpc:receive_response(erpc:send_request(NODE, lists, reverse, [[1, 2]]))",
        "erpc:receive_response(erpc:send_request(NODE, erlang, throw, [up]))",
        "erpc:multicall([NODE, NODE], lists, reverse, [[1, 2]])",
        "erpc:multicall([NODE], erlang, exit, [down])",
        "rpc:call(NODE, lists, reverse, [[1, 2, 3]])",
        "rpc:call(NODE, erlang, throw, [{thrown, 1}])",
        "rpc:call(NODE, erlang, exit, [{over, 1}])",
        "rpc:call(NODE, maps, get, [key, #{}])",
        "rpc:call(NODE, nomodule, nofunction, [1])",
        "rpc:call(NODE, timer, sleep, [5000], 50)",
        "rpc:cast(NODE, nomodule, nofunction, [])",
        "rpc:yield(rpc:async_call(NODE, lists, reverse, [[1, 2]]))",
        "rpc:multicall([NODE], lists, reverse, [[1, 2]])",
        "rpc:multicall([NODE], erlang, exit, [down])",
        // Through rex.
        "rpc:block_call(NODE, lists, reverse, [[1, 2, 3]])",
        "rpc:block_call(NODE, erlang, throw, [{thrown, 1}])",
        "rpc:block_call(NODE, erlang, exit, [{over, 1}])",
        "rpc:block_call(NODE, maps, get, [key, #{}])",
        "rpc:block_call(NODE, nomodule, nofunction, [1])",
        "rpc:block_call(NODE, timer, sleep, [5000], 50)",
        "gen_server:call({rex, NODE}, {call, lists, reverse, [[1, 2]], group_leader()})",
        "gen_server:call({rex, NODE}, {call, erlang, exit, [why], user})",
        "gen_server:call({rex, NODE}, {call, nomodule, nofunction, [], user})",
        "gen_server:call({rex, NODE}, {call, 1, 2, 3, user})",
        "begin {rex, NODE} ! {self(), {call, lists, reverse, [[1, 2]], user}}, \
         receive {rex, R1} -> R1 after 5000 -> none end end",
        "begin {rex, NODE} ! {self(), {call, lists, reverse, [[1, 2]], send_stdout_to_caller}}, \
         receive {rex, R2} -> R2 after 5000 -> none end end",
        "begin {rex, NODE} ! {self(), features_request}, \
         receive {features_reply, N, Features} -> {N, Features} after 5000 -> none end end",
        "rpc:sbcast([NODE], nobody, message)",
        "rpc:sbcast([NODE], rex, message)",
        "rpc:multi_server_call([NODE], nobody, message)",
        "gen_server:call({rex, NODE}, unknown, 200)",
        "gen_server:call({net_kernel, NODE}, {is_auth, node()})",
        "gen_server:call({net_kernel, NODE}, nodename)",
        "gen_server:call({net_kernel, NODE}, longnames)",
        "gen_server:call({net_kernel, NODE}, ticktime)",
        "gen_server:call({net_kernel, NODE}, allowed)",
        "gen_server:call({net_kernel, NODE}, unknown, 200)",
        "net_adm:ping(NODE)",
    ];
    // OTP 23 has no such group leader yet, and says how often it ticks.
    let is_newer =
        |call: &&str| call.contains("send_stdout_to_caller") || call.ends_with("ticktime)");
    let calls = calls.iter().filter(|call| release != Release::Otp23 || !is_newer(call));
    let differences: Vec<String> = calls.filter_map(|call| difference(a, call)).collect();
    assert!(differences.is_empty(), "{}", differences.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_as_by_a_stock_node() {
    let (mut a, _b, node) = three(Release::Machine).await;
    all_classes(&mut a, Release::Machine);
    // As it is, arguments and all.
    assert_eq!(
        a.vm.eval("T(fun() -> erpc:call('rust@127.0.0.1', os, cmd, [\"id\"]) end)"),
        "{error,{exception,undef,[{os,cmd,[\"id\"],[]}]}}"
    );
    assert_eq!(a.vm.eval("erpc:call('rust@127.0.0.1', erlang, nodes, [])"), "[]");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_as_by_a_stock_node_of_other_releases() {
    for release in [Release::Otp23, Release::Otp27, Release::Otp29] {
        if skips(release.needs()) {
            continue;
        }
        let (mut a, _b, node) = three(release).await;
        all_classes(&mut a, release);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_to_elixir() {
    if skips(&[Need::Elixir]) {
        return;
    }
    let stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").rpc(table()).start().await.unwrap();
    let script = "
        rust = :\"rust@127.0.0.1\"
        IO.inspect(Node.ping(rust))
        IO.inspect(:erpc.call(rust, :lists, :reverse, [[1, 2, :three]]))
        IO.inspect(:rpc.call(rust, :lists, :reverse, [[1, 2, :three]]))
        IO.inspect(try do :erpc.call(rust, :erlang, :throw, [:up]) catch kind, it -> {kind, it} end)
        IO.inspect(try do :erpc.call(rust, Map, :new, []) rescue error -> error.__struct__ end)
        IO.inspect(Node.list(:hidden))";
    let elixir = Command::new("elixir")
        .args(["--name", "e@127.0.0.1", "--cookie", COOKIE, "--erl", "-start_epmd false", "-e"])
        .arg(script)
        .env("ERL_EPMD_PORT", stock.epmd.port().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&elixir.stdout);
    let expected = ":pong\n[:three, 2, 1]\n[:three, 2, 1]\n{:throw, :up}\nErlangError\n\
                    [:\"rust@127.0.0.1\"]\n";
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&elixir.stderr));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c_nodes_are_answered() {
    let stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").rpc(table()).start().await.unwrap();
    let call = |apply: &str| {
        let done = Command::new("erl_call")
            .args(["-c", COOKIE, "-name", "rust@127.0.0.1", "-timeout", "5", "-a", apply])
            .env("ERL_EPMD_PORT", stock.epmd.port().to_string())
            .output()
            .unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    };
    assert_eq!(call("lists reverse [[a,b,c]]"), "[c, b, a]");
    assert_eq!(call("erlang node"), "'rust@127.0.0.1'");
    assert_eq!(call("erlang exit [down]"), "{badrpc, {'EXIT', down}}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_arguments_and_values_arrive_whole() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").rpc(table()).start().await.unwrap();
    stock.vm.eval("Large = rand:bytes(50_000_000), ok");
    let size = "erpc:call('rust@127.0.0.1', erlang, size, [Large])";
    assert_eq!(stock.vm.eval(size), "50000000");
    // More than may wait for a peer that does not read.
    let copy = "erpc:call('rust@127.0.0.1', binary, copy, [Large, 2]) =:= binary:copy(Large, 2)";
    assert_eq!(stock.vm.eval(copy), "true");
    let copy =
        "rpc:block_call('rust@127.0.0.1', binary, copy, [Large, 2]) =:= binary:copy(Large, 2)";
    assert_eq!(stock.vm.eval(copy), "true");
    // Many at once.
    stock.vm.eval("M = binary:copy(<<7>>, 2_000_000), ok");
    let many = "begin Rs = [erpc:send_request('rust@127.0.0.1', binary, copy, [M, 1]) || \
                _ <- lists:seq(1, 100)], [ok || R <- Rs, erpc:receive_response(R) =:= M] end =:= \
                lists:duplicate(100, ok)";
    assert_eq!(stock.vm.eval(many), "true");
    node.stop().await;
}

/// Counts how many run.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// With `rust:forever/0`, and how many of it run.
fn endless() -> (RpcTable, Arc<AtomicUsize>) {
    let running = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&running);
    let table = table().terms("rust", "forever", 0, move |_| {
        let running = Running::new(&counted);
        async move {
            std::future::pending::<()>().await;
            drop(running);
            Ok(Term::nil())
        }
    });
    (table, running)
}

fn until(running: &AtomicUsize, count: usize) {
    wait_until(&format!("{count} run"), LIMIT, || {
        (running.load(Ordering::SeqCst) == count).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_is_gone_ends() {
    let mut stock = Stock::start(Release::Machine, "a");
    let (table, running) = endless();
    let node = stock.beside("rust").rpc(table).start().await.unwrap();
    let idle = node.process_count();

    // The caller dies.
    stock.vm.eval("F = fun() -> erpc:call('rust@127.0.0.1', rust, forever, []) end");
    stock.vm.eval("C = spawn(F)");
    until(&running, 1);
    assert_eq!(node.process_count(), idle + 1);
    stock.vm.eval("exit(C, kill)");
    until(&running, 0);
    // It gives up.
    stock.vm.eval("catch erpc:call('rust@127.0.0.1', rust, forever, [], 100)");
    until(&running, 0);
    // The process of the call is ended by somebody.
    let request = "Q = erpc:send_request('rust@127.0.0.1', rust, forever, [])";
    stock.vm.eval(request);
    until(&running, 1);
    // A cast has nobody to lose; a call through rex loses its connection only.
    stock.vm.eval("erpc:cast('rust@127.0.0.1', rust, forever, [])");
    stock.vm.eval("{rex, 'rust@127.0.0.1'} ! {self(), {call, rust, forever, [], user}}");
    until(&running, 3);
    let mut mailbox = node.mailbox().unwrap();
    drop(stock);
    until(&running, 1);
    assert!(mailbox.try_receive().is_none());
    // The cast and the mailbox.
    wait_until("the processes are gone", LIMIT, || {
        (node.process_count() <= idle + 2).then_some(())
    });
    node.stop().await;
    until(&running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_calls_at_a_time() {
    let mut stock = Stock::start(Release::Machine, "a");
    let (table, running) = endless();
    let node = stock.beside("rust").rpc(table).start().await.unwrap();
    stock.vm.eval("Rust = 'rust@127.0.0.1'");
    stock
        .vm
        .eval("Rs = [erpc:send_request(Rust, rust, forever, []) || _ <- lists:seq(1, 4096)], ok");
    until(&running, 4096);
    stock.vm.eval(TRIES);
    let call = "T(fun() -> erpc:call(Rust, lists, reverse, [[1]]) end)";
    assert_eq!(stock.vm.eval(call), "{error,{erpc,system_limit}}");
    let call = "rpc:block_call(Rust, lists, reverse, [[1]])";
    assert_eq!(stock.vm.eval(call), "{badrpc,{'EXIT',system_limit}}");
    // Others have theirs.
    let mut b = PlainVm::start(Release::Machine, "b@127.0.0.1", COOKIE, stock.epmd.port());
    assert_eq!(b.eval("erpc:call('rust@127.0.0.1', lists, reverse, [[1]])"), "[1]");
    // Ping, too.
    assert_eq!(stock.vm.eval("net_adm:ping(Rust)"), "pong");
    drop(stock);
    until(&running, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_error_of_its_caller() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").rpc(table()).start().await.unwrap();
    stock.vm.eval(TRIES);
    assert_eq!(
        stock.vm.eval("T(fun() -> erpc:call('rust@127.0.0.1', rust, panics, []) end)"),
        "{error,{exception,panic,[{rust,panics,0,[]}]}}"
    );
    assert_eq!(
        stock.vm.eval("rpc:block_call('rust@127.0.0.1', rust, panics, [])"),
        "{badrpc,{'EXIT',{panic,[{rust,panics,0,[]}]}}}"
    );
    assert_eq!(stock.vm.eval("erpc:call('rust@127.0.0.1', lists, reverse, [[1]])"), "[1]");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_the_time_limit_of_the_table() {
    let mut stock = Stock::start(Release::Machine, "a");
    let (table, running) = endless();
    let table = table.limit(Duration::from_millis(100));
    let node = stock.beside("rust").rpc(table).start().await.unwrap();
    stock.vm.eval(TRIES);
    assert_eq!(
        stock.vm.eval("T(fun() -> erpc:call('rust@127.0.0.1', rust, forever, []) end)"),
        "{error,{erpc,timeout}}"
    );
    assert_eq!(stock.vm.eval("rpc:call('rust@127.0.0.1', rust, forever, [])"), "{badrpc,timeout}");
    until(&running, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_node_has_comes_back_when_it_is_ended() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let mailbox = node.mailbox().unwrap();
    for name in ["net_kernel", "rex", "user"] {
        let first = node.whereis(name).unwrap();
        // Only a kill ends it.
        mailbox.exit(&first, &term!(shutdown)).await.unwrap();
        assert_eq!(node.whereis(name), Some(first.clone()));
        mailbox.exit(&first, &term!(kill)).await.unwrap();
        wait_until("another has the name", LIMIT, || node.whereis(name).filter(|it| *it != first));
    }
    assert_eq!(stock.vm.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
    let call = "rpc:block_call('rust@127.0.0.1', erlang, node, [])";
    assert_eq!(stock.vm.eval(call), "'rust@127.0.0.1'");
    node.stop().await;
    assert_eq!(node.process_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn block_calls_are_done_one_after_the_other() {
    let mut stock = Stock::start(Release::Machine, "a");
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let table = RpcTable::new().function("rust", "note", move |(number, time): (u64, u64)| {
        let noted = Arc::clone(&noted);
        async move {
            noted.lock().unwrap().push(number);
            tokio::time::sleep(Duration::from_millis(time)).await;
            noted.lock().unwrap().push(number);
            Ok(())
        }
    });
    let node = stock.beside("rust").rpc(table).start().await.unwrap();
    stock.vm.eval("Rex = {rex, 'rust@127.0.0.1'}");
    stock.vm.eval(
        "C = fun(N, T) -> gen_server:send_request(Rex, {block_call, rust, note, [N, T], user}) end",
    );
    stock.vm.eval(
        "Rs = [C(1, 200), C(2, 50), C(3, 0)], [gen_server:receive_response(R, 5000) || R <- Rs]",
    );
    assert_eq!(*order.lock().unwrap(), [1, 1, 2, 2, 3, 3]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_cannot_be_started() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").rpc(table()).start().await.unwrap();
    stock.vm.eval("R = 'rust@127.0.0.1'");
    stock.vm.eval(TRIES.replace("C:R", "C:Why").replace("{C, R}", "{C, Why}").as_str());
    let spawn = "T(fun() -> spawn_monitor(R, lists, reverse, [[1]]) end)";
    assert_eq!(stock.vm.eval(spawn), "{error,notsup}");
    let spawn = "catch gen_server:call({net_kernel, R}, {spawn, lists, reverse, [[1]], user})";
    assert_eq!(stock.vm.eval(spawn), "{'EXIT',{notsup,[]}}");
    // What a message says is done by nobody, and nothing is written where the caller could see it.
    let mut mailbox = node.mailbox().unwrap();
    mailbox.register("here").unwrap();
    stock.vm.eval("rpc:abcast([R], here, hello)");
    let Some(Signal::Message(message)) = mailbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!(message.body.term().unwrap(), term!(hello));
    stock.vm.eval("rpc:sbcast([R], here, again)");
    let Some(Signal::Message(message)) = mailbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!(message.body.term().unwrap(), term!(again));
    node.stop().await;
}
