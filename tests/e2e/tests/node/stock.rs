//! What stock VMs of several releases and Rust nodes do to each other: links, monitors, exits and
//! requests that cross, large messages, names, deaths, restarts, wrong cookies, and both dialling.

use std::time::{Duration, Instant};

use meshx_e2e::{Epmd, PlainVm, Release, skips};
use meshx_node::carrier::{self, Tcp};
use meshx_node::etf::{Pid, Term, term};
use meshx_node::{Cookie, Mailbox, Node, NodeEvent, Signal};
use rustix::process::Signal as Kill;

use crate::{COOKIE, LIMIT, Stock};

/// The same for each release.
macro_rules! with_each_release {
    ($($name:ident)*) => {
        mod otp_23 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(meshx_e2e::Release::Otp23).await;
            })*
        }
        mod otp_25 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(meshx_e2e::Release::Machine).await;
            })*
        }
        mod otp_29 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(meshx_e2e::Release::Otp29).await;
            })*
        }
        mod otp_27 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(meshx_e2e::Release::Otp27).await;
            })*
        }
    };
}

with_each_release! {
    links_and_unlinks_race
    exits_and_monitors
    requests_for_processes
    large_messages
    deaths_and_restarts
    wrong_cookies
    both_dial_at_once
    nodes_without_names_or_listeners
}

/// Runs in the VM; what it is told to do it does in order.
const WORKER: &str = "W = spawn(fun() -> process_flag(trap_exit, true), \
    Count = fun Count(N) -> receive {'EXIT', _, _} -> Count(N + 1) after 0 -> N end end, \
    Loop = fun Loop() -> receive \
        {toggle, P, N} -> [begin link(P), unlink(P) end || _ <- lists:seq(1, N)]; \
        {link, P} -> link(P); \
        {sync, P} -> P ! synced; \
        {exits, P} -> P ! {exits, Count(0)}; \
        {echo, P, X} -> P ! X; \
        {exit, P, X} -> exit(P, X); \
        {stop, X} -> exit(X) \
    end, Loop() end, Loop() end), register(worker, W)";

async fn next(mailbox: &mut Mailbox) -> Signal {
    mailbox.receive_within(LIMIT).await.expect("a signal in time")
}

