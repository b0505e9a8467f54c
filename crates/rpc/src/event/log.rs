//! Events as log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::text::{Ref, harmless_reason, micros, token};
use super::{Called, Event, Observe, Side};
use crate::context::{Peer, Refs};
use crate::error::{Error, Kind};

/// Writes events by `tracing`, with the target `meshx_rpc`.
///
/// What went well is at debug. So are errors of the application and calls that were cancelled: they are
/// the callers' matter. Other failures are warnings, at most [`Log::WARNINGS`] in a second, as peers
/// can cause them at will; those beyond are at debug, and their number follows in a warning.
///
/// Fields: `side`, `way`, `function`, `peer`, `identity`, `protocol`, the references of both sides
/// (`local.conn_ref`, `local.node_ref`, `local.svc_ref`, `remote.…`, `hsk_ref`, `req_ref`), `attempt`,
/// `trace`, `result`, `executed`, `reason`, times in microseconds (`time.exec_us` …), `sent.bytes`,
/// `sent.blocks` and the same of `received`. What is unknown is left out.
///
/// Arguments and results are never in it, nor is text that may be made of them: the `reason` of errors
/// of the application, of panics and of values that could not be read, unless it is asked for
/// ([`Log::with_all_reasons`]).
#[derive(Debug)]
pub struct Log {
    all_reasons: bool,
    begun: Instant,
    /// The second in the upper half, warnings in it in the lower.
    warned: AtomicU64,
    unsaid: AtomicU64,
}

/// Writes a line. The level of a line must be known when it is compiled, so there are two of each.
macro_rules! line {
    ($warn:expr, $($line:tt)+) => {
        if $warn {
            tracing::warn!(target: "meshx_rpc", $($line)+);
        } else {
            tracing::debug!(target: "meshx_rpc", $($line)+);
        }
    };
}

impl Log {
    /// The most warnings in a second.
    pub const WARNINGS: u32 = 32;

    /// The log.
    pub fn new() -> Self {
        Self {
            all_reasons: false,
            begun: Instant::now(),
            warned: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        }
    }

    /// With the reasons of all errors, also of those whose text is the application's. That may repeat
    /// what callers have sent.
    #[must_use]
    pub fn with_all_reasons(mut self) -> Self {
        self.all_reasons = true;
        self
    }

    fn called(&self, called: &Called<'_>) {
        let error = called.result.err();
        let peer = called.peer;
        let times = called.times;
        line!(
            self.is_warning(error),
            side = called.side.name(),
            way = called.way.name(),
            function = called.function,
            peer = peer.map(|peer| peer.address.as_str()),
            identity = peer.and_then(|peer| peer.identity.as_deref()),
            protocol = peer.map(|peer| peer.protocol.name()),
            local.conn_ref = peer.map(|peer| conn_ref(&peer.local)),
            local.node_ref = peer.map(|peer| peer.local.node_ref.as_str()),
            local.svc_ref = peer.map(|peer| peer.local.svc_ref.as_str()),
            remote.conn_ref = peer.map(|peer| conn_ref(&peer.remote)),
            remote.node_ref = peer.map(|peer| peer.remote.node_ref.as_str()),
            remote.svc_ref = peer.map(|peer| peer.remote.svc_ref.as_str()),
            hsk_ref = peer.map(|peer| peer.hsk_ref),
            req_ref = called.req_ref,
            attempt = called.attempt,
            trace = called.trace.map(tracing::field::display),
            result = token(called.result),
            executed = error.map(|error| error.executed().token()),
            reason = error.and_then(|error| self.reason(error)),
            time.idle_us = micros(times.idle),
            time.queue_us = micros(times.queue),
            time.ser_us = micros(times.ser),
            time.send_us = micros(times.send),
            time.exec_us = micros(times.exec),
            time.recv_us = micros(times.recv),
            time.dser_us = micros(times.dser),
            sent.bytes = called.sent.bytes,
            sent.blocks = called.sent.blocks,
            received.bytes = called.received.bytes,
            received.blocks = called.received.blocks,
            "rpc"
        );
    }

    fn connection(
        &self,
        what: &str,
        side: Side,
        peer: &Peer,
        took: Option<u64>,
        error: Option<&Error>,
    ) {
        line!(
            self.is_warning(error),
            side = side.name(),
            peer = peer.address.as_str(),
            identity = peer.identity.as_deref(),
            protocol = peer.protocol.name(),
            local.conn_ref = conn_ref(&peer.local),
            local.node_ref = peer.local.node_ref.as_str(),
            local.svc_ref = peer.local.svc_ref.as_str(),
            remote.conn_ref = conn_ref(&peer.remote),
            remote.node_ref = peer.remote.node_ref.as_str(),
            remote.svc_ref = peer.remote.svc_ref.as_str(),
            hsk_ref = peer.hsk_ref,
            result = token(error.map_or(Ok(()), Err)),
            reason = error.and_then(|error| self.reason(error)),
            time.hsk_us = took,
            "rpc: {what}"
        );
    }

    fn failure(&self, what: &str, side: Side, peer: Option<&str>, function: &str, error: &Error) {
        line!(
            self.is_warning(Some(error)),
            side = side.name(),
            peer,
            function = Some(function).filter(|function| !function.is_empty()),
            result = error.kind().token(),
            executed = error.executed().token(),
            reason = self.reason(error),
            "rpc: {what}"
        );
    }

    fn reason<'a>(&self, error: &'a Error) -> Option<&'a str> {
        if self.all_reasons { Some(error.reason()) } else { harmless_reason(error) }
    }

    /// Whether this is worth a warning, and there is room for one.
    fn is_warning(&self, error: Option<&Error>) -> bool {
        let Some(error) = error else { return false };
        if matches!(error.kind(), Kind::Application | Kind::Cancelled) {
            return false;
        }
        let Some(unsaid) = self.admit(self.begun.elapsed().as_secs()) else { return false };
        if unsaid > 0 {
            tracing::warn!(target: "meshx_rpc", unsaid, "rpc: more failures, logged at debug only");
        }
        true
    }

    /// Counts a warning in this second. If there is room for it: how many there was none for before.
    fn admit(&self, second: u64) -> Option<u64> {
        let second = second & u64::from(u32::MAX);
        let count = |state: u64| {
            let next =
                if state >> 32 == second { state.saturating_add(1) } else { (second << 32) | 1 };
            ((next & u64::from(u32::MAX)) <= u64::from(Self::WARNINGS)).then_some(next)
        };
        match self.warned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) {
            Ok(_) => Some(self.unsaid.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.unsaid.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Observe for Log {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Called(called) => self.called(called),
            Event::Connected { side, peer, took } => {
                self.connection("connected", side, peer, Some(micros(took)), None);
            }
            Event::Disconnected { side, peer, error } => {
                self.connection("disconnected", side, peer, None, error);
            }
            Event::Unreachable { address, error } => {
                self.failure("no connection", Side::Client, Some(address), "", error);
            }
            Event::HandshakeFailed { side, address, error } => {
                self.failure("no handshake", side, Some(address), "", error);
            }
            Event::CastLost { function, error } => {
                self.failure("a cast is lost", Side::Client, error.peer(), function, error);
            }
        }
    }
}

fn conn_ref(refs: &Refs) -> tracing::field::DisplayValue<Ref<'_>> {
    tracing::field::display(Ref(&refs.conn_ref))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "log/tests.rs"]
mod tests;
