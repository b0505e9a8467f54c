//! Events as numbers.

mod counts;
mod functions;
mod histogram;
mod page;

use std::fmt;
use std::sync::Arc;

use self::counts::{BySide, Calls, Connections, Kinds};
use self::functions::Functions;
use self::page::Page;
use super::{Called, Event, Observe, Side};
use crate::error::Executed;
use crate::functions::NAME_MAX;

const BOTH: [Side; 2] = [Side::Client, Side::Server];

/// A name, what it is, and where it is read.
type Counter = (&'static str, &'static str, fn(&Calls) -> u64);

/// Counts events, and shows the counts in the text format of Prometheus ([`render`](Self::render)).
///
/// Clones count together: one is given to each client and server, one is kept to be shown. Counting
/// takes no lock, and allocates nothing after the first call of a function on a thread.
///
/// The number of functions is bounded: those beyond are counted together as `other`. So are calls at a
/// server that failed and surely did not run, as long as the function has no count yet: peers cannot
/// fill the list with names that they made up.
///
/// ```
/// let metrics = meshx_rpc::event::Metrics::new();
/// assert!(metrics.render().contains("# TYPE meshx_rpc_calls_total counter\n"));
/// ```
///
/// | name | labels | what |
/// |---|---|---|
/// | `meshx_rpc_calls_total` | `side way function result` | calls, casts and streams that are over; `result` is `ok` or the kind of error |
/// | `meshx_rpc_repeated_calls_total` | `side function` | of these, not first attempts |
/// | `meshx_rpc_call_seconds` | `side function` | histogram: all but the idling before |
/// | `meshx_rpc_call_phase_seconds` | `side function phase` | histogram: `queue ser send exec recv dser idle`, where it is known and not zero |
/// | `meshx_rpc_sent_bytes_total`, `…_sent_blocks_total`, `…_received_…` | `side function` | arguments and results, as they were on the wire |
/// | `meshx_rpc_casts_lost_total` | `function reason` | casts that nobody waits for and that did not arrive |
/// | `meshx_rpc_connections` | `side` | connections that are up |
/// | `meshx_rpc_connected_total` | `side protocol` | connections that came up |
/// | `meshx_rpc_disconnected_total` | `side result` | connections that ended |
/// | `meshx_rpc_handshake_seconds` | `side` | histogram |
/// | `meshx_rpc_handshake_failures_total` | `side reason` | handshakes that failed |
/// | `meshx_rpc_unreachable_total` | `reason` | connections that could not be made |
///
/// The bounds of all histograms are powers of two of a nanosecond, from 1.024 µs to 68.7 s.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    functions: Functions,
    connections: BySide<Connections>,
    unreachable: Kinds,
}