async fn term_of(mailbox: &mut Mailbox) -> Term {
    match next(mailbox).await {
        Signal::Message(message) => message.body.term().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A VM with its worker, and a Rust node.
async fn meet(release: Release) -> Option<(Stock, Node, Pid)> {
    if skips(release.needs()) {
        return None;
    }
    let mut stock = Stock::start(release, "a");
    let node = stock.beside("rust").start().await.unwrap();
    stock.vm.eval(WORKER);
    let worker = worker(&mut stock, &node).await;
    Some((stock, node, worker))
}

/// The pid of the VM's worker.
async fn worker(stock: &mut Stock, node: &Node) -> Pid {
    let mut mailbox = node.mailbox().unwrap();
    mailbox.register("wants_worker").unwrap();
    stock.vm.eval("{wants_worker, 'rust@127.0.0.1'} ! W");
    match term_of(&mut mailbox).await {
        Term::Pid(pid) => Pid::clone(&pid),
        other => panic!("{other}"),
    }
}

async fn links_and_unlinks_race(release: Release) {
    let Some((_stock, node, worker)) = meet(release).await else { return };
    let mut asks = node.mailbox().unwrap();
    for round in 0..60 {
        let mut here = node.mailbox().unwrap();
        here.trap_exits(true);
        let own = here.pid().clone();
        here.send_term(&worker, &term!({ toggle, (own.clone()), 5 })).await.unwrap();
        for _ in 0..5 {
            here.link(&worker).await;
            tokio::task::yield_now().await;
            here.unlink(&worker);
        }
        here.send_term(&worker, &term!({ sync, (own.clone()) })).await.unwrap();
        assert_eq!(term_of(&mut here).await, term!(synced));
        let linked = round % 3;
        match linked {
            0 => here.link(&worker).await,
            1 => here.send_term(&worker, &term!({ link, (own.clone()) })).await.unwrap(),
            _ => {}
        }
        here.send_term(&worker, &term!({ sync, (own.clone()) })).await.unwrap();
        assert_eq!(term_of(&mut here).await, term!(synced));
        here.end(term!({ round, (round) }));
        asks.send_term(&worker, &term!({ exits, (asks.pid().clone()) })).await.unwrap();
        let exits = i64::from(linked < 2);
        assert_eq!(term_of(&mut asks).await, term!({ exits, (exits) }), "round {round}");
    }
    // And the VM's end of a link.
    let mut here = node.mailbox().unwrap();
    here.trap_exits(true);
    here.link(&worker).await;
    here.send_term(&worker, &term!({ stop, { done, 1 } })).await.unwrap();
    let Signal::Exit { from, reason } = next(&mut here).await else { panic!() };
    assert_eq!((from, reason), (worker.clone(), term!({ done, 1 })));
    here.link(&worker).await;
    let Signal::Exit { from, reason } = next(&mut here).await else { panic!() };
    assert_eq!((from, reason), (worker, term!(noproc)));
}

async fn exits_and_monitors(release: Release) {
    let Some((mut stock, node, worker)) = meet(release).await else { return };
    let mut traps = node.mailbox().unwrap();
    traps.trap_exits(true);
    let own = traps.pid().clone();
    for reason in [term!(normal), term!({ bad, [1, 2] }), term!(kill)] {
        let mut plain = node.mailbox().unwrap();
        let exit = |to: &Pid| term!({ exit, (to.clone()), (reason.clone()) });
        traps.send_term(&worker, &exit(plain.pid())).await.unwrap();
        if reason == term!(normal) {
            traps.send_term(&worker, &exit(&own)).await.unwrap();
            let Signal::Exit { from, reason: why } = next(&mut traps).await else { panic!() };
            assert_eq!((from, why), (worker.clone(), reason));
            assert_eq!(plain.ended_with(), None);
            continue;
        }
        assert!(plain.receive_within(LIMIT).await.is_none());
        let expected = if reason == term!(kill) { term!(killed) } else { reason };
        assert_eq!(plain.ended_with(), Some(expected));
    }
    // The other way: what is not trapped there ends.
    stock.vm.eval("V = spawn(fun() -> receive after infinity -> ok end end), register(v, V)");
    stock.vm.eval("MV = monitor(process, V)");
    stock.vm.eval("{wants_v, 'rust@127.0.0.1'} ! x");
    let by_name = traps.monitor(("v", stock.name.as_str())).await;
    let victim = pid_of(&mut stock, &node, "V").await;
    let by_pid = traps.monitor(&victim).await;
    traps.exit(&victim, &term!(normal)).await.unwrap();
    traps.exit(&victim, &term!({ shot, 1 })).await.unwrap();
    let mut fired = Vec::new();
    for _ in 0..2 {
        let Signal::Down(down) = next(&mut traps).await else { panic!() };
        assert_eq!(down.reason, term!({ shot, 1 }));
        fired.push(down.reference);
    }
    assert!(fired.contains(&by_name) && fired.contains(&by_pid) && by_name != by_pid);
    let seen = "receive {'DOWN', MV, process, V, Why} -> Why after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(seen), "{shot,1}");
    // Monitors of the VM, taken back and not.
    let watched = node.mailbox().unwrap();
    watched.register("watched").unwrap();
    stock.vm.eval("[demonitor(monitor(process, {watched, 'rust@127.0.0.1'})) || _ <- [1, 2, 3]]");
    stock.vm.eval("M1 = monitor(process, {watched, 'rust@127.0.0.1'})");
    stock.vm.eval("{worker, node()} ! nothing");
    let mut answers = node.mailbox().unwrap();
    answers.send_term(&worker, &term!({ sync, (answers.pid().clone()) })).await.unwrap();
    term_of(&mut answers).await;
    watched.end(term!(gone));
    let all = "Downs = fun Downs(N) -> receive {'DOWN', R, _, _, gone} -> Downs([R =:= M1 | N]) \
               after 300 -> N end end, Downs([])";
    assert_eq!(stock.vm.eval(all), "[true]");
}

async fn pid_of(stock: &mut Stock, node: &Node, expression: &str) -> Pid {
    let mut mailbox = node.mailbox().unwrap();
    mailbox.register("wants_pid").unwrap();
    stock.vm.eval(&format!("{{wants_pid, 'rust@127.0.0.1'}} ! {expression}"));
    match term_of(&mut mailbox).await {
        Term::Pid(pid) => Pid::clone(&pid),
        other => panic!("{other}"),
    }
}

async fn requests_for_processes(release: Release) {
    let Some((mut stock, node, _)) = meet(release).await else { return };
    node.offer("test", "says", 2, |mailbox, arguments| async move {
        let Term::Pid(to) = &arguments[0] else { panic!("no pid") };
        mailbox.send_term(to, &arguments[1]).await.unwrap();
        mailbox.end(term!(said));
    });
    let spawn = "R1 = spawn_request('rust@127.0.0.1', test, says, [self(), <<\"hello\">>], \
                 [monitor, link])";
    stock.vm.eval("process_flag(trap_exit, true)");
    stock.vm.eval(spawn);
    let reply = "receive {spawn_reply, R1, ok, P1} -> node(P1) after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(reply), "'rust@127.0.0.1'");
    let hello = "receive <<\"hello\">> -> ok after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(hello), "ok");
    let down = "receive {'DOWN', R1, process, P1, D1} -> D1 after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(down), "said");
    let exit = "receive {'EXIT', P1, E1} -> E1 after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(exit), "said");
    stock.vm.eval("R2 = spawn_request('rust@127.0.0.1', test, unknown, [], [monitor])");
    let refused = "receive {spawn_reply, R2, error, Why} -> Why after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(refused), "notsup");

    let mut asks = node.mailbox().unwrap();
    asks.trap_exits(true);
    let arguments = [term!({ by, rust })];
    let reference =
        asks.spawn_request(&stock.name, ("erlang", "exit"), &arguments, true, true).await.unwrap();
    let Signal::Spawned { reference: of, result: Ok(pid) } = next(&mut asks).await else {
        panic!()
    };
    assert_eq!(of, reference);
    let (mut exits, mut downs) = (0, 0);
    for _ in 0..2 {
        match next(&mut asks).await {
            Signal::Exit { from, reason } => {
                assert_eq!((from, reason), (pid.clone(), term!({ by, rust })));
                exits += 1;
            }
            Signal::Down(down) => {
                assert_eq!((down.reference, down.reason), (reference.clone(), term!({ by, rust })));
                downs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((exits, downs), (1, 1));
    // Who asked ends before it has the answer; the process must not be left alone.
    for _ in 0..20 {
        let asks = node.mailbox().unwrap();
        let infinity = [term!(infinity)];
        asks.spawn_request(&stock.name, ("timer", "sleep"), &infinity, true, false).await.unwrap();
        asks.end(term!(left));
    }
    let sleeping = "length([P || P <- processes(), {current_function, {timer, sleep, 1}} =:= \
                    process_info(P, current_function)])";
    stock.vm.await_eval(sleeping, "0", LIMIT);
}

async fn large_messages(release: Release) {
    let Some((mut stock, node, worker)) = meet(release).await else { return };
    let mut here = node.mailbox().unwrap();
    here.register("large").unwrap();
    let bytes: Vec<u8> =
        (0..5_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let large = Term::from(&bytes[..]);
    stock.vm.eval("register(me, self())");
    here.send_term(("me", stock.name.as_str()), &large).await.unwrap();
    let size = "receive B when is_binary(B) -> byte_size(B) after 9000 -> timeout end";
    assert_eq!(stock.vm.eval(size), "5000000");
    stock.vm.eval("{large, 'rust@127.0.0.1'} ! B");
    assert_eq!(term_of(&mut here).await, large);
    // Lists and small ones between, each with an answer.
    let list = Term::from((0..20_000).map(|i| term!({ item, (i), 2.5 })).collect::<Vec<_>>());
    for round in 0..5 {
        let echo =
            term!({ echo, (here.pid().clone()), { (round), (list.clone()), (large.clone()) } });
        here.send_term(&worker, &echo).await.unwrap();
        here.send_term(&worker, &term!({ echo, (here.pid().clone()), small })).await.unwrap();
    }
    for round in 0..5 {
        let expected = term!({ (round), (list.clone()), (large.clone()) });
        assert_eq!(term_of(&mut here).await, expected);
        assert_eq!(term_of(&mut here).await, term!(small));
    }
}

async fn deaths_and_restarts(release: Release) {
    let Some((mut stock, node, worker_pid)) = meet(release).await else { return };
    let mut events = node.monitor_nodes();
    let mut here = node.mailbox().unwrap();
    here.trap_exits(true);
    here.register("here").unwrap();
    let name = stock.name.clone();
    let mut pid = worker_pid;
    for way in ["disconnect here", "disconnect there", "kill"] {
        here.link(&pid).await;
        let reference = here.monitor(&pid).await;
        let own = here.pid().clone();
        stock.vm.eval("VM = monitor(process, {here, 'rust@127.0.0.1'})");
        here.send_term(&pid, &term!({ sync, (own) })).await.unwrap();
        assert_eq!(term_of(&mut here).await, term!(synced));
        match way {
            "disconnect here" => assert!(node.disconnect(&name)),
            "disconnect there" => {
                let ended = stock.vm.eval("erlang:disconnect_node('rust@127.0.0.1')");
                assert_eq!(ended, "true");
            }
            _ => stock.vm.signal(Kill::KILL),
        }
        let (mut exits, mut downs) = (0, 0);
        for _ in 0..2 {
            match next(&mut here).await {
                Signal::Exit { from, reason } => {
                    assert_eq!((&from, reason), (&pid, term!(noconnection)), "{way}");
                    exits += 1;
                }
                Signal::Down(down) => {
                    assert_eq!((&down.reference, down.reason), (&reference, term!(noconnection)));
                    downs += 1;
                }
                other => panic!("{way}: {other:?}"),
            }
        }
        assert_eq!((exits, downs), (1, 1), "{way}");
        until("it is down", || node.peers().is_empty()).await;
        let Ok(NodeEvent::Down { node: of, .. }) = events.recv().await else { panic!("{way}") };
        assert_eq!(of.as_str(), name);
        assert!(here.receive_within(Duration::from_millis(50)).await.is_none(), "{way}");
        if way == "kill" {
            let old = pid.clone();
            // The same name, another life.
            stock.vm = PlainVm::start(release, &name, COOKIE, stock.epmd.port());
            stock.vm.eval(WORKER);
            pid = worker(&mut stock, &node).await;
            assert_ne!(old.node.creation(), pid.node.creation());
            let late = here.monitor(&old).await;
            let Signal::Down(down) = next(&mut here).await else { panic!() };
            assert_eq!((down.reference, down.reason), (late, term!(noproc)));
        } else {
            let down = "receive {'DOWN', VM, process, _, Why} -> Why after 5000 -> timeout end";
            assert_eq!(stock.vm.eval(down), "noconnection", "{way}");
            stock.vm.forget();
            stock.vm.eval("W = whereis(worker)");
            // Whoever sends first connects again.
            here.send_term(&pid, &term!({ sync, (here.pid().clone()) })).await.unwrap();
            assert_eq!(term_of(&mut here).await, term!(synced));
        }
        let Ok(NodeEvent::Up { .. }) = events.recv().await else { panic!("{way}") };
    }
    assert!(events.try_recv().is_err());
    // A Rust node that is gone is told, too.
    let seen = "net_kernel:monitor_nodes(true, [{node_type, all}])";
    stock.vm.eval(seen);
    node.stop().await;
    let down = "receive {nodedown, N, _} -> N after 5000 -> timeout end";
    assert_eq!(stock.vm.eval(down), "'rust@127.0.0.1'");
}

async fn wrong_cookies(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let epmd = Epmd::start(release);
    let mut vm = PlainVm::start(release, "a@127.0.0.1", "another", epmd.port());
    let carrier = Tcp::loopback(carrier::Epmd::at_port(epmd.port()));
    let node = Node::builder("rust@127.0.0.1").cookie(Cookie::new(COOKIE)).carrier(carrier);
    let node = node.start().await.unwrap();
    let error = node.connect("a@127.0.0.1").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "'a@127.0.0.1' closed the connection at the last step of the handshake"
    );
    assert_eq!(vm.eval("net_kernel:connect_node('rust@127.0.0.1')"), "false");
    assert!(node.peers().is_empty());
    vm.eval(&format!("erlang:set_cookie('rust@127.0.0.1', '{COOKIE}')"));
    assert_eq!(vm.eval("net_kernel:connect_node('rust@127.0.0.1')"), "true");
    until("it is there", || node.peers().len() == 1).await;
}

/// A hundred times (with OTP 25), with the VM's name before ours and behind it.
async fn both_dial_at_once(release: Release) {
    if skips(release.needs()) {
        return;
    }
    for name in ["a", "z"] {
        let mut stock = Stock::start(release, name);
        let node = stock.beside("rust").start().await.unwrap();
        let mut events = node.monitor_nodes();
        stock.vm.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
        stock.vm.eval("Dial = fun() -> net_kernel:connect_node('rust@127.0.0.1') end");
        stock.vm.eval(
            "Seen = fun Seen(N) -> receive {nodeup, _, _} -> Seen([up | N]); \
             {nodedown, _, _} -> Seen([down | N]) after 0 -> lists:reverse(N) end end",
        );
        let both = tokio::runtime::Handle::current();
        let rounds = if release == Release::Machine { 100 } else { 30 };
        for round in 0..rounds {
            let (dials, to) = (node.clone(), stock.name.clone());
            let ours = both.spawn(async move {
                // The VM needs a moment to read what it is told, and to ask EPMD.
                tokio::time::sleep(Duration::from_micros(round * 370 % 2500)).await;
                dials.connect(&to).await
            });
            let theirs = stock.vm.eval("Dial()");
            let ours = ours.await.unwrap();
            assert!(ours.is_ok(), "{name}, round {round}: {ours:?}");
            assert_eq!(theirs, "true", "{name}, round {round}");
            assert_eq!(node.peers().len(), 1);
            if round % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let here = seen(&mut events);
            assert_eq!(here, (1, 0), "{name}, round {round}");
            stock.vm.await_eval("lists:member('rust@127.0.0.1', nodes(hidden))", "true", LIMIT);
            assert_eq!(stock.vm.eval("Seen([])"), "[up]", "{name}, round {round}");
            node.disconnect(&stock.name);
            until("it is down", || node.peers().is_empty()).await;
            stock.vm.await_eval("nodes(hidden)", "[]", LIMIT);
            assert_eq!(stock.vm.eval("Seen([])"), "[down]");
            assert_eq!(seen(&mut events), (0, 1));
        }
    }
}

fn seen(events: &mut tokio::sync::broadcast::Receiver<NodeEvent>) -> (usize, usize) {
    let (mut ups, mut downs) = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            NodeEvent::Up { .. } => ups += 1,
            _ => downs += 1,
        }
    }
    (ups, downs)
}

async fn nodes_without_names_or_listeners(release: Release) {
    if skips(release.needs()) {
        return;
    }
    let epmd = Epmd::start(release);
    let carrier = Tcp::loopback(carrier::Epmd::at_port(epmd.port()));
    let node = Node::builder("rust@127.0.0.1").cookie(Cookie::new(COOKIE)).carrier(carrier);
    let node = node.start().await.unwrap();
    let mut inbox = node.mailbox().unwrap();
    inbox.register("inbox").unwrap();
    let ways: [(&str, &[&str]); 4] = [
        ("", &["-name", "undefined@127.0.0.1", "-setcookie", COOKIE]),
        ("quiet@127.0.0.1", &["-connect_all", "false"]),
        ("deaf@127.0.0.1", &["-dist_listen", "false"]),
        ("hidden@127.0.0.1", &["-hidden"]),
    ];
    for (name, arguments) in ways {
        let mut vm = PlainVm::builder(release, name, COOKIE, epmd.port()).args(arguments).start();
        if name.is_empty() {
            let connected = vm.eval("net_kernel:connect_node('rust@127.0.0.1')");
            assert_eq!(connected, "true");
        }
        vm.eval("{inbox, 'rust@127.0.0.1'} ! {self(), node()}");
        let Term::Tuple(said) = term_of(&mut inbox).await else { panic!("{arguments:?}") };
        let Term::Pid(from) = &said[0] else { panic!("{arguments:?}") };
        let peers = node.peers();
        assert_eq!(peers.len(), 1, "{arguments:?}");
        assert_eq!(peers[0].name, *from.node.name());
        assert_eq!(peers[0].creation, from.node.creation(), "{arguments:?}");
        inbox.send_term(from, &term!(back)).await.unwrap();
        let back = "receive back -> ok after 5000 -> timeout end";
        assert_eq!(vm.eval(back), "ok", "{arguments:?}");
        let reference = inbox.monitor(from).await;
        drop(vm);
        let Signal::Down(down) = next(&mut inbox).await else { panic!() };
        assert_eq!((down.reference, down.reason), (reference, term!(noconnection)));
        until("it left", || node.peers().is_empty()).await;
    }
}
