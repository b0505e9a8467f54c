//! Why an agent does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use meshx_core::{Code, Diagnostic};
use meshx_identity::IdentityError;

/// An agent that does not start.
///
/// The codes: MX0102 an address in use, MX0120 an address that cannot be listened on, MX0121 a name,
/// MX0122 the data directory, MX0123 the data directory of a running agent, MX0124 the state file,
/// MX0125 the certificate authority. MX0126 to MX0129 are kept for more of them.
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
            Self::InUse { .. } => 102,
            Self::Listen { .. } => 120,
            Self::Name { .. } => 121,
            Self::DataDir { .. } => 122,
            Self::DataDirBusy { .. } => 123,
            Self::State { .. } => 124,
            Self::Authority(_) => 125,
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
                "the directory must be yours alone (mode 0700) and writable; leave --data-dir out to \
                 keep nothing"
                    .to_owned()
            }
            Self::DataDirBusy { .. } => {
                "stop that agent, or choose another directory with --data-dir".to_owned()
            }
            Self::State { path, .. } => format!(
                "set it right, or move {} away to begin with a new certificate authority and no intentions",
                path.display()
            ),
            Self::Name { .. } | Self::Authority(_) => return None,
        })
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Listen { .. } | Self::DataDirBusy { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_list() {
        let (address, path) = (SocketAddr::from(([127, 0, 0, 1], 1)), PathBuf::from("d"));
        let source = || io::Error::other("x");
        let reason = String::new();
        let all = [
            (AgentError::InUse { address, holder: Holder::Unknown }, 102),
            (AgentError::Listen { address, what: "HTTP", source: source() }, 120),
            (AgentError::Name { what: "node name", name: String::new() }, 121),
            (AgentError::DataDir { path: path.clone(), reason: reason.clone() }, 122),
            (AgentError::DataDirBusy { path: path.clone() }, 123),
            (AgentError::State { path, reason }, 124),
            (AgentError::Authority(IdentityError::Issue(String::new())), 125),
        ];
        for (error, code) in all {
            assert_eq!(error.code(), Code(code), "{error}");
        }
    }
}
