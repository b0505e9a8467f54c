//! What happened, kept short.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use meshx_core::Code;
use serde::{Deserialize, Serialize};

use crate::Direction;

/// Events that are kept; older ones are forgotten.
const KEPT: usize = 256;

/// The step of a connection at which it was refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The control plane does not answer, so nothing is known of the destination.
    ControlPlane,
    /// No service of that name is registered.
    Name,
    /// The service exists, but no instance is passing.
    Health,
    /// An intention denies it.
    Policy,
    /// The instance's sidecar does not answer.
    Reach,
    /// The TLS handshake failed: not TLS, no certificate, a foreign authority, expired.
    Tls,
    /// The certificate is not of the service that was wanted, or of another trust domain.
    Identity,
    /// The distribution hello is missing, malformed or too large.
    Hello,
    /// The node name in the hello is not the one in the certificate.
    NodeName,
    /// Short and long node names do not mix.
    NameForm,
    /// The two nodes have different cookies.
    Cookie,
    /// The node refused the distribution handshake for a reason of its own.
    Handshake,
    /// The program beside the sidecar does not accept connections.
    Program,
    /// The sidecar has as many connections as it allows.
    Overload,
}

impl Step {
    /// The stable error code of a failure at this step.
    pub fn code(self) -> Code {
        Code(match self {
            Self::ControlPlane => 101,
            Self::Name => 201,
            Self::Health => 202,
            Self::Reach => 203,
            Self::Cookie => 204,
            Self::Tls => 205,
            Self::Identity => 206,
            Self::NodeName => 207,
            Self::Handshake => 208,
            Self::Hello => 209,
            Self::Overload => 210,
            Self::Program => 301,
            Self::NameForm => 603,
            Self::Policy => 706,
        })
    }

    /// The step of a word that [`as_str`](Self::as_str) gives.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let all = [
            Self::ControlPlane,
            Self::Name,
            Self::Health,
            Self::Policy,
            Self::Reach,
            Self::Tls,
            Self::Identity,
            Self::Hello,
            Self::NodeName,
            Self::NameForm,
            Self::Cookie,
            Self::Handshake,
            Self::Program,
            Self::Overload,
        ];
        all.into_iter().find(|step| step.as_str() == word)
    }

    /// The step as one word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control_plane",
            Self::Name => "name",
            Self::Health => "health",
            Self::Policy => "policy",
            Self::Reach => "reach",
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::Hello => "hello",
            Self::NodeName => "node_name",
            Self::NameForm => "name_form",
            Self::Cookie => "cookie",
            Self::Handshake => "handshake",
            Self::Program => "program",
            Self::Overload => "overload",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an attempt or a connection went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Bytes flow.
    Opened,
    /// It ended, after so many bytes.
    Closed {
        /// Bytes from the dialling side.
        sent: u64,
        /// Bytes towards the dialling side.
        received: u64,
        /// How long it lived, in milliseconds.
        milliseconds: u64,
    },
    /// An intention cut it while it lived.
    Cut {
        /// The rule, in words.
        rule: String,
    },
    /// It never came to be.
    Refused {
        /// At this step.
        step: Step,
        /// Why, in words for an operator.
        detail: String,
    },
}

/// One thing that happened at a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// Towards this sidecar's program, or away from it.
    pub direction: Direction,
    /// Who dialled, as far as it is proved.
    pub source: Option<String>,
    /// Who was dialled.
    pub destination: String,
    /// The other socket's address.
    pub remote: Option<String>,
    /// How it went.
    pub outcome: Outcome,
}

impl Event {
    /// An event of this moment.
    pub fn now(
        direction: Direction,
        source: Option<String>,
        destination: String,
        remote: Option<String>,
        outcome: Outcome,
    ) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        Self { at, direction, source, destination, remote, outcome }
    }
}

type Sink = Box<dyn Fn(&Event) + Send + Sync>;

/// The last events of a sidecar, and a count of the refusals by step.
///
/// Cheap to clone; clones share the record.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    record: Mutex<Record>,
    sink: Sink,
}

#[derive(Default)]
struct Record {
    events: VecDeque<Event>,
    refused: HashMap<Step, u64>,
}

impl Journal {
    /// A journal that also hands every event to `sink` as it happens. `sink` must not block.
    pub fn new(sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let record = Mutex::new(Record::default());
        Self { inner: Arc::new(Inner { record, sink: Box::new(sink) }) }
    }

    /// Adds an event.
    pub fn add(&self, event: Event) {
        (self.inner.sink)(&event);
        let mut record = self.inner.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Outcome::Refused { step, .. } = &event.outcome {
            *record.refused.entry(*step).or_default() += 1;
        }
        if record.events.len() == KEPT {
            record.events.pop_front();
        }
        record.events.push_back(event);
    }

    /// The last events, oldest first.
    pub fn events(&self) -> Vec<Event> {
        let record = self.inner.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.events.iter().cloned().collect()
    }

    /// How many attempts were refused at each step since the start.
    pub fn refused(&self) -> Vec<(Step, u64)> {
        let record = self.inner.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts: Vec<_> = record.refused.iter().map(|(s, n)| (*s, *n)).collect();
        counts.sort_unstable();
        counts
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("refused", &self.refused()).finish_non_exhaustive()
    }
}
