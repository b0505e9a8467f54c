//! Calls as spans of `OpenTelemetry`.

#[cfg(feature = "otlp")]
mod export;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;

use super::text::{Ref, harmless_reason};
use super::{Called, Event, Observe, Side};
use crate::trace::TraceParent;

/// Keeps the calls of sampled traces as spans, and gives them away in OTLP's JSON encoding
/// (OTLP 1.9, "JSON Protobuf Encoding"). They are to be posted to a collector, `http://…:4318/v1/traces`,
/// as `application/json`: with the feature `otlp`, `export` does that.
///
/// Clones keep together: one is given to each client and server, one is kept to take from.
///
/// Only calls with a `trace` that is sampled are kept ([`TraceParent`](crate::TraceParent)). Names are
/// those of the semantic conventions for RPC: `rpc.system.name` (and `rpc.system`, as it was called
/// before), `rpc.method`, `server.address` or `client.address`, `error.type`; what they have no name
/// for begins with `meshx.`. Arguments and results are not in it, nor is text that may be made of them.
///
/// ```
/// use meshx_rpc::event::Spans;
/// let spans = Spans::new("orders");
/// assert_eq!(spans.take(), None);
/// ```
#[derive(Clone)]
pub struct Spans(Arc<Inside>);

struct Inside {
    service: String,
    kept: Mutex<VecDeque<Span>>,
    dropped: AtomicU64,
}

/// A call, as OTLP writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    #[serde(rename = "spanId")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Attribute {
    key: &'static str,
    value: Value,
}

#[derive(Serialize)]
enum Value {
    #[serde(rename = "stringValue")]
    Text(String),
    /// 64 bits are text in JSON.
    #[serde(rename = "intValue")]
    Number(String),
}

#[derive(Serialize)]
struct Status {
    code: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

/// `SPAN_KIND_SERVER`, `SPAN_KIND_CLIENT` and `STATUS_CODE_ERROR` of OTLP's `trace.proto`.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

impl Spans {
    /// The most spans that are kept; those that come later are dropped, and counted.
    pub const KEPT: usize = 2048;

    /// The most that are given away at once.
    pub const TAKEN: usize = 512;

    /// Of the program that is called this (`service.name`).
    pub fn new(service: impl Into<String>) -> Self {
        let (kept, dropped) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inside { service: service.into(), kept, dropped }))
    }

    /// Takes the oldest spans, as the body of one request; `None` if there are none.
    pub fn take(&self) -> Option<String> {
        self.take_counted().map(|(body, _)| body)
    }

    /// The same, with the number of spans.
    fn take_counted(&self) -> Option<(String, usize)> {
        let spans: Vec<Span> = {
            let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let most = kept.len().min(Self::TAKEN);
            kept.drain(..most).collect()
        };
        let count = spans.len();
        if count == 0 {
            return None;
        }
        let resource = json!({ "attributes": [text("service.name", self.0.service.as_str())] });
        let scope = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
        let scoped = json!([{ "scope": scope, "spans": spans }]);
        let body = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": scoped }] });
        Some((body.to_string(), count))
    }

    /// How many were dropped: nobody took those before, or the collector did not.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn keep(&self, called: &Called<'_>, now: Duration) {
        let Some(span) = Span::of(called, now) else { return };
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Self::KEPT {
            kept.push_back(span);
        } else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("service", &self.0.service).finish_non_exhaustive()
    }
}

impl Observe for Spans {
    fn event(&self, event: &Event<'_>) {
        if let Event::Called(called) = event {
            self.keep(called, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        }
    }
}

impl Span {
    /// A call that is over by now, if it was in a sampled trace.
    fn of(called: &Called<'_>, now: Duration) -> Option<Self> {
        let trace = called.trace.filter(TraceParent::is_sampled)?;
        let nanos = |time: Duration| time.as_nanos().to_string();
        let span = |id: [u8; 8]| format!("{:016x}", u64::from_be_bytes(id));
        let error = called.result.err();
        Some(Self {
            trace_id: format!("{:032x}", u128::from_be_bytes(trace.trace_id())),
            id: span(trace.span_id()),
            parent_span_id: trace.above().map(span),
            name: called.function.to_owned(),
            kind: match called.side {
                Side::Client => CLIENT,
                Side::Server => SERVER,
            },
            start_time_unix_nano: nanos(now.saturating_sub(called.times.total())),
            end_time_unix_nano: nanos(now),
            attributes: attributes(called),
            status: error.map(|error| Status {
                code: ERROR,
                message: harmless_reason(error).unwrap_or_default().to_owned(),
            }),
        })
    }
}

fn attributes(called: &Called<'_>) -> Vec<Attribute> {
    let mut all = vec![
        text("rpc.system.name", "meshx"),
        text("rpc.system", "meshx"),
        text("rpc.method", called.function),
        text("meshx.way", called.way.name()),
        number("meshx.req_ref", called.req_ref),
        number("meshx.attempt", called.attempt.into()),
        number("meshx.sent.bytes", called.sent.bytes),
        number("meshx.received.bytes", called.received.bytes),
    ];
    let times = called.times;
    for (key, time) in [
        ("meshx.time.queue_ns", times.queue),
        ("meshx.time.ser_ns", times.ser),
        ("meshx.time.send_ns", times.send),
        ("meshx.time.exec_ns", times.exec),
        ("meshx.time.recv_ns", times.recv),
        ("meshx.time.dser_ns", times.dser),
    ] {
        if !time.is_zero() {
            all.push(number(key, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)));
        }
    }
    if let Some(peer) = called.peer {
        let (key, service) = match called.side {
            Side::Client => ("server.address", &peer.remote.svc_ref),
            Side::Server => ("client.address", &peer.local.svc_ref),
        };
        all.push(text(key, peer.address.as_str()));
        all.push(text("rpc.service", service.as_str()));
        all.push(text("meshx.protocol", peer.protocol.name()));
        all.push(number("meshx.hsk_ref", peer.hsk_ref));
        all.push(text("meshx.local.conn_ref", Ref(&peer.local.conn_ref).to_string()));
        all.push(text("meshx.remote.conn_ref", Ref(&peer.remote.conn_ref).to_string()));
        if let Some(identity) = &peer.identity {
            all.push(text("meshx.identity", identity.as_str()));
        }
    }
    if let Err(error) = called.result {
        all.push(text("error.type", error.kind().token()));
        all.push(text("meshx.executed", error.executed().token()));
    }
    all
}

