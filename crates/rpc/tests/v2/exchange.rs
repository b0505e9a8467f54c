//! Messages both ways (§7.6).

use std::sync::Arc;
use std::time::Duration;

use meshx_rpc::{Error, Executed, Incoming, Kind, Limits, Outgoing};
use tokio::sync::Notify;

use crate::{Count, functions, pair, plain, until};

async fn sums(mut numbers: Incoming<i64>, mut sums: Outgoing<i64>) -> Result<(), Error> {
    let mut sum = 0;
    while let Some(number) = numbers.next().await {
        sum += number?;
        sums.send(&sum).await?;
    }
    Ok(())
}

#[tokio::test]
async fn messages_go_both_ways_until_both_have_ended() {
    let (client, _server) = plain(functions().add_exchange("sums", sums));
    for _ in 0..3 {
        let (mut numbers, mut sums) = client.function("sums").open::<i64, i64>().await.unwrap();
        for (number, sum) in [(1, 1), (2, 3), (-5, -2)] {
            numbers.send(&number).await.unwrap();
            assert_eq!(sums.next().await.unwrap().unwrap(), sum);
        }
        drop(numbers);
        assert!(sums.next().await.is_none());
        assert!(sums.next().await.is_none());
    }
    until("their numbers are free", || client.in_flight() == 0).await;
}

/// The server says all it wants without being asked, and the other way round.
#[tokio::test]
async fn one_direction_is_enough() {
    let count = functions()
        .add_exchange("count", async |mut limit: Incoming<u32>, mut out: Outgoing<u32>| {
            let limit = limit.next().await.ok_or("no limit")??;
            for number in 0..limit {
                out.send(&number).await?;
            }
            Ok::<_, Failed>(())
        })
        .add_exchange("add", async |mut numbers: Incoming<u64>, mut sum: Outgoing<u64>| {
            let mut all = 0;
            while let Some(number) = numbers.next().await {
                all += number?;
            }
            sum.send(&all).await?;
            Ok::<_, Failed>(())
        });
    let (client, _server) = plain(count);
    let (mut limit, mut numbers) = client.function("count").open::<u32, u32>().await.unwrap();
    limit.send(&5000).await.unwrap();
    for expected in 0..5000 {
        assert_eq!(numbers.next().await.unwrap().unwrap(), expected);
    }
    assert!(numbers.next().await.is_none());
    let (mut numbers, mut sum) = client.function("add").open::<u64, u64>().await.unwrap();
    for number in 0..5000 {
        numbers.send(&number).await.unwrap();
    }
    drop(numbers);
    assert_eq!(sum.next().await.unwrap().unwrap(), 4999 * 5000 / 2);
}

/// What a function of these tests fails with.
#[derive(Debug, serde::Serialize)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Failed {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// A slow consumer holds no more than its window, and loses nothing.
#[tokio::test]
async fn who_does_not_take_holds_the_other_back() {
    let said = Count::default();
    let counted = said.clone();
    let flood =
        functions().add_exchange("flood", move |_: Incoming<()>, mut out: Outgoing<String>| {
            let counted = counted.clone();
            async move {
                let message = "x".repeat(10_000);
                for _ in 0..1000 {
                    out.send(&message).await?;
                    counted.add();
                }
                Ok::<_, Error>(())
            }
        });
    let limits = Limits { stream_window: 100_000, ..Limits::default() };
    let (client, _server) = pair(flood, |it| it.limits(limits), |it| it);
    let (_, mut messages) = client.function("flood").open::<(), String>().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The window, and what waits before it.
    assert!(said.get() <= 20, "{}", said.get());
    // Others are not held back.
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    let mut taken = 0;
    while let Some(message) = messages.next().await {
        assert_eq!(message.unwrap().len(), 10_000);
        taken += 1;
    }
    assert_eq!(taken, 1000);
}

