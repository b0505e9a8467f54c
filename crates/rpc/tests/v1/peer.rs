//! A peer that is played by a test, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use meshx_rpc::event::Event;
use meshx_rpc::transport::{Dial, Listen, Memory, MemoryListening, Stream};
use meshx_rpc::v1::wire::{Hello, Writer};
use meshx_rpc::v1::{ClientOptions, Server, ServerOptions};
use meshx_rpc::{Functions, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One end of a connection.
pub struct Peer(pub Stream);

impl Peer {
    pub async fn dial(memory: &Memory) -> Self {
        Self(memory.dial().await.unwrap())
    }

    pub async fn accept(listener: &mut MemoryListening) -> Self {
        Self(listener.accept().await.unwrap())
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        self.0.write.write_all(bytes).await.unwrap();
        self.0.write.flush().await.unwrap();
    }

    /// Exactly these bytes come next.
    pub async fn hear(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        let read = self.0.read.read_exact(&mut heard);
        tokio::time::timeout(Duration::from_mins(1), read).await.unwrap().unwrap();
        assert_eq!(heard, bytes);
    }

    /// The next message with four bytes of length.
    pub async fn message(&mut self) -> Bytes {
        let len = self.0.read.read_u32().await.unwrap();
        let mut message = vec![0; len as usize];
        self.0.read.read_exact(&mut message).await.unwrap();
        message.into()
    }

    /// The next message with two bytes of length.
    pub async fn short_message(&mut self) -> Bytes {
        let len = self.0.read.read_u16().await.unwrap();
        let mut message = vec![0; len.into()];
        self.0.read.read_exact(&mut message).await.unwrap();
        message.into()
    }

    pub async fn close(&mut self) {
        self.0.write.shutdown().await.unwrap();
    }

    /// Everything that comes until the other end closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = self.0.read.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_mins(5), read).await.expect("it closes").unwrap();
        rest
    }

    /// As a client of ours would begin; gives how requests are written.
    pub async fn shake(&mut self, hello: &Hello) -> Writer {
        self.say(&hello.request(b"").unwrap()).await;
        let answer = self.short_message().await;
        Hello::read_answer(&answer, hello.hsk_ref, hello.block_size, b"").unwrap();
        writer(hello)
    }

    /// As a server would begin; gives how answers are written.
    pub async fn greet(&mut self) -> Writer {
        let request = Hello::read_request(&self.short_message().await, 16384, b"").unwrap();
        let hello = Hello { hsk_ref: request.hsk_ref, conn_ref: b"peer".to_vec(), ..hello() };
        self.say(&hello.acknowledgement(b"").unwrap()).await;
        writer(&hello)
    }
}

fn writer(hello: &Hello) -> Writer {
    let conn_ref = Bytes::from(hello.conn_ref.clone());
    Writer { conn_ref, block_size: hello.block_size, checksums: false }
}

pub fn hello() -> Hello {
    Hello {
        hsk_ref: 1,
        conn_ref: b"test".to_vec(),
        block_size: 16384,
        svc_ref: "svc".into(),
        node_ref: "node".into(),
    }
}

/// The number of the request that a message belongs to.
pub fn req_ref(message: &[u8]) -> u64 {
    u64::from_be_bytes(*message[1..].first_chunk().unwrap())
}

/// A server in memory, until the test ends.
pub struct Serving {
    pub memory: Memory,
    pub server: Server,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

pub fn serve(functions: Functions, options: ServerOptions) -> Serving {
    let (memory, listener) = Memory::pair();
    let server = Server::new(functions, options).unwrap();
    let stop = CancellationToken::new();
    let (running, token) = (server.clone(), stop.clone());
    let task = tokio::spawn(async move { running.run(listener, token).await });
    Serving { memory, server, stop, task }
}

/// Of one connection.
pub fn single() -> ClientOptions {
    let mut options = ClientOptions::default();
    (options.connections, options.spares) = (1, 0);
    options
}

/// What is told, in words.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub fn observer(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
        let told = self.clone();
        move |event| {
            let kind = |result: &Result<(), &meshx_rpc::Error>| match result {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.kind().token().to_owned(),
            };
            let words = match event {
                Event::Unreachable { .. } => "unreachable".to_owned(),
                Event::HandshakeFailed { side, error, .. } => {
                    format!("{} handshake: {}", side.name(), error.kind().token())
                }
                Event::Connected { side, peer, .. } => {
                    assert!(peer.hsk_ref > 0 && !peer.local.conn_ref.is_empty());
                    format!("{} connected", side.name())
                }
                Event::Disconnected { side, error, .. } => {
                    let why = error.map_or("ok", |error| error.kind().token());
                    format!("{} disconnected: {why}", side.name())
                }
                Event::Called(called) => {
                    let (side, way) = (called.side.name(), called.way.name());
                    let (function, attempt) = (called.function, called.attempt);
                    format!("{side} {way} {function} {attempt}: {}", kind(&called.result))
                }
                Event::CastLost { function, error } => {
                    format!("lost {function}: {}", error.kind().token())
                }
                _ => "something else".to_owned(),
            };
            told.0.lock().unwrap().push(words);
        }
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The kind of an error.
pub fn kind<T: std::fmt::Debug>(result: Result<T, meshx_rpc::Error>) -> Kind {
    result.unwrap_err().kind()
}
