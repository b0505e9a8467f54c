//! What a peer that has the cookie may not do nevertheless.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshx_node::carrier::{Carried, Carrier, Listen, Memory, Myself, Stream, Switchboard};
use meshx_node::etf::{Atom, Node as NodeId, Pid, Reference, Term, term};
use meshx_node::global::Global;
use meshx_node::{Cookie, Node, RpcTable, Signal, Visibility};

use crate::{COOKIE, LIMIT, NOTHING, builder, next, on, until};

/// Pipes that count how often they are dialled, and say who dials.
struct Counting {
    pipes: Memory,
    dials: Arc<AtomicUsize>,
    identity: Option<String>,
    proves_names: bool,
}

impl Counting {
    fn new(board: &Switchboard) -> (Self, Arc<AtomicUsize>) {
        let dials = Arc::new(AtomicUsize::new(0));
        let (pipes, counted) = (Memory::new(board), Arc::clone(&dials));
        (Self { pipes, dials: counted, identity: None, proves_names: false }, dials)
    }
}

impl Carrier for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn proves_names(&self) -> bool {
        self.proves_names
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async move {
            let (listener, identity) = (self.pipes.listen(me).await?, self.identity.clone());
            Ok(Box::new(Sure { listener, identity }) as Box<dyn Listen>)
        })
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        self.pipes.dial(node)
    }
}

/// A listener that is sure who dials.
struct Sure {
    listener: Box<dyn Listen>,
    identity: Option<String>,
}

impl Listen for Sure {
    fn accept(&mut self) -> Carried<'_, Stream> {
        let identity = self.identity.clone();
        let accepted = self.listener.accept();
        Box::pin(async move { Ok(Stream { identity, ..accepted.await? }) })
    }

    fn address(&self) -> String {
        self.listener.address()
    }
}

async fn asks_for_a_name(board: &Switchboard, of: &Node) -> Result<Node, String> {
    let asks = Node::dynamic("127.0.0.1", of.name().as_str()).cookie(Cookie::new(COOKIE));
    asks.carrier(Memory::new(board)).start().await.map_err(|error| error.to_string())
}

/// Who is on no list is not let in under a name that it is given, either.
#[tokio::test]
async fn asking_for_a_name_is_no_way_around_the_list() {
    let board = Switchboard::new();
    let a = on(&board, "a").allow(|name| name == "good@127.0.0.1").start().await.unwrap();
    let error = asks_for_a_name(&board, &a).await.unwrap_err();
    assert!(error.contains("NotAllowed"), "{error}");
    // A list of hosts is one for these, too.
    let b = on(&board, "b").allow(|name| name.ends_with("@127.0.0.1")).start().await.unwrap();
    asks_for_a_name(&board, &b).await.unwrap();
}

/// Nor is who has shown a name to the carrier, and asks for another.
#[tokio::test]
async fn who_has_proved_a_name_gets_no_other() {
    let board = Switchboard::new();
    let (mut carrier, _) = Counting::new(&board);
    carrier.identity = Some("shop@127.0.0.1".to_owned());
    let a = builder("a").carrier(carrier).start().await.unwrap();
    let error = asks_for_a_name(&board, &a).await.unwrap_err();
    assert!(error.contains("NotAllowed"), "{error}");
    on(&board, "shop").start().await.unwrap().connect(a.name()).await.unwrap();
}

/// Nor is anybody where only proved names get through, as in the mesh.
#[tokio::test]
async fn where_names_are_proved_none_is_given() {
    let board = Switchboard::new();
    let (mut carrier, _) = Counting::new(&board);
    carrier.proves_names = true;
    let a = builder("a").carrier(carrier).start().await.unwrap();
    let error = asks_for_a_name(&board, &a).await.unwrap_err();
    assert!(error.contains("NotAllowed"), "{error}");
    on(&board, "shop").start().await.unwrap().connect(a.name()).await.unwrap();
}

/// Calls of no process in particular share one. Whoever is called knows its pid, and ends nobody
/// else's calls by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_called_ends_no_calls_but_its_own() {
    let board = Switchboard::new();
    let a = on(&board, "a").start().await.unwrap();
    let table = RpcTable::new().function("slow", "answer", |(): ()| async {
        tokio::time::sleep(NOTHING * 4).await;
        Ok(7)
    });
    let good = on(&board, "good").rpc(table).start().await.unwrap();
    let bad = on(&board, "bad").start().await.unwrap();
    let mut called = bad.mailbox().unwrap();
    called.register("called").unwrap();
    called.trap_exits(true);
    for attack in 0..3 {
        let (calls, name) = (a.clone(), good.name().clone());
        let slow = tokio::spawn(async move {
            calls.rpc::<u64>(&name, "slow", "answer", (), LIMIT).await.unwrap()
        });
        let calls = a.clone();
        let other = tokio::spawn(async move {
            calls.call::<_, Term>(("called", "bad@127.0.0.1"), &term!(hello), LIMIT).await
        });
        let Signal::Message(message) = next(&mut called).await else { panic!() };
        let pid = message.from.unwrap();
        match attack {
            0 => {
                let links = bad.mailbox().unwrap();
                links.link(&pid).await;
                links.end(term!(boom));
            }
            1 => called.exit(&pid, &term!(kill)).await.unwrap(),
            _ => {
                called.link(&pid).await;
                tokio::time::sleep(NOTHING).await;
                a.disconnect(bad.name());
            }
        }
        assert_eq!(slow.await.unwrap(), 7, "attack {attack}");
        other.abort();
    }
}