#[tokio::test]
async fn a_message_longer_than_the_window_passes() {
    let (client, _server) = pair(
        functions().add_exchange(
            "echo2",
            async |mut all: Incoming<String>, mut out: Outgoing<String>| {
                while let Some(message) = all.next().await {
                    out.send(&message?).await?;
                }
                Ok::<_, Error>(())
            },
        ),
        |it| it.limits(Limits { stream_window: 65_536, ..Limits::default() }),
        |it| it.limits(Limits { stream_window: 65_536, ..Limits::default() }),
    );
    let (mut out, mut back) = client.function("echo2").open::<String, String>().await.unwrap();
    for len in [0, 1, 65_536, 65_537, 1_000_000, 3] {
        let message = "y".repeat(len);
        out.send(&message).await.unwrap();
        assert!(back.next().await.unwrap().unwrap() == message, "{len}");
    }
}

#[tokio::test]
async fn who_stops_listening_stops_the_function() {
    let running = Count::default();
    let here = running.clone();
    let endless =
        functions().add_exchange("endless", move |_: Incoming<()>, mut out: Outgoing<u8>| {
            let here = here.enter();
            async move {
                loop {
                    out.send(&1).await?;
                    if false {
                        drop(here);
                        return Ok::<_, Error>(());
                    }
                }
            }
        });
    let (client, _server) = pair(endless, |it| it.connections(1), |it| it);
    for _ in 0..10 {
        let (_, mut ones) = client.function("endless").open::<(), u8>().await.unwrap();
        assert_eq!(ones.next().await.unwrap().unwrap(), 1);
    }
    until("all were stopped", || running.get() == 0).await;
    until("their numbers are free", || client.in_flight() == 0).await;
}

#[tokio::test]
async fn errors_end_an_exchange_and_nothing_else() {
    let go = Arc::new(Notify::new());
    let fails = functions()
        .add_exchange("fails", async |mut numbers: Incoming<u8>, _: Outgoing<u8>| {
            let number = numbers.next().await.ok_or("nothing came")??;
            Err::<(), _>(Failed(format!("{number} is enough")))
        })
        .add_exchange("hangs", move |_: Incoming<u8>, _: Outgoing<u8>| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                Ok::<_, Error>(())
            }
        });
    let (client, _server) = plain(fails);
    let (mut out, mut back) = client.function("fails").open::<u8, u8>().await.unwrap();
    out.send(&7).await.unwrap();
    let error = back.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Application, Executed::Yes));
    assert_eq!(error.application::<String>().as_deref(), Some("7 is enough"));
    assert!(back.next().await.is_none());
    out.send(&8).await.unwrap_err();
    for (function, kind) in [("nothing", Kind::UnknownFunction), ("add", Kind::Value)] {
        let (_out, mut back) = client.function(function).open::<u8, u8>().await.unwrap();
        assert_eq!(back.next().await.unwrap().unwrap_err().kind(), kind);
    }
    let error = client.call::<_, u8>("fails", &1).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
    let limit = Duration::from_millis(50);
    let call = client.function("hangs").timeout(limit);
    let (_out, mut back) = call.open::<u8, u8>().await.unwrap();
    assert_eq!(back.next().await.unwrap().unwrap_err().kind(), Kind::Deadline);
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

/// §7.8: a limit that was set counts, also one that calls of this client have anyway.
#[tokio::test(start_paused = true)]
async fn an_exchange_has_the_time_limit_that_was_set_and_no_other() {
    let limit = Duration::from_secs(10);
    let (client, _server) =
        pair(functions().add_exchange("sums", sums), |it| it.timeout(limit), |it| it);
    let begun = tokio::time::Instant::now();
    let timed = client.function("sums").timeout(limit).open::<i64, i64>().await.unwrap();
    let (mut endless, mut all) = client.function("sums").open::<i64, i64>().await.unwrap();
    let (_numbers, mut ended) = timed;
    assert_eq!(ended.next().await.unwrap().unwrap_err().kind(), Kind::Deadline);
    assert!(begun.elapsed() >= limit && begun.elapsed() < 2 * limit, "{:?}", begun.elapsed());
    tokio::time::sleep(3 * limit).await;
    endless.send(&7).await.unwrap();
    assert_eq!(all.next().await.unwrap().unwrap(), 7);
}
