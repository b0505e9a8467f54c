//! When a request is made again, and when not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_rpc::transport::{Carried, Dial, Memory, MemoryListening, Stream};
use meshx_rpc::v1::{Client, ClientOptions, ServerOptions};
use meshx_rpc::{Body, Executed, Functions, Kind};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::peer::{Peer, Told, kind, req_ref, serve, single};

/// Takes one request on a new connection and answers it.
async fn answer(listener: &mut MemoryListening) {
    let mut peer = Peer::accept(listener).await;
    let writer = peer.greet().await;
    let number = req_ref(&peer.message().await);
    peer.say(&writer.result(number, 0, b"right").unwrap().0).await;
    drop(peer.rest().await);
}

/// More than fits between two ends in memory.
fn long() -> Body {
    Body::raw(vec![1; 1_000_000])
}

fn one_block() -> ClientOptions {
    let mut options = single();
    options.common.block_size = 1 << 24;
    options
}

/// As a server with such blocks would begin.
async fn greet(peer: &mut Peer) -> meshx_rpc::v1::wire::Writer {
    use meshx_rpc::v1::wire::{Hello, Writer};
    let request = Hello::read_request(&peer.short_message().await, 1 << 24, b"").unwrap();
    let hello = Hello { conn_ref: b"peer".to_vec(), ..request };
    peer.say(&hello.acknowledgement(b"").unwrap()).await;
    Writer { conn_ref: "peer".into(), block_size: 1 << 24, checksums: false }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_whole_is_made_again() {
    let told = Told::default();
    let (memory, mut listener) = Memory::pair();
    let client = Client::new(memory, one_block().observe(told.observer())).unwrap();
    let playing = async {
        for _ in 0..2 {
            let mut peer = Peer::accept(&mut listener).await;
            greet(&mut peer).await;
            // A part of the request, and then the end.
            let mut part = [0; 1000];
            peer.0.read.read_exact(&mut part).await.unwrap();
        }
        let mut peer = Peer::accept(&mut listener).await;
        let writer = greet(&mut peer).await;
        let number = req_ref(&peer.message().await);
        peer.say(&writer.result(number, 0, b"right").unwrap().0).await;
        peer
    };
    let both = async { tokio::join!(client.request("f").call_raw(long()), playing) };
    let (answer, _peer) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(answer.unwrap(), Body::raw("right"));
    let calls: Vec<_> = told.take().into_iter().filter(|told| told.contains("call")).collect();
    assert_eq!(
        calls,
        ["client call f 1: transport", "client call f 2: transport", "client call f 3: ok"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_may_have_run_is_not_made_again_unless_that_does_no_harm() {
    for (idempotent, cast) in [(false, false), (false, true), (true, false)] {
        let (memory, mut listener) = Memory::pair();
        let client = Client::new(memory, single()).unwrap();
        let playing = async {
            let mut peer = Peer::accept(&mut listener).await;
            peer.greet().await;
            peer.message().await;
            drop(peer);
            if idempotent {
                tokio::select! {
                    () = answer(&mut listener) => {}
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                }
            }
        };
        let request = client.request("f");
        let request = if idempotent { request.idempotent() } else { request };
        let made = async {
            if cast {
                request.cast_raw(Body::raw("x")).await.map(|()| Body::raw(""))
            } else {
                request.call_raw(Body::raw("x")).await
            }
        };
        let (result, ()) = tokio::join!(made, playing);
        if idempotent {
            assert_eq!(result.unwrap(), Body::raw("right"));
        } else {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Maybe));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retries_have_a_number_and_errors_of_the_server_none() {
    let (memory, mut listener) = Memory::pair();
    let mut options = single();
    options.retries = 2;
    let client = Client::new(memory, options).unwrap();
    let playing = async {
        for _ in 0..3 {
            let mut peer = Peer::accept(&mut listener).await;
            peer.greet().await;
            peer.message().await;
        }
        // No fourth one.
        let mut peer = Peer::accept(&mut listener).await;
        peer.greet().await;
        let fourth = tokio::time::timeout(Duration::from_secs(5), peer.message()).await;
        assert!(fourth.is_err());
    };
    let call = client.request("f").idempotent().call_raw(Body::raw("x"));
    let (result, ()) = tokio::join!(call, playing);
    assert_eq!(kind(result), Kind::Transport);

    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let functions = Functions::new().add("fail", move |()| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Err::<(), _>("no"))
    });
    let serving = serve(functions, ServerOptions::default());
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    let result = client.request("fail").idempotent().call::<_, ()>(&()).await;
    assert_eq!((kind(result), runs.load(Ordering::SeqCst)), (Kind::Application, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_waits_is_read_when_writing_fails() {
    let (memory, mut listener) = Memory::pair();
    let client = Client::new(memory, one_block()).unwrap();
    let playing = async {
        let mut peer = Peer::accept(&mut listener).await;
        let writer = greet(&mut peer).await;
        let mut head = [0; 13];
        peer.0.read.read_exact(&mut head).await.unwrap();
        let number = req_ref(&head[4..]);
        peer.say(&writer.error(number, 1, b"\x83\x64\x00\x0binvalid_cks")).await;
    };
    let (result, ()) = tokio::join!(client.request("f").call_raw(long()), playing);
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Integrity, Executed::Never), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_two_milliseconds_after_the_handshake() {
    let (memory, mut listener) = Memory::pair();
    let client = Client::new(memory, single()).unwrap();
    let playing = async {
        let mut peer = Peer::accept(&mut listener).await;
        let writer = peer.greet().await;
        let begun = Instant::now();
        let number = req_ref(&peer.message().await);
        let waited = begun.elapsed();
        peer.say(&writer.result(number, 0, b"").unwrap().0).await;
        let next = req_ref(&peer.message().await);
        assert_eq!(begun.elapsed(), waited);
        peer.say(&writer.result(next, 0, b"").unwrap().0).await;
        (waited, peer)
    };
    let calls = async {
        client.request("f").call_raw(Body::raw("")).await.unwrap();
        client.request("f").call_raw(Body::raw("")).await.unwrap();
    };
    let ((), (waited, _peer)) = tokio::join!(calls, playing);
    assert!(waited >= Duration::from_millis(2) && waited < Duration::from_millis(10));
}

/// Counts attempts to connect, none of which succeeds.
struct Nowhere(Arc<AtomicUsize>);

impl Dial for Nowhere {
    fn dial(&self) -> Carried<'_, Stream> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }

    fn address(&self) -> String {
        "nowhere".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_to_connect_become_rare_and_callers_wait_for_their_time() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let client = Client::new(Nowhere(Arc::clone(&attempts)), single()).unwrap();
    let begun = Instant::now();
    let call = client.request("f").within(Duration::from_mins(1));
    let error = call.call_raw(Body::raw("")).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Never));
    assert!(error.reason().starts_with("it cannot be reached: connection refused"), "{error}");
    assert_eq!(error.to_string().split(':').next(), Some("f at nowhere"));
    assert_eq!(begun.elapsed(), Duration::from_mins(1));
    let attempts = attempts.load(Ordering::SeqCst);
    assert!((10..40).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shakes_hands_and_leaves_is_not_stormed() {
    let (memory, mut listener) = Memory::pair();
    let client = Client::new(memory, single()).unwrap();
    let count = async {
        let mut count = 0;
        loop {
            let mut peer = Peer::accept(&mut listener).await;
            peer.greet().await;
            count += 1;
            if count == 20 {
                return;
            }
        }
    };
    let begun = Instant::now();
    count.await;
    assert!(begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn who_has_gone_from_the_queue_is_not_sent() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let functions = Functions::new().add("sleep", move |ms: u64| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(())
        }
    });
    let serving = serve(functions, ServerOptions::default());
    let client = Client::new(serving.memory.clone(), single()).unwrap();
    let busy = client.clone();
    let busy = tokio::spawn(async move { busy.call::<_, ()>("sleep", &1000).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let gone = client.call::<_, ()>("sleep", &0);
    tokio::time::timeout(Duration::from_millis(100), gone).await.unwrap_err();
    busy.await.unwrap().unwrap();
    client.call::<_, ()>("sleep", &0).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_made_anew_when_that_is_wanted() {
    let told = Told::default();
    let serving = serve(Functions::new(), ServerOptions::default().observe(told.observer()));
    let mut options = single();
    options.idle = Some(Duration::from_mins(10));
    let client = Client::new(serving.memory.clone(), options).unwrap();
    tokio::time::sleep(Duration::from_mins(50)).await;
    let connected = told.take().into_iter().filter(|told| told == "server connected").count();
    assert!((5..=6).contains(&connected), "{connected}");
    drop(client);
}
