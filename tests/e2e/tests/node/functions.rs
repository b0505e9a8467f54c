//! Functions of an RPC server, called from stock nodes that have nothing installed.

use std::future::pending;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_e2e::{Need, PlainVm, Release, skips, wait_until};
use meshx_etf::Term;
use meshx_node::{Node, RpcTable};
use meshx_rpc::event::Event;
use meshx_rpc::{Body, Codec, Context, Error, Functions, Incoming, Outgoing};
use meshx_rpc_node::Offer;
use serde::{Deserialize, Serialize};

use crate::examples::Example;
use crate::{COOKIE, LIMIT, Stock};

/// Gives what a function gives, or the class and reason of what it raises.
const TRIES: &str = "T = fun(F) -> try {ok, F()} catch C:R -> {C, R} end end";
/// Where it was raised is not compared.
const ERPC: &str = "E = fun(F, A) -> try erpc:call('rust@127.0.0.1', shop, F, A) \
    catch error:{exception, R, [{shop, F, _, []}]} -> {raised, R} end end";
const SERVER: &str = "S = fun(F, A) -> gen_server:call({shop, 'rust@127.0.0.1'}, {F, A}) end";

#[derive(Deserialize)]
struct Order {
    id: u64,
    lines: Vec<String>,
}

/// So many are wanted, and so many there.
#[derive(Serialize)]
struct Short(u64, u64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.1, self.0)
    }
}

/// A trait, whose functions take tuples of one, too.
#[meshx_rpc::service]
trait Stocked {
    async fn count(&self, name: String) -> Result<usize, String>;
}

struct Shelf;

impl Stocked for Shelf {
    async fn count(&self, name: String) -> Result<usize, String> {
        Ok(name.len())
    }
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

async fn sums(_: Incoming<i64>, _: Outgoing<i64>) -> Result<(), Error> {
    Ok(())
}

/// What is called in these tests, and how many of `forever` run.
fn functions() -> (Functions, Arc<AtomicUsize>) {
    let running = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&running);
    let functions = Functions::new()
        .add("add", async |(a, b): (i64, i64)| a.checked_add(b).ok_or("too large"))
        .add("ping", async |()| Ok::<_, String>("pong"))
        .add("reverse", async |mut list: Vec<Term>| {
            list.reverse();
            Ok::<_, String>(list)
        })
        .add("echo", async |term: Term| Ok::<_, String>(term))
        .add("lines", async |order: Order| Ok::<_, String>((order.id + 1, order.lines)))
        .add("take", async |wanted: u64| Err::<(), _>(Short(wanted, 3)))
        .add("panics", async |()| -> Result<(), String> { panic!("on purpose") })
        .add("who", async |()| {
            let context = Context::current().ok_or("nobody")?;
            let peer = context.peer();
            Ok::<_, &str>((peer.remote.node_ref.clone(), peer.identity.clone()))
        })
        .add("forever", move |()| {
            let running = Running::new(&counted);
            async move {
                pending::<()>().await;
                drop(running);
                Ok::<_, String>(())
            }
        })
        .add_raw("bytes", async |body: Body| Ok(Body::raw(vec![0; body.bytes.len()])))
        .add_raw("json", async |_| Ok(Body { codec: Codec::Json, bytes: "[1]".into() }))
        .add_exchange("sums", sums);
    (functions.and(StockedFunctions::of(Arc::new(Shelf))), running)
}

/// A stock node with what the tests say, and a Rust one that offers.
async fn pair(release: Release, offer: &Offer) -> (Stock, Node) {
    let mut stock = Stock::start(release, "a");
    let table = offer.table("shop", RpcTable::new());
    let node = stock.beside("rust").rpc(table).start().await.unwrap();
    node.serve("shop", offer.server("shop")).await.unwrap();
    for said in [TRIES, ERPC, SERVER] {
        stock.vm.eval(said);
    }
    (stock, node)
}

fn until(running: &AtomicUsize, count: usize) {
    wait_until(&format!("{count} run"), LIMIT, || {
        (running.load(Ordering::SeqCst) == count).then_some(())
    });
}

