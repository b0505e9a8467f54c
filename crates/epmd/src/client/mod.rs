//! A client of EPMD.

mod error;
mod exchange;
mod keep;
mod lease;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use meshx_dist::epmd::{
    Alive, AliveReply, DumpReply, KillReply, NamesReply, PORT, PortReply, Request, StopReply,
};

use exchange::Exchange;

pub use error::{Error, Wanted};
pub use keep::{Kept, Standing};
pub use lease::Lease;

/// The most time a question or a registration takes, connecting included. A daemon that hangs is
/// an error after this long. (A stock VM waits 10 s when it registers, 7 s when it asks.)
pub const EXCHANGE_LIMIT: Duration = Duration::from_secs(4);
/// The most time for connecting, all addresses together.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The longest wait between two tries of [`Kept`] to get its name back.
pub const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// Where a machine's daemon is; the addresses are tried in order. Cheap to clone: it holds no
/// connection.
///
/// ```no_run
/// # async fn example() -> Result<(), meshx_epmd::Error> {
/// use meshx_dist::epmd::Alive;
/// use meshx_epmd::Client;
///
/// let epmd = Client::local()?;
/// let lease = epmd.register(&Alive::new("shop", 40123)).await?;
/// println!("creation {}", lease.creation());
/// let found = epmd.lookup("shop").await?;
/// assert_eq!(found.map(|alive| alive.port), Some(40123));
/// drop(lease); // gives the name back
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    addresses: Vec<SocketAddr>,
}

impl Client {
    /// The daemon at this address and no other.
    pub fn at(address: SocketAddr) -> Self {
        Self { addresses: vec![address] }
    }

    /// The daemon of this machine: `127.0.0.1`, then `::1`, at `ERL_EPMD_PORT` or 4369.
    pub fn local() -> Result<Self, Error> {
        Ok(Self::local_at(port_of_environment()?))
    }

    /// The daemon of this machine at another port.
    pub fn local_at(port: u16) -> Self {
        let hosts = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        Self { addresses: hosts.map(|host| SocketAddr::new(host, port)).to_vec() }
    }

    /// The daemon of another machine, at the same port as this one: all of a cluster's daemons use
    /// the same (`erl_epmd`).
    #[must_use]
    pub fn on(&self, host: IpAddr) -> Self {
        let port = self.addresses.first().map_or(PORT, SocketAddr::port);
        Self::at(SocketAddr::new(host, port))
    }

    /// The addresses that are tried.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Registers a node. The name is ours for as long as the [`Lease`] is held and the daemon lives.
    ///
    /// A daemon accepts this from its own machine only.
    pub async fn register(&self, alive: &Alive) -> Result<Lease, Error> {
        let wanted = Wanted::Register(alive.name.clone());
        let request = Request::Alive(alive.clone());
        let mut exchange = Exchange::open(&self.addresses, wanted, &request).await?;
        let reply = exchange.reply(AliveReply::MAX, AliveReply::decode).await?;
        match reply.creation() {
            Ok(creation) => Ok(Lease::new(self.clone(), alive.clone(), creation, exchange)),
            Err(_) => Err(exchange.taken()),
        }
    }

    /// Registers a node and does so again whenever the registration is lost; the first time, too,
    /// happens in the background. Must be called within a Tokio runtime.
    pub fn keep(&self, alive: Alive) -> Kept {
        Kept::start(self.clone(), alive, None)
    }

    /// Where a node listens: its registration, or `None` if there is no such name. `name` is the
    /// part before the `@`; the part after it is the machine whose daemon is asked ([`Self::on`]).
    ///
    /// The answer is what somebody on that machine registered: the handshake has to show who it is.
    pub async fn lookup(&self, name: &str) -> Result<Option<Alive>, Error> {
        let wanted = Wanted::LookUp(name.to_owned());
        let request = Request::PortPlease { name: name.to_owned() };
        let mut exchange = Exchange::open(&self.addresses, wanted, &request).await?;
        match exchange.reply(PortReply::MAX, PortReply::decode).await? {
            PortReply::Found(alive) if alive.name == name => Ok(Some(alive)),
            PortReply::Found(other) => Err(exchange.other_node(other.name)),
            PortReply::NotFound { .. } => Ok(None),
        }
    }

    /// All names and their ports.
    pub async fn names(&self) -> Result<NamesReply, Error> {
        let mut exchange = Exchange::open(&self.addresses, Wanted::Names, &Request::Names).await?;
        exchange.whole(NamesReply::decode).await
    }

    /// All names, with those that were registered before; a daemon answers its own machine only.
    pub async fn dump(&self) -> Result<DumpReply, Error> {
        let mut exchange = Exchange::open(&self.addresses, Wanted::Dump, &Request::Dump).await?;
        exchange.whole(DumpReply::decode).await
    }

    /// Ends the daemon: [`KillReply::No`] if it has names and does not check its commands in the
    /// relaxed way.
    pub async fn kill(&self) -> Result<KillReply, Error> {
        let mut exchange = Exchange::open(&self.addresses, Wanted::Kill, &Request::Kill).await?;
        exchange.reply(2, KillReply::decode).await
    }

    /// Takes a name from its holder. A daemon that does not check its commands in the relaxed way
    /// closes without an answer, which is [`Error::Closed`].
    pub async fn stop(&self, name: &str) -> Result<StopReply, Error> {
        let wanted = Wanted::Stop(name.to_owned());
        let request = Request::Stop { name: name.to_owned() };
        let mut exchange = Exchange::open(&self.addresses, wanted, &request).await?;
        exchange.whole(StopReply::decode).await
    }
}

/// The port that `ERL_EPMD_PORT` names; [`PORT`] where it is not set or empty.
pub fn port_of_environment() -> Result<u16, Error> {
    match std::env::var_os("ERL_EPMD_PORT") {
        Some(value) if !value.is_empty() => {
            let port = value.to_str().and_then(|text| text.parse().ok()).filter(|&port| port != 0);
            port.ok_or_else(|| Error::Variable(value.to_string_lossy().into_owned()))
        }
        _ => Ok(PORT),
    }
}
