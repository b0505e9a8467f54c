//! What an agent is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use meshx_core::Action;

/// The configuration of an agent.
///
/// ```
/// use meshx_agent::AgentConfig;
/// let config = AgentConfig { node_name: "laptop".to_owned(), ..AgentConfig::default() };
/// assert_eq!(config.http_addr.port(), 8500);
/// assert!(config.http_addr.ip().is_loopback());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made with `..AgentConfig::default()`")]
pub struct AgentConfig {
    /// Where the HTTP API listens; port 0 takes a free one.
    ///
    /// The API has no tokens: whoever reaches it may do everything. On loopback it answers only to
    /// requests for this machine (loopback, this address, [`advertise`](Self::advertise),
    /// [`node_name`](Self::node_name)); on every address it refuses the pages of other sites.
    pub http_addr: SocketAddr,
    /// Where DNS listens, UDP and TCP; port 0 takes a free one, `None` turns it off.
    pub dns_addr: Option<SocketAddr>,
    /// Where the certificate authority and the intentions are kept; `None` forgets them on exit.
    pub data_dir: Option<PathBuf>,
    /// The datacenter, a DNS label: part of every identity that the agent issues.
    pub datacenter: String,
    /// The name of this node, a DNS label or name.
    pub node_name: String,
    /// What holds where no intention matches.
    pub default_policy: Action,
    /// The address of this node: where its services are when they do not say.
    pub advertise: IpAddr,
}

impl Default for AgentConfig {
    /// Loopback only, Consul's ports, in memory, allow by default.
    fn default() -> Self {
        Self {
            http_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8500)),
            dns_addr: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8600))),
            data_dir: None,
            datacenter: "dc1".to_owned(),
            node_name: "localhost".to_owned(),
            default_policy: Action::Allow,
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}
