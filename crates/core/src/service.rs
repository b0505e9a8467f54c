//! Services, their instances as peers see them, and the upstreams that lead there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::{ServiceId, ServiceName};

/// What a program offers to the mesh.
///
/// ```
/// use meshx_core::Service;
/// let web = Service::named("web".parse()?).port(8080).tag("v2");
/// assert_eq!(web.id.as_str(), "web");
/// # Ok::<(), meshx_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name that peers dial.
    pub name: ServiceName,
    /// The identity of this instance; the name where nothing else is said.
    pub id: ServiceId,
    /// Where the program listens for plain TCP. `None`: the mesh chooses a free loopback port and
    /// reports it as [`crate::Running::local`].
    pub local: Option<SocketAddr>,
    /// Tags, as Consul has them.
    pub tags: Vec<String>,
    /// Metadata, as Consul has it.
    pub meta: BTreeMap<String, String>,
}

impl Service {
    /// A service of this name whose program listens on a port that the mesh chooses.
    pub fn named(name: ServiceName) -> Self {
        let id = ServiceId::from(&name);
        Self { name, id, local: None, tags: Vec::new(), meta: BTreeMap::new() }
    }

    /// The program listens on this port of 127.0.0.1.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.local = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        self
    }

    /// Another instance of the name on the same agent needs an id of its own.
    #[must_use]
    pub fn id(mut self, id: ServiceId) -> Self {
        self.id = id;
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds one entry of metadata.
    #[must_use]
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.meta.insert(key.into(), value.into());
        self
    }
}

/// A service that a program consumes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// The service to reach.
    pub destination: ServiceName,
    /// Where the program will dial; `None` lets the mesh choose a loopback port.
    pub bind: Option<SocketAddr>,
}

impl Upstream {
    /// An upstream to this service on a loopback port that the mesh chooses.
    pub fn to(destination: ServiceName) -> Self {
        Self { destination, bind: None }
    }
}

/// One instance of a service as its peers dial it: the public listener of its sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The sidecar's public listener.
    pub address: SocketAddr,
    /// The instance.
    pub id: ServiceId,
    /// The datacenter it lives in; part of the identity that it must prove.
    pub datacenter: String,
}

/// The state of a check or of an instance, in Consul's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "Consul's three states")]
pub enum Health {
    /// Peers may be led here.
    Passing,
    /// Peers may be led here; somebody should look.
    Warning,
    /// Peers are not led here.
    Critical,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}
