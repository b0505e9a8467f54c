//! Casts: acknowledged at once, run apart, and never lost without a word.

use std::sync::Arc;
use std::time::Duration;

use meshx_rpc::transport::Memory;
use meshx_rpc::v1::{Client, ClientOptions, ServerOptions};
use meshx_rpc::{Functions, Kind};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::peer::{Told, kind, serve, single};

fn functions(done: &Arc<Notify>) -> Functions {
    let done = Arc::clone(done);
    Functions::new()
        .add("sleep", move |ms: u64| {
            let done = Arc::clone(&done);
            async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                done.notify_one();
                Ok::<_, String>(())
            }
        })
        .add("fail", async |text: String| Err::<(), _>(text))
        .add("panic", async |()| -> Result<(), String> { panic!("as it should") })
}

#[tokio::test(start_paused = true)]
async fn a_cast_is_acknowledged_before_it_has_run_and_failures_are_counted() {
    let (done, told) = (Arc::new(Notify::new()), Told::default());
    let mut options = ServerOptions::default().observe(told.observer());
    options.execute = Some(Duration::from_mins(1));
    let serving = serve(functions(&done), options);
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    client.cast("sleep", &0).await.unwrap();
    done.notified().await;
    let begun = Instant::now();
    // The connection goes on to be used, whatever becomes of casts.
    for (function, argument) in [("sleep", "x"), ("fail", "x"), ("panic", "x"), ("nosuch", "x")] {
        client.cast(function, argument).await.unwrap();
    }
    client.cast("sleep", &1000).await.unwrap();
    client.cast("sleep", &100_000).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    done.notified().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(serving.server.casts_lost(), 5);
    let lost: Vec<_> = told.take().into_iter().filter(|told| told.starts_with("lost")).collect();
    assert_eq!(
        lost,
        [
            "lost sleep: value",
            "lost fail: application",
            // `()` is not read from text, so that does not even run.
            "lost panic: value",
            "lost (unknown): unknown_function",
            "lost sleep: deadline",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn where_too_many_run_the_next_one_waits_for_its_acknowledgement() {
    let done = Arc::new(Notify::new());
    let mut options = ServerOptions::default();
    options.casts = 2;
    let serving = serve(functions(&done), options);
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    client.cast("sleep", &0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    client.cast("sleep", &1000).await.unwrap();
    client.cast("sleep", &3000).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    client.cast("sleep", &0).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_waits_for_its_casts() {
    let (done, told) = (Arc::new(Notify::new()), Told::default());
    let serving = serve(functions(&done), ServerOptions::default().observe(told.observer()));
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    client.cast("sleep", &5000).await.unwrap();
    client.cast("sleep", &100_000).await.unwrap();
    drop(client);
    serving.stop.cancel();
    let begun = Instant::now();
    serving.task.await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    let told = told.take();
    assert!(told.contains(&"server cast sleep 1: ok".to_owned()), "{told:?}");
    assert!(told.contains(&"lost sleep: draining".to_owned()), "{told:?}");
    assert_eq!(serving.server.casts_lost(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cast_that_does_not_get_there_is_an_error_and_is_told_if_nobody_waits() {
    let (memory, listener) = Memory::pair();
    drop(listener);
    let told = Told::default();
    let mut options = ClientOptions::default().observe(told.observer());
    (options.timeout, options.queue) = (Duration::from_secs(2), 3);
    let client = Client::new(memory, options).unwrap();
    let begun = Instant::now();
    assert_eq!(kind(client.cast("mark", "x").await), Kind::Transport);
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    for _ in 0..3 {
        client.request("mark").cast_detached("x").unwrap();
    }
    // So many may wait.
    assert_eq!(kind(client.request("mark").cast_detached("x")), Kind::Overloaded);
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.request("mark").cast_detached("x").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lost = told.take().into_iter().filter(|told| told == "lost mark: transport").count();
    assert_eq!(lost, 4);
}

#[tokio::test(start_paused = true)]
async fn a_cast_in_the_background_arrives() {
    let (done, told) = (Arc::new(Notify::new()), Told::default());
    let serving = serve(functions(&done), ServerOptions::default());
    let client = Client::new(serving.memory.clone(), single().observe(told.observer())).unwrap();
    client.request("sleep").cast_detached(&10).unwrap();
    // Also if the client is not needed for anything else.
    drop(client);
    done.notified().await;
    assert!(told.take().contains(&"client cast sleep 1: ok".to_owned()));
}
