//! Large messages, and small ones beside them (§7.3, §7.4, §7.7).

use std::time::{Duration, Instant};

use meshx_rpc::transport::Tcp;
use meshx_rpc::{Body, Client, Executed, Incoming, Kind, Limits, Outgoing, Server};

use crate::{functions, pair, plain};

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect()
}

#[tokio::test]
async fn every_length_around_a_bound_arrives_whole() {
    let (client, _server) = plain(functions());
    let around = [0, 1, 8_191, 8_192, 32_767, 32_768, 32_769, 65_536, 65_537, 131_072, 1 << 20];
    for len in around.into_iter().chain([(1 << 20) + 1, 3_000_000]) {
        let sent = bytes(len, 7);
        let raw = client.function("raw").call_raw(Body::raw(sent.clone())).await.unwrap();
        assert!(raw.bytes == sent, "{len}");
    }
}

/// Windows far too small for all of them, and room for few at a time: none waits for good.
#[tokio::test]
async fn many_large_messages_wait_for_room_and_never_for_each_other() {
    let tight = Limits {
        stream_window: 65_536,
        connection_window: 65_536,
        large_messages: 3 << 20,
        max_message: 2 << 20,
        max_block: 4096,
        ..Limits::default()
    };
    let (client, _server) =
        pair(functions(), |it| it.limits(tight).connections(1), |it| it.limits(tight));
    let calls: Vec<_> = (0..40_u8)
        .map(|seed| {
            let client = client.clone();
            tokio::spawn(async move {
                let sent = bytes(1 << 20, seed);
                let call = client.function("raw").timeout(Duration::from_mins(1));
                call.call_raw(Body::raw(sent.clone())).await.unwrap().bytes == sent
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let small = Limits { max_message: 100_000, ..Limits::default() };
    let (client, _server) = pair(functions(), |it| it, |it| it.limits(small));
    let call = client.function("raw");
    let error = call.call_raw(Body::raw(bytes(100_001, 0))).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
    client.function("raw").call_raw(Body::raw(bytes(100_000, 0))).await.unwrap();

    let (client, _server) = pair(functions(), |it| it.limits(small), |it| it);
    let error = client.function("raw").call_raw(Body::raw(bytes(100_001, 0))).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Yes));
    assert!(error.reason().contains("100001"), "{error}");
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

#[tokio::test]
async fn a_large_call_that_is_dropped_leaves_nothing() {
    let (client, _server) = pair(functions(), |it| it.connections(1), |it| it);
    for _ in 0..50 {
        let call = client.function("raw");
        let call = call.call_raw(Body::raw(bytes(5 << 20, 1)));
        drop(tokio::time::timeout(Duration::from_millis(3), call).await);
    }
    crate::until("their numbers are free", || client.in_flight() == 0).await;
    let whole = client.function("raw").call_raw(Body::raw(bytes(5 << 20, 1))).await.unwrap();
    assert_eq!(whole.bytes.len(), 5 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_call_passes_large_ones() {
    let listener = Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    let _server = Server::new(functions()).listen(listener).start();
    let client = Client::to(Tcp::to(address.to_string())).connections(1).start();
    let crowd: Vec<_> = (0..8_u8)
        .map(|seed| {
            let client = client.clone();
            tokio::spawn(async move {
                let sent = bytes::Bytes::from(vec![seed; 20 << 20]);
                let call = client.function("raw").timeout(Duration::from_mins(1));
                assert!(call.call_raw(Body::raw(sent.clone())).await.unwrap().bytes == sent);
            })
        })
        .collect();
    let mut times = Vec::new();
    while crowd.iter().any(|call| !call.is_finished()) {
        let begun = Instant::now();
        assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        times.push(begun.elapsed());
    }
    for call in crowd {
        call.await.unwrap();
    }
    times.sort();
    // It did pass: the large ones took much longer than one of these.
    assert!(times.len() > 5, "{times:?}");
}

/// All the room there is, if it is no whole number of units.
#[tokio::test]
async fn the_longest_message_has_room() {
    let odd = Limits { large_messages: 1_000_000, max_message: 1_000_000, ..Limits::default() };
    let (client, _server) = pair(functions(), |it| it.limits(odd), |it| it.limits(odd));
    let call = client.function("raw").timeout(Duration::from_secs(5));
    let sent = bytes(1_000_000, 3);
    assert!(call.call_raw(Body::raw(sent.clone())).await.unwrap().bytes == sent);
}

/// §4.3: what this side asks for is within the same bounds as what it is asked for.
#[tokio::test]
async fn limits_below_the_bounds_are_taken_for_the_bounds() {
    let tiny = Limits {
        max_block: 1,
        stream_window: 0,
        connection_window: 0,
        keep_alive: Duration::ZERO,
        ..Limits::default()
    };
    let all = functions().add_exchange(
        "back",
        async |mut words: Incoming<String>, mut back: Outgoing<String>| {
            while let Some(word) = words.next().await {
                back.send(&word?).await?;
            }
            Ok::<_, meshx_rpc::Error>(())
        },
    );
    let (client, _server) = pair(all, |it| it.limits(tiny), |it| it.limits(tiny));
    let (mut say, mut hear) = client.function("back").open::<String, String>().await.unwrap();
    let word = "x".repeat(30_000);
    for _ in 0..4 {
        say.send(&word).await.unwrap();
    }
    for _ in 0..4 {
        assert!(hear.next().await.unwrap().unwrap() == word);
    }
    for len in [0, 1025, 40_000, 200_000] {
        let sent = bytes(len, 3);
        let raw = client.function("raw").call_raw(Body::raw(sent.clone())).await.unwrap();
        assert!(raw.bytes == sent, "{len}");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}
