//! A registration.

use std::net::SocketAddr;

use meshx_dist::epmd::Alive;
use tokio::net::TcpStream;

use super::exchange::Exchange;
use super::{Client, Kept};

/// A name that is ours: its connection to the daemon. Dropping it gives the name back.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    alive: Alive,
    creation: u32,
    daemon: SocketAddr,
    stream: TcpStream,
}

impl Lease {
    pub(super) fn new(client: Client, alive: Alive, creation: u32, exchange: Exchange) -> Self {
        let (stream, daemon) = exchange.into_parts();
        Self { client, alive, creation, daemon, stream }
    }

    /// The creation that the daemon chose for this run of the node: 4 or more from OTP's daemon and
    /// ours; 1 to 3 if the node registered with a highest version of 5. It is the daemon's word, so
    /// whoever uses it checks it.
    pub fn creation(&self) -> u32 {
        self.creation
    }

    /// What is registered.
    pub fn alive(&self) -> &Alive {
        &self.alive
    }

    /// The daemon that granted it.
    pub fn daemon(&self) -> SocketAddr {
        self.daemon
    }

    /// Waits until the registration is lost: the daemon has ended, or dropped the name. May be
    /// cancelled and called again. Nothing is ever sent on a lease, so whatever comes is the end.
    pub async fn lost(&self) {
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match self.stream.try_read(&mut [0; 1]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    /// From now on registers again whenever the registration is lost. Must be called within a Tokio
    /// runtime.
    pub fn keep(self) -> Kept {
        Kept::start(self.client.clone(), self.alive.clone(), Some(self))
    }
}
