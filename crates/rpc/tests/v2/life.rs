//! Connections come and go (§5, §8.4, §9; faults R1 and R3).

use std::time::Duration;

use meshx_rpc::transport::{Memory, Tcp, Unix};
use meshx_rpc::{Client, Executed, Key, Kind, Limits, Retries, Server};

use crate::{Count, functions, pair, plain, until};

#[tokio::test]
async fn keys_must_be_the_same() {
    let with = |key: &'static str| {
        pair(
            functions(),
            move |it| it.key(Key::new(key)).timeout(Duration::from_millis(200)),
            |it| it.key(Key::new("right")),
        )
    };
    let (client, _server) = with("right");
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    let (client, _server) = with("wrong");
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never));
    // A server without one proves nothing, and a client without one is not let in.
    let (client, _server) = pair(
        functions(),
        |it| it.key(Key::new("right")).timeout(Duration::from_millis(200)),
        |it| it,
    );
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert!(error.reason().contains("no proof"), "{error}");
    let (client, _server) = pair(
        functions(),
        |it| it.timeout(Duration::from_millis(200)),
        |it| it.key(Key::new("right")),
    );
    let error = client.call::<_, u32>("add", &(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Denied, Executed::Never), "{error}");
}

/// R1.
#[tokio::test]
async fn a_server_that_dies_is_told_at_once() {
    let (dial, listen) = Memory::pair();
    let server = Server::new(functions()).listen(listen).start();
    let client = Client::to(dial).retries(Retries::NONE).start();
    let call = {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, u64>("sleep", &60_000).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(server);
    let error = tokio::time::timeout(Duration::from_secs(1), call).await.unwrap().unwrap();
    let error = error.unwrap_err();
    assert_eq!(error.executed(), Executed::Maybe);
    assert!(matches!(error.kind(), Kind::Transport | Kind::Draining), "{error:?}");
}

/// R3: what may have run is not made again, unless that was said.
#[tokio::test]
async fn a_call_runs_once_unless_it_is_idempotent() {
    let runs = Count::default();
    let (dial, mut listen) = Memory::pair();
    let (count, here) = (runs.clone(), runs.clone());
    // Each connection ends in the middle of its first call.
    let serving = tokio::spawn(async move {
        use meshx_rpc::transport::Listen;
        loop {
            let stream = listen.accept().await.unwrap();
            let (dial, inner) = Memory::pair();
            let count = count.clone();
            let all = functions().add("dies", move |()| {
                count.add();
                std::future::pending::<Result<(), String>>()
            });
            let server = Server::new(all).listen(inner).start();
            tokio::spawn(async move {
                use meshx_rpc::transport::Dial;
                use tokio::io::AsyncReadExt;
                let mut onward = dial.dial().await.unwrap();
                let (mut read, mut write) = (stream.read, stream.write);
                let there = async {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = read.read(&mut bytes).await {
                        tokio::io::AsyncWriteExt::write_all(&mut onward.write, &bytes[..count])
                            .await
                            .unwrap();
                    }
                };
                let back = tokio::io::copy(&mut onward.read, &mut write);
                tokio::select! {
                    () = there => {}
                    _ = back => {}
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
                drop(server);
            });
        }
    });
    let client = Client::to(dial).connections(1).start();
    let error = client.call::<_, ()>("dies", &()).await.unwrap_err();
    assert_eq!((error.executed(), here.get()), (Executed::Maybe, 1));
    let call = client.function("dies").idempotent().timeout(Duration::from_secs(2));
    call.call::<_, ()>(&()).await.unwrap_err();
    assert_eq!(here.get(), 1 + 6);
    serving.abort();
}

/// §9.2.
#[tokio::test]
async fn a_server_that_stops_lets_calls_end() {
    let (client, server) = plain(functions());
    let call = {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, u64>("sleep", &200).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = {
        let client = client.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let call = client.function("add").timeout(Duration::from_millis(100));
            call.call::<_, u32>(&(1, 2)).await
        })
    };
    server.stop().await;
    assert_eq!(call.await.unwrap().unwrap(), 200);
    let error = late.await.unwrap().unwrap_err();
    assert_eq!(error.executed(), Executed::Never, "{error:?}");
}

#[tokio::test]
async fn a_client_finds_a_server_that_comes_later_and_again() {
    let path = std::env::temp_dir().join(format!("meshx-rpc-{}.sock", std::process::id()));
    let client = Client::to(Unix::to(&path)).start();
    let early = {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, u32>("add", &(1, 2)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    for round in 0..3 {
        let listener = Unix::listen(&path).unwrap();
        let server = Server::new(functions()).listen(listener).start();
        assert_eq!(client.call::<_, u32>("add", &(2, 3)).await.unwrap(), 5);
        if round == 0 {
            until("the one that came too early", || early.is_finished()).await;
        }
        server.stop().await;
    }
    assert_eq!(early.await.unwrap().unwrap(), 3);
    let call = client.function("add").timeout(Duration::from_millis(100));
    let error = call.call::<_, u32>(&(1, 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Never));
    assert!(error.to_string().contains(".sock"), "{error}");
}

/// §9.1.
#[tokio::test(start_paused = true)]
async fn a_peer_is_asked_whether_it_is_there() {
    let (client, server) = plain(functions());
    let pings: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.ping().await })
        })
        .collect();
    for ping in pings {
        assert!(ping.await.unwrap().unwrap() < Duration::from_secs(1));
    }
    drop(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = client.ping().await.unwrap_err();
    assert_eq!((error.kind(), error.executed()), (Kind::Transport, Executed::Never), "{error}");
}