/// What is called, and what it gives.
const GIVES: &[(&str, &str)] = &[
    ("add, [40, 2]", "42"),
    ("add, [{40, 2}]", "42"),
    ("ping, []", "<<\"pong\">>"),
    ("reverse, [[1, {two}, #{}]]", "[#{},{two},1]"),
    ("echo, [{any, [1.5 | <<1:3>>]}]", "{any,[1.5|<<1:3>>]}"),
    ("lines, [#{id => 1, lines => [<<\"tea\">>]}]", "{2,[<<\"tea\">>]}"),
    ("count, [<<\"tea\">>]", "3"),
    ("bytes, [x]", "<<0,0,0,0>>"),
    ("json, [x]", "<<\"[1]\">>"),
    ("who, []", "{<<\"a@127.0.0.1\">>,nil}"),
];

/// What is called, and why it fails.
const FAILS: &[(&str, &str)] = &[
    ("add, [9223372036854775807, 1]", "{application,<<\"too large\">>}"),
    ("take, [7]", "{application,{7,3}}"),
    ("panics, []", "{panic,<<\"the function panicked\">>}"),
    ("nothing, [1]", "undef"),
    ("sums, []", "undef"),
    ("meshx, []", "undef"),
];

fn all(stock: &mut Stock) {
    for (call, gives) in GIVES {
        assert_eq!(stock.vm.eval(&format!("E({call})")), *gives, "{call}");
        assert_eq!(stock.vm.eval(&format!("S({call})")), format!("{{ok,{gives}}}"), "{call}");
    }
    for (call, why) in FAILS {
        assert_eq!(stock.vm.eval(&format!("E({call})")), format!("{{raised,{why}}}"), "{call}");
        assert_eq!(stock.vm.eval(&format!("S({call})")), format!("{{error,{why}}}"), "{call}");
    }
    // What does not fit says why, of the argument as it was given.
    for call in ["add, [1]", "add, [1, 2, 3]", "add, [[1, 2]]", "ping, [1]", "count, [7]"] {
        let said = stock.vm.eval(&format!("E({call})"));
        assert!(said.starts_with("{raised,{value,<<\"the argument cannot be read: "), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called_as_those_of_a_stock_node() {
    let (functions, _) = functions();
    let (mut stock, node) = pair(Release::Machine, &Offer::new(functions)).await;
    all(&mut stock);
    // As a stock node says it.
    assert_eq!(
        stock.vm.eval("T(fun() -> erpc:call('rust@127.0.0.1', shop, nothing, [1]) end)"),
        "{error,{exception,undef,[{shop,nothing,[1],[]}]}}"
    );
    for (call, gives) in [
        ("rpc:call('rust@127.0.0.1', shop, add, [40, 2])", "42"),
        ("rpc:block_call('rust@127.0.0.1', shop, add, [40, 2])", "42"),
        ("erpc:multicall(['rust@127.0.0.1'], shop, add, [40, 2])", "[{ok,42}]"),
        ("erpc:call('rust@127.0.0.1', erlang, node, [])", "'rust@127.0.0.1'"),
        (
            "gen_server:multi_call(['rust@127.0.0.1'], shop, {add, [40, 2]})",
            "{[{'rust@127.0.0.1',{ok,42}}],[]}",
        ),
    ] {
        assert_eq!(stock.vm.eval(call), gives, "{call}");
    }
    // The server takes one shape, and lives on.
    for odd in ["add", "{add, 40, 2}", "{<<1>>, []}", "{add, [1 | 2]}", "[]"] {
        let call = format!("T(fun() -> gen_server:call({{shop, 'rust@127.0.0.1'}}, {odd}) end)");
        let said = stock.vm.eval(&call);
        assert!(said.starts_with("{exit,{{bad_request,"), "{odd}: {said}");
    }
    assert_eq!(stock.vm.eval("S(add, [40, 2])"), "{ok,42}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called_by_nodes_of_other_releases() {
    for release in [Release::Otp23, Release::Otp27, Release::Otp29] {
        if skips(release.needs()) {
            continue;
        }
        let (functions, _) = functions();
        let (mut stock, node) = pair(release, &Offer::new(functions)).await;
        all(&mut stock);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_ends_when_nobody_waits_or_its_time_is_over() {
    let (functions, running) = functions();
    let (mut stock, node) = pair(Release::Machine, &Offer::new(functions.clone())).await;
    for call in ["E(forever, [])", "S(forever, [])"] {
        stock.vm.eval(&format!("C = spawn(fun() -> {call} end)"));
        until(&running, 1);
        stock.vm.eval("exit(C, kill)");
        until(&running, 0);
        stock.vm.forget();
        for said in [TRIES, ERPC, SERVER] {
            stock.vm.eval(said);
        }
    }
    // Who gives up lives on: a server cannot know, as in Erlang.
    stock.vm.eval("catch erpc:call('rust@127.0.0.1', shop, forever, [], 100)");
    until(&running, 0);
    stock.vm.eval("catch gen_server:call({shop, 'rust@127.0.0.1'}, {forever, []}, 100)");
    assert_eq!(running.load(Ordering::SeqCst), 1);
    // Casts are nobody's; who stops the server ends its calls.
    stock.vm.eval("gen_server:cast({shop, 'rust@127.0.0.1'}, {forever, []})");
    stock.vm.eval("gen_server:cast({shop, 'rust@127.0.0.1'}, {nothing, []})");
    stock.vm.eval("gen_server:cast({shop, 'rust@127.0.0.1'}, nothing)");
    stock.vm.eval("C = spawn(fun() -> S(forever, []) end)");
    until(&running, 3);
    assert_eq!(stock.vm.eval("gen_server:stop({shop, 'rust@127.0.0.1'})"), "ok");
    until(&running, 1);
    node.stop().await;
    until(&running, 0);
    assert_eq!(node.process_count(), 0);

    let offer = Offer::new(functions).limit(Duration::from_millis(100));
    let (mut stock, node) = pair(Release::Machine, &offer).await;
    let late = "{deadline,<<\"the function took longer than it may\">>}";
    assert_eq!(stock.vm.eval("E(forever, [])"), format!("{{raised,{late}}}"));
    assert_eq!(stock.vm.eval("S(forever, [])"), format!("{{error,{late}}}"));
    stock.vm.eval("gen_server:cast({shop, 'rust@127.0.0.1'}, {forever, []})");
    until(&running, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_so_many_calls_of_a_server_at_a_time() {
    let (functions, running) = functions();
    let (mut stock, node) = pair(Release::Machine, &Offer::new(functions)).await;
    stock.vm.eval(
        "P = spawn(fun() -> [gen_server:send_request({shop, 'rust@127.0.0.1'}, {forever, []}) || \
         _ <- lists:seq(1, 4096)], receive stop -> ok end end)",
    );
    until(&running, 4096);
    assert_eq!(
        stock.vm.eval("S(add, [40, 2])"),
        "{error,{overloaded,<<\"the node has too many calls in flight\">>}}"
    );
    // Those of the other way are counted by themselves.
    assert_eq!(stock.vm.eval("E(add, [40, 2])"), "42");
    stock.vm.eval("P ! stop");
    until(&running, 0);
    assert_eq!(stock.vm.eval("S(add, [40, 2])"), "{ok,42}");
    node.stop().await;
}

/// Who is to be answered is what the message says.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_the_name_of_a_node_that_is_not_connected_dials_nobody() {
    let (functions, _) = functions();
    let (mut stock, node) = pair(Release::Machine, &Offer::new(functions)).await;
    let idle = node.process_count();
    let mut other = PlainVm::start(Release::Machine, "b@127.0.0.1", COOKIE, stock.epmd.port());
    assert_eq!(other.eval("node()"), "'b@127.0.0.1'");
    stock.vm.eval("P = erpc:call('b@127.0.0.1', erlang, whereis, [init])");
    stock.vm.eval("{shop, 'rust@127.0.0.1'} ! {'$gen_call', {P, make_ref()}, {forever, []}}");
    // It comes to the server behind the other.
    assert_eq!(stock.vm.eval("S(add, [40, 2])"), "{ok,42}");
    wait_until("no process watches", LIMIT, || (node.process_count() == idle).then_some(()));
    assert_eq!(node.peers().len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_lets_nodes_call_what_everyone_may() {
    use meshx_core::Action;
    use meshx_rpc::{Policy, Rule};
    let (functions, _) = functions();
    let rules = vec![Rule::allow(["add"], ["*"]), Rule::allow(["ping"], ["a", "spiffe://*"])];
    let policy = Policy::new(rules, Action::Deny).unwrap();
    let (mut stock, node) = pair(Release::Machine, &Offer::new(functions).policy(&policy)).await;
    assert_eq!(stock.vm.eval("E(add, [40, 2])"), "42");
    // As if it were not there.
    for call in ["ping", "nothing"] {
        assert_eq!(stock.vm.eval(&format!("S({call}, [])")), "{error,undef}");
        assert_eq!(stock.vm.eval(&format!("E({call}, [])")), "{raised,undef}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_of_calls_by_nodes() {
    let (functions, _) = functions();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let offer = Offer::new(functions).observe(move |event: &Event<'_>| {
        noted.lock().unwrap().push(match event {
            Event::Called(it) => {
                let peer = it.peer.unwrap();
                let failed = it.result.err().map(|error| error.kind().token());
                let (remote, local) = (&peer.remote.node_ref, &peer.local.svc_ref);
                format!("{} {} {remote} {local} {failed:?}", it.way.name(), it.function)
            }
            Event::CastLost { function, error } => {
                format!("lost {function} {}", error.kind().token())
            }
            other => format!("{other:?}"),
        });
    });
    let (mut stock, node) = pair(Release::Machine, &offer).await;
    stock.vm.eval("E(add, [40, 2])");
    stock.vm.eval("S(take, [7])");
    stock.vm.eval("gen_server:cast({shop, 'rust@127.0.0.1'}, {take, [7]})");
    stock.vm.eval("gen_server:cast({shop, 'rust@127.0.0.1'}, {nothing, [7]})");
    let seen = wait_until("all are told", LIMIT, || {
        let seen = seen.lock().unwrap();
        (seen.len() == 5).then(|| seen.clone())
    });
    assert_eq!(
        seen[..2],
        ["call add a@127.0.0.1 shop None", "call take a@127.0.0.1 shop Some(\"application\")"]
    );
    for told in [
        "cast take rust@127.0.0.1 shop Some(\"application\")",
        "lost take application",
        "lost nothing unknown_function",
    ] {
        assert!(seen.iter().any(|it| it == told), "{told}: {seen:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_arguments_and_results_arrive_whole() {
    let (functions, _) = functions();
    let (mut stock, node) = pair(Release::Machine, &Offer::new(functions)).await;
    stock.vm.eval("L = rand:bytes(50_000_000), ok");
    assert_eq!(stock.vm.eval("E(echo, [L]) =:= L"), "true");
    assert_eq!(stock.vm.eval("S(echo, [L]) =:= {ok, L}"), "true");
    node.stop().await;
}

/// The example, as its first lines say.
#[test]
fn example() {
    if skips(&[Need::Elixir]) {
        return;
    }
    let stock = Stock::start(Release::Machine, "a");
    let functions = Example::start(&stock, "functions", &["127.0.0.1:0"]);
    assert!(functions.line().ends_with(" serves them, too"));
    assert_eq!(functions.line(), "rust@127.0.0.1 offers its functions");
    let script = "
        rust = :\"rust@127.0.0.1\"
        IO.inspect(:erpc.call(rust, :functions, :add, [40, 2]))
        try do
          :erpc.call(rust, :functions, :divide, [1, 0])
        rescue
          error -> IO.puts(Exception.message(error))
        end
        IO.inspect(GenServer.call({:functions, rust}, {:divide, [84, 2]}))
        IO.inspect(GenServer.call({:functions, rust}, {:divide, [1, 0]}))
        IO.inspect(GenServer.cast({:functions, rust}, {:add, [40, 2]}))
        IO.inspect(:erpc.call(rust, :functions, :who, []) == inspect(self()))
        try do
          :erpc.call(rust, :functions, :halt, [])
        rescue
          error -> IO.puts(Exception.message(error))
        end";
    let elixir = Command::new("elixir")
        .args(["--name", "me@127.0.0.1", "--cookie", COOKIE, "--erl", "-start_epmd false", "-e"])
        .arg(script)
        .env("ERL_EPMD_PORT", stock.epmd.port().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&elixir.stdout);
    let expected = "42\n\
        Erlang error: {:exception, {:application, \"division by zero\"}, [{:functions, :divide, 2, []}]}\n\
        {:ok, 42}\n{:error, {:application, \"division by zero\"}}\n:ok\nfalse\n\
        Erlang error: {:exception, :undef, [{:functions, :halt, [], []}]}\n";
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&elixir.stderr));
    functions.end();
}
