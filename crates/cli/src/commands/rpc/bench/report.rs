//! What a bench found.

use std::collections::BTreeMap;
use std::time::Duration;

use meshx_rpc::Body;
use serde::Serialize;

use super::tally::Tally;
use crate::args::rpc::Bench;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    address: String,
    function: String,
    concurrency: u32,
    connections: u16,
    seconds: f64,
    calls: u64,
    calls_per_second: f64,
    /// Of the calls that have a result; null if there are none.
    latency_milliseconds: Option<Latency>,
    sent_bytes: u64,
    received_bytes: u64,
    errors: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(bench: &Bench, took: Duration, argument: &Body, tally: &Tally) -> Self {
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let (calls, seconds) = (tally.calls(), took.as_secs_f64());
        Self {
            schema: "meshx.rpc.bench/1",
            address: bench.address.to_string(),
            function: bench.what.function.clone(),
            concurrency: bench.concurrency,
            connections: bench.connections,
            seconds,
            calls,
            calls_per_second: per_second(calls, seconds),
            latency_milliseconds: (calls > 0).then(|| Latency {
                p50: milliseconds(tally.time(500)),
                p99: milliseconds(tally.time(990)),
                p99_9: milliseconds(tally.time(999)),
                max: milliseconds(tally.longest()),
            }),
            sent_bytes: calls.saturating_mul(argument.bytes.len() as u64),
            received_bytes: tally.received(),
            errors: tally.failures().map(|(kind, count)| (kind.token(), count)).collect(),
        }
    }

    /// Whether no call failed.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let Self { function, address, concurrency, connections, seconds, calls, .. } = self;
        let latency = match &self.latency_milliseconds {
            Some(Latency { p50, p99, p99_9, max }) => {
                format!("p50 {p50:.3}   p99 {p99:.3}   p99.9 {p99_9:.3}   max {max:.3} ms")
            }
            None => "none: no call has a result".to_owned(),
        };
        let per_second = self.calls_per_second;
        let (sent, received) = (self.sent_bytes, self.received_bytes);
        let (upwards, downwards) = (rate(sent, *seconds), rate(received, *seconds));
        let errors: Vec<_> =
            self.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let errors = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
        let plural = if *connections == 1 { "" } else { "s" };
        format!(
            "{function} at {address}: {concurrency} at a time, {connections} connection{plural}, \
             {seconds:.1} s\n\
             calls     {calls}   {per_second:.0} per second\n\
             latency   {latency}\n\
             bytes     sent {sent} ({upwards})   received {received} ({downwards})\n\
             errors    {errors}\n"
        )
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people, and 53 bits are enough for them")]
    let count = count as f64;
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

fn rate(bytes: u64, seconds: f64) -> String {
    let rate = per_second(bytes, seconds);
    match rate {
        1e9.. => format!("{:.2} GB/s", rate / 1e9),
        1e6.. => format!("{:.1} MB/s", rate / 1e6),
        1e3.. => format!("{:.1} kB/s", rate / 1e3),
        _ => format!("{rate:.0} B/s"),
    }
}
