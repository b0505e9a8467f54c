#![allow(clippy::float_cmp, reason = "what is counted is exact")]

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use super::super::samples::{called, error, peer};
use super::super::{Amount, Times, Way};
use super::*;
use crate::context::Protocol;
use crate::error::{Error, Kind};

/// Samples by name and labels, in the order of the labels' names.
type Samples = BTreeMap<String, f64>;

/// Reads the text format strictly: each family has its help and type before its samples, and no sample
/// comes twice.
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut lines = text.lines().peekable();
    assert!(text.ends_with('\n'));
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && families.insert(name.to_owned()), "{line}");
            let rest = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let (typed, of) = rest.split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert!(["counter", "gauge", "histogram"].contains(&of));
            assert_eq!(of == "counter", name.ends_with("_total"), "{name}");
            (family, kind) = (name.to_owned(), of.to_owned());
            continue;
        }
        let (name, labels, value) = sample(line);
        let base = match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"]
                .into_iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap(),
            _ => name.as_str(),
        };
        assert_eq!(base, family, "{line}");
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let key = format!("{name} {}", labels.join(" "));
        assert!(samples.insert(key.trim_end().to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

/// The name, the labels without their escapes, and the value of a line.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let mut chars = line.chars();
    let legal = |char: &char| char.is_ascii_alphanumeric() || *char == '_';
    let mut name = String::new();
    let mut labels = BTreeMap::new();
    let after = loop {
        match chars.next().unwrap() {
            char if legal(&char) => name.push(char),
            other => break other,
        }
    };
    if after == '{' {
        loop {
            let label: String = chars.by_ref().take_while(|char| *char != '=').collect();
            assert!(!label.is_empty() && label.chars().all(|char| legal(&char)), "{line}");
            assert_eq!(chars.next(), Some('"'));
            let mut value = String::new();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => value.push(match chars.next().unwrap() {
                        'n' => '\n',
                        char @ ('\\' | '"') => char,
                        other => panic!("{other} is escaped: {line}"),
                    }),
                    char => value.push(char),
                }
            }
            assert!(labels.insert(label, value).is_none(), "{line}");
            match chars.next().unwrap() {
                ',' => {}
                end => {
                    assert_eq!(end, '}');
                    break;
                }
            }
        }
        assert_eq!(chars.next(), Some(' '));
    }
    (name, labels, chars.as_str().parse().unwrap())
}

/// Those whose name begins like this.
fn of<'a>(samples: &'a Samples, begins: &str) -> Vec<(&'a str, f64)> {
    let of = samples.iter().filter(|(key, _)| key.starts_with(begins));
    of.map(|(key, value)| (key.as_str(), *value)).collect()
}

#[test]
fn calls_are_counted_by_function_side_way_and_result() {
    let metrics = Metrics::new();
    let (deadline, denied) = (error(Kind::Deadline), error(Kind::Denied));
    let tell = |called: &Called<'_>| metrics.event(&Event::Called(called));
    for _ in 0..3 {
        tell(&called("add", Ok(())));
    }
    tell(&Called { attempt: 2, ..called("add", Err(&deadline)) });
    tell(&Called { way: Way::Cast, ..called("add", Ok(())) });
    tell(&Called { side: Side::Server, way: Way::Stream, ..called("add", Err(&denied)) });
    tell(&called("a\"b\\c\nd", Ok(())));
    metrics.event(&Event::CastLost { function: "add", error: &deadline });
    metrics.event(&Event::CastLost { function: "lost", error: &deadline });

    let samples = parse(&metrics.render());
    let calls = [
        ("meshx_rpc_calls_total function=a\"b\\c\nd result=ok side=client way=call", 1.0),
        ("meshx_rpc_calls_total function=add result=deadline side=client way=call", 1.0),
        ("meshx_rpc_calls_total function=add result=denied side=server way=stream", 1.0),
        ("meshx_rpc_calls_total function=add result=ok side=client way=call", 3.0),
        ("meshx_rpc_calls_total function=add result=ok side=client way=cast", 1.0),
    ];
    assert_eq!(of(&samples, "meshx_rpc_calls_total"), calls);
    let lost = [
        ("meshx_rpc_casts_lost_total function=add reason=deadline", 1.0),
        ("meshx_rpc_casts_lost_total function=lost reason=deadline", 1.0),
    ];
    assert_eq!(of(&samples, "meshx_rpc_casts_lost_total"), lost);
    for (name, client, server) in [
        ("repeated_calls", 1.0, 0.0),
        ("sent_bytes", 5.0 * 31.0, 31.0),
        ("sent_blocks", 5.0, 1.0),
        ("received_bytes", 5.0 * 1_572_864.0, 1_572_864.0),
        ("received_blocks", 5.0 * 96.0, 96.0),
    ] {
        let add = format!("meshx_rpc_{name}_total function=add");
        let (in_client, in_server) = (format!("{add} side=client"), format!("{add} side=server"));
        let wanted = [(&*in_client, client), (&*in_server, server)];
        assert_eq!(of(&samples, &add), wanted);
    }
}

