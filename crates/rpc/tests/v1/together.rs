//! Our client and our server.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_core::Action;
use meshx_etf::{Atom, Term, encode, term};
use meshx_rpc::transport::{Dial, Listen, Tcp, Unix};
use meshx_rpc::v1::{Client, ClientOptions, Server, ServerOptions};
use meshx_rpc::{Body, Codec, Context, Error, Executed, Functions, Kind, Policy, Rule};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::peer::{Told, kind, serve, single};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    lines: Vec<(String, i32)>,
}

fn functions() -> Functions {
    Functions::new()
        .add("ping", async |()| Ok::<_, String>(Atom::new("pong").unwrap()))
        .add("add", async |(a, b): (i64, i64)| a.checked_add(b).ok_or("too large"))
        .add("sum", async |all: Vec<i64>| Ok::<_, String>(all.iter().sum::<i64>()))
        .add("order", async |order: Order| Ok::<_, String>(order))
        .add("fail", async |text: String| Err::<(), _>(text))
        .add("panic", async |_: String| -> Result<(), String> { panic!("as it should") })
        .add("sleep", async |ms: u64| {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(ms)
        })
        .add_raw("echo", async |body| Ok(body))
        .add_raw("json", async |_| Ok(Body::encode(Codec::Json, "no").unwrap()))
}

fn etf(term: &Term) -> Body {
    Body { codec: Codec::Etf, bytes: encode(term).unwrap().into() }
}

