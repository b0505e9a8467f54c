//! Nodes whose ports need not be asked for.

use std::io;
use std::net::SocketAddr;

use meshx_dist::name;

use super::tcp::{Publication, Resolve, addresses};
use super::{Carried, Myself};

/// Below it, ports are for the system's own services. `web1` means no such port, whoever wrote it.
const PRIVILEGED: u16 = 1024;

/// Without a registry: the number at the end of a node's name says where it listens, as with Caravan
/// (`app-3434@host` listens at 3434) and with the modules in Erlang that count from a base port.
///
/// The number is that of the ASCII digits before the `@`; there need be no separator. What Caravan takes
/// without a word is refused here, by who dials and by who starts: ports that there are not, ports below
/// 1024 (`web1` is not meant to be port 1), and names without digits, unless
/// [`PortInName::without_digits`] says where those are. A node listens where others will look for it,
/// or does not start. No answer says that it is the right node that listens there: the handshake does.
///
/// Stock nodes do the same with an EPMD module of theirs, or meet at one port ([`OnePort`]).
///
/// ```
/// use meshx_node::carrier::{PortInName, Tcp};
/// let ports = PortInName::new();
/// assert_eq!(ports.port("app-3434@10.0.0.9")?, 3434);
/// assert!(ports.port("app@10.0.0.9").is_err());
/// assert!(ports.port("app-65536@10.0.0.9").is_err());
/// assert_eq!(PortInName::from_base(4370).port("web1@10.0.0.9")?, 4371);
/// let carrier = Tcp::loopback(ports); // At the port that the name of the node says.
/// # Ok::<(), meshx_node::carrier::PortError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortInName {
    base: u16,
    without_digits: Option<u16>,
}

/// A name says no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// It is no node name.
    #[error("{name:?} is no node name: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        #[source]
        reason: name::Error,
    },
    /// It does not end in a number.
    #[error("{0} has no digits before its @, which would say its port")]
    NoDigits(String),
    /// It ends in a number that is none of a port.
    #[error("the number in {name} stands for port {port}, and ports are 1024 to 65535")]
    Range {
        /// The node.
        name: String,
        /// The port that it would be.
        port: String,
    },
}

impl PortInName {
    /// The number is the port, as with Caravan.
    pub fn new() -> Self {
        Self::default()
    }

    /// The port is this one plus the number.
    pub fn from_base(base: u16) -> Self {
        Self { base, without_digits: None }
    }

    /// Names without digits stand for this port; with Caravan that is 4370.
    #[must_use]
    pub fn without_digits(self, port: u16) -> Self {
        Self { without_digits: Some(port), ..self }
    }

    /// Where a node of this name listens.
    pub fn port(&self, node: &str) -> Result<u16, PortError> {
        let (alive, _) = name::split(node)
            .map_err(|reason| PortError::Name { name: node.to_owned(), reason })?;
        let digits = &alive[alive.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
        if digits.is_empty() {
            return self.without_digits.ok_or_else(|| PortError::NoDigits(node.to_owned()));
        }
        // Leading zeros count for nothing. A number of more digits is none of a port anyhow.
        let number = digits.parse::<u64>().ok().and_then(|it| it.checked_add(self.base.into()));
        let port = number.and_then(|it| u16::try_from(it).ok()).filter(|&it| it >= PRIVILEGED);
        port.ok_or_else(|| PortError::Range {
            name: node.to_owned(),
            port: number.map_or_else(|| digits.to_owned(), |number| number.to_string()),
        })
    }
}

impl Resolve for PortInName {
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>> {
        Box::pin(async move { at(node, self.port(node).map_err(invalid)?).await })
    }

    fn listen_port(&self, me: &Myself) -> io::Result<Option<u16>> {
        self.port(&me.name).map(Some).map_err(invalid)
    }

    fn publish<'a>(&'a self, me: &'a Myself, address: SocketAddr) -> Carried<'a, Publication> {
        Box::pin(async move {
            let port = self.port(&me.name).map_err(invalid)?;
            if port == address.port() {
                return Ok(Publication::default());
            }
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("others will look for it at port {port}, and not at {}", address.port()),
            ))
        })
    }
}

/// Without a registry: every node listens at the same port of its own address, as VMs do that are
/// started with `-erl_epmd_port`. Of those on one machine each needs an address of its own.
///
/// A node that was given another port to listen on does so, and finds others, though they do not find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnePort(u16);

impl OnePort {
    /// All nodes are at this port.
    pub fn new(port: u16) -> Self {
        Self(port)
    }
}

impl Resolve for OnePort {
    fn resolve<'a>(&'a self, node: &'a str) -> Carried<'a, Vec<SocketAddr>> {
        Box::pin(at(node, self.0))
    }

    fn listen_port(&self, _: &Myself) -> io::Result<Option<u16>> {
        Ok(Some(self.0))
    }

    fn publish<'a>(&'a self, _: &'a Myself, _: SocketAddr) -> Carried<'a, Publication> {
        Box::pin(async { Ok(Publication::default()) })
    }
}

/// That port of each address of the node's host.
async fn at(node: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (_, host) = name::split(node).map_err(invalid)?;
    let found = addresses(host).await?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// What Caravan's own function gives was observed with the real one; each of these, except where
    /// `None` is said.
    #[test]
    fn ports_are_those_of_caravan_or_refused() {
        let caravan = PortInName::new().without_digits(4370);
        for (node, port) in [
            ("app-name3434@h", Some(3434)),
            ("app-4834@h", Some(4834)),
            ("app@h", Some(4370)),
            ("app3434x@h", Some(4370)),
            ("9100@h", Some(9100)),
            ("app-009100@h", Some(9100)),
            ("rem-ab12-app-3434@h", Some(3434)),
            ("app-65535@h", Some(65535)),
            // The digits of a host say nothing.
            ("app@10.0.0.3434", Some(4370)),
            // Caravan: 2, 0, 7, 65536, 99999, 4370.
            ("node-2@h", None),
            ("app-0@h", None),
            ("app-007@h", None),
            ("app-65536@h", None),
            ("app-99999@h", None),
            ("a@b@c", None),
            ("app-99999999999999999999999@h", None),
            ("app", None),
            ("app-٣٤٣٤@h", None),
        ] {
            assert_eq!(caravan.port(node).ok(), port, "{node}");
        }
    }

    #[test]
    fn a_number_counts_from_the_base() {
        let ports = PortInName::from_base(4370);
        assert_eq!(ports.port("web0@h"), Ok(4370));
        assert_eq!(ports.port("web12@h"), Ok(4382));
        assert_eq!(PortInName::from_base(65_000).port("web535@h"), Ok(65_535));
        let error = PortInName::from_base(65_000).port("web536@h").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the number in web536@h stands for port 65536, and ports are 1024 to 65535"
        );
        let error = ports.port("web@h").unwrap_err();
        assert_eq!(error.to_string(), "web@h has no digits before its @, which would say its port");
    }
}
