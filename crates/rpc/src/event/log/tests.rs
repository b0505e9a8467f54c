use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

use super::super::samples::{called, error, peer};
use super::*;

type Fields = BTreeMap<&'static str, String>;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Level, Fields)>>>);

struct Reader(Fields);

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        assert_eq!(event.metadata().target(), "meshx_rpc");
        let mut reader = Reader(Fields::new());
        event.record(&mut reader);
        self.0.lock().unwrap().push((*event.metadata().level(), reader.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn logged(log: &Log, events: &[Event<'_>]) -> Vec<(Level, Fields)> {
    let kept = Kept::default();
    tracing::subscriber::with_default(kept.clone(), || {
        for event in events {
            log.event(event);
        }
    });
    let lines = kept.0.lock().unwrap();
    lines.clone()
}

fn one(log: &Log, event: &Event<'_>) -> (Level, Fields) {
    let mut lines = logged(log, std::slice::from_ref(event));
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[test]
fn a_call_is_told_with_all_references_times_and_sizes() {
    let peer = peer();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let called =
        Called { peer: Some(&peer), trace: trace.parse().ok(), ..called("cart.add", Ok(())) };
    let (level, fields) = one(&Log::new(), &Event::Called(&called));
    let wanted = [
        ("attempt", "1"),
        ("function", "cart.add"),
        ("hsk_ref", "4034"),
        ("identity", "spiffe://ab.consul/ns/default/dc/dc1/svc/web"),
        ("local.conn_ref", "e9sJqA"),
        ("local.node_ref", "nonode@nohost"),
        ("local.svc_ref", "Elixir.Example2.Client"),
        ("message", "rpc"),
        ("peer", "127.0.0.1:4000"),
        ("protocol", "v1"),
        ("received.blocks", "96"),
        ("received.bytes", "1572864"),
        ("remote.conn_ref", "QglsBQ"),
        ("remote.node_ref", "nonode@nohost"),
        ("remote.svc_ref", "Elixir.Example2.Server"),
        ("req_ref", "4066"),
        ("result", "ok"),
        ("sent.blocks", "1"),
        ("sent.bytes", "31"),
        ("side", "client"),
        ("time.dser_us", "6"),
        ("time.exec_us", "2002"),
        ("time.idle_us", "17547"),
        ("time.queue_us", "1"),
        ("time.recv_us", "36"),
        ("time.send_us", "105"),
        ("time.ser_us", "3"),
        ("trace", trace),
        ("way", "call"),
    ];
    let wanted: Fields = wanted.into_iter().map(|(name, value)| (name, value.into())).collect();
    assert_eq!(fields, wanted);
    assert_eq!(level, Level::DEBUG);
}

#[test]
fn a_call_without_a_connection_has_no_fields_of_one() {
    let error = error(Kind::Transport);
    let called = called("f", Err(&error));
    let (level, fields) = one(&Log::new(), &Event::Called(&called));
    assert_eq!(level, Level::WARN);
    for absent in ["peer", "identity", "protocol", "local.conn_ref", "hsk_ref", "trace"] {
        assert!(!fields.contains_key(absent), "{absent}");
    }
    assert_eq!((&*fields["result"], &*fields["executed"]), ("transport", "maybe"));
    assert_eq!(fields["reason"], "it is hunter2");
}

#[test]
fn failures_of_ours_are_warnings_and_payloads_stay_out() {
    for kind in Kind::ALL {
        let error = error(kind);
        let called = called("f", Err(&error));
        let (level, fields) = one(&Log::new(), &Event::Called(&called));
        let theirs = matches!(kind, Kind::Application | Kind::Cancelled);
        assert_eq!(level, if theirs { Level::DEBUG } else { Level::WARN }, "{kind:?}");
        assert_eq!(fields["result"], kind.token());
        let hidden = matches!(kind, Kind::Application | Kind::Panic | Kind::Value);
        assert_eq!(!format!("{fields:?}").contains("hunter2"), hidden, "{kind:?}");
        let all = Log::new().with_all_reasons();
        let (_, fields) = one(&all, &Event::Called(&called));
        assert_eq!(fields["reason"], "it is hunter2");
    }
}

#[test]
fn connections_and_casts_are_told() {
    let (peer, error) = (peer(), error(Kind::Transport).at("there"));
    let events = [
        Event::Connected { side: Side::Server, peer: &peer, took: Duration::from_millis(3) },
        Event::Disconnected { side: Side::Server, peer: &peer, error: None },
        Event::Disconnected { side: Side::Client, peer: &peer, error: Some(&error) },
        Event::Unreachable { address: "a:1", error: &error },
        Event::HandshakeFailed { side: Side::Server, address: "b:2", error: &error },
        Event::CastLost { function: "f", error: &error },
    ];
    let lines = logged(&Log::new(), &events);
    let told: Vec<_> = lines
        .iter()
        .map(|(level, fields)| {
            let field = |name| fields.get(name).map_or("", |it| &**it);
            (*level, field("message"), field("side"), field("peer"), field("result"))
        })
        .collect();
    let wanted = [
        (Level::DEBUG, "rpc: connected", "server", "127.0.0.1:4000", "ok"),
        (Level::DEBUG, "rpc: disconnected", "server", "127.0.0.1:4000", "ok"),
        (Level::WARN, "rpc: disconnected", "client", "127.0.0.1:4000", "transport"),
        (Level::WARN, "rpc: no connection", "client", "a:1", "transport"),
        (Level::WARN, "rpc: no handshake", "server", "b:2", "transport"),
        (Level::WARN, "rpc: a cast is lost", "client", "there", "transport"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(lines[0].1["time.hsk_us"], "3000");
    assert_eq!(lines[0].1["remote.conn_ref"], "QglsBQ");
    assert_eq!(lines[5].1["function"], "f");
    assert!(!lines[3].1.contains_key("function"));
}

#[test]
fn a_flood_of_failures_is_not_a_flood_of_warnings() {
    let log = Log::new();
    let admitted = |second| (0..1000).filter(|_| log.admit(second).is_some()).count();
    let most = usize::try_from(Log::WARNINGS).unwrap();
    assert_eq!((admitted(7), admitted(7), admitted(8)), (most, 0, most));
    // 968 of the second second were not said when the third begins.
    assert_eq!(log.admit(9), Some(1000 - 32));
    assert_eq!(log.admit(9), Some(0));
    // Those beyond are there for who wants to see them.
    let error = error(Kind::Denied);
    let called = called("f", Err(&error));
    let lines = logged(&Log::new(), &vec![Event::Called(&called); 100]);
    assert!(lines.len() >= 100);
    let warned = lines.iter().filter(|(level, _)| *level == Level::WARN).count();
    assert!((most..=2 * most).contains(&warned), "{warned}");
}
