//! Nodes as stock EPMD knows them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use meshx_dist::epmd::{Alive, NodeType};
use meshx_dist::name;
use meshx_epmd::{Client, Kept};

use super::tcp::{Publication, Resolve, addresses};
use super::{Carried, Myself};

/// However many addresses a host has, and whatever hangs there, so long is one looked for in all.
const LOOK_UP: Duration = Duration::from_millis(4500);

/// EPMD, as stock nodes use it: this node is registered with the daemon of this machine, others are
/// asked for at the daemon of their host.
#[derive(Debug, Clone)]
pub struct Epmd(Client);

impl Epmd {
    /// With the port that `ERL_EPMD_PORT` names, or else 4369.
    pub fn local() -> Result<Self, meshx_epmd::Error> {
        Client::local().map(Self)
    }

    /// With daemons at this port everywhere.
    pub fn at_port(port: u16) -> Self {
        Self(Client::local_at(port))
    }
}

impl Resolve for Epmd {
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>> {
        Box::pin(async move {
            let (alive, host) = name::split(node).map_err(io::Error::other)?;
            let mut last = None;
            let asked = async {
                for ip in addresses(host).await? {
                    match self.0.on(ip).lookup(alive).await {
                        Ok(Some(found)) => return Ok(Some(SocketAddr::new(ip, found.port))),
                        Ok(None) => {
                            let unknown = format!("EPMD of {ip} knows no node {alive}");
                            last = Some(io::Error::new(io::ErrorKind::NotFound, unknown));
                        }
                        Err(error) => last = Some(io::Error::other(error)),
                    }
                }
                Ok::<_, io::Error>(None)
            };
            let asked = tokio::time::timeout(LOOK_UP, asked).await;
            let (kind, none) = match asked {
                Ok(found) => match found? {
                    Some(address) => return Ok(vec![address]),
                    None => (io::ErrorKind::NotFound, format!("{host} has no address")),
                },
                Err(_) => {
                    let late = format!("no EPMD of {host} answered within {LOOK_UP:?}");
                    (io::ErrorKind::TimedOut, late)
                }
            };
            Err(last.unwrap_or_else(|| io::Error::new(kind, none)))
        })
    }

    fn publish<'a>(&'a self, me: &'a Myself, at: SocketAddr) -> Carried<'a, Publication> {
        Box::pin(async move {
            let (alive, _) = name::split(&me.name).map_err(io::Error::other)?;
            let mut registration = Alive::new(alive, at.port());
            if me.hidden {
                registration.node_type = NodeType::HIDDEN;
            }
            let lease = self.0.register(&registration).await.map_err(io::Error::other)?;
            let creation = Some(lease.creation());
            // Registered again whenever the daemon comes back.
            let kept: Kept = lease.keep();
            Ok(Publication { creation, lease: Some(Box::new(kept)) })
        })
    }
}
