//! Where connections come from.

mod mesh;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use meshx_rt::net;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;

pub use mesh::{Mesh, MeshDial, MeshListening, ServeError};

/// What a transport does takes a while.
pub type Carried<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection, before a byte is said.
pub struct Stream {
    /// From the peer.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// To the peer.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
    /// Where the peer is, for logs and errors.
    pub address: String,
    /// Who the peer is, proven: its SPIFFE identity, where the transport knows it.
    pub identity: Option<String>,
}

/// Makes connections to one service.
pub trait Dial: Send + Sync + 'static {
    /// Makes one.
    fn dial(&self) -> Carried<'_, Stream>;

    /// Where they lead, for logs and errors.
    fn address(&self) -> String;
}

/// Takes connections.
pub trait Listen: Send + 'static {
    /// The next one. An error is about one connection, and another may follow.
    fn accept(&mut self) -> Carried<'_, Stream>;

    /// Where it listens, for logs and errors.
    fn address(&self) -> String;
}

/// How long making a TCP or Unix connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// So many connections may wait to be accepted in memory.
const BACKLOG: usize = 64;

/// A TCP address. Nagle is off, keepalive on.
#[derive(Debug, Clone)]
pub struct Tcp(String);

/// A Unix socket.
#[derive(Debug, Clone)]
pub struct Unix(PathBuf);

/// Connections within this process: for tests, and services that happen to live together.
#[derive(Debug, Clone)]
pub struct Memory(mpsc::Sender<Stream>);

impl Tcp {
    /// To `host:port`; a name is looked up at each connection.
    pub fn to(address: impl Into<String>) -> Self {
        Self(address.into())
    }

    /// Listens there; port 0 is any.
    pub fn listen(address: SocketAddr) -> io::Result<TcpListening> {
        let listener = net::listen(address)?;
        let address = listener.local_addr()?;
        Ok(TcpListening { listener, address })
    }
}

impl Dial for Tcp {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in tokio::net::lookup_host(&self.0).await? {
                match net::dial(address, CONNECT).await {
                    Ok(stream) => {
                        let (read, write) = stream.into_split();
                        return Ok(Stream::new(read, write, address));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn address(&self) -> String {
        self.0.clone()
    }
}

/// A TCP listener.
#[derive(Debug)]
pub struct TcpListening {
    listener: TcpListener,
    address: SocketAddr,
}

impl TcpListening {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Listen for TcpListening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            net::tune(&stream)?;
            let (read, write) = stream.into_split();
            Ok(Stream::new(read, write, peer))
        })
    }

    fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Unix {
    /// To the socket at this path.
    pub fn to(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Listens at this path, which must not exist; it is removed when the listener is dropped.
    pub fn listen(path: impl AsRef<Path>) -> io::Result<UnixListening> {
        let path = path.as_ref().to_owned();
        Ok(UnixListening { listener: UnixListener::bind(&path)?, path })
    }
}

impl Dial for Unix {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT, UnixStream::connect(&self.0)).await;
            let timeout = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not accept");
            let (read, write) = connected.map_err(timeout)??.into_split();
            Ok(Stream::new(read, write, self.0.display()))
        })
    }

    fn address(&self) -> String {
        self.0.display().to_string()
    }
}

/// A listening Unix socket.
#[derive(Debug)]
pub struct UnixListening {
    listener: UnixListener,
    path: PathBuf,
}

impl Listen for UnixListening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            let (read, write) = stream.into_split();
            Ok(Stream::new(read, write, self.path.display()))
        })
    }

    fn address(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for UnixListening {
    fn drop(&mut self) {
        // It may be gone already.
        drop(std::fs::remove_file(&self.path));
    }
}

impl Memory {
    /// Both ends: who dials and who listens.
    pub fn pair() -> (Self, MemoryListening) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Self(sender), MemoryListening(receiver))
    }
}

impl Dial for Memory {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let (read, write) = tokio::io::split(theirs);
            let refused = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens");
            self.0.send(Stream::new(read, write, "memory")).await.map_err(refused)?;
            let (read, write) = tokio::io::split(ours);
            Ok(Stream::new(read, write, "memory"))
        })
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

/// How much is on its way in memory at a time.
const PIPE: usize = 256 * 1024;

/// Takes the connections of a [`Memory`].
#[derive(Debug)]
pub struct MemoryListening(mpsc::Receiver<Stream>);

impl Listen for MemoryListening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(stream) => Ok(stream),
                // Nobody can dial any more.
                None => std::future::pending().await,
            }
        })
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

impl Stream {
    /// Of two halves.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        address: impl fmt::Display,
    ) -> Self {
        let (read, write) = (Box::new(read), Box::new(write));
        Self { read, write, address: address.to_string(), identity: None }
    }

    /// With a proven identity.
    #[must_use]
    pub fn with_identity(mut self, identity: Option<String>) -> Self {
        self.identity = identity;
        self
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, identity, .. } = self;
        f.debug_struct("Stream").field("address", address).field("identity", identity).finish()
    }
}