/// §9.1.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_any_more_is_given_up() {
    let (dial, mut listen) = Memory::pair();
    let limits = Limits { keep_alive: Duration::from_secs(1), ..Limits::default() };
    let client = Client::to(dial).limits(limits).retries(Retries::NONE).start();
    let frozen = tokio::spawn(async move {
        use meshx_rpc::transport::{Dial, Listen};
        use tokio::io::AsyncReadExt;
        let stream = listen.accept().await.unwrap();
        let (onward, inner) = Memory::pair();
        let server = Server::new(functions()).listen(inner).start();
        let mut onward = onward.dial().await.unwrap();
        let (mut read, mut write) = (stream.read, stream.write);
        // The handshake and one call pass, then nothing does.
        let mut bytes = [0; 4096];
        let limit = Duration::from_millis(100);
        loop {
            tokio::select! {
                Ok(count) = read.read(&mut bytes) => {
                    tokio::io::AsyncWriteExt::write_all(&mut onward.write, &bytes[..count]).await.unwrap();
                }
                _ = tokio::io::copy(&mut onward.read, &mut write) => {}
                () = tokio::time::sleep(limit) => break,
            }
        }
        std::future::pending::<()>().await;
        drop(server);
    });
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = tokio::time::Instant::now();
    let call = client.function("add").timeout(Duration::from_mins(1));
    let error = call.call::<_, u32>(&(1, 2)).await.unwrap_err();
    assert_eq!(error.executed(), Executed::Maybe);
    assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
    frozen.abort();
}

#[tokio::test]
async fn every_instance_is_called() {
    // Two servers behind one address, in turns.
    let (dial, mut listen) = Memory::pair();
    let (first, one) = Memory::pair();
    let _first = Server::new(functions()).listen(one).start();
    let relay = tokio::spawn(async move {
        use meshx_rpc::transport::{Dial, Listen};
        loop {
            let stream = listen.accept().await.unwrap();
            let onward = first.dial().await.unwrap();
            let mut left = tokio::io::join(stream.read, stream.write);
            let mut right = tokio::io::join(onward.read, onward.write);
            tokio::spawn(async move {
                drop(tokio::io::copy_bidirectional(&mut left, &mut right).await);
            });
        }
    });
    let client = Client::to(dial).connections(3).start();
    let answers = client.call_each::<_, u32>("add", &(1, 2)).await.unwrap();
    // Both are of this process: one run of a program is one instance.
    assert_eq!(answers.len(), 1);
    assert_eq!(*answers[0].1.as_ref().unwrap(), 3);
    relay.abort();
}

#[tokio::test]
async fn tcp_names_are_looked_up() {
    let listener = Tcp::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().port();
    let _server = Server::new(functions()).listen(listener).start();
    let client = Client::to(Tcp::to(format!("localhost:{port}"))).start();
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

/// §1.2: one listener, both versions.
#[tokio::test]
async fn the_first_bytes_tell_which_version_is_spoken() {
    let (dial, listen) = Memory::pair();
    let old = meshx_rpc::v1::ServerOptions::default();
    let server = Server::new(functions()).listen(listen).also_v1(old).unwrap().start();
    let new = Client::to(dial.clone()).start();
    let old =
        meshx_rpc::v1::Client::new(dial.clone(), meshx_rpc::v1::ClientOptions::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(new.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
        assert_eq!(old.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    }
    server.stop().await;

    let (client, _server) = plain(functions());
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

/// One that could not be accepted does not hold up those behind it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_to_be_accepted_costs_the_others_nothing() {
    use meshx_rpc::transport::{Carried, Listen, MemoryListening, Stream};
    struct Flaky(MemoryListening, u32);
    impl Listen for Flaky {
        fn accept(&mut self) -> Carried<'_, Stream> {
            self.1 += 1;
            if self.1.is_multiple_of(40) {
                return self.0.accept();
            }
            Box::pin(async { Err(std::io::ErrorKind::ConnectionAborted.into()) })
        }
        fn address(&self) -> String {
            self.0.address()
        }
    }
    let (dial, listen) = Memory::pair();
    let _server = Server::new(functions()).listen(Flaky(listen, 0)).start();
    let begun = tokio::time::Instant::now();
    let client = Client::to(dial).start();
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
}
