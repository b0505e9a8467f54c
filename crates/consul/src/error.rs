//! What can go wrong between us and the control plane.

use std::io;

use meshx_core::{Code, Diagnostic};

/// An error of talking to the control plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsulError {
    /// Nobody answers there.
    #[error("no control plane answers at {address}: {source}")]
    Unreachable {
        /// Where we asked.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody answers there, but not as the control plane that HTTPS was to prove.
    #[error("no secure connection to {address}: {reason}")]
    Tls {
        /// Where we asked.
        address: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The connection broke while we waited for an answer.
    #[error("{address} broke off while answering {request}: {reason}")]
    Broken {
        /// Where we asked.
        address: String,
        /// What we asked.
        request: String,
        /// What was wrong.
        reason: String,
    },
    /// The control plane refused, in its own words.
    #[error("{address} refused {request}: {status} {text}")]
    Refused {
        /// Where we asked.
        address: String,
        /// What we asked.
        request: String,
        /// The HTTP status.
        status: u16,
        /// Its sentence.
        text: String,
    },
    /// The answer is not what the API promises.
    #[error("{address} answered {request} with something unexpected: {reason}")]
    Unexpected {
        /// Where we asked.
        address: String,
        /// What we asked.
        request: String,
        /// What was wrong.
        reason: String,
    },
    /// A setting that cannot be used.
    #[error("{setting} cannot be used: {reason}")]
    Config {
        /// The variable or flag.
        setting: String,
        /// Why not.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The certificate that the control plane issued is not usable.
    #[error("the certificate issued by {address} is not usable: {source}")]
    Identity {
        /// Where it came from.
        address: String,
        /// What is wrong with it.
        source: meshx_identity::IdentityError,
    },
}

impl ConsulError {
    /// The HTTP status, if the control plane answered at all.
    pub fn status(&self) -> Option<u16> {
        if let Self::Refused { status, .. } = self { Some(*status) } else { None }
    }

    pub(crate) fn config(setting: &str, reason: impl std::fmt::Display) -> Self {
        Self::Config { setting: setting.to_owned(), reason: reason.to_string(), hint: None }
    }
}

impl Diagnostic for ConsulError {
    fn code(&self) -> Code {
        Code(match self {
            Self::Unreachable { .. } | Self::Broken { .. } => 101,
            Self::Refused { status: 401 | 403, .. } => 106,
            Self::Refused { .. } => 109,
            Self::Unexpected { .. } => 110,
            Self::Config { .. } => 401,
            Self::Identity { .. } => 505,
            Self::Tls { .. } => 508,
        })
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "start one with `meshx agent`, or set CONSUL_HTTP_ADDR to where it listens"
                    .to_owned(),
            ),
            Self::Refused { status: 401 | 403, .. } => Some(
                "the token needs service:write on the service and its `-sidecar-proxy`, \
                 service:read, node:read and intentions:read (CONSUL_HTTP_TOKEN_FILE)"
                    .to_owned(),
            ),
            Self::Tls { .. } => Some(
                "CONSUL_CACERT must name the authority of its certificate, and \
                 CONSUL_TLS_SERVER_NAME a name in it if it is not the one in CONSUL_HTTP_ADDR"
                    .to_owned(),
            ),
            Self::Refused { status: 404, .. } => {
                Some("is that a Consul agent? CONSUL_HTTP_ADDR says where to look".to_owned())
            }
            Self::Config { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}
