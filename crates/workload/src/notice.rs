//! What a person at the terminal should read.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use meshx_core::Diagnostic as _;
use meshx_proxy::{Direction, Event, Outcome, Step};

/// One line for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The service is in the mesh.
    Joined {
        /// The service.
        service: String,
        /// Where peers reach its sidecar.
        public: SocketAddr,
        /// The control plane.
        control_plane: String,
    },
    /// An upstream is open.
    Upstream {
        /// The service that it leads to.
        destination: String,
        /// Where the program dials.
        local: SocketAddr,
    },
    /// A connection failed or was refused; `more` others of the same kind were not shown.
    Failed {
        /// What happened.
        event: Event,
        /// How many were left out since the last one shown.
        more: u64,
    },
    /// An intention cut a live connection.
    Cut(Event),
    /// Anything else that a person should know.
    Warning(String),
}

/// Where notices go. Must not block.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

impl Notice {
    /// The failed or cut connection that this event is, if a person should read of it.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        match &event.outcome {
            // A port scan, or a peer that went away in the middle: the counters have it.
            Outcome::Refused { step: Step::Handshake | Step::Cookie, .. }
                if event.direction == Direction::Inbound =>
            {
                None
            }
            Outcome::Refused { .. } => Some(Self::Failed { event: event.clone(), more: 0 }),
            Outcome::Cut { .. } => Some(Self::Cut(event.clone())),
            _ => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { service, public, control_plane } => write!(
                f,
                "{service} is in the mesh   sidecar {public} (mTLS)   control plane {control_plane}"
            ),
            Self::Upstream { destination, local } => write!(f, "upstream {destination} at {local}"),
            Self::Failed { event, more } => {
                failed(event, f)?;
                if *more > 0 {
                    write!(f, " … {more} more")?;
                }
                Ok(())
            }
            Self::Cut(event) => {
                let Outcome::Cut { rule } = &event.outcome else { return Ok(()) };
                let source = event.source.as_deref().unwrap_or("?");
                write!(f, "{source} → {} was cut: {rule}", event.destination)
            }
            Self::Warning(text) => f.write_str(text),
        }
    }
}

fn failed(event: &Event, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Outcome::Refused { step, detail } = &event.outcome else { return Ok(()) };
    let (code, destination) = (step.code(), &event.destination);
    match (&event.source, event.direction) {
        (Some(source), Direction::Outbound) => write!(
            f,
            "{source} → {destination} failed ({step}): {detail} [{code}; meshx why {source} {destination}]"
        ),
        (Some(source), Direction::Inbound) => {
            write!(f, "{source} → {destination} refused ({step}): {detail} [{code}]")
        }
        (None, Direction::Outbound) => {
            write!(f, "a connection to {destination} failed ({step}): {detail} [{code}]")
        }
        (None, Direction::Inbound) => {
            let remote = event.remote.as_deref().unwrap_or("?");
            write!(f, "refused a connection from {remote} ({step}): {detail} [{code}]")
        }
    }
}

/// What makes two refusals the same to a reader.
pub(crate) fn kind(event: &Event) -> Option<(Step, String)> {
    let Outcome::Refused { step, .. } = &event.outcome else { return None };
    let who = match (&event.source, &event.remote) {
        (Some(source), _) => source.clone(),
        // Of strangers, the address without the port.
        (None, remote) => remote
            .as_deref()
            .and_then(|r| r.parse::<SocketAddr>().ok())
            .map_or_else(String::new, |a| a.ip().to_string()),
    };
    Some((*step, format!("{who}>{}", event.destination)))
}

/// An error, as a notice.
pub(crate) fn warn(error: &crate::WorkloadError) -> Notice {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    Notice::Warning(format!("{error} [{}]{hint}", error.code()))
}
