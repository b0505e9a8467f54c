//! What calls leave behind, and what a peer may send; neither can be seen from outside.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use meshx_dist::handshake::Cookie;
use meshx_etf::{Term, term};

use super::{Raise, RpcError, RpcTable};
use crate::carrier::{Memory, Switchboard};
use crate::node::Node;
use crate::process::{Signal, SpawnStep, Spawning};

const LIMIT: Duration = Duration::from_secs(10);

async fn pair() -> (Node, Node) {
    let board = Switchboard::new();
    let table =
        RpcTable::new()
            .function("rust", "sleep", |(time,): (u64,)| async move {
                tokio::time::sleep(Duration::from_millis(time)).await;
                Ok(())
            })
            .terms("rust", "echo", 1, |mut call| async move {
                call.arguments.pop().ok_or(Raise::Clause)
            });
    let start = async |name: &str| {
        let node = Node::builder(name).cookie(Cookie::new("secret")).carrier(Memory::new(&board));
        node.rpc(table.clone()).start().await.unwrap()
    };
    (start("client@mem").await, start("server@mem").await)
}

fn is_idle(server: &Node) -> bool {
    server.inner().config.rpc.is_idle()
}

/// Waits until it is so.
async fn until(what: impl Fn() -> bool) {
    let soon = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, soon).await.unwrap();
}

#[tokio::test]
async fn calls_leave_nothing_behind() {
    let (client, server) = pair().await;
    client.connect("server@mem").await.unwrap();
    let cell = client.inner().client().unwrap();
    for limit in 0..50 {
        let limit = Duration::from_micros(limit * 40);
        let late = client.rpc::<()>("server@mem", "rust", "sleep", (60_000,), limit).await;
        assert!(matches!(late, Err(RpcError::Timeout(_))), "{late:?}");
    }
    let value: u64 = client.rpc("server@mem", "rust", "echo", (7,), LIMIT).await.unwrap();
    assert_eq!(value, 7);
    until(|| cell.expecting() == (0, 0, 0) && cell.spawning_count() == 0).await;
    assert_eq!(cell.queue_len(), 0);
    // Nor at the server, where nobody waits for the result.
    until(|| is_idle(&server)).await;
    until(|| server.process_count() == 3).await;
}

#[tokio::test]
async fn a_process_that_is_not_wanted_any_more_when_it_is_there_is_not_watched() {
    let (client, server) = pair().await;
    let (inner, pid) = (client.inner(), server.mailbox().unwrap().pid().clone());
    let cell = inner.client().unwrap();
    let reference = inner.reference(&cell.pid);
    let _answer = cell.expect_reply(reference.clone());
    let spawning = Spawning { via: Some(1), node: server.name().clone(), abandoned: false };
    cell.spawning(reference.clone(), spawning);
    assert!(cell.forget_reply(&reference).is_none());
    let step = cell.spawned(reference, Some(1), Ok(pid.clone()), false, true);
    assert_eq!(step, SpawnStep::Unwanted(pid));
    assert_eq!((cell.expecting(), cell.spawning_count()), ((0, 0, 0), 0));
}

/// The connection ends just when the request should go: that is told once.
#[tokio::test]
async fn a_request_that_is_not_sent_is_told_once() {
    let (client, server) = pair().await;
    let asks = client.mailbox().unwrap();
    let node = server.name().clone();
    let ask = || {
        let reference = client.inner().reference(asks.pid());
        let spawning = Spawning { via: Some(9), node: node.clone(), abandoned: false };
        asks.cell().spawning(reference.clone(), spawning);
        reference
    };
    let (before, after) = (ask(), ask());
    assert!(asks.cell().not_spawning(&before), "an error");
    drop(asks.cell().lost(9));
    assert!(!asks.cell().not_spawning(&after), "a signal, and no error");
    assert_eq!(asks.queue_len(), 1);
}

/// As many processes as there can be: who calls is told, and not left to wait.
#[tokio::test]
async fn a_call_without_a_process_to_run_in_is_refused() {
    let (client, server) = pair().await;
    let rex = ("rex", "server@mem");
    for (kind, full) in
        [("call", false), ("block_call", false), ("call", true), ("block_call", true)]
    {
        if full {
            server.inner().processes.fill();
        }
        let request = term!({ (Term::atom(kind)), rust, echo, [7], user });
        let answer: Term = client.call(rex, &request, LIMIT).await.unwrap();
        let refused = term!({badrpc, {atom "EXIT", system_limit}});
        assert_eq!(answer, if full { refused } else { term!(7) }, "{kind}");
    }
    until(|| is_idle(&server)).await;
}

