//! Layers of `tower` around calls, and clients as its services.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_rpc::tower::layer;
use meshx_rpc::transport::{Memory, Tcp};
use meshx_rpc::{
    Body, Client, ClientBuilder, Codec, Error, Executed, Functions, Kind, Next, Request, Retries,
    Server, Serving, v1,
};
use tokio::time::Instant;
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::{Seen, functions, pair};

/// How many of the functions run, and how many did at most at a time.
#[derive(Debug, Clone, Default)]
struct Running(Arc<(AtomicUsize, AtomicUsize)>);

impl Running {
    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    fn functions(&self) -> Functions {
        let it = self.clone();
        functions().add("run", move |()| {
            let now = it.0.0.fetch_add(1, Ordering::SeqCst) + 1;
            it.0.1.fetch_max(now, Ordering::SeqCst);
            let it = it.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                it.0.0.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, String>(())
            }
        })
    }
}

/// So many calls at a time, and their results.
async fn crowd(client: &Client, calls: usize) -> Vec<Result<(), Error>> {
    let all: Vec<_> = (0..calls)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>("run", &()).await })
        })
        .collect();
    let mut results = Vec::new();
    for call in all {
        results.push(call.await.unwrap());
    }
    results
}

#[tokio::test]
async fn a_limit_is_shared_by_all_connections_and_versions() {
    let running = Running::default();
    let listener = Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().to_string();
    let server = Server::new(running.functions()).listen(listener);
    let server = server.also_v1(v1::ServerOptions::default()).unwrap();
    let _server = server.intercept(layer(ConcurrencyLimitLayer::new(3))).start();
    let old = v1::Client::new(Tcp::to(address.clone()), v1::ClientOptions::default()).unwrap();
    let clients = [(); 3].map(|()| Client::to(Tcp::to(address.clone())).start());
    let (a, b, c, d) = tokio::join!(
        crowd(&clients[0], 10),
        crowd(&clients[1], 10),
        crowd(&clients[2], 10),
        old.call::<_, ()>("run", &()),
    );
    d.unwrap();
    for result in [a, b, c].concat() {
        result.unwrap();
    }
    assert_eq!(running.most(), 3);
}

#[tokio::test]
async fn a_limit_of_a_client_holds_its_calls_within_their_time() {
    let running = Running::default();
    let limit = layer(ConcurrencyLimitLayer::new(2));
    let (client, _server) = pair(running.functions(), |it| it.intercept(limit), |it| it);
    for result in crowd(&client, 20).await {
        result.unwrap();
    }
    assert_eq!(running.most(), 2);
    // Two that stay; a third gets no turn, and surely did not run.
    let stay = [client.clone(), client.clone()]
        .map(|client| tokio::spawn(async move { client.call::<_, ()>("forever", &()).await }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = client.function("run").timeout(Duration::from_millis(50));
    let error = third.call::<_, ()>(&()).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Deadline, Executed::Never), "{error}");
    // Who goes gives the place back.
    stay.iter().for_each(tokio::task::JoinHandle::abort);
    client.call::<_, ()>("run", &()).await.unwrap();
}

#[tokio::test]
async fn what_is_shed_was_not_run_and_is_made_again_where_that_helps() {
    let running = Running::default();
    let shed = ServiceBuilder::new().load_shed().concurrency_limit(2).into_inner();
    let client = |it: ClientBuilder| it.retries(Retries::NONE);
    let (client, _server) = pair(running.functions(), client, |it| it.intercept(layer(shed)));
    let results = crowd(&client, 20).await;
    let shed: Vec<&Error> = results.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!((1..=18).contains(&shed.len()), "{}", shed.len());
    for error in shed {
        assert_eq!((error.kind(), error.executed()), (Kind::Overloaded, Executed::Never));
        assert_eq!(error.reason(), "a layer: service overloaded");
    }
    assert_eq!(running.most(), 2);
    client.call::<_, ()>("run", &()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_cancels_what_it_does_not_wait_for() {
    let after = || layer(TimeoutLayer::new(Duration::from_millis(100)));
    let at_client = pair(functions(), |it| it.intercept(after()), |it| it);
    let at_server = pair(functions(), |it| it, |it| it.intercept(after()));
    for (client, _server) in [at_client, at_server] {
        let begun = Instant::now();
        let error = client.call::<_, ()>("forever", &()).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Deadline, Executed::Maybe));
        assert_eq!(error.reason(), "a layer: request timed out");
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
        assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        assert_eq!(client.in_flight(), 0);
    }
}

