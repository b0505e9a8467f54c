//! Peers that do not keep to the protocol: only their own connection ends.

use std::time::Duration;

use meshx_rpc::transport::{Dial, Memory, Stream};
use meshx_rpc::{Client, Limits, Server, Serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::functions;

/// A server, a good client of it, and the way for others.
fn victim() -> (Serving, Client, Memory) {
    let (dial, listen) = Memory::pair();
    let limits = Limits {
        handshake: Duration::from_secs(1),
        frame: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = Server::new(functions()).listen(listen).limits(limits).start();
    (server, Client::to(dial.clone()).start(), dial)
}

async fn closed(mut stream: Stream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = stream.read.read_to_end(&mut said);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("it is closed").unwrap();
    said
}

#[tokio::test(start_paused = true)]
async fn what_is_no_client_is_closed() {
    let (_server, client, dial) = victim();
    let firsts: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\xB2MX3",
        b"\xB2MX2\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00",
        b"\xB2MX2\x00\x00\x00\x00",
        b"\xB2MX2\x0c\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04",
        b"\x00\x40\xd2",
    ];
    for first in firsts {
        let mut stream = dial.dial().await.unwrap();
        stream.write.write_all(first).await.unwrap();
        closed(stream).await;
    }
    // And who says nothing, or only the beginning.
    for first in [&b""[..], b"\xB2", b"\xB2MX2", b"\xB2MX2\x40\x00\x00\x00\x01"] {
        let mut stream = dial.dial().await.unwrap();
        stream.write.write_all(first).await.unwrap();
        closed(stream).await;
    }
    assert_eq!(client.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}

/// R2: every byte that passes between the two is changed once, or the stream ends there.
#[tokio::test]
async fn a_changed_byte_is_never_a_wrong_result() {
    // What a good client says.
    let (dial, mut listen) = Memory::pair();
    let said = tokio::spawn(async move {
        use meshx_rpc::transport::Listen;
        let mut stream = listen.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let len = stream.read.read(&mut hello).await.unwrap();
        hello.truncate(len);
        hello
    });
    let client = Client::to(dial).timeout(Duration::from_millis(100)).start();
    drop(client.call::<_, u32>("add", &(1, 2)).await);
    let hello = said.await.unwrap();
    let (_server, good, dial) = victim();
    for at in 0..hello.len() {
        let mut changed = hello.clone();
        changed[at] ^= 0x41;
        let mut stream = dial.dial().await.unwrap();
        stream.write.write_all(&changed).await.unwrap();
        stream.write.shutdown().await.unwrap();
        let answer = closed(stream).await;
        // Whatever it is: no connection comes of it that answers as one does.
        let accepted = answer.get(4) == Some(&1);
        assert!(!accepted, "byte {at}");
    }
    assert_eq!(good.call::<_, u32>("add", &(1, 2)).await.unwrap(), 3);
}