fn text(key: &'static str, value: impl Into<String>) -> Attribute {
    Attribute { key, value: Value::Text(value.into()) }
}

fn number(key: &'static str, value: u64) -> Attribute {
    Attribute { key, value: Value::Number(value.to_string()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::samples::{called, error, peer};
    use super::*;
    use crate::error::Kind;

    const NOW: Duration = Duration::from_nanos(1_700_000_000_123_456_789);

    fn spans(body: &str) -> Vec<serde_json::Value> {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    }

    #[test]
    fn a_sampled_call_is_a_span_as_otlp_writes_it() {
        let caller: TraceParent =
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let (trace, peer, error) = (caller.child(), peer(), error(Kind::Deadline));
        let of = Called {
            side: Side::Server,
            peer: Some(&peer),
            trace: Some(trace),
            ..called("cart.add", Err(&error))
        };
        let sink = Spans::new("orders");
        sink.keep(&of, NOW);
        let body = sink.take().unwrap();
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        let resource = &read["resourceSpans"][0]["resource"]["attributes"];
        let name = json!([{"key": "service.name", "value": {"stringValue": "orders"}}]);
        assert_eq!(*resource, name);
        let mut span = spans(&body).remove(0);
        let attributes = span["attributes"].take();
        let wanted = json!({
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
            "spanId": format!("{:016x}", u64::from_be_bytes(trace.span_id())),
            "parentSpanId": "00f067aa0ba902b7",
            "name": "cart.add",
            "kind": 2,
            "startTimeUnixNano": "1700000000121303789",
            "endTimeUnixNano": "1700000000123456789",
            "attributes": null,
            "status": {"code": 2, "message": "it is hunter2"},
        });
        assert_eq!(span, wanted);
        for (key, value) in [
            ("rpc.system.name", json!({"stringValue": "meshx"})),
            ("rpc.method", json!({"stringValue": "cart.add"})),
            ("rpc.service", json!({"stringValue": "Elixir.Example2.Client"})),
            ("client.address", json!({"stringValue": "127.0.0.1:4000"})),
            ("error.type", json!({"stringValue": "deadline"})),
            ("meshx.executed", json!({"stringValue": "maybe"})),
            ("meshx.req_ref", json!({"intValue": "4066"})),
            ("meshx.local.conn_ref", json!({"stringValue": "e9sJqA"})),
            ("meshx.time.exec_ns", json!({"intValue": "2002000"})),
        ] {
            let mut of = attributes.as_array().unwrap().iter().filter(|it| it["key"] == key);
            assert_eq!(of.next().unwrap()["value"], value, "{key}");
            assert!(of.next().is_none(), "{key}");
        }
        assert_eq!(sink.take(), None);
    }

    #[test]
    fn what_is_not_sampled_is_not_kept_and_payloads_never_are() {
        let sink = Spans::new("orders");
        for trace in [None, Some(TraceParent::root(false))] {
            sink.event(&Event::Called(&Called { trace, ..called("f", Ok(())) }));
        }
        assert_eq!(sink.take(), None);
        let trace = Some(TraceParent::root(true));
        for kind in [Kind::Application, Kind::Panic, Kind::Value] {
            let error = error(kind);
            sink.event(&Event::Called(&Called { trace, ..called("f", Err(&error)) }));
        }
        sink.event(&Event::Called(&Called { trace, ..called("f", Ok(())) }));
        let body = sink.take().unwrap();
        assert!(!body.contains("hunter2"));
        let spans = spans(&body);
        assert_eq!(
            (spans[2]["status"].clone(), spans[3].get("status")),
            (json!({"code": 2}), None)
        );
        assert!(spans.iter().all(|span| span["kind"] == 3 && span.get("parentSpanId").is_none()));
    }

    #[test]
    fn spans_that_nobody_takes_are_dropped_and_counted() {
        let sink = Spans::new("orders");
        let trace = Some(TraceParent::root(true));
        for _ in 0..Spans::KEPT + 7 {
            sink.event(&Event::Called(&Called { trace, ..called("f", Ok(())) }));
        }
        assert_eq!(sink.dropped(), 7);
        let mut taken = 0;
        while let Some(body) = sink.take() {
            let spans = spans(&body).len();
            assert!(spans <= Spans::TAKEN);
            taken += spans;
        }
        assert_eq!(taken, Spans::KEPT);
    }
}