/// A service that is no clone of itself, in a task of its own.
#[tokio::test(start_paused = true)]
async fn a_buffer_and_a_rate_limit_keep_the_context_of_the_call() {
    let who = Functions::new().add("who", |()| {
        // Before it waits, and after.
        let before = meshx_rpc::Context::current().map(|it| it.function().to_owned());
        async move {
            let after = meshx_rpc::Context::current().map(|it| it.function().to_owned());
            Ok::<_, String>((before, after))
        }
    });
    let slow = ServiceBuilder::new().buffer(8).rate_limit(2, Duration::from_secs(1)).into_inner();
    let (client, _server) = pair(who, |it| it, |it| it.intercept(layer(slow)));
    let begun = Instant::now();
    for _ in 0..6 {
        let (before, after): (Option<String>, Option<String>) =
            client.call("who", &()).await.unwrap();
        assert_eq!((before.as_deref(), after.as_deref()), (Some("who"), Some("who")));
    }
    let took = begun.elapsed().as_secs();
    assert!((2..=3).contains(&took), "{took}");
}

#[derive(Clone)]
struct Twice(u32);

impl<E> Policy<Request, Body, E> for Twice {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Body, E>) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(1)?;
        result.is_err().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_retry_makes_the_call_again_and_errors_stay_what_they_are() {
    let seen = Seen::default();
    let client = |it: ClientBuilder| {
        it.intercept(layer(RetryLayer::new(Twice(2)))).intercept(seen.noting("a"))
    };
    let (client, _server) = pair(functions(), client, |it| it);
    let error = client.call::<_, u32>("add", &(1, u32::MAX)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Application, "too large"));
    assert_eq!(error.application::<String>().as_deref(), Some("too large"));
    assert_eq!(seen.take(), ["a call add", "a error"].repeat(3));
}

#[tokio::test]
async fn who_puts_a_layer_there_says_what_its_errors_are() {
    let filter = tower::filter::FilterLayer::new(|request: Request| match request.value("who") {
        Some("web") => Ok(request),
        _ => Err("who are you?"),
    });
    let filter = layer(filter).errors(|own, otherwise| {
        assert_eq!((otherwise.kind(), otherwise.executed()), (Kind::Overloaded, Executed::Never));
        Error::new(Kind::Denied, Executed::Never, own.to_string())
    });
    let seen = Seen::default();
    let noted = seen.noting("a");
    let (client, _server) = pair(functions(), |it| it, |it| it.intercept(noted).intercept(filter));
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Denied, "who are you?"));
    let call = client.function("add").metadata("who", "web");
    assert_eq!(call.call::<_, u32>(&(1, 2)).await.unwrap(), 3);
    assert_eq!(seen.take(), ["a call add", "a error", "a call add", "a ok"]);
}

#[tokio::test]
async fn a_layer_goes_on_with_the_request_it_got_only() {
    let forge = tower::util::MapRequestLayer::new(|request: Request| {
        Request::new(request.function(), request.body.clone())
    });
    let (client, _server) = pair(functions(), |it| it, |it| it.intercept(layer(forge)));
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never), "{error}");
}

/// What a server got goes on to another one: with its metadata, within its time.
#[tokio::test]
async fn a_client_is_a_service_and_a_server_may_pass_calls_on() {
    let told = Functions::new().add("told", async |()| {
        let context = meshx_rpc::Context::current().unwrap();
        Ok::<_, String>((context.value("who").map(str::to_owned), context.remaining()))
    });
    let (inner, _inside) = pair(told, |it| it, |it| it);
    let inner = ServiceBuilder::new().concurrency_limit(4).service(inner);
    let pass_on = move |request: Request, _: Next| {
        let inner = inner.clone();
        async move { inner.oneshot(request).await }
    };
    let door = Functions::new().add("told", async |()| Err::<(), _>("never"));
    let (dial, listen) = Memory::pair();
    let _server: Serving = Server::new(door).intercept(pass_on).listen(listen).start();
    let client = Client::to(dial).start();
    let call = client.function("told").metadata("who", "web").timeout(Duration::from_secs(3));
    let (who, left): (Option<String>, Option<Duration>) = call.call(&()).await.unwrap();
    assert_eq!(who.as_deref(), Some("web"));
    assert!(left.unwrap() <= Duration::from_secs(3), "{left:?}");

    let mut service = client.clone();
    let request = Request::new("nosuch", Body::encode(Codec::Json, &()).unwrap());
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UnknownFunction);
}
