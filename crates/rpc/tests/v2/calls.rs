//! Calls, casts, errors, deadlines, cancellation.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meshx_core::Action;
use meshx_rpc::event::{Event, Times};
use meshx_rpc::{
    Algorithm, Body, Codec, Context, Error, Executed, Kind, Policy, Rule, TraceParent,
};

use crate::{Count, functions, pair, plain};

#[tokio::test]
async fn a_function_is_called_in_every_codec() {
    let (client, _server) = plain(functions());
    for codec in Codec::ALL.into_iter().filter(|&codec| codec != Codec::Raw) {
        let sum: u32 = client.function("add").codec(codec).call(&(2_u32, 3_u32)).await.unwrap();
        assert_eq!(sum, 5, "{codec}");
    }
    let echo: String = client.function("echo").codec(Codec::Raw).call("text").await.unwrap();
    assert_eq!(echo, "text");
    let raw = client.function("raw").call_raw(Body::raw(vec![1, 2])).await.unwrap();
    assert_eq!(raw, Body::raw(vec![1, 2]));
}

#[tokio::test]
async fn ten_thousand_calls_share_one_connection() {
    // All of them are there at the same time.
    let together = Arc::new(tokio::sync::Barrier::new(10_000));
    let all = functions().add("all", move |number: u32| {
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            Ok::<_, String>(number)
        }
    });
    let (client, _server) = pair(all, |it| it.connections(1), |it| it);
    let calls: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let call = client.function("all").timeout(Duration::from_mins(1));
                (number, call.call::<_, u32>(&number).await)
            })
        })
        .collect();
    for call in calls {
        let (number, result) = call.await.unwrap();
        assert_eq!(result.unwrap(), number);
    }
    assert_eq!(client.in_flight(), 0);
}

/// §8: none of these ends the connection.
#[tokio::test]
async fn errors_are_typed_and_keep_the_connection() {
    let policy = Policy::new(vec![Rule::deny(["raw", "secret"], ["*"])], Action::Allow).unwrap();
    let bad = functions().add("panics", async |()| -> Result<(), String> { panic!("oh") }).add(
        "late",
        async |()| {
            tokio::task::yield_now().await;
            Err::<(), _>(("code", 7_u8).0.to_owned())
        },
    );
    let (client, _server) = pair(bad, |it| it.connections(1), |it| it.policy(policy));
    let fails = async |function: &str, argument: &str| {
        client.call::<_, u32>(function, argument).await.unwrap_err()
    };
    let error = client.call::<_, u32>("add", &(u32::MAX, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Application, Executed::Yes));
    assert_eq!(error.application::<String>().as_deref(), Some("too large"));
    assert!(error.to_string().contains("add") && error.to_string().contains("memory"), "{error}");
    let error = fails("nothing", "").await;
    assert_eq!((error.kind(), error.executed()), (Kind::UnknownFunction, Executed::Never));
    for denied in ["raw", "secret"] {
        let error = fails(denied, "").await;
        assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
    }
    let error = fails("add", "no numbers").await;
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
    let error = client.call::<_, ()>("panics", &()).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Panic, Executed::Yes));
    let error = client.call::<_, ()>("late", &()).await.unwrap_err();
    assert_eq!(error.application::<String>().as_deref(), Some("code"));
    let error = client.call::<_, String>("add", &(1, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Yes));
    for name in ["", &"n".repeat(256)] {
        assert_eq!(fails(name, "").await.kind(), Kind::UnknownFunction);
    }
    assert_eq!(client.call::<_, u32>("add", &(1, 1)).await.unwrap(), 2);
}

/// §7.8.
#[tokio::test(start_paused = true)]
async fn deadlines_travel_and_are_inherited() {
    let (inner, _inner_server) = plain(functions());
    let outer = functions()
        .add("left", async |()| Ok::<_, String>(Context::current().unwrap().remaining()))
        .add("nested", move |ms: u64| {
            let inner = inner.clone();
            async move { inner.call::<_, u64>("sleep", &ms).await }
        });
    let (client, _server) = plain(outer);
    let limit = Duration::from_millis(300);
    let left: Option<Duration> = client.function("left").timeout(limit).call(&()).await.unwrap();
    assert!(left.unwrap() <= limit && left.unwrap() > Duration::from_millis(250));
    let begun = tokio::time::Instant::now();
    let call = client.function("sleep").timeout(limit);
    let error = call.call::<_, u64>(&10_000).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert_eq!(begun.elapsed(), limit);
    // Its own patience is 10 s.
    let call = client.function("nested").timeout(limit);
    let error = call.call::<_, u64>(&10_000).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!(begun.elapsed() < 3 * limit);
    let slept: u64 = client.function("nested").timeout(limit).call(&10).await.unwrap();
    assert_eq!(slept, 10);
}