async fn exercise(dial: impl Dial, listen: impl Listen, checksums: bool, block_size: u64) {
    let mut options = ServerOptions::default();
    (options.common.checksums, options.common.block_size) = (checksums, block_size);
    options.common.shared_key = "secret".into();
    let mut ours = ClientOptions::default();
    ours.common = options.common.clone();
    let server = Server::new(functions(), options).unwrap();
    let stop = CancellationToken::new();
    let token = stop.clone();
    let serving = tokio::spawn(async move { server.run(listen, token).await });
    let client = Client::new(dial, ours).unwrap();
    assert_eq!(client.call::<_, Atom>("ping", &()).await.unwrap().as_str(), "pong");
    assert_eq!(client.call::<_, i64>("add", &(2, 40)).await.unwrap(), 42);
    let order = Order { id: 7, lines: vec![("tea".into(), -3), ("händel".into(), i32::MAX)] };
    assert_eq!(client.call::<_, Order>("order", &order).await.unwrap(), order);
    for len in [0, 1, 150, 170, 171, 500, 16_354, 16_355, 16_356, 40_000, 1_000_000] {
        let bytes: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let echoed = client.request("echo").call_raw(Body::raw(bytes.clone())).await.unwrap();
        assert_eq!((echoed.codec, echoed.bytes.len()), (Codec::Raw, len));
        assert!(echoed.bytes == bytes, "{len} bytes came back changed");
        let echoed: Vec<u64> = client.call("echo", &vec![u64::MAX; len / 9]).await.unwrap();
        assert_eq!(echoed, vec![u64::MAX; len / 9]);
    }
    let error = client.call::<_, ()>("nosuch", "x").await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::UnknownFunction, Executed::Never));
    assert_eq!(error.function(), Some("nosuch"));
    client.close().await;
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn every_value_and_size_comes_back_over_every_transport() {
    for (checksums, block_size) in [(false, 16_384), (true, 16_384), (true, 200), (false, 1 << 28)]
    {
        let (dial, listen) = meshx_rpc::transport::Memory::pair();
        exercise(dial, listen, checksums, block_size).await;
        let listen = Tcp::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        exercise(Tcp::to(listen.local_addr().to_string()), listen, checksums, block_size).await;
    }
    let folder = std::env::temp_dir().join(format!("meshx-rpc-v1-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    exercise(Unix::to(&path), Unix::listen(&path).unwrap(), true, 16_384).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn many_blocks_over_tcp_do_not_wait_for_each_other() {
    let listen = Tcp::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let dial = Tcp::to(listen.local_addr().to_string());
    let server = Server::new(functions(), ServerOptions::default()).unwrap();
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move { server.run(listen, token).await });
    let client = Client::new(dial, single()).unwrap();
    let body = Body::raw(vec![7; 40_000]);
    client.request("echo").call_raw(body.clone()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        client.request("echo").call_raw(body.clone()).await.unwrap();
    }
    // With Nagle's algorithm each of them takes 44 ms.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    stop.cancel();
}

#[tokio::test]
async fn a_list_of_arguments_fits_a_tuple_and_no_arguments_fit_unit() {
    let serving = serve(functions(), ServerOptions::default());
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    let call = async |function: &str, argument: &Term| {
        client
            .request(function)
            .call_raw(etf(argument))
            .await
            .map(|body| body.decode::<Term>().unwrap())
    };
    assert_eq!(call("add", &term!([2, 40])).await.unwrap(), term!(42));
    assert_eq!(call("add", &term!([2, 4000])).await.unwrap(), term!(4002));
    assert_eq!(call("sum", &term!([2, 4000])).await.unwrap(), term!(4002));
    assert_eq!(call("sum", &term!([])).await.unwrap(), term!(0));
    assert_eq!(call("ping", &term!([])).await.unwrap(), term!(pong));
    // As a caller in Elixir passes one string.
    let body = client.request("echo").call_raw(etf(&term!("text"))).await.unwrap();
    assert_eq!(body, Body::raw("text"));
    let error = call("add", &term!([1, 2, 3])).await.unwrap_err();
    assert!(error.reason().starts_with("ArgumentError: the argument cannot be read"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn errors_are_terms_that_elixir_programs_know() {
    let value = |term: Term| {
        move |_: Body| {
            let error = Error::new(Kind::Application, Executed::Yes, "x").with_value(etf(&term));
            std::future::ready(Err::<Body, _>(error))
        }
    };
    let functions = functions()
        .add_raw("atom", value(term!(empty)))
        .add_raw("tuple", value(term!({ error, 7 })))
        .add_raw("text", value(term!("text")));
    let mut options = ServerOptions::default();
    options.execute = Some(Duration::from_millis(500));
    let serving = serve(functions, options);
    let client = Client::new(serving.memory.clone(), ClientOptions::default()).unwrap();
    let call = async |function: &str, argument: Body| {
        let error = client.request(function).call_raw(argument).await.unwrap_err();
        let value = error.value().unwrap().decode::<Term>().unwrap();
        (error.kind(), error.executed(), error.reason().to_owned(), value.to_string())
    };
    let exception = |module: &str, message: &str| {
        format!(
            "#{{'__exception__' => true,'__struct__' => '{module}',message => <<\"{message}\">>}}"
        )
    };
    let (application, yes) = (Kind::Application, Executed::Yes);
    let runtime = "Elixir.RuntimeError";
    assert_eq!(
        call("fail", Body::raw("kaboom")).await,
        (application, yes, "kaboom".into(), exception(runtime, "kaboom"))
    );
    let text = "the function panicked";
    assert_eq!(
        call("panic", Body::raw("")).await,
        (application, yes, text.into(), exception(runtime, text))
    );
    let told = call("text", Body::raw("")).await;
    assert_eq!(told, (application, yes, "x".into(), exception(runtime, "x")));
    let told = call("atom", Body::raw("")).await;
    assert_eq!(told, (application, yes, "it exited: empty".into(), "empty".into()));
    let told = call("tuple", Body::raw("")).await;
    assert_eq!(told, (application, yes, "{error,7}".into(), "{error,7}".into()));
    let told = call("json", Body::raw("")).await;
    assert_eq!((told.0, told.1), (application, yes));
    assert!(told.2.contains("cannot be sent"), "{}", told.2);
    let told = call("sleep", etf(&term!(1000))).await;
    assert_eq!((told.0, told.1, &*told.3), (Kind::Deadline, yes, "killed"));
    let told = call("nosuch", etf(&term!([a]))).await;
    assert_eq!((told.0, told.1), (Kind::UnknownFunction, Executed::Never));
    assert_eq!(told.3, "{undef,[{meshx,nosuch,[[a]],[]}]}");
    let told = call("no such function", Body::raw("x")).await;
    assert_eq!(told.3, "{undef,[{meshx,'no such function',[<<\"x\">>],[]}]}");
    // No atom can be so long.
    let told = call(&"n".repeat(300), Body::raw("x")).await;
    assert_eq!((told.0, &*told.3), (Kind::UnknownFunction, "{undef,[]}"));
    // An error that is longer than a block: of an unknown function, first without its argument.
    let told = call("nosuch", Body::raw(vec![b'a'; 20_000])).await;
    assert_eq!((told.0, &*told.3), (Kind::UnknownFunction, "{undef,[{meshx,nosuch,1,[]}]}"));
    let told = call("fail", Body::raw(vec![b'a'; 20_000])).await;
    assert_eq!((told.0, told.1, &*told.3), (application, Executed::Maybe, "error_too_long"));
}

#[tokio::test(start_paused = true)]
async fn what_is_configured_differently_is_said() {
    for (server, client, expected) in [
        (("a", 16_384, false, false), ("b", 16_384, false), Kind::Denied),
        (("a", 16_384, true, false), ("b", 16_384, false), Kind::Transport),
        (("a", 16_384, false, false), ("a", 8_192, false), Kind::Protocol),
        (("", 16_384, false, true), ("", 16_384, false), Kind::Integrity),
        (("", 16_384, false, false), ("", 16_384, true), Kind::Integrity),
    ] {
        let mut options = ServerOptions::default();
        options.common.shared_key = server.0.into();
        (options.common.block_size, options.quiet) = (server.1, server.2);
        options.common.checksums = server.3;
        let serving = serve(functions(), options);
        let mut options = single();
        options.common.shared_key = client.0.into();
        (options.common.block_size, options.common.checksums) = (client.1, client.2);
        let told = Told::default();
        let client = Client::new(serving.memory.clone(), options.observe(told.observer())).unwrap();
        let begun = Instant::now();
        let error = client.call::<_, ()>("ping", &()).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.peer() == Some("memory") && error.function() == Some("ping"));
        // A mistake in configuration is told at once; who says nothing may be starting.
        let waits = begun.elapsed() > Duration::from_secs(10);
        assert_eq!(waits, expected == Kind::Transport, "{:?}", begun.elapsed());
        if expected == Kind::Integrity {
            let executed = if server.3 { Executed::Never } else { Executed::Yes };
            assert_eq!(error.executed(), executed);
        } else {
            let failed = format!("client handshake: {}", expected.token());
            assert!(told.take().contains(&failed));
        }
    }
}

#[test]
fn options_that_contradict_the_protocol_are_refused() {
    let mut options = ServerOptions::default();
    options.common.block_size = 199;
    assert_eq!(kind(Server::new(functions(), options)), Kind::Value);
    let mut options = ClientOptions::default();
    options.common.refs.svc_ref = "s".repeat(256);
    let (dial, _listen) = meshx_rpc::transport::Memory::pair();
    let error = Client::new(dial, options).unwrap_err();
    assert_eq!(error.reason(), "svc_ref has 256 bytes; it can have 255");
    let mut options = ServerOptions::default();
    options.common.shared_key = "secret".into();
    assert!(!format!("{options:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn as_many_run_at_a_time_as_there_are_connections_and_the_others_wait() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&running), Arc::clone(&most));
    let functions = Functions::new().add("work", move |number: u32| {
        let (counted, highest) = (Arc::clone(&counted), Arc::clone(&highest));
        async move {
            let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
            highest.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            counted.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, String>(number)
        }
    });
    let serving = serve(functions, ServerOptions::default());
    let mut options = ClientOptions::default();
    (options.connections, options.queue) = (4, 2);
    let client = Client::new(serving.memory.clone(), options).unwrap();
    let calls: Vec<_> = (0..32_u32)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, u32>("work", &number).await })
        })
        .collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), number);
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn after_an_error_the_next_call_waits_for_nothing() {
    let serving = serve(functions(), ServerOptions::default());
    let mut options = single();
    options.spares = 1;
    let client = Client::new(serving.memory.clone(), options).unwrap();
    client.call::<_, Term>("ping", &()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..10 {
        assert_eq!(client.connected(), 2);
        let begun = Instant::now();
        assert_eq!(kind(client.call::<_, ()>("fail", "x").await), Kind::Application);
        client.call::<_, Term>("ping", &()).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_no_more_ends_the_function() {
    let gone = Arc::new(Notify::new());
    let ended = Arc::clone(&gone);
    let functions = functions().add("long", move |()| {
        let ended = Arc::clone(&ended);
        async move {
            let context = Context::current().unwrap();
            tokio::spawn(async move {
                context.cancelled().await;
                ended.notify_one();
            });
            std::future::pending::<Result<(), String>>().await
        }
    });
    let serving = serve(functions, ServerOptions::default());
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    let begun = Instant::now();
    let call = client.request("long").within(Duration::from_millis(300));
    let error = call.call::<_, ()>(&()).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Deadline, Executed::Maybe));
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
    gone.notified().await;
    // One that is dropped, too.
    let call = client.call::<_, ()>("long", &());
    tokio::time::timeout(Duration::from_millis(100), call).await.unwrap_err();
    gone.notified().await;
    client.call::<_, Term>("ping", &()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_queue_is_told_that_it_did_not_run() {
    let serving = serve(functions(), ServerOptions::default());
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    let busy = client.clone();
    let busy = tokio::spawn(async move { busy.call::<_, u64>("sleep", &10_000).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let call = client.request("ping").within(Duration::from_millis(300));
    let error = call.call::<_, Term>(&()).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Deadline, Executed::Never));
    assert!(error.reason().starts_with("no connection was free for 300ms"), "{error}");
    assert_eq!(busy.await.unwrap().unwrap(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_call_from_a_function_has_no_longer_than_the_function() {
    let inner = serve(functions(), ServerOptions::default());
    let client = Client::new(inner.memory.clone(), single()).unwrap();
    let outer = Functions::new().add("outer", move |()| {
        let client = client.clone();
        async move {
            let begun = Instant::now();
            let error = client.call::<_, u64>("sleep", &100_000).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Deadline);
            // Just before the function is killed.
            Ok::<_, String>(u64::try_from(begun.elapsed().as_millis()).unwrap())
        }
    });
    let mut options = ServerOptions::default();
    options.execute = Some(Duration::from_millis(700));
    let outer = serve(outer, options);
    let client = Client::new(outer.memory.clone(), single()).unwrap();
    let begun = Instant::now();
    // Both end in the same moment, and either may be first.
    match client.call::<_, u64>("outer", &()).await {
        Ok(elapsed) => assert_eq!(elapsed, 700),
        Err(error) => assert_eq!(error.kind(), Kind::Deadline),
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn sizes_have_limits_and_who_exceeds_them_is_told() {
    let mut options = ServerOptions::default();
    options.common.message_max = 10_000;
    let big = functions().add_raw("big", async |_| Ok(Body::raw(vec![1; 5001])));
    let serving = serve(big, options);
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    let echo =
        async |client: &Client, len| client.request("echo").call_raw(Body::raw(vec![0; len])).await;
    assert_eq!(echo(&client, 10_000).await.unwrap().bytes.len(), 10_000);
    for len in [10_001, 40_000, 1_000_000] {
        let error = echo(&client, len).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never), "{error}");
    }
    let mut options = single();
    options.common.message_max = 5000;
    let client = Client::new(serving.memory.clone(), options).unwrap();
    assert_eq!(echo(&client, 5000).await.unwrap().bytes.len(), 5000);
    let error = echo(&client, 5001).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
    let error = client.call::<_, ()>("big", &()).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Yes));
}

#[tokio::test]
async fn a_policy_narrows_the_allow_list() {
    let (memory, listener) = meshx_rpc::transport::Memory::pair();
    let policy = Policy::new(vec![Rule::allow(["ping"], ["*"])], Action::Deny);
    let server =
        Server::with_policy(functions(), policy.unwrap(), ServerOptions::default()).unwrap();
    tokio::spawn(async move { server.run(listener, CancellationToken::new()).await });
    let client = Client::new(memory, single()).unwrap();
    client.call::<_, Term>("ping", &()).await.unwrap();
    let error = client.call::<_, Term>("add", &(1, 2)).await.unwrap_err();
    // The protocol has no word for it.
    assert_eq!(error.kind(), Kind::Application);
    // Whether there is such a function shows not.
    let same = client.call::<_, Term>("nosuch", &(1, 2)).await.unwrap_err();
    assert_eq!(error.reason().replace("add", "nosuch"), same.reason());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answers_what_it_has_begun() {
    let told = Told::default();
    let serving = serve(functions(), ServerOptions::default().observe(told.observer()));
    let mut options = ClientOptions::default();
    options.connections = 2;
    let client = Client::new(serving.memory.clone(), options).unwrap();
    let (short, long) = (client.clone(), client.clone());
    let short = tokio::spawn(async move { short.call::<_, u64>("sleep", &5000).await });
    let long = tokio::spawn(async move { long.call::<_, u64>("sleep", &60_000).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    serving.stop.cancel();
    let begun = Instant::now();
    serving.task.await.unwrap();
    assert_eq!(short.await.unwrap().unwrap(), 5000);
    // That one took longer than it is waited for.
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    let error = long.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Maybe));
    let error = client.request("ping").within(Duration::from_secs(1)).call::<_, Term>(&()).await;
    assert_eq!(kind(error), Kind::Transport);
}

#[tokio::test(start_paused = true)]
async fn both_sides_tell_what_happens() {
    let (at_server, at_client) = (Told::default(), Told::default());
    let serving = serve(functions(), ServerOptions::default().observe(at_server.observer()));
    let client =
        Client::new(serving.memory.clone(), single().observe(at_client.observer())).unwrap();
    client.call::<_, Term>("ping", &()).await.unwrap();
    client.cast("echo", "text").await.unwrap();
    assert_eq!(kind(client.call::<_, ()>("nosuch", &()).await), Kind::UnknownFunction);
    client.call::<_, Term>("ping", &()).await.unwrap();
    let other = client.clone();
    client.close().await;
    assert_eq!(kind(other.call::<_, Term>("ping", &()).await), Kind::Draining);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        at_client.take(),
        [
            "client connected",
            "client call ping 1: ok",
            "client cast echo 1: ok",
            "client call nosuch 1: unknown_function",
            "client disconnected: ok",
            "client connected",
            "client call ping 1: ok",
            "client disconnected: ok",
            "client call ping 1: draining",
        ]
    );
    assert_eq!(
        at_server.take(),
        [
            "server connected",
            "server call ping 1: ok",
            "server cast echo 1: ok",
            "server call (unknown) 1: unknown_function",
            "server disconnected: ok",
            "server connected",
            "server call ping 1: ok",
            "server disconnected: ok",
        ]
    );
}
