//! The connections of a client: when they are made, shared and replaced.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use meshx_rpc::transport::{Carried, Dial, Memory, Stream, Tcp};
use meshx_rpc::{Client, Executed, Functions, Incoming, Kind, Limits, Outgoing, Retries, Server};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::{Count, functions, pair};

/// A way there that takes its time, or leads nowhere.
struct Way {
    there: Memory,
    takes: Duration,
    /// How often it was tried, and how often at most it leads there.
    tried: Count,
    times: usize,
}

impl Dial for Way {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let tried = self.tried.add();
            sleep(self.takes).await;
            if tried > self.times {
                return Err(io::Error::other("nobody there"));
            }
            self.there.dial().await
        })
    }

    fn address(&self) -> String {
        "over there".to_owned()
    }
}

fn way(takes: Duration, times: usize) -> (Way, Count, meshx_rpc::Serving) {
    let (there, listen) = Memory::pair();
    let exchange = async |mut words: Incoming<u32>, mut back: Outgoing<u32>| {
        while let Some(word) = words.next().await {
            back.send(&word?).await?;
        }
        Ok::<_, meshx_rpc::Error>(())
    };
    let all: Functions = functions().add_exchange("back", exchange);
    let server = Server::new(all).listen(listen).start();
    let tried = Count::default();
    (Way { there, takes, tried: tried.clone(), times }, tried, server)
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_less_than_a_connection_takes_get_one_in_the_end() {
    let (way, tried, _server) = way(Duration::from_millis(300), usize::MAX);
    let client = Client::to(way).connections(1).start();
    let mut failed = 0;
    loop {
        let call = client.function("add").timeout(Duration::from_millis(50));
        match call.call::<_, u32>(&(1, 2)).await {
            Ok(sum) => break assert_eq!(sum, 3),
            Err(error) => assert_eq!(error.executed(), Executed::Never, "{error}"),
        }
        failed += 1;
        assert!(failed < 10);
    }
    assert_eq!(tried.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_shares_attempts_and_their_failures() {
    let (way, tried, _server) = way(Duration::from_millis(1), 0);
    let client = Client::to(way).start();
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let call = client.function("add").timeout(Duration::from_secs(5));
                call.call::<_, u32>(&(1, 2)).await.unwrap_err()
            })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap();
        assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Never));
        assert_eq!(error.to_string(), "add at over there: nobody there");
    }
    // Pauses of 20 ms to 2 s.
    assert!((3..15).contains(&tried.get()), "{}", tried.get());
}

/// Leads to a server; as long as that is so, only until both have said their HELLO.
async fn door(mut near: TcpStream, far: std::net::SocketAddr, ends: bool) -> io::Result<()> {
    let mut far = meshx_rt::net::dial(far, Duration::from_secs(5)).await?;
    if ends {
        let mut hello = [0; 4096];
        let len = near.read(&mut hello).await?;
        far.write_all(&hello[..len]).await?;
        let len = far.read(&mut hello).await?;
        return near.write_all(&hello[..len]).await;
    }
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}

#[tokio::test]
async fn a_server_whose_connections_do_not_last_is_dialled_seldom_and_found_again() {
    let listener = Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let far = listener.local_addr();
    let _server = Server::new(functions()).listen(listener).start();
    let listener = meshx_rt::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let near = listener.local_addr().unwrap();
    let (tried, ends) = (Count::default(), Arc::new(AtomicBool::new(true)));
    let (counted, ending) = (tried.clone(), Arc::clone(&ends));
    let doors = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.add();
            tokio::spawn(door(stream, far, ending.load(Ordering::SeqCst)));
        }
    });
    let client = Client::to(Tcp::to(near.to_string())).start();
    let until = Instant::now() + Duration::from_secs(3);
    let mut last = None;
    while Instant::now() < until {
        let call = client.function("add").timeout(Duration::from_millis(100));
        last = call.call::<_, u32>(&(1, 2)).await.err().or(last);
    }
    // Pauses of 20 ms to 2 s.
    assert!((3..20).contains(&tried.get()), "{}", tried.get());
    let error = last.unwrap();
    assert_eq!(error.kind(), Kind::Transport);
    assert!(error.to_string().contains("they do not last: "), "{error}");

    ends.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while client.call::<_, u32>("add", &(1, 2)).await.is_err() {}
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    doors.abort();
}

