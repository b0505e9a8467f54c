//! Counting the bytes of a connection, and following its handshake.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use meshx_dist::handshake::{Framing, HandshakeOutcome, Observer, Side as Role, Verdict};
use meshx_rt::{Ended, Side, Tap};

use crate::connections::Progress;
use crate::{Protocol, Step};

/// The tap on one connection: side A is the one that dialled.
pub(crate) struct ConnectionTap {
    progress: Arc<Progress>,
    observer: Option<Observer>,
}

impl ConnectionTap {
    /// A tap; on an Erlang link to `wanted` it follows the distribution handshake.
    pub(crate) fn new(progress: Arc<Progress>, protocol: Protocol, wanted: &str) -> Self {
        let observer =
            (protocol == Protocol::Erlang).then(|| Observer::new(Framing::U16).wanting(wanted));
        Self { progress, observer }
    }

    /// What the end of the connection means, where it means that the handshake failed.
    pub(crate) fn failure(&self, ended: &Ended) -> Option<(Step, String)> {
        let outcome = self.observer.as_ref()?.diagnosis_at_close(role(ended.first));
        Some((step(&outcome)?, outcome.to_string()))
    }
}

impl Tap for ConnectionTap {
    fn seen(&mut self, from: Side, bytes: &[u8]) {
        let count = match from {
            Side::A => &self.progress.sent,
            Side::B => &self.progress.received,
        };
        count.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(observer) = &mut self.observer {
            observer.sent(role(from), bytes);
        }
    }
}

fn role(side: Side) -> Role {
    match side {
        Side::A => Role::Initiator,
        Side::B => Role::Acceptor,
    }
}

/// The step that failed; `None` where the handshake succeeded, or gave way to the attempt of the other
/// side at the same moment, which is no failure.
fn step(outcome: &HandshakeOutcome) -> Option<Step> {
    match &outcome.verdict {
        // Of two nodes that dial each other at once, one hangs up before or after its hello.
        Verdict::Up
        | Verdict::Unconfirmed
        | Verdict::Nok
        | Verdict::NoHello { closed_by: Role::Initiator } => None,
        Verdict::Cookie => Some(Step::Cookie),
        Verdict::NameMismatch { .. } => Some(Step::NodeName),
        Verdict::NoHello { .. } | Verdict::Malformed { .. } => Some(Step::Hello),
        _ => Some(Step::Handshake),
    }
}