impl Metrics {
    /// How many functions are counted each for itself, unless it is said otherwise.
    pub const FUNCTIONS: usize = 128;

    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::with_functions(Self::FUNCTIONS)
    }

    /// With room for another number of functions. Each takes about 5 kB for each thread that calls or
    /// runs it, up to eight.
    pub fn with_functions(most: usize) -> Self {
        Self(Arc::new(Counted {
            functions: Functions::new(most),
            connections: BySide::default(),
            unreachable: Kinds::default(),
        }))
    }

    /// All counts, in the text format of Prometheus (version 0.0.4).
    pub fn render(&self) -> String {
        let mut page = Page::default();
        self.render_calls(&mut page);
        self.render_connections(&mut page);
        page.into_text()
    }

    fn called(&self, called: &Called<'_>) {
        let ran = called.result.map_or_else(|error| error.executed() != Executed::Never, |()| true);
        let add = (ran || called.side == Side::Client) && called.function.len() <= NAME_MAX;
        self.0.functions.count(called.function, add, |it| it.sides.of(called.side).add(called));
    }

    fn render_calls(&self, page: &mut Page) {
        // Each function, and what its threads have counted.
        let functions = self.0.functions.collect();
        let rows = || {
            functions.iter().flat_map(|(name, counts)| {
                BOTH.into_iter().map(move |side| (*name, side.name(), counts.sides.of(side)))
            })
        };

        page.family("meshx_rpc_calls_total", "counter", "Calls, casts and streams that are over.");
        for (function, side, calls) in rows() {
            for (way, result, count) in calls.results() {
                let labels =
                    [("side", side), ("way", way), ("function", function), ("result", result)];
                page.sample("meshx_rpc_calls_total", &labels, count);
            }
        }
        page.family("meshx_rpc_call_seconds", "histogram", "Time of calls, without idling before.");
        for (function, side, calls) in rows() {
            let labels = [("side", side), ("function", function)];
            page.histogram("meshx_rpc_call_seconds", &labels, &calls.total);
        }
        page.family("meshx_rpc_call_phase_seconds", "histogram", "Where the time of calls went.");
        for (function, side, calls) in rows() {
            for (phase, histogram) in calls.phases() {
                let labels = [("side", side), ("function", function), ("phase", phase)];
                page.histogram("meshx_rpc_call_phase_seconds", &labels, histogram);
            }
        }
        let counters: [Counter; 5] = [
            (
                "meshx_rpc_sent_bytes_total",
                "Bytes of arguments and results that were sent.",
                |it| it.sent.bytes(),
            ),
            ("meshx_rpc_sent_blocks_total", "Blocks that they were sent in.", |it| {
                it.sent.blocks()
            }),
            (
                "meshx_rpc_received_bytes_total",
                "Bytes of arguments and results that were received.",
                |it| it.received.bytes(),
            ),
            ("meshx_rpc_received_blocks_total", "Blocks that they came in.", |it| {
                it.received.blocks()
            }),
            ("meshx_rpc_repeated_calls_total", "Calls that were not the first attempt.", |it| {
                it.repeated()
            }),
        ];
        for (name, help, value) in counters {
            page.family(name, "counter", help);
            for (function, side, calls) in rows().filter(|(.., calls)| !calls.is_empty()) {
                page.sample(name, &[("side", side), ("function", function)], value(calls));
            }
        }
        page.family("meshx_rpc_casts_lost_total", "counter", "Casts that did not arrive.");
        for (function, counts) in &functions {
            for (reason, count) in counts.lost.counts() {
                let labels = [("function", *function), ("reason", reason)];
                page.sample("meshx_rpc_casts_lost_total", &labels, count);
            }
        }
    }

    fn render_connections(&self, page: &mut Page) {
        let rows =
            || BOTH.into_iter().map(|side| (("side", side.name()), self.0.connections.of(side)));
        page.family("meshx_rpc_connections", "gauge", "Connections that are up.");
        for (side, connections) in rows() {
            page.sample("meshx_rpc_connections", &[side], connections.up());
        }
        page.family("meshx_rpc_connected_total", "counter", "Connections that came up.");
        for (side, connections) in rows() {
            for (protocol, count) in connections.connected() {
                let labels = [side, ("protocol", protocol)];
                page.sample("meshx_rpc_connected_total", &labels, count);
            }
        }
        page.family("meshx_rpc_disconnected_total", "counter", "Connections that ended.");
        for (side, connections) in rows() {
            for (result, count) in connections.ended.counts() {
                page.sample("meshx_rpc_disconnected_total", &[side, ("result", result)], count);
            }
        }
        page.family("meshx_rpc_handshake_seconds", "histogram", "Time of handshakes.");
        for (side, connections) in rows() {
            page.histogram("meshx_rpc_handshake_seconds", &[side], &connections.handshakes);
        }
        page.family("meshx_rpc_handshake_failures_total", "counter", "Handshakes that failed.");
        for (side, connections) in rows() {
            for (reason, count) in connections.failures.counts() {
                let labels = [side, ("reason", reason)];
                page.sample("meshx_rpc_handshake_failures_total", &labels, count);
            }
        }
        page.family("meshx_rpc_unreachable_total", "counter", "Connections that were not made.");
        for (reason, count) in self.0.unreachable.counts() {
            page.sample("meshx_rpc_unreachable_total", &[("reason", reason)], count);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Observe for Metrics {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Called(called) => self.called(called),
            Event::CastLost { function, error } => {
                let add = function.len() <= NAME_MAX;
                self.0.functions.count(function, add, |counts| counts.lost.add(Err(error)));
            }
            Event::Connected { side, peer, took } => {
                self.0.connections.of(side).came_up(peer.protocol, took);
            }
            Event::Disconnected { side, error, .. } => {
                self.0.connections.of(side).ended.add(error.map_or(Ok(()), Err));
            }
            Event::HandshakeFailed { side, error, .. } => {
                self.0.connections.of(side).failures.add(Err(error));
            }
            Event::Unreachable { error, .. } => self.0.unreachable.add(Err(error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