/// §7.5.
#[tokio::test]
async fn a_call_that_is_dropped_stops_its_function() {
    let running = Count::default();
    let here = running.clone();
    let slow = functions().add("slow", move |()| {
        let here = here.enter();
        async move {
            tokio::time::sleep(Duration::from_mins(1)).await;
            drop(here);
            Ok::<_, String>(())
        }
    });
    let (client, _server) = pair(slow, |it| it.connections(1), |it| it);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>("slow", &()).await })
        })
        .collect();
    crate::until("all run", || running.get() == 100).await;
    for call in calls {
        call.abort();
    }
    crate::until("all were stopped", || running.get() == 0).await;
    crate::until("their numbers are free", || client.in_flight() == 0).await;
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

#[tokio::test]
async fn casts_are_accepted_or_told() {
    let ran = Count::default();
    let here = ran.clone();
    let noted = functions().add("note", move |wait: bool| {
        let here = here.clone();
        async move {
            if wait {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            here.add();
            Ok::<_, String>(())
        }
    });
    let (client, _server) = plain(noted);
    client.cast("note", &true).await.unwrap();
    assert_eq!(ran.get(), 0);
    client.cast("note", &false).await.unwrap();
    client.function("note").fire(&false).await.unwrap();
    crate::until("all ran", || ran.get() == 3).await;
    let error = client.cast("nothing", &()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UnknownFunction);
    let long = client.function("note").fire(&"x".repeat(40_000)).await.unwrap_err();
    assert_eq!(long.kind(), Kind::Value);
}

#[tokio::test]
async fn too_much_is_refused_and_tried_again() {
    let (client, _server) =
        pair(functions(), |it| it.retries(meshx_rpc::Retries::NONE), |it| it.in_flight(2));
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, u64>("sleep", &300).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = client.call::<_, u32>("add", &(1, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Overloaded, Executed::Never));
    for call in busy {
        call.await.unwrap().unwrap();
    }
    assert_eq!(client.call::<_, u32>("add", &(1, 1)).await.unwrap(), 2);
}

/// Calls wait for their turn in place of failing.
#[tokio::test]
async fn a_client_makes_so_many_calls_at_a_time() {
    let (most, now) = (Count::default(), Count::default());
    let (highest, here) = (most.clone(), now.clone());
    let counted = functions().add("one", move |()| {
        let this = here.enter();
        if here.get() > highest.get() {
            highest.add();
        }
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(this);
            Ok::<_, String>(())
        }
    });
    let (client, _server) = pair(counted, |it| it.in_flight(3), |it| it);
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, ()>("one", &()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(most.get(), 3);
}

/// §3, §4.6.
#[tokio::test]
async fn checksums_and_compression_are_agreed_on() {
    let short = "the same again and ".repeat(1_000);
    let same = "the same again and ".repeat(20_000);
    let lines =
        |at: u32| format!("{{\"id\":{},\"state\":\"sent\"}},", at.wrapping_mul(2_654_435_761));
    let lines: String = (0..20_000).map(lines).collect();
    for algorithm in Algorithm::ALL {
        for compress in [true, false] {
            let (client, _server) = pair(
                functions(),
                |it| {
                    if compress {
                        it.checksums(&[algorithm]).compress()
                    } else {
                        it.checksums(&[algorithm])
                    }
                },
                |it| it.checksums(&Algorithm::ALL).compress(),
            );
            for text in [&short, &same, &lines] {
                let echo: String = client.call("echo", text).await.unwrap();
                assert!(echo == *text, "{algorithm:?} {compress}");
            }
            assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        }
    }
    let (client, _server) = pair(
        functions(),
        |it| it.checksums(&[Algorithm::None]).timeout(Duration::from_millis(300)),
        |it| it,
    );
    let error: Error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert!(error.reason().contains("no checksum"), "{error}");
}

#[tokio::test]
async fn metadata_and_traces_travel() {
    let said = functions().add("said", async |()| {
        let context = Context::current().unwrap();
        Ok::<_, String>(context.metadata().to_vec())
    });
    let (client, _server) = plain(said);
    let call = client.function("said").metadata("tenant", "blue").metadata("empty", "");
    let metadata: Vec<(String, String)> = call.call(&()).await.unwrap();
    assert_eq!(metadata, [("tenant".into(), "blue".into()), ("empty".into(), String::new())]);
    let mut call = client.function("said");
    for number in 0..65 {
        call = call.metadata(&number.to_string(), "");
    }
    assert_eq!(call.call::<_, ()>(&()).await.unwrap_err().kind(), Kind::Value);
}

/// §6: the trace of a call goes on through whatever it calls, and is said once.
#[tokio::test]
async fn a_trace_goes_on_through_several_calls() {
    let said = functions().add("said", async |()| {
        let context = Context::current().unwrap();
        Ok::<_, String>(context.metadata().to_vec())
    });
    let (last, _last_server) = plain(said);
    let middle = functions().add("said", move |()| {
        let last = last.clone();
        async move { last.call::<_, Vec<(String, String)>>("said", &()).await }
    });
    let (client, _server) = plain(middle);
    let own = TraceParent::root(true);
    let call = client.function("said").metadata(TraceParent::KEY, &own.to_string());
    let call = call.metadata(TraceParent::STATE_KEY, "a=1").metadata("tenant", "blue");
    let metadata: Vec<(String, String)> = call.call(&()).await.unwrap();
    let trace = TraceParent::of(&metadata).unwrap();
    assert_eq!(trace.trace_id(), own.trace_id());
    assert_ne!(trace.span_id(), own.span_id());
    assert!(metadata.contains(&("tracestate".to_owned(), "a=1".to_owned())), "{metadata:?}");
    assert_eq!(metadata.len(), 2, "{metadata:?}");
}

/// §7.8: what a call waited before it was sent is over for its function, too.
#[tokio::test(start_paused = true)]
async fn a_call_that_waited_for_its_turn_says_how_long_it_still_waits() {
    let left = functions()
        .add("left", async |()| Ok::<_, String>(Context::current().unwrap().remaining()));
    let (client, _server) = pair(left, |it| it.in_flight(1), |it| it);
    let before = client.clone();
    let before = tokio::spawn(async move { before.call::<_, u64>("sleep", &1000).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let call = client.function("left").timeout(Duration::from_secs(3));
    let left: Option<Duration> = call.call(&()).await.unwrap();
    assert!(left.unwrap() <= Duration::from_millis(2100), "{left:?}");
    before.await.unwrap().unwrap();
}

/// §7.8: calls of which much time is left have no timer of their own, and are in time all the same.
#[tokio::test(start_paused = true)]
async fn a_call_ends_when_its_time_is_over_and_not_before_or_after() {
    let (client, _server) = plain(functions());
    let calls = [1, 2, 99, 100, 101, 199, 200, 201, 250, 999, 5_000, 60_000].map(|ms| {
        let client = client.clone();
        tokio::spawn(async move {
            let limit = Duration::from_millis(ms);
            // So that they do not all begin with the connection.
            tokio::time::sleep(Duration::from_millis(ms % 7)).await;
            let begun = tokio::time::Instant::now();
            let call = client.function("sleep").timeout(limit);
            let error = call.call::<_, u64>(&100_000).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Deadline, "{ms}: {error}");
            assert_eq!(begun.elapsed(), limit);
        })
    });
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn whoever_listens_is_told_where_the_time_went() {
    let times = |into: &Arc<Mutex<Vec<Times>>>| {
        let into = Arc::clone(into);
        move |event: &Event<'_>| {
            if let Event::Called(called) = event {
                into.lock().unwrap().push(called.times);
            }
        }
    };
    let (asked, served) = (Arc::default(), Arc::default());
    let (client, server) =
        pair(functions(), |it| it.observe(times(&asked)), |it| it.observe(times(&served)));
    // Many blocks, and much to read and to write.
    let text = "\u{1}".repeat(2 << 20);
    let call = client.function("echo").codec(Codec::Json);
    let begun = Instant::now();
    assert_eq!(call.call::<_, String>(&text).await.unwrap(), text);
    let whole = begun.elapsed();
    drop((client, server));
    for (side, all) in [("client", asked), ("server", served)] {
        let all = all.lock().unwrap().clone();
        let [times] = &all[..] else { panic!("{side}: {all:?}") };
        for time in [times.ser, times.recv, times.exec] {
            assert!(time > Duration::ZERO, "{side}: {times:?}");
        }
        assert_eq!(times.dser > Duration::ZERO, side == "server", "{side}: {times:?}");
        assert!(times.total() <= whole, "{side}: {times:?} in {whole:?}");
    }
}

#[tokio::test]
async fn small_calls_are_not_slow() {
    // No stall as that of delayed acknowledgements, 40 ms.
    let listener = meshx_rpc::transport::Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    let _server = meshx_rpc::Server::new(functions()).listen(listener).start();
    let client = meshx_rpc::Client::to(meshx_rpc::transport::Tcp::to(address.to_string())).start();
    let text = "x".repeat(20_000);
    client.call::<_, String>("echo", &text).await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        client.call::<_, String>("echo", &text).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
}
