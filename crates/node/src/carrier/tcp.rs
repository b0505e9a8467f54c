//! Plain TCP, as stock nodes use it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use meshx_rt::net;
use tokio::net::{TcpListener, TcpStream};

use super::{Carried, Carrier, Listen, Myself, Stream};

/// The longest time for one address.
const CONNECT: Duration = Duration::from_secs(5);

/// Where nodes listen.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a node, the best one first; an error says why there is none.
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>>;

    /// The port at which others will look for this node, if that is settled beforehand. A carrier that
    /// was not told where to listen does so there.
    fn listen_port(&self, _me: &Myself) -> io::Result<Option<u16>> {
        Ok(None)
    }

    /// Makes known that this node listens there; what it gives is held as long as that is so.
    fn publish<'a>(&'a self, me: &'a Myself, at: SocketAddr) -> Carried<'a, Publication>;
}

/// A node is known; dropping this takes it back.
#[derive(Default)]
pub struct Publication {
    /// Which run of the node this is, if the registry counts.
    pub creation: Option<u32>,
    /// What holds it.
    pub lease: Option<Box<dyn Send + Sync>>,
}

/// The carrier of stock nodes without TLS.
///
/// Nothing on it is encrypted, and whoever has the cookie is let in: for loopback and private
/// networks, or inside of something that encrypts.
pub struct Tcp {
    listen: SocketAddr,
    resolver: Box<dyn Resolve>,
}

impl Tcp {
    /// Listens on this address; port 0 for the one that `resolver` says ([`Resolve::listen_port`]), or
    /// else any free one. Finds others by `resolver`.
    pub fn new(listen: SocketAddr, resolver: impl Resolve) -> Self {
        Self { listen, resolver: Box::new(resolver) }
    }

    /// Listens on 127.0.0.1, at port 0 of [`Tcp::new`].
    pub fn loopback(resolver: impl Resolve) -> Self {
        Self::new((Ipv4Addr::LOCALHOST, 0).into(), resolver)
    }
}

impl Carrier for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async move {
            let mut listen = self.listen;
            if listen.port() == 0 {
                listen.set_port(self.resolver.listen_port(me)?.unwrap_or(0));
            }
            let listener = net::listen(listen)
                .map_err(|error| io::Error::new(error.kind(), format!("{listen}: {error}")))?;
            let address = listener.local_addr()?;
            let publication = self.resolver.publish(me, address).await?;
            Ok(Box::new(Listening { listener, address, publication }) as Box<dyn Listen>)
        })
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
            for address in self.resolver.resolve(node).await? {
                match net::dial(address, CONNECT).await {
                    Ok(stream) => return Ok(halves(stream, address)),
                    Err(error) => {
                        last = io::Error::new(error.kind(), format!("{address}: {error}"));
                    }
                }
            }
            Err(last)
        })
    }
}

struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    publication: Publication,
}

impl Listen for Listening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            net::tune(&stream)?;
            Ok(halves(stream, peer))
        })
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    fn creation(&self) -> Option<u32> {
        self.publication.creation
    }
}

pub(super) fn halves(stream: TcpStream, peer: SocketAddr) -> Stream {
    let (read, write) = stream.into_split();
    Stream {
        read: Box::new(read),
        write: Box::new(write),
        address: peer.to_string(),
        identity: None,
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Publication");
        debug.field("creation", &self.creation).field("held", &self.lease.is_some()).finish()
    }
}

/// Nodes at addresses that are known beforehand; nothing is published.
#[derive(Debug, Default)]
pub struct Static(Mutex<HashMap<String, SocketAddr>>);

impl Static {
    /// Knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows that node.
    #[must_use]
    pub fn with(self, node: &str, address: SocketAddr) -> Self {
        self.insert(node, address);
        self
    }

    /// Knows that node from now on.
    pub fn insert(&self, node: &str, address: SocketAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(node.to_owned(), address);
    }
}

impl Resolve for Static {
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(node).copied();
        Box::pin(async move {
            let unknown = || {
                io::Error::new(io::ErrorKind::NotFound, format!("no address of {node} is known"))
            };
            found.map(|address| vec![address]).ok_or_else(unknown)
        })
    }

    fn publish<'a>(&'a self, _: &'a Myself, _: SocketAddr) -> Carried<'a, Publication> {
        Box::pin(async { Ok(Publication::default()) })
    }
}

/// The addresses of the host part of a node name.
pub(crate) async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((host, 0)).await;
    let found = found.map_err(|error| {
        io::Error::new(error.kind(), format!("the host {host} has no address: {error}"))
    })?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.dedup();
    Ok(addresses)
}
