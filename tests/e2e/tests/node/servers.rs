//! Servers in Rust, called from stock Erlang and Elixir; and stock ones, called from Rust.

use std::process::Command;

use meshx_e2e::{Home, Need, Process, Release, skips};
use meshx_node::etf::{Etf, Term, term};
use meshx_node::{Answer, CallError, Caller, GenServer, Info, Mailbox, Next, Node};

use crate::{COOKIE, LIMIT, Stock};

/// OTP 23 lacks what the handshake insists on, as OTP 26 and later do.
const RELEASES: [Release; 4] = Release::ALL;

/// Counts; `{after, N}` is answered later.
struct Counter(i64);

#[derive(Etf)]
enum Ask {
    Next,
    Add(i64),
    After(u64),
    SyncNotify(i64),
    WhichHandlers,
}

#[derive(Etf)]
enum Message {
    Notify(i64),
    Crash,
}

impl GenServer for Counter {
    type Call = Ask;
    type Reply = Term;
    type Cast = Ask;
    type Info = Message;

    async fn handle_call(&mut self, ask: Ask, caller: Caller, process: &Mailbox) -> Answer<Term> {
        match ask {
            Ask::After(time) => {
                let (node, answer) = (process.node(), self.0);
                tokio::spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_millis(time)).await;
                    drop(node.reply(&caller, &answer).await);
                });
                return Answer::Later;
            }
            Ask::Next => self.0 += 1,
            Ask::Add(n) | Ask::SyncNotify(n) => self.0 += n,
            Ask::WhichHandlers => return Answer::Reply(term!([rust])),
        }
        Answer::Reply(self.0.into())
    }

    async fn handle_cast(&mut self, ask: Ask, _: &Mailbox) -> Next {
        if let Ask::Add(n) = ask {
            self.0 += n;
        }
        Next::Continue
    }

    async fn handle_info(&mut self, info: Info<Message>, _: &Mailbox) -> Next {
        match info {
            Info::Message(Message::Notify(n)) => self.0 += n,
            Info::Message(Message::Crash) => return Next::Stop(term!({crashed, (self.0)})),
            _ => {}
        }
        Next::Continue
    }

    fn state(&self) -> Option<Term> {
        Some(term!(#{count => (self.0)}))
    }
}

/// A VM beside a Rust node on which the counter serves.
async fn counter(release: Release) -> (Stock, Node) {
    let mut stock = Stock::start(release, "a");
    let node = stock.beside("rust").start().await.unwrap();
    node.serve("counter", Counter(0)).await.unwrap();
    stock.vm.eval("S = {counter, 'rust@127.0.0.1'}");
    (stock, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_release_calls_a_server() {
    for release in RELEASES {
        if skips(release.needs()) {
            continue;
        }
        let (mut stock, node) = counter(release).await;
        for (expression, expected) in [
            ("gen_server:call(S, next)", "1"),
            ("gen_server:call(S, {add, 3}, 5000)", "4"),
            ("gen_server:call(S, next, infinity)", "5"),
            ("gen_server:cast(S, {add, 10})", "ok"),
            ("gen_server:call(S, next)", "16"),
            ("gen_server:call(S, {'after', 50})", "16"),
            ("gen_server:wait_response(gen_server:send_request(S, next), 5000)", "{reply,17}"),
            ("gen_statem:call(S, next)", "18"),
            ("gen_statem:call(S, next, {dirty_timeout, 5000})", "19"),
            ("gen_statem:cast(S, {add, 1})", "ok"),
            ("gen_event:sync_notify(S, 10)", "30"),
            ("gen_event:notify(S, 20)", "ok"),
            ("gen_event:which_handlers(S)", "[rust]"),
            // With a deadline, and without.
            (
                "gen_server:multi_call([node(), 'rust@127.0.0.1'], counter, next, 5000)",
                "{[{'rust@127.0.0.1',51}],['a@127.0.0.1']}",
            ),
            (
                "gen_server:multi_call([node(), 'rust@127.0.0.1'], counter, next)",
                "{[{'rust@127.0.0.1',52}],['a@127.0.0.1']}",
            ),
            ("gen_server:abcast(['rust@127.0.0.1'], counter, {add, 100})", "abcast"),
            ("gen_server:call(S, next)", "153"),
        ] {
            assert_eq!(stock.vm.eval(expression), expected, "{release:?}: {expression}");
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_not_take_ends_the_call_at_once() {
    for release in RELEASES {
        if skips(release.needs()) {
            continue;
        }
        let (mut stock, _node) = counter(release).await;
        let refused = stock.vm.eval("catch gen_server:call(S, nonsense, infinity)");
        assert!(refused.starts_with("{'EXIT',{{bad_request,<<"), "{release:?}: {refused}");
        assert!(refused.contains("{gen_server,call,[{counter,'rust@127.0.0.1'}"), "{refused}");
        let refused = stock.vm.eval("catch gen_event:call(S, handler, query)");
        assert!(refused.contains("bad_request"), "{release:?}: {refused}");
        for limit in ["", ", 60000"] {
            let all =
                format!("gen_server:multi_call(['rust@127.0.0.1'], counter, nonsense{limit})");
            assert_eq!(stock.vm.eval(&all), "{[],['rust@127.0.0.1']}", "{release:?}");
        }
        // It lives, and who watches it otherwise is not told anything.
        stock.vm.eval("M = monitor(process, S)");
        stock.vm.eval("catch gen_server:call(S, nonsense)");
        assert_eq!(stock.vm.eval("gen_server:call(S, next)"), "1");
        let told = stock.vm.eval("receive {'DOWN', M, _, _, _} -> down after 200 -> nothing end");
        assert_eq!(told, "nothing", "{release:?}");
        stock.vm.eval("S ! crash");
        let told = stock.vm.eval("receive {'DOWN', M, _, _, Why} -> Why after 5000 -> none end");
        assert_eq!(told, "{crashed,1}");
        let gone = stock.vm.eval("catch gen_server:call(S, next)");
        assert!(gone.starts_with("{'EXIT',{noproc,"), "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_module_sys_is_answered() {
    let (mut stock, node) = counter(Release::Machine).await;
    for (expression, expected) in [
        ("sys:get_state(S)", "#{count => 0}"),
        ("sys:suspend(S)", "ok"),
        ("catch element(1, element(2, catch gen_server:call(S, next, 100)))", "timeout"),
        ("lists:nth(2, element(4, sys:get_status(S)))", "suspended"),
        ("sys:resume(S)", "ok"),
        ("gen_server:call(S, next)", "2"),
        ("element(1, sys:get_status(S))", "status"),
        ("sys:trace(S, true)", "unknown_debug"),
        ("sys:trace(S, false)", "ok"),
        ("sys:log(S, get)", "{ok,[]}"),
        ("sys:statistics(S, get)", "{ok,no_statistics}"),
        ("sys:no_debug(S)", "ok"),
        ("sys:install(S, {fun(X, _, _) -> X end, 0})", "unknown_debug"),
        ("sys:change_code(S, m, 1, 2)", "{error,{unknown_system_msg,{change_code,m,1,2}}}"),
        (
            "try sys:replace_state(S, fun(X) -> X end) catch error:{unknown_system_msg, _} -> refused end",
            "refused",
        ),
        ("gen_server:call(S, next)", "3"),
        ("gen_server:stop(S)", "ok"),
        ("catch element(1, element(2, catch gen_server:call(S, next)))", "noproc"),
    ] {
        assert_eq!(stock.vm.eval(expression), expected, "{expression}");
    }
    assert!(node.whereis("counter").is_none());
    node.serve("counter", Counter(0)).await.unwrap();
    assert_eq!(stock.vm.eval("gen_server:stop(S, {shutdown, me}, 5000)"), "ok");
    node.serve("counter", Counter(0)).await.unwrap();
    assert_eq!(stock.vm.eval("sys:terminate(S, because)"), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn elixir_calls_a_server() {
    if skips(&[Need::Erlang, Need::Elixir]) {
        return;
    }
    let (stock, _node) = counter(Release::Machine).await;
    let script = r#"
        counter = {:counter, :"rust@127.0.0.1"}
        IO.inspect GenServer.call(counter, :next)
        IO.inspect GenServer.cast(counter, {:add, 3})
        IO.inspect GenServer.call(counter, {:add, 3})
        IO.inspect GenServer.multi_call([:"rust@127.0.0.1"], :counter, :next)
        try do GenServer.call(counter, :nonsense) catch :exit, {{:bad_request, _}, _} -> IO.puts("refused") end
        IO.inspect :sys.get_state(counter)
        IO.inspect Task.await(Task.async(fn -> GenServer.call(counter, {:after, 50}) end))
        IO.inspect GenServer.stop(counter)
        catch_exit = try do GenServer.call(counter, :next) catch :exit, {why, _} -> why end
        IO.inspect catch_exit
    "#;
    let home = Home::make();
    let mut command = Command::new("elixir");
    command.args(["--name", "ex@127.0.0.1", "--cookie", COOKIE, "-e", script]);
    command.env("ERL_EPMD_PORT", stock.epmd.port().to_string());
    command.env("ERL_AFLAGS", "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false");
    command.env("HOME", home.path()).env("LC_ALL", "C.UTF-8");
    let mut elixir = Process::start("elixir", &mut command);
    for expected in [
        "1",
        ":ok",
        "7",
        "{[\"rust@127.0.0.1\": 8], []}",
        "refused",
        "%{count: 8}",
        "8",
        ":ok",
        ":noproc",
    ] {
        let line = elixir.next_line(LIMIT);
        assert_eq!(line.as_deref(), Some(expected), "{}", elixir.stderr());
    }
    assert_eq!(elixir.wait(LIMIT).code(), Some(0));
}

/// A `gen_server`, a `gen_statem` and a handler for a `gen_event`.
const MODULES: [(&str, &str); 3] = [
    (
        "srv",
        "-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
         init(N) -> {ok, N}.
         handle_call(next, _, N) -> {reply, N + 1, N + 1};
         handle_call(never, _, N) -> {noreply, N};
         handle_call({later, T}, From, N) -> erlang:send_after(T, self(), {late, From}), {noreply, N};
         handle_call({die, R}, _, N) -> {stop, R, N}.
         handle_cast({add, M}, N) -> {noreply, N + M}.
         handle_info({late, From}, N) -> gen_server:reply(From, late), {noreply, N}.",
    ),
    (
        "light",
        "-export([init/1, callback_mode/0, red/3, green/3]).
         callback_mode() -> state_functions.
         init(_) -> {ok, red, 0}.
         red({call, From}, push, N) -> {next_state, green, N + 1, [{reply, From, {green, N + 1}}]};
         red(cast, push, N) -> {next_state, green, N + 1}.
         green({call, From}, push, N) -> {next_state, red, N + 1, [{reply, From, {red, N + 1}}]};
         green(cast, push, N) -> {next_state, red, N + 1}.",
    ),
    (
        "sum",
        "-export([init/1, handle_event/2, handle_call/2, terminate/2]).
         init(N) -> {ok, N}.
         handle_event(E, N) -> {ok, N + E}.
         handle_call(sum, N) -> {ok, N, N}.
         terminate(_, N) -> N.",
    ),
];

fn compile(stock: &mut Stock) {
    for (name, text) in MODULES {
        let path = stock.vm.home().join(format!("{name}.erl"));
        std::fs::write(&path, format!("-module({name}).\n{text}\n")).unwrap();
        let load = format!(
            "begin {{ok, M, B}} = compile:file(\"{}\", [binary]), code:load_binary(M, \"\", B) end",
            path.display()
        );
        assert_eq!(stock.vm.eval(&load), format!("{{module,{name}}}"));
        stock.vm.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_servers_are_called() {
    for release in [Release::Otp23, Release::Machine] {
        if !skips(release.needs()) {
            servers_are_called(release).await;
        }
    }
}

async fn servers_are_called(release: Release) {
    let mut stock = Stock::start(release, "a");
    compile(&mut stock);
    stock.vm.eval("{ok, P} = gen_server:start({local, srv}, srv, 0, [])");
    stock.vm.eval("{ok, _} = gen_statem:start({local, light}, light, [], [])");
    stock.vm.eval("{ok, _} = gen_event:start({local, mgr})");
    let node = stock.beside("rust").start().await.unwrap();
    let at = |name: &'static str| (name, stock.name.as_str());
    let mut mailbox = node.mailbox().unwrap();

    assert_eq!(node.call::<_, i64>(at("srv"), &term!(next), LIMIT).await.unwrap(), 1);
    mailbox.cast(at("srv"), &term!({add, 10})).await.unwrap();
    assert_eq!(mailbox.call::<_, i64>(at("srv"), &term!(next), LIMIT).await.unwrap(), 12);
    let later = mailbox.call::<_, String>(at("srv"), &term!({later, 50}), LIMIT).await;
    assert_eq!(later.unwrap(), "late");
    let short = std::time::Duration::from_millis(50);
    let late = mailbox.call::<_, String>(at("srv"), &term!({later, 150}), short).await;
    assert!(matches!(late, Err(CallError::Timeout(_))), "{late:?}");
    assert!(mailbox.receive_within(short * 6).await.is_none());
    let never = term!(never);
    let call = mailbox.call::<_, Term>(at("srv"), &never, LIMIT);
    assert!(tokio::time::timeout(short, call).await.is_err());
    // A call is over before its monitor is gone.
    stock.vm.await_eval("element(2, process_info(P, monitored_by))", "[]", LIMIT);

    let pushed = mailbox.call::<_, (String, i64)>(at("light"), &term!(push), LIMIT).await;
    assert_eq!(pushed.unwrap(), ("green".to_owned(), 1));
    mailbox.cast(at("light"), &term!(push)).await.unwrap();
    let pushed = mailbox.call::<_, (String, i64)>(at("light"), &term!(push), LIMIT).await;
    assert_eq!(pushed.unwrap(), ("green".to_owned(), 3));

    let events = node.event_manager(at("mgr"));
    let sum = term!(sum);
    assert_eq!(events.add_handler(&sum, &5, LIMIT).await.unwrap(), term!(ok));
    events.notify(&1).await.unwrap();
    events.sync_notify(&10, LIMIT).await.unwrap();
    assert_eq!(events.call::<_, i64>(&sum, &term!(sum), LIMIT).await.unwrap(), 16);
    assert_eq!(events.which_handlers(LIMIT).await.unwrap(), [term!(sum)]);
    let unknown = events.call::<_, Term>(&term!(none), &term!(sum), LIMIT).await;
    assert_eq!(unknown.unwrap(), term!({error, bad_module}));
    assert_eq!(events.delete_handler(&sum, &term!(over), LIMIT).await.unwrap(), term!(16));

    let nodes = [stock.name.as_str(), "nobody@127.0.0.1"];
    let all = node.multi_call::<_, i64>(nodes, "srv", &term!(next), LIMIT).await.unwrap();
    assert_eq!((all.answers.len(), all.answers[0].1), (1, 13));
    assert!(matches!(all.failures[0].1, CallError::NoConnection), "{:?}", all.failures);

    let died = node.call::<_, Term>(at("srv"), &term!({die, {oh, no}}), LIMIT).await;
    assert!(matches!(&died, Err(CallError::Exit(why)) if *why == term!({oh, no})), "{died:?}");
    let gone = node.call::<_, Term>(at("srv"), &term!(next), LIMIT).await;
    assert!(matches!(gone, Err(CallError::NoProcess)), "{gone:?}");
}