#[test]
fn times_are_in_histograms_of_the_whole_and_its_parts() {
    let metrics = Metrics::new();
    let micros = Duration::from_micros;
    for exec in [1, 2, 3, 1000, 100_000_000] {
        let times =
            Times { idle: micros(7), queue: micros(1), exec: micros(exec), ..Times::default() };
        metrics.event(&Event::Called(&Called { times, ..called("f", Ok(())) }));
    }
    let samples = parse(&metrics.render());
    let bucket = |family: &str, phase: &str, bound: &str| {
        let key = format!("meshx_rpc_{family}_bucket function=f le={bound}{phase} side=client");
        samples[&key]
    };
    let exec = |bound| bucket("call_phase_seconds", " phase=exec", bound);
    // 1 | 2 | 3 | 1000 µs | 100 s
    assert_eq!(exec("0.000001024"), 1.0);
    assert_eq!(exec("0.000002048"), 2.0);
    assert_eq!(exec("0.000004096"), 3.0);
    assert_eq!(exec("0.000524288"), 3.0);
    assert_eq!(exec("0.001048576"), 4.0);
    assert_eq!(exec("68.719476736"), 4.0);
    assert_eq!(exec("+Inf"), 5.0);
    let total = |bound| bucket("call_seconds", "", bound);
    assert_eq!((total("0.000001024"), total("0.000002048"), total("0.000004096")), (0.0, 1.0, 3.0));

    let sums = [
        ("meshx_rpc_call_phase_seconds_sum function=f phase=exec side=client", 100.001_006),
        ("meshx_rpc_call_phase_seconds_sum function=f phase=idle side=client", 0.000_035),
        ("meshx_rpc_call_phase_seconds_sum function=f phase=queue side=client", 0.000_005),
    ];
    assert_eq!(of(&samples, "meshx_rpc_call_phase_seconds_sum"), sums);
    assert_eq!(samples["meshx_rpc_call_seconds_sum function=f side=client"], 100.001_011);
    assert_eq!(samples["meshx_rpc_call_seconds_count function=f side=client"], 5.0);
    // Bounds rise, and the last of them has all.
    let text = metrics.render();
    let buckets = text.lines().filter(|line| line.starts_with("meshx_rpc_call_seconds_bucket"));
    let mut last = (0.0, 0.0);
    for (_, labels, count) in buckets.map(sample) {
        let bound: f64 = labels["le"].replace("+Inf", "inf").parse().unwrap();
        assert!(bound > last.0 && count >= last.1);
        last = (bound, count);
    }
    assert_eq!(last, (f64::INFINITY, 5.0));
}

