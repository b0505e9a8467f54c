//! What carries the bytes between two nodes.

mod epmd;
mod memory;
mod mesh;
mod port_in_name;
mod tcp;
mod unix;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use meshx_dist::handshake::Framing;
use tokio::io::{AsyncRead, AsyncWrite};

pub use epmd::Epmd;
pub use memory::{Memory, Switchboard};
pub use mesh::Mesh;
pub use port_in_name::{OnePort, PortError, PortInName};
pub use tcp::{Publication, Resolve, Static, Tcp};
pub use unix::Unix;

/// A future of a carrier.
pub type Carried<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// The half of a stream that is read.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The half of a stream that is written. Writes should be vectored, and go out at once.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A way by which nodes reach each other.
///
/// It finds a node by its name and gives a stream of bytes to it; what travels on that stream is not
/// its business. A carrier that knows for sure who is at the other end, by a certificate, say,
/// says so in [`Stream::identity`]; then nobody is let in there under another name. One that lets no
/// hello pass but in the name that was proved says so in [`Carrier::proves_names`].
pub trait Carrier: Send + Sync + 'static {
    /// What it is called in errors and logs.
    fn name(&self) -> &str;

    /// How the handshake is framed on it.
    fn framing(&self) -> Framing {
        Framing::U16
    }

    /// Whether everybody who gets through has proved the name that he says. Then nobody is given one
    /// (`NAME_ME`): who asks for one has another already.
    fn proves_names(&self) -> bool {
        false
    }

    /// Listens for others, and makes known that `me` is here. Called once, when the node starts.
    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>>;

    /// Opens a stream to a node. The caller limits the time.
    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream>;

    /// Why a stream to or from that node has just been closed, if the carrier knows more than that it
    /// was.
    fn why_closed(&self, _node: &str) -> Option<io::Error> {
        None
    }

    /// Undoes what [`Carrier::listen`] did outside of this program, and waits until that is done.
    /// Called once, when the node has stopped and its streams are closed.
    fn stop(&self) -> Carried<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A listener. Dropping it takes back what made the node known.
pub trait Listen: Send {
    /// The next stream. An error is logged, and tried again after a moment.
    fn accept(&mut self) -> Carried<'_, Stream>;

    /// Where it listens, for people.
    fn address(&self) -> String;

    /// Which run of the node this is, if something outside counts that (EPMD does).
    fn creation(&self) -> Option<u32> {
        None
    }
}

/// Who listens.
#[derive(Debug, Clone)]
pub struct Myself {
    /// The node's name.
    pub name: String,
    /// Whether it is hidden.
    pub hidden: bool,
}

/// A stream of bytes to another node.
pub struct Stream {
    /// To be read.
    pub read: ReadHalf,
    /// To be written.
    pub write: WriteHalf,
    /// Where the other end is, for people.
    pub address: String,
    /// The node that the other end is, if the carrier is sure of it.
    pub identity: Option<String>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Stream");
        debug.field("address", &self.address).field("identity", &self.identity);
        debug.finish_non_exhaustive()
    }
}