/// The answer finds a process that has ended just now, and is still among those that live.
#[tokio::test]
async fn a_process_whose_asker_ends_when_it_is_there_does_not_live_on() {
    let (client, server) = pair().await;
    let (started, mut pids) = tokio::sync::mpsc::unbounded_channel();
    server.offer("test", "linger", 0, move |mut mailbox, _| {
        started.send(mailbox.pid().clone()).unwrap();
        async move { while mailbox.receive().await.is_some() {} }
    });
    client.connect("server@mem").await.unwrap();
    let asks = client.mailbox().unwrap();
    let linger = ("test", "linger");
    asks.spawn_request("server@mem", linger, &[], true, false).await.unwrap();
    drop(asks.cell().finish(term!(gone)));
    assert!(client.inner().processes.get(asks.pid()).is_some());
    let pid = tokio::time::timeout(LIMIT, pids.recv()).await.unwrap().unwrap();
    until(|| server.inner().processes.get(&pid).is_none()).await;
}

#[tokio::test]
async fn odd_messages_and_requests_change_nothing() {
    let (client, server) = pair().await;
    let mut mailbox = client.mailbox().unwrap();
    let names = ["net_kernel", "rex", "user"];
    let before = names.map(|name| server.whereis(name));
    let pid = Term::Pid(mailbox.pid().clone());
    let from = term!({(pid.clone()), tag});
    let call = |request: Term| term!({atom "$gen_call", (from.clone()), (request)});
    let cast = |request: Term| term!({atom "$gen_cast", (request)});
    let messages = [
        term!(hello),
        term!([]),
        term!({}),
        term!({atom "$gen_call"}),
        term!({atom "$gen_call", from, request}),
        term!({atom "$gen_call", {(pid.clone()), [alias | 1]}, {call, erlang, node, [], user}}),
        call(term!(stop)),
        call(term!({ call })),
        call(term!({call, 1, 2, 3, 4})),
        call(term!({call, erlang, node, [a | b], user})),
        call(term!({ is_auth })),
        call(term!({connect, normal, atom "x@y"})),
        call(term!({disconnect, atom "client@mem"})),
        call(term!({allow, []})),
        call(term!({new_ticktime, 1, 1})),
        cast(term!({cast, os, cmd, [], user})),
        cast(term!({cast, 1, 2, 3, 4})),
        cast(term!({async_disconnect, atom "client@mem"})),
        term!({(pid.clone()), {sbcast, 1, 2}}),
        term!({(pid.clone()), {sbcast, rex, {sbcast, rex, x}}}),
        term!({(pid.clone()), {send, net_kernel, x}}),
        term!({io_request, (pid.clone()), 1, 2}),
        term!({io_request, (pid.clone()), 1, {requests, [{requests, []}]}}),
        term!({io_request, 1, 2, {put_chars, unicode, "x"}}),
        term!({atom "EXIT", (pid.clone()), kill}),
        term!({nodedown, atom "client@mem"}),
    ];
    for name in names {
        for message in &messages {
            mailbox.send_term((name, "server@mem"), message).await.unwrap();
        }
    }
    let reference = Term::from(mailbox.alias());
    for arguments in [
        vec![term!(1), term!(2), term!(3), term!(4)],
        vec![reference.clone(), term!(erlang), term!(node), term!([a | b])],
        vec![reference, term!(erlang), term!(node), Term::List(vec![term!(x); 1000])],
    ] {
        let function = ("erpc", "execute_call");
        let request =
            mailbox.spawn_request("server@mem", function, &arguments, true, true).await.unwrap();
        let ended = mailbox
            .receive_where(
                |signal| matches!(signal, Signal::Down(down) if down.reference == request),
            )
            .await;
        let Some(Signal::Down(down)) = ended else { panic!() };
        assert!(down.reason.as_tuple().is_some_and(|it| it.len() == 4), "{}", down.reason);
    }
    let node: Term = client.rpc("server@mem", "erlang", "node", (), LIMIT).await.unwrap();
    assert_eq!(node, term!(atom "server@mem"));
    assert_eq!(names.map(|name| server.whereis(name)), before);
    assert_eq!(server.peers().len(), 1);
    until(|| is_idle(&server)).await;
}

#[tokio::test]
async fn a_value_may_be_larger_than_what_may_wait_for_a_peer() {
    let (client, server) = pair().await;
    let large = Term::Binary(vec![7; 80 << 20].into());
    let echo = client.rpc_term("server@mem", "rust", "echo", vec![large.clone()], LIMIT);
    assert!(echo.await.unwrap() == large);
    until(|| is_idle(&server)).await;
}

#[tokio::test]
async fn a_peer_that_asks_and_reads_nothing_is_given_up() {
    let (client, server) = pair().await;
    // Its mailbox takes two answers, and nobody looks into it.
    let (asker, sender) = (client.mailbox().unwrap(), client.mailbox().unwrap());
    let tag = Term::Binary(vec![0; 40 << 20].into());
    let from = term!({(Term::Pid(asker.pid().clone())), (tag)});
    let ping = term!({atom "$gen_call", (from), {is_auth, atom "client@mem"}});
    for _ in 0..8 {
        if sender.send_term(("net_kernel", "server@mem"), &ping).await.is_err() {
            break;
        }
    }
    until(|| server.peers().is_empty()).await;
}
