//! Hosts that do not hear each other: a Rust node on one, a stock VM and another Rust node on the
//! other, joined by a link that drops packets (D6, D7, D10).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use meshx_e2e::netns::{Namespace, Pair};
use meshx_e2e::{Need, PlainVm, Release, skips};
use meshx_node::carrier::{Static, Tcp};
use meshx_node::etf::{Term, term};
use meshx_node::{CallError, Caller, Cookie, Mailbox, Node, NodeEvent, Signal, Ticktime};

use crate::{COOKIE, LIMIT};

const NEEDS: [Need; 3] = [Need::Root, Need::Ip, Need::Erlang];
/// Half of what is usual for tests, to be done sooner.
const TICKTIME: Duration = Duration::from_secs(4);
/// From 0.75 to 1.25 of the ticktime, and a moment for a busy machine.
const IN_TIME: std::ops::RangeInclusive<u64> = 2_900..=5_700;
const PORT: &str = "29000";

/// Runs a test on a host.
fn on(host: &Namespace, test: impl Future<Output = ()> + Send + 'static) {
    let host = host.clone();
    let run = move || {
        host.enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test);
    };
    thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn address(host: &Namespace, port: &str) -> SocketAddr {
    format!("{}:{port}", host.address()).parse().unwrap()
}

/// A node on the host of this thread that knows the other.
async fn node(name: &str, listen: SocketAddr, others: &[(&str, SocketAddr)]) -> Node {
    let known = Static::new();
    for (other, at) in others {
        known.insert(other, *at);
    }
    let builder = Node::builder(name).cookie(Cookie::new(COOKIE)).carrier(Tcp::new(listen, known));
    builder.ticktime(Ticktime { time: TICKTIME, intensity: 4 }).start().await.unwrap()
}

/// What the other Rust node sees, in the order in which it does.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Up,
    Down,
    Monitor,
    Link,
}

/// A Rust node on another host, in a thread of its own: it watches whoever says so, and answers.
fn other(
    host: &Namespace,
    name: String,
    first: (String, SocketAddr),
    count: Arc<AtomicU64>,
) -> mpsc::Receiver<(Instant, Seen)> {
    let (sender, receiver) = mpsc::channel();
    let host = host.clone();
    let listen = address(&host, "29001");
    thread::spawn(move || {
        host.enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async move {
            let node = node(&name, listen, &[(&first.0, first.1)]).await;
            let mut events = node.monitor_nodes();
            let nodes = sender.clone();
            let watching = tokio::spawn(async move {
                while let Ok(event) = events.recv().await {
                    let up = matches!(event, NodeEvent::Up { .. });
                    let seen = if up { Seen::Up } else { Seen::Down };
                    if nodes.send((Instant::now(), seen)).is_err() {
                        return;
                    }
                }
            });
            let mut process = node.mailbox().unwrap();
            process.register("process").unwrap();
            process.trap_exits(true);
            while let Some(signal) = process.receive().await {
                let seen = match signal {
                    Signal::Message(message) => {
                        answer(&process, &message.body.term().unwrap(), &count).await;
                        continue;
                    }
                    Signal::Exit { .. } => Seen::Link,
                    Signal::Down(_) => Seen::Monitor,
                    _ => continue,
                };
                if sender.send((Instant::now(), seen)).is_err() {
                    break;
                }
            }
            watching.abort();
        });
    });
    receiver
}

async fn answer(process: &Mailbox, message: &Term, count: &AtomicU64) {
    match message {
        Term::Tuple(watch) if watch[0] == term!(watch) => {
            let Term::Pid(pid) = &watch[1] else { panic!("{message}") };
            process.monitor(pid).await;
            process.send_term(pid, &term!((process.pid().clone()))).await.unwrap();
        }
        Term::Tuple(call) if call[0] == Term::atom("$gen_call") => {
            count.fetch_add(1, Ordering::Relaxed);
            drop(Caller::of(&call[1]).unwrap().reply(process, &call[2]).await);
        }
        _ => {}
    }
}