#[test]
fn connections_are_counted_up_and_down() {
    let metrics = Metrics::new();
    let (peer, error) = (peer(), error(Kind::Transport));
    let newer = crate::Peer { protocol: Protocol::V2, ..peer.clone() };
    let (side, took) = (Side::Server, Duration::from_millis(1));
    for peer in [&peer, &newer, &newer] {
        metrics.event(&Event::Connected { side, peer, took });
    }
    metrics.event(&Event::Connected { side: Side::Client, peer: &newer, took });
    metrics.event(&Event::Disconnected { side, peer: &peer, error: None });
    metrics.event(&Event::Disconnected { side, peer: &newer, error: Some(&error) });
    metrics.event(&Event::HandshakeFailed { side, address: "a", error: &error });
    metrics.event(&Event::Unreachable { address: "a", error: &error });
    metrics.event(&Event::Unreachable { address: "b", error: &error });
    let mut samples = parse(&metrics.render());
    samples.retain(|key, _| !key.contains("_bucket"));
    let wanted = [
        ("meshx_rpc_connected_total protocol=v1 side=server", 1.0),
        ("meshx_rpc_connected_total protocol=v2 side=client", 1.0),
        ("meshx_rpc_connected_total protocol=v2 side=server", 2.0),
        ("meshx_rpc_connections side=client", 1.0),
        ("meshx_rpc_connections side=server", 1.0),
        ("meshx_rpc_disconnected_total result=ok side=server", 1.0),
        ("meshx_rpc_disconnected_total result=transport side=server", 1.0),
        ("meshx_rpc_handshake_failures_total reason=transport side=server", 1.0),
        ("meshx_rpc_handshake_seconds_count side=client", 1.0),
        ("meshx_rpc_handshake_seconds_count side=server", 3.0),
        ("meshx_rpc_handshake_seconds_sum side=client", 0.001),
        ("meshx_rpc_handshake_seconds_sum side=server", 0.003),
        ("meshx_rpc_unreachable_total reason=transport", 2.0),
    ];
    assert_eq!(of(&samples, ""), wanted);
}

#[test]
fn peers_cannot_fill_the_list_of_functions() {
    let metrics = Metrics::with_functions(3);
    let never = Error::new(Kind::UnknownFunction, Executed::Never, "no");
    let ran = Error::new(Kind::Application, Executed::Yes, "no");
    let at_server = |function: &str, result| {
        let called = Called { side: Side::Server, ..called(function, result) };
        metrics.event(&Event::Called(&called));
    };
    for made_up in 0..100 {
        at_server(&format!("made-up-{made_up}"), Err(&never));
    }
    at_server("real", Ok(()));
    at_server("real", Err(&never));
    at_server("failing", Err(&ran));
    at_server(&"long".repeat(100), Ok(()));
    metrics.event(&Event::Called(&called("ours", Err(&never))));
    metrics.event(&Event::Called(&called("no room", Ok(()))));
    let samples = parse(&metrics.render());
    let wanted = [
        ("meshx_rpc_calls_total function=failing result=application side=server way=call", 1.0),
        ("meshx_rpc_calls_total function=other result=ok side=client way=call", 1.0),
        ("meshx_rpc_calls_total function=other result=ok side=server way=call", 1.0),
        (
            "meshx_rpc_calls_total function=other result=unknown_function side=server way=call",
            100.0,
        ),
        ("meshx_rpc_calls_total function=ours result=unknown_function side=client way=call", 1.0),
        ("meshx_rpc_calls_total function=real result=ok side=server way=call", 1.0),
        ("meshx_rpc_calls_total function=real result=unknown_function side=server way=call", 1.0),
    ];
    assert_eq!(of(&samples, "meshx_rpc_calls_total"), wanted);
}

#[test]
fn no_call_is_missed_when_many_threads_count_and_one_reads() {
    let metrics = Metrics::new();
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let metrics = metrics.clone();
            thread::spawn(move || {
                for call in 0..1000 {
                    let function = ["a", "b", "c"][call % 3];
                    let sent = Amount { bytes: 2, blocks: 1 };
                    metrics.event(&Event::Called(&Called { sent, ..called(function, Ok(())) }));
                }
            })
        })
        .collect();
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        parse(&metrics.render());
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let samples = parse(&metrics.render());
    for (function, calls) in [("a", 3340.0), ("b", 3330.0), ("c", 3330.0)] {
        let of = |name: &str| samples[&format!("meshx_rpc_{name} function={function} side=client")];
        assert_eq!((of("call_seconds_count"), of("sent_bytes_total")), (calls, 2.0 * calls));
    }
}