/// One that did something is another matter: it is dialled at once.
#[tokio::test]
async fn a_connection_that_answered_is_replaced_at_once() {
    let listener = Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    let mut server = Server::new(functions()).listen(listener).start();
    let client = Client::to(Tcp::to(address.to_string())).connections(1).start();
    for _ in 0..10 {
        let begun = Instant::now();
        let call = client.function("add").idempotent();
        assert_eq!(call.call::<_, u32>(&(1, 2)).await.unwrap(), 3);
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        server.stop().await;
        let listener = Tcp::listen(address).unwrap();
        server = Server::new(functions()).listen(listener).start();
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_used_until_there_is_another() {
    let (way, tried, _server) = way(Duration::from_millis(1), 1);
    let client = Client::to(way).connections(1).max_age(Some(Duration::from_mins(1))).start();
    for _ in 0..10 {
        assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        sleep(Duration::from_mins(1)).await;
    }
    assert!(tried.get() > 2);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_outlives_the_age_of_its_connection() {
    let (way, tried, _server) = way(Duration::from_millis(1), usize::MAX);
    let client = Client::to(way).connections(1).max_age(Some(Duration::from_mins(1))).start();
    let (mut say, mut hear) = client.function("back").open::<u32, u32>().await.unwrap();
    for minute in 0..60 {
        say.send(&minute).await.unwrap();
        assert_eq!(hear.next().await.unwrap().unwrap(), minute);
        assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        sleep(Duration::from_mins(1)).await;
    }
    assert!(tried.get() > 20, "{}", tried.get());
    drop(client);
    sleep(Duration::from_secs(1)).await;
    assert!(hear.next().await.is_none_or(|item| item.is_err()));
}

#[test]
fn what_is_in_flight_is_told_outside_of_a_runtime_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, _server) = runtime.block_on(async {
        let age = Some(Duration::from_millis(1));
        let (client, server) = pair(functions(), |it| it.max_age(age), |it| it);
        assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        sleep(Duration::from_millis(5)).await;
        (client, server)
    });
    assert_eq!(client.in_flight(), 0);
}

/// The longest durations there are mean: never.
#[tokio::test(start_paused = true)]
async fn no_duration_is_too_long() {
    let limits = Limits {
        handshake: Duration::MAX,
        frame: Duration::MAX,
        keep_alive: Duration::MAX,
        ..Limits::default()
    };
    let (client, server) = pair(
        functions(),
        |it| it.max_age(Some(Duration::MAX)).timeout(Duration::MAX).limits(limits),
        |it| it.grace(Duration::MAX).limits(limits),
    );
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    server.stop().await;
}

/// §7.1: a server that takes few at a time is waited for.
#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_place_on_a_connection() {
    let few = Limits { max_streams: 4, ..Limits::default() };
    let (client, _server) =
        pair(functions(), |it| it.connections(2).retries(Retries::NONE), |it| it.limits(few));
    let begun = Instant::now();
    let calls: Vec<_> = (0..80)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call::<_, u64>("sleep", &100).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 100);
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    let none = Limits { max_streams: 1, ..Limits::default() };
    let (client, _server) = pair(functions(), |it| it.connections(1), |it| it.limits(none));
    let long = {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, u64>("sleep", &5000).await })
    };
    sleep(Duration::from_millis(10)).await;
    let limit = Duration::from_millis(200);
    let error = client.function("add").timeout(limit).call::<_, u32>(&(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Overloaded, Executed::Never), "{error}");
    assert!(error.to_string().contains("within 200ms"), "{error}");
    let error = client.function("add").timeout(limit).fire(&(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Overloaded, Executed::Never), "{error}");
    long.await.unwrap().unwrap();
    client.function("add").timeout(limit).fire(&(1, 2)).await.unwrap();
}

/// A way that takes no more after so many bytes.
struct Narrow(Memory, usize);

struct Half(Box<dyn AsyncWrite + Send + Unpin>, usize);

impl AsyncWrite for Half {
    fn poll_write(
        mut self: Pin<&mut Self>,
        waker: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = bytes.len().min(self.1);
        if left == 0 {
            return Poll::Pending;
        }
        let wrote = Pin::new(&mut self.0).poll_write(waker, &bytes[..left]);
        if let Poll::Ready(Ok(count)) = &wrote {
            self.1 -= count;
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(waker)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        waker: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(waker)
    }
}

impl Dial for Narrow {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let stream = self.0.dial().await?;
            let write = Box::new(Half(stream.write, self.1));
            Ok(Stream { write, ..stream })
        })
    }

    fn address(&self) -> String {
        "over there".to_owned()
    }
}

/// What nobody answers does not pile up, either.
#[tokio::test(start_paused = true)]
async fn casts_without_an_answer_wait_for_a_peer_that_takes_nothing() {
    let (there, listen) = Memory::pair();
    let _server = Server::new(functions()).listen(listen).start();
    let client = Client::to(Narrow(there, 100_000)).connections(1).start();
    let text = "x".repeat(30_000);
    let mut fired = 0;
    let error = loop {
        let call = client.function("echo").timeout(Duration::from_millis(100));
        match call.fire(&text).await {
            Ok(()) => fired += 1,
            Err(error) => break error,
        }
        assert!(fired < 1000);
    };
    assert_eq!((error.kind(), error.executed()), (Kind::Overloaded, Executed::Never), "{error}");
    assert!(error.to_string().starts_with("echo at over there: "), "{error}");
    assert!(fired > 5, "{fired}");
}

/// Whatever fails says of which function, where, and how long it was waited for.
#[tokio::test(start_paused = true)]
async fn errors_say_which_function_and_how_long() {
    let limit = Duration::from_millis(200);
    let (nowhere, ..) = way(Duration::ZERO, 0);
    let client = Client::to(nowhere).timeout(limit).retries(Retries::NONE).start();
    let words = "add at over there: nobody there";
    let each = client.call_each::<_, u32>("add", &(1, 2)).await.unwrap_err();
    let open = client.function("add").open::<u32, u32>().await.unwrap_err();
    let fire = client.function("add").fire(&(1, 2)).await.unwrap_err();
    for error in [each, open, fire] {
        assert_eq!(error.to_string(), words);
    }
    let (slow, _, _server) = way(Duration::from_secs(1), 1);
    let client = Client::to(slow).timeout(limit).retries(Retries::NONE).start();
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!(error.to_string(), "add at over there: no connection was made within 200ms");
    sleep(Duration::from_secs(1)).await;
    let error = client.call::<_, u64>("sleep", &1000).await.unwrap_err();
    assert_eq!(error.to_string(), "sleep at over there: no answer came within 200ms");
    let each = client.call_each::<_, u64>("sleep", &1000).await.unwrap();
    let error = each[0].1.as_ref().unwrap_err();
    assert_eq!(error.function(), Some("sleep"));
    assert!(error.reason().contains("within 200ms"), "{error}");
}