async fn next(mailbox: &mut Mailbox) -> Signal {
    mailbox.receive_within(LIMIT).await.expect("a signal in time")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

async fn pid_from(mailbox: &mut Mailbox) -> meshx_node::etf::Pid {
    let Signal::Message(message) = next(mailbox).await else { panic!() };
    match message.body.term().unwrap() {
        Term::Pid(pid) => pid,
        other => panic!("{other}"),
    }
}

/// A silent partition, one that only one side notices, and their ends.
#[test]
fn partitions_are_noticed_in_time_and_heal() {
    if skips(&NEEDS) {
        return;
    }
    let pair = Pair::make();
    let (here, there) = (pair.a.clone(), pair.b.clone());
    let name = format!("rust@{}", here.address());
    let vm_name = format!("vm@{}", there.address());
    let other_name = format!("other@{}", there.address());
    let own = (name.clone(), address(&here, PORT));
    let seen = other(&there, other_name.clone(), own.clone(), Arc::default());
    let ticktime = TICKTIME.as_secs().to_string();
    let mut vm = PlainVm::builder(Release::Machine, &vm_name, COOKIE, 1)
        .args(&["-erl_epmd_port", PORT, "-kernel", "net_ticktime", &ticktime])
        .inside(&there)
        .start();
    on(&pair.a, async move {
        let others = [
            (vm_name.as_str(), address(&there, PORT)),
            (other_name.as_str(), address(&there, "29001")),
        ];
        let node = node(&name, own.1, &others).await;
        let mut events = node.monitor_nodes();
        vm.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
        let cuts: [&[&[&str]]; 2] = [
            &[&["-A", "INPUT", "-j", "DROP"], &["-A", "OUTPUT", "-j", "DROP"]],
            &[&["-A", "INPUT", "-j", "DROP"]],
        ];
        for (number, cut) in cuts.into_iter().enumerate() {
            let mut process = node.mailbox().unwrap();
            process.trap_exits(true);
            process.register(&format!("process{number}")).unwrap();
            // Relations in both directions, with both.
            vm.forget();
            vm.eval("process_flag(trap_exit, true)");
            vm.eval(&format!("{{process{number}, '{name}'}} ! self()"));
            let of_vm = pid_from(&mut process).await;
            vm.eval(&format!("Ref = monitor(process, {{process{number}, '{name}'}})"));
            let watch = term!({ watch, (process.pid().clone()) });
            process.send_term(("process", other_name.as_str()), &watch).await.unwrap();
            let of_other = pid_from(&mut process).await;
            for pid in [&of_vm, &of_other] {
                process.link(pid).await;
                process.monitor(pid).await;
            }
            while let Ok((_, seen)) = seen.try_recv() {
                assert_eq!(seen, Seen::Up);
            }
            // One of both always has something in the pipe.
            let talks = node.mailbox().unwrap();
            let to = of_other.clone();
            let talking = tokio::spawn(async move {
                while talks.send(&to, &vec![0_u8; 1000]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
            vm.eval("Begun = erlang:monotonic_time(millisecond)");
            let begun = Instant::now();
            for rule in cut {
                there.iptables(rule);
            }
            let mut fired = Vec::new();
            for _ in 0..4 {
                let (who, reason, kind) = match next(&mut process).await {
                    Signal::Exit { from, reason } => (from.node.name().clone(), reason, "link"),
                    Signal::Down(down) => (down.node, down.reason, "monitor"),
                    other => panic!("{other:?}"),
                };
                assert_eq!(reason, term!(noconnection));
                let took = millis(begun.elapsed());
                eprintln!("cut {number}: {kind} with {who} broke after {took} ms");
                assert!(IN_TIME.contains(&took), "{took} ms");
                fired.push((who, kind));
            }
            fired.sort();
            fired.dedup();
            assert_eq!(fired.len(), 4, "each once: {fired:?}");
            let (mut downs, mut signals) = (0, 0);
            while downs < 1 || signals < 2 {
                let (at, seen) = seen.recv_timeout(LIMIT).unwrap();
                let took = millis(at.duration_since(begun));
                eprintln!("cut {number}: the other saw {seen:?} after {took} ms");
                assert!(IN_TIME.contains(&took), "{seen:?}: {took} ms");
                match seen {
                    Seen::Down => downs += 1,
                    Seen::Monitor | Seen::Link => signals += 1,
                    Seen::Up => panic!("it came up"),
                }
            }
            let down = "receive {'DOWN', Ref, process, _, noconnection} -> \
                        erlang:monotonic_time(millisecond) - Begun after 9000 -> timeout end";
            let took: u64 = vm.eval(down).parse().expect("its monitor fires");
            eprintln!("cut {number}: the VM noticed after {took} ms");
            assert!(IN_TIME.contains(&took), "the VM: {took} ms");
            talking.abort();
            let mut lost = Vec::new();
            while lost.len() < 2 {
                let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
                if let NodeEvent::Down { node, .. } = event {
                    lost.push(node);
                }
            }

            there.iptables(&["-F"]);
            let healed = Instant::now();
            for to in [("process", other_name.as_str()), ("nobody", vm_name.as_str())] {
                while process.send(to, "again").await.is_err() {
                    assert!(healed.elapsed() < Duration::from_secs(5));
                }
            }
            eprintln!("cut {number}: healed within {:?}", healed.elapsed());
            assert!(healed.elapsed() < Duration::from_secs(5), "{:?}", healed.elapsed());
            assert_eq!(node.peers().len(), 2);
            // Nothing fires twice.
            let more = process.receive_within(Duration::from_millis(300)).await;
            assert!(more.is_none(), "{more:?}");
            let again = "receive {'DOWN', Ref, _, _, _} -> again after 0 -> once end";
            assert_eq!(vm.eval(again), "once");
        }
    });
}

/// D10: a fifth of all packets is lost; no call is answered wrongly, or carried out twice.
#[test]
fn calls_over_a_link_that_loses_packets() {
    if skips(&NEEDS) {
        return;
    }
    let calls = 10_000;
    let pair = Pair::make();
    let (here, there) = (pair.a.clone(), pair.b.clone());
    let name = format!("rust@{}", here.address());
    let other_name = format!("other@{}", there.address());
    let own = (name.clone(), address(&here, PORT));
    let count = Arc::new(AtomicU64::new(0));
    let _seen = other(&there, other_name.clone(), own.clone(), Arc::clone(&count));
    there.iptables(&[
        "-A",
        "INPUT",
        "-m",
        "statistic",
        "--mode",
        "random",
        "--probability",
        "0.2",
        "-j",
        "DROP",
    ]);
    on(&pair.a, async move {
        let others = [(other_name.as_str(), address(&there, "29001"))];
        let node = node(&name, own.1, &others).await;
        let begun = Instant::now();
        // A lost SYN takes a second.
        while node.connect(&other_name).await.is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1));
        }
        let next = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (node, next, to) = (node.clone(), Arc::clone(&next), other_name.clone());
                tokio::spawn(async move {
                    let mut right = 0_u64;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= calls {
                            return right;
                        }
                        let limit = Duration::from_mins(2);
                        let to = ("process", to.as_str());
                        let answer: Result<u64, CallError> = node.call(to, &number, limit).await;
                        assert_eq!(answer.unwrap(), number, "the wrong answer");
                        right += 1;
                    }
                })
            })
            .collect();
        let mut right = 0;
        for caller in callers {
            right += caller.await.unwrap();
        }
        eprintln!("{calls} calls in {:?}", begun.elapsed());
        assert_eq!((right, count.load(Ordering::Relaxed)), (calls, calls));
    });
}
