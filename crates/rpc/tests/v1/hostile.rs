//! Peers that mean no good, or are broken.

use std::time::Duration;

use bytes::Bytes;
use meshx_rpc::transport::{Carried, Listen, Memory, MemoryListening, Stream, Tcp};
use meshx_rpc::v1::wire::Hello;
use meshx_rpc::v1::{Client, Server, ServerOptions};
use meshx_rpc::{Body, Executed, Functions, Kind};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::captures::{self, Seen};
use crate::peer::{Peer, Serving, Told, hello, req_ref, serve, single};

fn functions() -> Functions {
    Functions::new().add_raw("echo", async |body| Ok(body)).add_raw("never", async |_| {
        std::future::pending::<()>().await;
        Ok(Body::raw(""))
    })
}

fn serving() -> Serving {
    serve(functions(), ServerOptions::default())
}

/// The server still answers others.
async fn works(serving: &Serving) {
    let mut peer = Peer::dial(&serving.memory).await;
    let writer = peer.shake(&hello()).await;
    peer.say(&writer.request(false, 9, "echo", 0, b"works").unwrap().0).await;
    assert!(peer.message().await.ends_with(b"works"));
}

/// What the server says to these bytes, when no more come.
async fn said_to(serving: &Serving, bytes: &[u8]) -> Vec<u8> {
    let mut peer = Peer::dial(&serving.memory).await;
    // It may close before it has everything.
    drop(peer.0.write.write_all(bytes).await);
    drop(peer.0.write.shutdown().await);
    peer.rest().await
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_the_connection_and_nothing_else() {
    let serving = serving();
    let refused = b"\x00\x13\xdbinvalid_hsk_params";
    // Whatever it begins with; `G` is the beginning of a length of 18 245 bytes.
    for (bytes, said) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], &b""[..]),
        (b"", b""),
        (b"\x00", b""),
        (b"\x00\x00", refused),
        (b"\x00\x01\xd2", refused),
        (b"\x00\x01\xd7", b"\x00\x0c\xdbinvalid_ref"),
        (b"\x00\x01\x32", refused),
        (&[255; 100], b""),
        (b"\x04\x00\xd2", b""),
        (b"\x03\xff\xd2", b""),
    ] {
        assert_eq!(said_to(&serving, bytes).await, said, "{bytes:?}");
    }
    works(&serving).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_end_at_any_byte() {
    let serving = serving();
    for name in ["01_handshake_calls", "02_call_multiblock_nocks"] {
        let mut sent = Vec::new();
        for seen in captures::connections(name).remove(0) {
            if let Seen::Client(bytes) = seen {
                sent.extend_from_slice(&bytes);
            }
        }
        let mut answers = 0;
        for end in 0..sent.len() {
            let said = said_to(&serving, &sent[..end]).await;
            answers += usize::from(!said.is_empty());
            // Blocks of 200 are not ours.
            if name.starts_with("02") && !said.is_empty() {
                assert_eq!(said, b"\x00\x13\xdbinvalid_hsk_params");
            }
        }
        assert!(answers > 0);
    }
    works(&serving).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_says_right_things_in_the_wrong_place() {
    let serving = serving();
    let shake = async || {
        let mut peer = Peer::dial(&serving.memory).await;
        let writer = peer.shake(&hello()).await;
        (peer, writer)
    };
    let error = |number: u64, atom: &str| {
        let writer = meshx_rpc::v1::wire::Writer {
            conn_ref: Bytes::new(),
            block_size: 200,
            checksums: false,
        };
        let len = u8::try_from(atom.len()).unwrap();
        let term = [&[131, 100, 0, len], atom.as_bytes()].concat();
        writer.error(number, 1, &term)[14..].to_vec()
    };
    // Blocks out of their order, of another request, of another connection.
    let (mut peer, writer) = shake().await;
    let blocks = writer.request(false, 5, "echo", 0, &vec![1; 40_000]).unwrap().0;
    let first = blocks.slice(..4 + u32::from_be_bytes(*blocks.first_chunk().unwrap()) as usize);
    peer.say(&first).await;
    peer.say(&first).await;
    let told = peer.message().await;
    assert_eq!((told[0], req_ref(&told)), (199, 5));
    assert_eq!(told[14..], error(5, "invalid_ref"));
    peer.close().await;
    assert_eq!(peer.rest().await, b"");

    let (mut peer, writer) = shake().await;
    peer.say(&first).await;
    peer.say(&writer.request(false, 6, "echo", 0, b"").unwrap().0).await;
    assert_eq!(peer.message().await[14..], error(5, "invalid_ref"));

    let (mut peer, _) = shake().await;
    let other = meshx_rpc::v1::wire::Writer {
        conn_ref: Bytes::from("else"),
        block_size: 16_384,
        checksums: false,
    };
    peer.say(&other.request(false, 6, "echo", 0, b"").unwrap().0).await;
    assert_eq!(peer.message().await[14..], error(6, "invalid_ref"));

    // What only a server says, an empty message, an unknown one: the end without a word.
    for bytes in [
        writer.acknowledgement(1),
        writer.error(1, 0, b"x"),
        writer.result(1, 0, b"x").unwrap().0,
        Bytes::from_static(&[0, 0, 0, 0]),
        Bytes::from_static(&[0, 0, 0, 1, 50]),
        Bytes::from_static(&[0, 0, 0, 3, 99, 0, 0]),
        // A frame of 4 GiB, which is more than anybody takes.
        Bytes::from_static(&[255; 8]),
    ] {
        let (mut peer, _) = shake().await;
        peer.say(&bytes).await;
        assert_eq!(peer.rest().await, b"", "{bytes:?}");
    }

    // Lengths that are not there.
    for place in [13, 19, 20, 25, 32] {
        let (mut peer, writer) = shake().await;
        let mut bytes = writer.request(false, 1, "echo", 0, b"xyz").unwrap().0.to_vec();
        bytes[place] = 255;
        peer.say(&bytes).await;
        assert_eq!(peer.rest().await, b"", "{place}");
    }

    // The handshake once more: as a request it announces 4 MiB that do not come.
    let (mut peer, _) = shake().await;
    peer.say(&hello().request(b"").unwrap()).await;
    let begun = Instant::now();
    assert_eq!(peer.rest().await, b"");
    assert_eq!(begun.elapsed(), Duration::from_mins(1));
    works(&serving).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_on_purpose_is_given_up() {
    let told = Told::default();
    let serving = serve(functions(), ServerOptions::default().observe(told.observer()));
    // Nothing at all.
    let begun = Instant::now();
    let mut peer = Peer::dial(&serving.memory).await;
    assert_eq!(peer.rest().await, b"");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(told.take(), ["server handshake: transport"]);
    // One byte of the handshake a second.
    let begun = Instant::now();
    let Peer(mut stream) = Peer::dial(&serving.memory).await;
    let drip = async {
        for byte in hello().request(b"").unwrap() {
            if stream.write.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    drip.await;
    assert!(begun.elapsed() <= Duration::from_secs(7), "{:?}", begun.elapsed());
    // Idle for a day, which is allowed; then one byte of a request every ten seconds.
    let mut peer = Peer::dial(&serving.memory).await;
    let writer = peer.shake(&hello()).await;
    tokio::time::sleep(Duration::from_hours(24)).await;
    peer.say(&writer.request(false, 1, "echo", 0, b"x").unwrap().0).await;
    peer.message().await;
    let begun = Instant::now();
    let bytes = writer.request(false, 2, "echo", 0, &[1; 1000]).unwrap().0;
    for &byte in &bytes {
        if peer.0.write.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(70), "{:?}", begun.elapsed());
    // Takes nothing of a long answer.
    let mut peer = Peer::dial(&serving.memory).await;
    let writer = peer.shake(&hello()).await;
    peer.say(&writer.request(false, 1, "echo", 0, &vec![1; 1_000_000]).unwrap().0).await;
    told.take();
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(told.take(), ["server call echo 1: transport", "server disconnected: transport"]);
    works(&serving).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_tiny_blocks_are_one_argument() {
    let serving = serving();
    let mut peer = Peer::dial(&serving.memory).await;
    peer.shake(&hello()).await;
    let Peer(stream) = peer;
    let (mut read, mut write) = (stream.read, stream.write);
    let block = |seq: u64, content: &[u8]| {
        let mut message = vec![if seq > 1 { 51 } else { 50 }];
        message.extend_from_slice(&7_u64.to_be_bytes());
        message.extend_from_slice(b"\x04test");
        if seq > 1 {
            message.extend_from_slice(&seq.to_be_bytes());
        } else {
            message.extend_from_slice(b"\x00\x00\x04echo");
        }
        message.extend_from_slice(&(content.len() as u64).to_be_bytes());
        message.extend_from_slice(content);
        [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
    };
    let blocks = async {
        for seq in (1..=100_000_u64).rev() {
            let content: &[u8] = if seq % 2 == 0 { b"" } else { b"x" };
            write.write_all(&block(seq, content)).await.unwrap();
        }
        write.flush().await.unwrap();
    };
    let answer = async {
        use tokio::io::AsyncReadExt;
        let mut bytes = 0;
        while bytes < 50_000 {
            let len = read.read_u32().await.unwrap();
            let mut message = vec![0; len as usize];
            read.read_exact(&mut message).await.unwrap();
            bytes += message.split(|&byte| byte == b'x').count() - 1;
        }
        bytes
    };
    let ((), bytes) = tokio::join!(blocks, answer);
    assert_eq!(bytes, 50_000);
    works(&serving).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_request_while_one_runs_ends_both() {
    let told = Told::default();
    let serving = serve(functions(), ServerOptions::default().observe(told.observer()));
    let mut peer = Peer::dial(&serving.memory).await;
    let writer = peer.shake(&hello()).await;
    peer.say(&writer.request(false, 1, "never", 0, b"").unwrap().0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = writer.request(false, 2, "echo", 0, b"").unwrap().0;
    let (begin, end) = second.split_at(10);
    peer.say(begin).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    told.take();
    peer.say(end).await;
    assert_eq!(peer.rest().await, b"");
    assert_eq!(told.take(), ["server call never 1: protocol", "server disconnected: protocol"]);
    // Who goes away is noticed as well.
    let mut peer = Peer::dial(&serving.memory).await;
    let writer = peer.shake(&hello()).await;
    peer.say(&writer.request(false, 1, "never", 0, b"").unwrap().0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    told.take();
    drop(peer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(told.take(), ["server call never 1: cancelled", "server disconnected: ok"]);
}

#[tokio::test(start_paused = true)]
async fn more_connections_than_allowed_wait() {
    let mut options = ServerOptions::default();
    options.connections = 2;
    let serving = serve(functions(), options);
    let mut first = Peer::dial(&serving.memory).await;
    first.shake(&hello()).await;
    let mut second = Peer::dial(&serving.memory).await;
    second.shake(&hello()).await;
    let mut third = Peer::dial(&serving.memory).await;
    let hello = hello();
    let waits = tokio::time::timeout(Duration::from_secs(100), third.shake(&hello));
    assert!(waits.await.is_err());
    drop(first);
    let answer = third.short_message().await;
    Hello::read_answer(&answer, 1, 16_384, b"").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_talks_nonsense_harms_no_client() {
    let ending = |bytes: &'static [u8]| async move {
        let (memory, mut listener) = Memory::pair();
        let mut options = single();
        options.retries = 0;
        let client = Client::new(memory, options).unwrap();
        let playing = async {
            let mut peer = Peer::accept(&mut listener).await;
            peer.greet().await;
            peer.message().await;
            peer.say(bytes).await;
            peer.close().await;
        };
        let call = client.request("echo").call_raw(Body::raw("x"));
        let (error, ()) = tokio::join!(call, playing);
        error.unwrap_err()
    };
    for (bytes, kind) in [
        (&b"\x00\x00\x00\x00"[..], Kind::Protocol),
        (b"\x00\x00\x00\x01\x37", Kind::Protocol),
        (b"\xff\xff\xff\xff", Kind::Protocol),
        (b"\x00\x00\x00\x10", Kind::Transport),
        (b"", Kind::Transport),
        // Of another request, and of another connection.
        (b"\x00\x00\x00\x0e\x0f\0\0\0\0\0\0\0\x63\x04peer", Kind::Protocol),
        (b"\x00\x00\x00\x0e\x0f\0\0\0\0\0\0\0\x02\x04else", Kind::Protocol),
        // A call is not acknowledged.
        (b"\x00\x00\x00\x0e\x0f\0\0\0\0\0\0\0\x02\x04peer", Kind::Protocol),
        // An error that is no term is one nevertheless.
        (b"\x00\x00\x00\x12\xc7\0\0\0\0\0\0\0\x02\x04peer\x01abc", Kind::Application),
        (b"\x00\x00\x00\x12\xc7\0\0\0\0\0\0\0\x02\x04peer\x00abc", Kind::Application),
    ] {
        let error = ending(bytes).await;
        assert_eq!(error.kind(), kind, "{bytes:?}: {error}");
        let executed = if kind == Kind::Application { Executed::Yes } else { Executed::Maybe };
        assert_eq!(error.executed(), executed);
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_without_being_asked_is_left() {
    let told = Told::default();
    let (memory, mut listener) = Memory::pair();
    let client = Client::new(memory, single().observe(told.observer())).unwrap();
    let mut peer = Peer::accept(&mut listener).await;
    let writer = peer.greet().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    peer.say(&writer.acknowledgement(1)).await;
    assert_eq!(peer.rest().await, b"");
    assert_eq!(told.take(), ["client connected", "client disconnected: transport"]);
    // The next one is used.
    let playing = async {
        let mut peer = Peer::accept(&mut listener).await;
        let writer = peer.greet().await;
        let number = req_ref(&peer.message().await);
        peer.say(&writer.result(number, 0, b"right").unwrap().0).await;
    };
    let call = client.request("echo").call_raw(Body::raw("x"));
    let (answer, ()) = tokio::join!(call, playing);
    assert_eq!(answer.unwrap(), Body::raw("right"));
}

#[tokio::test(start_paused = true)]
async fn who_is_told_an_error_may_finish_what_he_was_saying() {
    let serving = serving();
    let mut peer = Peer::dial(&serving.memory).await;
    let writer = peer.shake(&hello()).await;
    peer.say(&writer.request(false, 1, "nosuch", 0, b"").unwrap().0).await;
    assert_eq!(peer.message().await[0], 199);
    // More than is on its way at a time: it is read, if by nobody.
    peer.say(&vec![0; 1_000_000]).await;
    let begun = Instant::now();
    assert_eq!(peer.rest().await, b"");
    // Not for ever.
    drop(peer.0.write.write_all(&vec![0; 1_000_000]).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    peer.0.write.write_all(b"x").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn an_error_gets_through_to_who_still_writes_over_tcp() {
    let listen = Tcp::listen((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let dial = Tcp::to(listen.local_addr().to_string());
    let mut options = ServerOptions::default();
    options.common.message_max = 100_000;
    let server = Server::new(functions(), options).unwrap();
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move { server.run(listen, token).await });
    let client = Client::new(dial, single()).unwrap();
    for _ in 0..5 {
        // The server stops reading long before that has been written.
        let call = client.request("echo").call_raw(Body::raw(vec![1; 20_000_000]));
        let error = call.await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never), "{error}");
    }
    stop.cancel();
}

/// One that could not be accepted does not hold up those behind it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_to_be_accepted_costs_the_others_nothing() {
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
    let server = Server::new(functions(), ServerOptions::default()).unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let serving = tokio::spawn(async move { server.run(Flaky(listen, 0), stopped).await });
    let begun = Instant::now();
    let client = Client::new(dial, single()).unwrap();
    let answer = client.request("echo").call_raw(Body::raw("x")).await;
    assert_eq!(answer.unwrap(), Body::raw("x"));
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    stop.cancel();
    serving.await.unwrap();
}
