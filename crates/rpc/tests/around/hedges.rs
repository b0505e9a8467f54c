//! Calls that are made twice at a time, for want of an answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshx_rpc::event::Event;
use meshx_rpc::transport::{Carried, Dial, Memory, Stream};
use meshx_rpc::{
    Body, Client, ClientBuilder, Context, Error, Executed, Functions, Hedge, Kind, Next, Request,
    Retries, Server, Serving,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::{Seen, until};

const AFTER: Duration = Duration::from_millis(50);

/// Leads to one server after another.
struct InTurn {
    all: Vec<Memory>,
    next: AtomicUsize,
}

impl Dial for InTurn {
    fn dial(&self) -> Carried<'_, Stream> {
        let next = self.next.fetch_add(1, Ordering::SeqCst);
        self.all[next % self.all.len()].dial()
    }

    fn address(&self) -> String {
        "in turn".to_owned()
    }
}

/// What a server has seen.
#[derive(Clone)]
struct Met {
    name: &'static str,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    /// Of the calls that were not over when they were dropped.
    left: Arc<Mutex<Vec<Context>>>,
    /// Slow calls wait for one of these.
    go: Arc<Semaphore>,
    connections: Arc<AtomicUsize>,
}

impl Met {
    fn new(name: &'static str) -> Self {
        let (begun, ended, left) = Default::default();
        let (go, connections) = (Arc::new(Semaphore::new(0)), Arc::default());
        Self { name, begun, ended, left, go, connections }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// `ask` gives the server's name; those in `slow` once they may.
    fn functions(&self, slow: bool) -> Functions {
        struct Runs(Met);
        impl Drop for Runs {
            fn drop(&mut self) {
                self.0.ended.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (met, failing) = (self.clone(), self.clone());
        Functions::new()
            .add("ask", move |()| {
                met.begun.fetch_add(1, Ordering::SeqCst);
                let runs = Runs(met.clone());
                async move {
                    if slow {
                        runs.0.left.lock().unwrap().extend(Context::current());
                        runs.0.go.acquire().await.unwrap().forget();
                        runs.0.left.lock().unwrap().pop();
                    }
                    Ok::<_, String>(runs.0.name.to_owned())
                }
            })
            .add("fail", move |()| {
                failing.begun.fetch_add(1, Ordering::SeqCst);
                async { Err::<(), _>("no".to_owned()) }
            })
    }
}

/// A client with a connection to each of the servers, of which those named `s…` are slow.
async fn client<const N: usize>(
    names: [&'static str; N],
    options: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (Client, [Met; N], Vec<Serving>) {
    let met = names.map(Met::new);
    let (mut all, mut servers) = (Vec::new(), Vec::new());
    for it in &met {
        let (dial, listen) = Memory::pair();
        let connections = Arc::clone(&it.connections);
        let observe = move |event: &Event<'_>| {
            if let Event::Connected { .. } = event {
                connections.fetch_add(1, Ordering::SeqCst);
            }
        };
        let functions = it.functions(it.name.starts_with('s'));
        servers.push(Server::new(functions).observe(observe).listen(listen).start());
        all.push(dial);
    }
    let next = AtomicUsize::new(0);
    let client = options(Client::to(InTurn { all, next }).connections(N).max_age(None)).start();
    until("all are connected", || {
        let client = client.clone();
        tokio::spawn(async move { client.function("nosuch").call::<_, ()>(&()).await });
        met.iter().all(|it| it.connections.load(Ordering::SeqCst) > 0)
    })
    .await;
    // Both ends know of all.
    tokio::time::sleep(Duration::from_millis(100)).await;
    (client, met, servers)
}

/// Enough for every call.
fn rich() -> Retries {
    Retries { budget: 1.0, ..Retries::default() }
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_not_what_callers_wait_for() {
    let hedge = Hedge::after(AFTER);
    let (client, [slow, fast], _servers) =
        client(["slow", "fast"], |it| it.retries(rich()).hedge(hedge)).await;
    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        let who: String = client.function("ask").idempotent().call(&()).await.unwrap();
        took.push(begun.elapsed());
        assert_eq!(who, "fast");
    }
    // About each second call went to the slow one first, and was given up there.
    assert!((30..=70).contains(&slow.begun()), "{}", slow.begun());
    assert_eq!(fast.begun(), 100);
    let longest = took.iter().max().unwrap();
    assert!((AFTER..AFTER * 2).contains(longest), "{longest:?}");
    // The losers were cancelled there, and know it.
    until("all are cancelled", || slow.ended() == slow.begun()).await;
    let left = slow.left.lock().unwrap();
    assert_eq!(left.len(), slow.begun());
    assert!(left.iter().all(Context::is_cancelled));
    drop(left);
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_being_idempotent_or_hedged_a_call_is_made_once() {
    let hedge = Hedge::after(AFTER);
    let (client, [one, other], _servers) =
        client(["slow", "slower"], |it| it.retries(rich()).hedge(hedge)).await;
    let once = client.function("ask").timeout(Duration::from_secs(1));
    let never = once.clone().idempotent().hedge(Hedge::NONE);
    for call in [once, never] {
        let error = call.call::<_, String>(&()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
    }
    client.function("ask").idempotent().cast(&()).await.unwrap();
    tokio::time::sleep(AFTER * 4).await;
    assert_eq!(one.begun() + other.begun(), 3);
    // And by the call's own, it is.
    let call = client.function("ask").timeout(Duration::from_secs(1)).idempotent();
    call.call::<_, String>(&()).await.unwrap_err();
    assert_eq!(one.begun() + other.begun(), 5);
}

#[tokio::test(start_paused = true)]
async fn never_on_the_same_connection() {
    let hedge = Hedge::after(AFTER).most(9);
    let (client, [only], _servers) = client(["slow"], |it| it.retries(rich()).hedge(hedge)).await;
    let call = client.function("ask").idempotent().timeout(Duration::from_secs(1));
    call.call::<_, String>(&()).await.unwrap_err();
    assert_eq!(only.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_often_than_at_most_each_time_elsewhere() {
    for (most, attempts) in [(1, 2), (2, 3), (9, 3)] {
        let hedge = Hedge::after(AFTER).most(most);
        let (client, met, _servers) =
            client(["slow", "slower", "slowest"], |it| it.retries(rich()).hedge(hedge)).await;
        let call = client.function("ask").idempotent().timeout(Duration::from_secs(1));
        call.call::<_, String>(&()).await.unwrap_err();
        let begun: Vec<usize> = met.iter().map(Met::begun).collect();
        assert_eq!(begun.iter().sum::<usize>(), attempts, "{begun:?}");
        assert!(begun.iter().all(|&it| it <= 1), "{begun:?}");
    }
}

/// Everything is slow: what is made twice stays a part of the calls.
#[tokio::test(start_paused = true)]
async fn the_budget_bounds_them() {
    let (calls, part) = (200, 0.2);
    let retries = Retries { budget: part, ..Retries::default() };
    let (client, [one, other], _servers) =
        client(["slow", "slower"], |it| it.retries(retries).hedge(Hedge::after(AFTER))).await;
    let all: Vec<_> = (0..calls)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let call = client.function("ask").idempotent().timeout(Duration::from_secs(1));
                call.call::<_, String>(&()).await.unwrap_err()
            })
        })
        .collect();
    for call in all {
        assert_eq!(call.await.unwrap().kind(), Kind::Deadline);
    }
    let hedges = one.begun() + other.begun() - calls;
    // A fifth of them, ten at the beginning, and ten in a second; the first calls earned, too.
    assert!((40..=65).contains(&hedges), "{hedges}");
}

#[tokio::test(start_paused = true)]
async fn events_show_each_attempt() {
    let seen = Seen::default();
    let noted = seen.clone();
    let observe = move |event: &Event<'_>| {
        if let Event::Called(called) = event
            && called.function == "ask"
        {
            let result = called.result.map_err(Error::to_string);
            noted.note(format!("{} {result:?}", called.attempt));
        }
    };
    let hedge = Hedge::after(AFTER);
    let (client, [slow, _], _servers) =
        client(["slow", "fast"], |it| it.retries(rich()).hedge(hedge).observe(observe)).await;
    while slow.begun() == 0 {
        seen.take();
        client.function("ask").idempotent().call::<_, String>(&()).await.unwrap();
    }
    let lost = "1 Err(\"ask: attempt 2 was answered before\")";
    assert_eq!(seen.take(), [lost, "2 Ok(())"]);
    // The first may win all the same.
    until("the loser is gone", || slow.ended() == slow.begun()).await;
    slow.go.add_permits(1);
    let begun = slow.begun();
    let who = loop {
        seen.take();
        let who: String = client.function("ask").idempotent().call(&()).await.unwrap();
        if slow.begun() > begun {
            break who;
        }
    };
    assert_eq!((&*who, seen.take()), ("slow", vec!["1 Ok(())".to_owned()]));
}

/// The way of one fails while the other runs: that one's answer is waited for. If both fail, it is made
/// again.
#[tokio::test(start_paused = true)]
async fn what_fails_leaves_the_answer_to_the_other() {
    let hedge = Hedge::after(AFTER);
    let (client, [a, b], mut servers) =
        client(["slow", "slower"], |it| it.retries(Retries::NONE).hedge(hedge)).await;
    let asking =
        tokio::spawn(
            async move { client.function("ask").idempotent().call::<_, String>(&()).await },
        );
    until("both are asked", || a.begun() + b.begun() == 2).await;
    drop(servers.remove(0));
    tokio::time::sleep(AFTER).await;
    b.go.add_permits(1);
    assert_eq!(asking.await.unwrap().unwrap(), "slower");
    assert_eq!((a.begun(), b.begun()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_function_is_an_answer() {
    let hedge = Hedge::after(AFTER);
    let (client, met, _servers) =
        client(["slow", "fast"], |it| it.retries(rich()).hedge(hedge)).await;
    for _ in 0..10 {
        let error = client.function("fail").idempotent().call::<_, ()>(&()).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Application, Executed::Yes));
    }
    assert_eq!(met.iter().map(Met::begun).sum::<usize>(), 10);
}

/// An interceptor wraps all attempts, and may say what is idempotent.
#[tokio::test(start_paused = true)]
async fn an_interceptor_may_say_what_is_idempotent() {
    let seen = Seen::default();
    let reads = async |mut request: Request, next: Next| -> Result<Body, Error> {
        request.idempotent |= request.function() == "ask";
        next.run(request).await
    };
    let options = |it: ClientBuilder| {
        let it = it.intercept(seen.noting("a")).intercept(reads);
        it.retries(rich()).hedge(Hedge::after(AFTER))
    };
    let (client, [slow, _], _servers) = client(["slow", "fast"], options).await;
    seen.take();
    for _ in 0..10 {
        let who: String = client.call("ask", &()).await.unwrap();
        assert_eq!(who, "fast");
        assert_eq!(seen.take(), ["a call ask", "a ok"]);
    }
    assert!(slow.begun() > 0);
}
