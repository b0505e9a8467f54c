//! What `docs/node.md` says that a Rust node does not do, as a stock node sees it.

use meshx_e2e::Release;
use meshx_node::etf::{Term, term};
use meshx_node::{Answer, Caller, GenServer, Mailbox, Signal};

use crate::{LIMIT, Stock};

/// Answers everything with `ok`.
struct Agreeable;

impl GenServer for Agreeable {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;
    type Info = Term;

    async fn handle_call(&mut self, _: Term, _: Caller, _: &Mailbox) -> Answer<Term> {
        Answer::Reply(term!(ok))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_at_once() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let pid = node.serve("agreeable", Agreeable).await.unwrap();
    stock.vm.eval("R = 'rust@127.0.0.1'");
    // A process there, by its pid.
    let back = node.mailbox().unwrap();
    stock.vm.eval("register(me, self())");
    back.send(("me", stock.name.as_str()), &pid).await.unwrap();
    stock.vm.eval("P = receive Pid when is_pid(Pid) -> Pid after 5000 -> none end");
    for (expression, expected) in [
        // It is a node like others ...
        ("net_adm:ping(R)", "pong"),
        ("{nodes(), nodes(hidden)}", "{[],['rust@127.0.0.1']}"),
        ("gen_server:call(P, hello)", "ok"),
        ("erlang:monitor_node(R, true)", "true"),
        ("global:register_name(here, self())", "yes"),
        // ... whose code is its own: no funs, no modules, nothing that is not offered.
        (
            "begin F = spawn(R, fun() -> ok end), M1 = monitor(process, F),
             receive {'DOWN', M1, _, _, Y1} -> Y1 after 5000 -> none end end",
            "notsup",
        ),
        (
            "begin F2 = spawn(R, lists, sum, [[1]]), M2 = monitor(process, F2),
             receive {'DOWN', M2, _, _, Y2} -> Y2 after 5000 -> none end end",
            "notsup",
        ),
        ("try erpc:call(R, fun() -> 1 end) catch error:{exception, E1, _} -> E1 end", "undef"),
        (
            "try erpc:call(R, code, which, [lists]) catch error:{exception, E2, _} -> E2 end",
            "undef",
        ),
    ] {
        assert_eq!(stock.vm.eval(expression), expected, "{expression}");
    }
    // What shells, tracers and observers ask for, each by RPC.
    for function in [
        "code, ensure_loaded, ['Elixir.IEx']",
        "observer_backend, sys_info, []",
        "erlang, process_info, [P]",
        "erlang, is_process_alive, [P]",
        "erlang, whereis, [agreeable]",
        "erlang, group_leader, [self(), P]",
        "c, i, []",
        "application, which_applications, []",
        "logger, set_primary_config, [level, debug]",
        "init, stop, []",
        "erlang, halt, []",
        "dbg, start, []",
    ] {
        let answer = stock.vm.eval(&format!("rpc:call(R, {function})"));
        assert!(answer.starts_with("{badrpc,{'EXIT',{undef,"), "{function}: {answer}");
    }
    let info = stock.vm.try_eval("process_info(P)").unwrap_err();
    assert!(info.starts_with("error badarg"), "{info}");
    let replaced = stock.vm.try_eval("sys:replace_state(P, fun(S) -> S end)").unwrap_err();
    assert!(replaced.contains("unknown_system_msg"), "{replaced}");
    assert_eq!(stock.vm.try_eval("sys:get_state(P)").unwrap_err(), "error notsup");
    // Two that wait for what does not come: a process that takes no output, and `dbg`.
    for (expression, end) in [
        ("gen_server:call(P, hello)", "done"),
        ("io:format(P, \"x\", [])", "waits"),
        ("dbg:tracer(), dbg:n(R)", "waits"),
    ] {
        let tried = format!(
            "(fun() -> D = spawn(fun() -> {expression}, exit(done) end), M = monitor(process, D),
             receive {{'DOWN', M, _, _, Y}} -> Y after 1000 -> exit(D, kill), waits end end)()"
        );
        assert_eq!(stock.vm.eval(&tried), end, "{expression}");
    }
    // None of that did it harm.
    assert_eq!(stock.vm.eval("gen_server:call(P, hello)"), "ok");
    node.stop().await;
    assert_eq!(stock.vm.eval("receive {nodedown, R} -> down after 5000 -> up end"), "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_wait_runs_on_after_its_end() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").start().await.unwrap();
    let (ran_on, after) = std::sync::mpsc::channel();
    let pid = node
        .spawn(|mailbox| async move {
            mailbox.register("busy").unwrap();
            // No await: nothing can end this.
            std::thread::sleep(std::time::Duration::from_millis(1500));
            ran_on.send(mailbox.ended_with()).unwrap();
            tokio::task::yield_now().await;
            unreachable!("it was ended");
        })
        .unwrap();
    while node.whereis("busy") != Some(pid.clone()) {
        tokio::task::yield_now().await;
    }
    stock.vm.eval("M = monitor(process, {busy, 'rust@127.0.0.1'})");
    // The monitor is there before this is answered.
    assert_eq!(stock.vm.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
    let killer = node.mailbox().unwrap();
    // The VM sees the end at once ...
    killer.exit(&pid, &term!(kill)).await.unwrap();
    let why = "receive {'DOWN', M, _, _, Why} -> Why after 500 -> nothing end";
    assert_eq!(stock.vm.eval(why), "killed");
    assert!(after.try_recv().is_err());
    // ... while the code goes on to where it waits next.
    assert_eq!(after.recv_timeout(LIMIT).unwrap(), Some(term!(killed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_holds_up_the_connection_that_fills_it() {
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").mailbox_limit(64 * 1024).start().await.unwrap();
    let mut full = node.mailbox().unwrap();
    full.register("full").unwrap();
    let mut other = node.mailbox().unwrap();
    other.register("other").unwrap();
    stock
        .vm
        .eval("[{full, 'rust@127.0.0.1'} ! binary:copy(<<N>>, 1000) || N <- lists:seq(1, 200)]");
    stock.vm.eval("{other, 'rust@127.0.0.1'} ! hello");
    // Behind what does not fit.
    let hello = other.receive_within(std::time::Duration::from_millis(300)).await;
    assert!(hello.is_none(), "{hello:?}");
    // Nothing is lost of it.
    for n in 1..=200_u8 {
        let Some(Signal::Message(message)) = full.receive_within(LIMIT).await else { panic!() };
        assert_eq!(message.body.term().unwrap().as_binary(), Some(&[n; 1000][..]));
    }
    assert!(other.receive_within(LIMIT).await.is_some());
}
