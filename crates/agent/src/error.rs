//! Why an agent does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use meshx_core::{Code, Diagnostic};
use meshx_identity::IdentityError;

/// An agent that does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The address is taken by somebody.
    #[error("{address} is already in use by {holder}")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Who holds it.
        holder: Holder,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for: `HTTP` or `DNS`.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// A name of the configuration is not a DNS name.
    #[error("`{name}` is not a {what}: letters, digits, `-` and at most 63 of them between dots")]
    Name {
        /// What was named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {reason}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another agent uses the data directory.
    #[error("the data directory {} belongs to a running agent", path.display())]
    DataDirBusy {
        /// The directory.
        path: PathBuf,
    },
    /// The state file is not one of ours, or is damaged. It is left as it is.
    #[error("the state file {} is refused: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate authority cannot be made.
    #[error("cannot make the certificate authority: {0}")]
    Authority(#[from] IdentityError),
}

/// Who listens on an address that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// HashiCorp Consul.
    Consul {
        /// Its version.
        version: String,
        /// It has a leader.
        has_leader: bool,
        /// It issues mesh certificates.
        has_connect: bool,
    },
    /// Another `meshx agent`.
    Meshx {
        /// Its version.
        version: String,
    },
    /// Something else.
    Unknown,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Consul { version, has_leader, has_connect } => write!(
                f,
                "Consul {version} ({}, Connect {})",
                if *has_leader { "leader elected" } else { "no leader" },
                if *has_connect { "enabled" } else { "disabled" }
            ),
            Self::Meshx { version } => write!(f, "another meshx agent ({version})"),
            Self::Unknown => f.write_str("a program that is not a control plane"),
        }
    }
}

impl AgentError {
    /// The port to suggest instead of one that is taken.
    fn beside(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip(), address.port().checked_add(10).unwrap_or(0))
    }
}

impl Diagnostic for AgentError {
    fn code(&self) -> Code {
        Code(match self {
            Self::Listen { .. } => 101,
            Self::InUse { .. } => 102,
            Self::Name { .. } => 103,
            Self::DataDir { .. } => 104,
            Self::DataDirBusy { .. } => 105,
            Self::State { .. } => 106,
            Self::Authority(_) => 107,
        })
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::InUse { address, holder } => {
                let second = format!(
                    "for a second control plane: meshx agent --http-addr {}",
                    Self::beside(*address)
                );
                match holder {
                    Holder::Consul { .. } => format!(
                        "you do not need `meshx agent`; `meshx exec` will use this Consul.\n{second}"
                    ),
                    Holder::Meshx { .. } => format!(
                        "you do not need a second one; `meshx exec` will use that agent.\n{second}"
                    ),
                    Holder::Unknown => {
                        format!(
                            "choose another address: meshx agent --http-addr {}",
                            Self::beside(*address)
                        )
                    }
                }
            }
            Self::Listen { what: "DNS", address, .. } => format!(
                "choose another address with --dns-addr {}, or turn DNS off with --dns-addr none",
                Self::beside(*address)
            ),
            Self::Listen { .. } => "choose another address with --http-addr".to_owned(),
            Self::DataDir { .. } => {
                "the directory must be yours and writable; leave --data-dir out to keep nothing"
                    .to_owned()
            }
            Self::DataDirBusy { .. } => {
                "stop that agent, or choose another directory with --data-dir".to_owned()
            }
            Self::State { path, .. } => format!(
                "move {} away to begin with a new certificate authority and no intentions",
                path.display()
            ),
            Self::Name { .. } | Self::Authority(_) => return None,
        })
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Listen { .. } | Self::DataDirBusy { .. })
    }
}
