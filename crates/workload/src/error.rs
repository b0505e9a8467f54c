//! What can go wrong while a program is brought into the mesh.

use std::io;

use meshx_consul::ConsulError;
use meshx_core::{Code, Diagnostic, NameError};

/// An error of running a program as a mesh service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The control plane.
    #[error(transparent)]
    Consul(#[from] ConsulError),
    /// A name that is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is in use, and its holder lives.
    #[error("{id} is already registered and alive: {holder}")]
    Conflict {
        /// The instance.
        id: String,
        /// Who holds it.
        holder: String,
        /// True when `--replace` can end the holder.
        replaceable: bool,
    },
    /// The command names itself differently than we were told to.
    #[error("the command names its node `{command}`, but `--name {flag}` was given")]
    TwoNames {
        /// From the command's own flags.
        command: String,
        /// From ours.
        flag: String,
    },
    /// A service that was to be waited for has no passing instance.
    #[error("{service} has no passing instance after {limit:?}")]
    NotReady {
        /// The service.
        service: String,
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    /// A socket, a file or a process could not be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A connection that the mesh refused, or cut.
    #[error("{detail}")]
    Link {
        /// Who dialled.
        source_service: String,
        /// Who was dialled.
        destination: String,
        /// The code of the step at which it was refused.
        code: Code,
        /// Why.
        detail: String,
    },
    /// A setting that cannot be used.
    #[error("{0}")]
    Config(String),
}

impl WorkloadError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl Diagnostic for WorkloadError {
    fn code(&self) -> Code {
        match self {
            Self::Consul(error) => error.code(),
            Self::Name(_) => Code(402),
            Self::Conflict { .. } => Code(307),
            Self::TwoNames { .. } => Code(304),
            Self::Io { .. } => Code(308),
            Self::NotReady { .. } => Code(311),
            Self::Link { code, .. } => *code,
            Self::Config(_) => Code(401),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Consul(error) => error.hint(),
            Self::Conflict { replaceable: true, .. } => {
                Some("stop it, choose another name, or take its place with `--replace`".to_owned())
            }
            Self::Conflict { .. } => Some("choose another name".to_owned()),
            Self::NotReady { service, .. } => {
                Some(format!("`meshx services show {service}`; `--wait` sets the time"))
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there: choose another port".to_owned())
            }
            Self::TwoNames { .. } => Some("give the name once".to_owned()),
            Self::Link { source_service, destination, .. } => Some(format!(
                "`meshx why {source_service} {destination}` goes through it step by step"
            )),
            _ => None,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Consul(error) => error.is_retryable(),
            // Whatever it was, the operator may have changed it meanwhile.
            Self::Link { .. } => true,
            _ => false,
        }
    }
}