/// A call to a node that is not there looks for it once.
#[tokio::test]
async fn a_call_dials_once() {
    let board = Switchboard::new();
    let (carrier, dials) = Counting::new(&board);
    let a = builder("a").carrier(carrier).start().await.unwrap();
    let nobody = ("server", "nobody@127.0.0.1");
    let error = a.call::<_, Term>(nobody, &term!(hello), LIMIT).await.unwrap_err();
    assert!(matches!(error, meshx_node::CallError::NoConnection), "{error}");
    assert_eq!(dials.load(Ordering::SeqCst), 1);
}

/// What is asked of this node itself is not asked by way of its carrier.
#[tokio::test]
async fn a_node_does_not_dial_itself() {
    let board = Switchboard::new();
    let (carrier, dials) = Counting::new(&board);
    let a = builder("a").carrier(carrier).start().await.unwrap();
    let mut mailbox = a.mailbox().unwrap();
    mailbox.spawn_request(a.name(), ("m", "f"), &[], false, true).await.unwrap();
    let Signal::Spawned { result, .. } = next(&mut mailbox).await else { panic!() };
    assert_eq!(result.unwrap_err().as_str(), "notsup");
    // An alias is nothing that can be watched, wherever it is.
    let other = NodeId::new(Atom::cut("other@127.0.0.1"), 7);
    let alias = Reference::new(other, &[1, 2, 3]).unwrap();
    mailbox.monitor(alias).await;
    let Signal::Down(down) = next(&mut mailbox).await else { panic!() };
    assert_eq!(down.reason, term!(noproc));
    assert_eq!(dials.load(Ordering::SeqCst), 0);
}

/// A peer names processes of nodes that nobody here knows: those are not dialled for it.
#[tokio::test]
async fn a_peer_makes_nobody_dial() {
    for global in [Global::Polite, Global::Full] {
        let board = Switchboard::new();
        let (carrier, dials) = Counting::new(&board);
        let visible = Visibility::Visible { global };
        let a = builder("a").carrier(carrier).visibility(visible).start().await.unwrap();
        a.pg("pg").unwrap();
        let b = on(&board, "b").start().await.unwrap();
        let mut tells = b.mailbox().unwrap();
        let server = ("global_name_server", a.name().as_str());
        for number in 0..50 {
            let node = NodeId::new(Atom::cut(&format!("n{number}@10.0.0.1")), 7);
            let stranger = Pid { node, id: 1, serial: 0 };
            let discover = term!({discover, (stranger.clone())});
            tells.send_term(("pg", a.name().as_str()), &discover).await.unwrap();
            let requests = [
                term!({set_lock, {(number), me}}),
                term!({register, (number), (stranger.clone()), none}),
            ];
            for request in requests {
                let tag = Term::Atom(Atom::cut("tag"));
                let call = term!({atom "$gen_call", {(stranger.clone()), (tag)}, (request)});
                tells.send_term(server, &call).await.unwrap();
            }
            let name = stranger.node.name().clone();
            let nodes = term!([{(name.clone()), 8}]);
            let said = term!({new_nodes, (name), [], [], (nodes), []});
            tells.send_term(server, &term!({atom "$gen_cast", (said)})).await.unwrap();
        }
        // Behind them.
        let known: Term = b.call(server, &term!(get_known), LIMIT).await.unwrap();
        assert_eq!(known, Term::nil());
        tells.monitor(("pg", a.name().as_str())).await;
        assert!(tells.receive_within(NOTHING).await.is_none());
        assert_eq!(dials.load(Ordering::SeqCst), 0, "{global:?}");
    }
}

/// A peer that calls and takes no results has a bound of calls, and so of processes here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_nobody_takes_are_few() {
    const CALLS: usize = 12_000;
    let board = Switchboard::new();
    let table = RpcTable::new().function("a", "page", |(): ()| async { Ok("x".repeat(4096)) });
    let a = on(&board, "a").rpc(table).start().await.unwrap();
    let b = on(&board, "b").mailbox_limit(1024).start().await.unwrap();
    let calls = b.mailbox().unwrap();
    let before = a.process_count();
    let mut most = 0;
    for _ in 0..CALLS {
        let call = term!({(calls.pid().clone()), {call, a, page, [], user}});
        calls.send_term(("rex", a.name().as_str()), &call).await.unwrap();
        most = most.max(a.process_count() - before);
    }
    for _ in 0..50 {
        tokio::time::sleep(NOTHING / 10).await;
        most = most.max(a.process_count() - before);
    }
    assert!((1000..=4096).contains(&most), "{most} processes");
    // It is told of each in the end.
    let mut calls = calls;
    for number in 0..CALLS {
        assert!(calls.receive_within(LIMIT).await.is_some(), "{number}");
    }
    until("all is over", || a.process_count() == before).await;
}

/// Nor is a mailbox filled by way of a process that is not held back.
#[tokio::test]
async fn a_full_mailbox_is_not_filled_through_rex() {
    let board = Switchboard::new();
    let a = on(&board, "a").mailbox_limit(64 * 1024).start().await.unwrap();
    let b = on(&board, "b").start().await.unwrap();
    let slow = a.mailbox().unwrap();
    slow.register("slow").unwrap();
    let mut tells = b.mailbox().unwrap();
    let page = Term::Binary(vec![0; 16 * 1024].into());
    let mut refused = 0;
    for _ in 0..100 {
        let cast = term!({(tells.pid().clone()), {sbcast, slow, (page.clone())}});
        tells.send_term(("rex", a.name().as_str()), &cast).await.unwrap();
        let Signal::Message(answer) = next(&mut tells).await else { panic!() };
        let answer = answer.body.term().unwrap().to_string();
        refused += usize::from(answer.contains("nonexisting_name"));
    }
    assert!(slow.queue_len() < 10 && refused > 90, "{} {refused}", slow.queue_len());
}
