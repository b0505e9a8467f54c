//! A daemon in the place of OTP's.
//!
//! It speaks the same protocol, byte for byte, to virtual machines that run without `meshx exec`,
//! and differs where OTP's can be misused or dies:
//!
//! * It listens on loopback only, unless told otherwise; OTP's listens everywhere.
//! * Names are what the VM allows, `[0-9A-Za-z_-]+`. OTP's daemon takes any text, line breaks too,
//!   with which a name can forge lines of the NAMES reply. A registration of another name is closed
//!   without an answer; a question for one is answered "no such name", as there.
//! * A name whose holder's connection has ended is free at once, also when the daemon has not come
//!   to read that end yet.
//! * A request with bytes after its last field is closed, a registration, too.
//! * A refused registration is closed. OTP's daemon keeps such connections open for ever.
//! * A request must be whole within the packet time-out. There, each byte begins a new one.
//! * Out of descriptors, or of places, the oldest connection that is not a lease is closed for a new
//!   one. OTP's daemon ends, and knows 1 024 descriptors.
//!
//! What it is not: proof of who a node is. Every program of the machine can register a free name.

mod connection;
mod listen;
mod seats;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshx_core::{Code, Diagnostic};
use meshx_dist::epmd::PORT;
use meshx_rt::{Backoff, Seldom};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use seats::Seats;
use table::Table;

/// Addresses that a daemon listens on, at most; loopback ones included.
pub const ADDRESSES_MAX: usize = 16;
/// Connections at once, however many descriptors the process may have.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Of the process's descriptors, those that are not for connections.
pub const DESCRIPTORS_KEPT: usize = 24;
/// Connections at once of one address of another machine, which can only ask.
pub const STRANGER_MAX: usize = 64;
/// Names that were registered before and are remembered.
pub const OLD_NAMES_MAX: usize = 1000;
/// How long a connection that is no lease may take, if the configuration does not say.
pub const PACKET_TIMEOUT: Duration = Duration::from_mins(1);
/// An operator is told of a shortage once in so long, however often strangers bring it about.
const WARN_EVERY: Duration = Duration::from_mins(1);
/// The longest pause after a failed accept; the first is a two-hundredth of it.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What a daemon is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Addresses to listen on beside loopback. An unspecified one (`0.0.0.0`, `::`) stands for all
    /// of its family.
    pub addresses: Vec<IpAddr>,
    /// Whether KILL ends a daemon that has names, and STOP takes a name from its holder.
    pub relaxed_command_check: bool,
    /// How long a connection that is no lease may take.
    pub packet_timeout: Duration,
    /// A wait before each accept, to play a busy machine.
    pub delay_accept: Duration,
    /// A wait before each reply, to play a busy machine.
    pub delay_write: Duration,
}

/// A running daemon. Dropping it closes everything.
#[derive(Debug)]
pub struct Daemon {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    killed: watch::Receiver<bool>,
    _accepting: JoinSet<()>,
}

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there: most likely a daemon.
    #[error("{0} is already in use")]
    InUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// More than [`ADDRESSES_MAX`] addresses.
    #[error("cannot listen on more than {ADDRESSES_MAX} addresses, loopback included")]
    TooMany,
}

/// What the tasks of a daemon share.
#[derive(Debug)]
struct Shared {
    config: Config,
    state: Mutex<State>,
    killed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    table: Table,
    seats: Seats,
    shortages: Seldom,
}

impl Default for Config {
    /// As OTP's daemon, but on loopback only.
    fn default() -> Self {
        Self {
            port: PORT,
            addresses: Vec::new(),
            relaxed_command_check: false,
            packet_timeout: PACKET_TIMEOUT,
            delay_accept: Duration::ZERO,
            delay_write: Duration::ZERO,
        }
    }
}

impl Daemon {
    /// Listens and serves. Must be called within a Tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use meshx_dist::epmd::Alive;
    /// use meshx_epmd::daemon::Config;
    /// use meshx_epmd::{Client, Daemon};
    ///
    /// let daemon = Daemon::bind(Config { port: 0, ..Config::default() }).unwrap();
    /// let client = Client::at(daemon.addresses()[0]);
    /// let lease = client.register(&Alive::new("shop", 40123)).await.unwrap();
    /// assert!(lease.creation() >= 4);
    /// assert_eq!(client.lookup("shop").await.unwrap().unwrap().port, 40123);
    /// # }
    /// ```
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let listeners = listen::listen(config.port, &config.addresses)?;
        let addresses =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let (sender, killed) = watch::channel(false);
        let shortages = Seldom::new(1, WARN_EVERY);
        let state = State { table: Table::new(), seats: Seats::new(places()), shortages };
        let shared = Arc::new(Shared { config, state: Mutex::new(state), killed: sender });
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(Arc::clone(&shared), listener));
        }
        Ok(Self { addresses, shared, killed, _accepting: accepting })
    }

    /// Where it listens; `127.0.0.1` first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until somebody who may do so has sent KILL, and was answered. Whoever holds the daemon
    /// then drops it.
    pub async fn killed(&mut self) {
        if self.killed.wait_for(|&killed| killed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let connections = self.shared.lock().seats.close();
        for connection in connections {
            connection.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells the operator of a shortage, unless that was done a moment ago.
    fn warn(&self, what: &str) {
        if let Some(unsaid) = self.shortages.occurs() {
            tracing::warn!(unsaid, "{what}");
        }
    }
}

/// The connections that the process has descriptors for.
fn places() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(CONNECTIONS_MAX);
    limit.saturating_sub(DESCRIPTORS_KEPT).clamp(1, CONNECTIONS_MAX)
}

/// Takes connections for as long as the daemon lives, whatever accepting one says.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut pause = Backoff::new(ACCEPT_PAUSE / 200, ACCEPT_PAUSE);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause.reset();
                tokio::time::sleep(shared.config.delay_accept).await;
                if connection::open(&shared, stream, peer) {
                    // Lets those that were closed for it go before the next one comes.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                if is_exhaustion(&error) {
                    shared.lock().warn(&format!("cannot accept a connection: {error}"));
                    connection::shed(&shared);
                }
                tokio::time::sleep(pause.step()).await;
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

impl Diagnostic for BindError {
    fn code(&self) -> Code {
        Code(match self {
            Self::InUse(_) => 630,
            Self::Listen { .. } => 631,
            Self::TooMany => 632,
        })
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::InUse(address) => format!(
                "`meshx epmd -port {} -names` shows whether it is an EPMD; take another port \
                 with -port, and set ERL_EPMD_PORT for the nodes",
                address.port()
            ),
            Self::Listen { .. } => "-address takes addresses of this machine".to_owned(),
            Self::TooMany => "0.0.0.0 and :: stand for all addresses".to_owned(),
        })
    }
}
