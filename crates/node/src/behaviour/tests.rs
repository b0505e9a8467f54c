//! What calls leave behind, which cannot be seen from outside.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use meshx_dist::handshake::Cookie;
use meshx_etf::{Term, term};

use super::{Answer, GenServer, Info, Next};
use crate::call::{CallError, Caller};
use crate::carrier::{Memory, Switchboard};
use crate::node::Node;
use crate::process::{Cell, Mailbox};

const LIMIT: Duration = Duration::from_secs(10);

/// Answers the call `later` when it gets the message `now`, and refuses others.
#[derive(Default)]
struct Slow(Vec<Caller>);

impl GenServer for Slow {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;
    type Info = Term;

    async fn handle_call(&mut self, request: Term, caller: Caller, _: &Mailbox) -> Answer<Term> {
        if request != term!(later) {
            return Answer::Refuse(term!({not, (request)}));
        }
        self.0.push(caller);
        Answer::Later
    }

    async fn handle_info(&mut self, _: Info<Term>, process: &Mailbox) -> Next {
        for caller in self.0.drain(..) {
            caller.reply(process, "late").await.unwrap();
        }
        Next::Continue
    }
}

async fn pair() -> (Node, Node) {
    let board = Switchboard::new();
    let start = |name: &str| {
        let builder = Node::builder(name).cookie(Cookie::new("tests"));
        builder.carrier(Memory::new(&board)).mailbox_limit(1024).start()
    };
    (start("a@test").await.unwrap(), start("b@test").await.unwrap())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn slow(node: &Node) -> Arc<Cell> {
    let pid = node.serve("slow", Slow::default()).await.unwrap();
    node.inner().processes.get(&pid).unwrap()
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing() {
    let (a, b) = pair().await;
    let server = slow(&b).await;
    let client = a.inner().client().unwrap();
    let calling = tokio::spawn({
        let a = a.clone();
        async move { a.call::<_, Term>(("slow", "b@test"), &term!(later), LIMIT).await }
    });
    until("it is called", || server.watcher_count() == 1).await;
    assert_eq!(client.expecting(), (1, 1, 1));
    calling.abort();
    until("it is not watched", || server.watcher_count() == 0).await;
    assert_eq!(client.expecting(), (0, 0, 0));

    // A time-out is no different; and the answers, both late, are dropped.
    let limit = Duration::from_millis(50);
    let answer = a.call::<_, Term>(("slow", "b@test"), &term!(later), limit).await;
    assert!(matches!(answer, Err(CallError::Timeout(_))), "{answer:?}");
    until("it is not watched", || server.watcher_count() == 0).await;
    assert_eq!(client.expecting(), (0, 0, 0));
    let own = a.mailbox().unwrap();
    let answer = own.call::<_, Term>(("slow", "b@test"), &term!(later), limit).await;
    assert!(matches!(answer, Err(CallError::Timeout(_))), "{answer:?}");
    own.send(("slow", "b@test"), "now").await.unwrap();
    // Behind the answers.
    let refused = own.call::<_, Term>(("slow", "b@test"), &term!(next), LIMIT).await;
    assert!(matches!(&refused, Err(CallError::Exit(reason)) if *reason == term!({not, next})));
    assert_eq!((own.queue_len(), client.queue_len()), (0, 0));
    assert_eq!((own.cell().expecting(), server.watcher_count()), ((0, 0, 0), 0));
}

#[tokio::test]
async fn a_refusal_ends_one_call_of_many() {
    let (a, b) = pair().await;
    let server = slow(&b).await;
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.call::<_, String>(("slow", "b@test"), &term!(later), LIMIT).await }
    });
    until("one waits", || server.watcher_count() == 1).await;
    let refused = a.call::<_, Term>(("slow", "b@test"), &term!(other), LIMIT).await;
    assert!(matches!(refused, Err(CallError::Exit(_))), "{refused:?}");
    assert_eq!(server.watcher_count(), 1);
    a.mailbox().unwrap().send(&server.pid, "now").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "late");
    until("it is not watched", || server.watcher_count() == 0).await;
    // Here, too.
    let here = b.call::<_, Term>("slow", &term!(other), LIMIT).await;
    assert!(matches!(&here, Err(CallError::Exit(reason)) if *reason == term!({not, other})));
    assert_eq!(server.watcher_count(), 0);
}

#[tokio::test]
async fn the_process_for_calls_cannot_be_filled_nor_lost() {
    let (a, b) = pair().await;
    slow(&b).await;
    let client = a.inner().client().unwrap();
    let hostile = b.mailbox().unwrap();
    let large = Term::Binary(vec![0; 4096].into());
    for _ in 0..16 {
        hostile.send_term(&client.pid, &large).await.unwrap();
    }
    assert!(a.call::<_, Term>(("slow", "b@test"), &term!(x), LIMIT).await.is_err());
    assert_eq!(client.queue_len(), 0);
    hostile.exit(&client.pid, &term!(kill)).await.unwrap();
    let refused = a.call::<_, Term>(("slow", "b@test"), &term!(x), LIMIT).await;
    assert!(matches!(refused, Err(CallError::Exit(_))), "{refused:?}");
    // The answer came behind the signal. Nobody else's call may end of that.
    assert!(client.ended_with().is_none());
    assert_eq!(a.inner().client().unwrap().pid, client.pid);
}
