//! The answers of Consul 1.8.7, recorded with dig, asked of the same services.

use std::collections::BTreeSet;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use meshx_consul_api::AgentServiceRegistration;
use proptest::prelude::*;

use super::{Transport, View, answer};
use crate::state::test_world::{World, service, with_sidecar};

const RECORDING: &str = include_str!("../../tests/data/dns_1.8.7.txt");

/// The services that the recorded agent had.
fn world() -> World {
    let mut world = World::new();
    let at = |name: &str, address: &str, port: u16| AgentServiceRegistration {
        address: Some(address.to_owned()),
        port: Some(port),
        ..service(name)
    };
    world.register(AgentServiceRegistration {
        tags: vec!["v1".to_owned(), "primary".to_owned()],
        ..at("echo", "127.0.0.1", 19090)
    });
    for n in 1_u16..=40 {
        let id = Some(format!("many-{n}"));
        world.register(AgentServiceRegistration {
            id,
            ..at("many", &format!("127.0.1.{n}"), 30_000 + n)
        });
    }
    let weights = serde_json::from_value(serde_json::json!({"Passing": 10, "Warning": 1})).unwrap();
    world.register(AgentServiceRegistration { weights: Some(weights), ..at("noaddr", "", 4242) });
    world.register(at("hostn", "db.example.com", 4243));
    world
}

fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        query.set_edns(edns);
    }
    query
}

fn ask(world: &World, query: &Message, transport: Transport) -> Message {
    let view = View { state: &world.state, now: 1_795_159_251, seed: 0 };
    let response = answer(query, &view, transport);
    // Everything that is said survives the wire.
    let read = Message::from_vec(&response.to_vec().unwrap()).unwrap();
    assert!(read.answers == response.answers, "answers were lost");
    response
}

/// One query of the recording and what dig printed of the answer.
struct Recorded<'a> {
    command: &'a str,
    lines: Vec<&'a str>,
}

fn recorded() -> Vec<Recorded<'static>> {
    let mut all: Vec<Recorded<'_>> = Vec::new();
    for line in RECORDING.lines() {
        if let Some(command) = line.strip_prefix("$ dig ") {
            all.push(Recorded { command, lines: Vec::new() });
        } else if let Some(last) = all.last_mut() {
            last.lines.push(line);
        }
    }
    all
}

impl Recorded<'_> {
    fn query(&self) -> (Message, Transport) {
        let (mut name, mut kind, mut edns) = (String::new(), RecordType::A, Some(1232));
        let mut transport = Transport::Udp;
        for word in self.command.split_whitespace() {
            match word {
                "+noedns" => edns = None,
                "+tcp" => transport = Transport::Tcp,
                "+ignore" => {}
                "-x" => kind = RecordType::PTR,
                "127.0.0.1" => "1.0.0.127.in-addr.arpa.".clone_into(&mut name),
                size if size.starts_with("+bufsize=") => edns = size[9..].parse().ok(),
                word => match word.parse() {
                    Ok(parsed) if !word.contains('.') => kind = parsed,
                    _ => name = format!("{}.", word.trim_end_matches('.')),
                },
            }
        }
        (query(&name, kind, edns), transport)
    }

    fn status(&self) -> &str {
        let line = self.lines.iter().find(|line| line.contains("status: ")).unwrap();
        line.split("status: ").nth(1).unwrap().split(',').next().unwrap()
    }

    fn flags(&self) -> BTreeSet<&str> {
        let line = self.lines.iter().find(|line| line.starts_with(";; flags: ")).unwrap();
        line[10..].split(';').next().unwrap().split_whitespace().collect()
    }

    fn count(&self, section: &str) -> usize {
        let line = self.lines.iter().find(|line| line.starts_with(";; flags: ")).unwrap();
        let after = line.split(&format!("{section}: ")).nth(1).unwrap();
        after.split(',').next().unwrap().trim().parse().unwrap()
    }

    /// The records that were printed under a section, in one form.
    fn records(&self, section: &str) -> BTreeSet<String> {
        let title = format!(";; {section} SECTION:");
        let under = self.lines.iter().skip_while(|line| **line != title).skip(1);
        under.take_while(|line| !line.starts_with(';')).filter_map(|l| record(l)).collect()
    }
}

/// `echo.service.consul. 0 IN A 127.0.0.1`, the serial number of the SOA blanked.
fn record(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.len() < 5 {
        return None;
    }
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    if words[3] == "SOA" {
        "SERIAL".clone_into(&mut words[6]);
    }
    words[4..].iter_mut().for_each(|word| *word = word.replace('"', ""));
    Some(words.join(" "))
}

fn printed<'a>(
    records: impl IntoIterator<Item = &'a hickory_proto::rr::Record>,
) -> BTreeSet<String> {
    records.into_iter().filter_map(|r| record(&r.to_string())).collect()
}

#[test]
fn answers_as_recorded() {
    let world = world();
    let mut compared = 0;
    for recorded in recorded() {
        // Prepared queries are Consul's alone.
        if recorded.command.contains(".query.") {
            continue;
        }
        let (query, transport) = recorded.query();
        let response = ask(&world, &query, transport);
        let what = format!("dig {}\n{response}", recorded.command);
        let status = match response.metadata.response_code {
            ResponseCode::NoError => "NOERROR",
            ResponseCode::NXDomain => "NXDOMAIN",
            ResponseCode::Refused => "REFUSED",
            _ => "?",
        };
        assert_eq!(status, recorded.status(), "{what}");
        let is_many = recorded.command.to_lowercase().contains("many");
        let flags = [
            ("qr", true),
            ("aa", response.metadata.authoritative),
            // The one flag that differs: Consul does not say that it left answers out.
            ("tc", response.metadata.truncation && !is_many),
            ("rd", response.metadata.recursion_desired),
            ("ra", response.metadata.recursion_available),
        ];
        let flags: BTreeSet<&str> =
            flags.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag).collect();
        assert_eq!(flags, recorded.flags(), "{what}");
        assert_eq!(response.answers.len(), recorded.count("ANSWER"), "{what}");
        assert_eq!(response.authorities.len(), recorded.count("AUTHORITY"), "{what}");
        if !is_many {
            let additional = response.additionals.len() + usize::from(response.edns.is_some());
            assert_eq!(additional, recorded.count("ADDITIONAL"), "{what}");
            assert_eq!(printed(&response.answers), recorded.records("ANSWER"), "{what}");
            assert_eq!(printed(&response.authorities), recorded.records("AUTHORITY"), "{what}");
            assert_eq!(printed(&response.additionals), recorded.records("ADDITIONAL"), "{what}");
        }
        compared += 1;
    }
    assert_eq!(compared, 30);
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let world = world();
    let ask =
        |kind, edns, transport| ask(&world, &query("many.service.consul.", kind, edns), transport);
    let plain = ask(RecordType::SRV, None, Transport::Udp);
    assert_eq!((plain.answers.len(), plain.metadata.truncation), (3, true));
    assert!(plain.to_vec().unwrap().len() <= 512);
    let targets: BTreeSet<_> = plain.additionals.iter().map(|record| record.name.clone()).collect();
    let wanted: BTreeSet<_> = plain
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.target.clone()),
            _ => None,
        })
        .collect();
    assert!(targets.is_subset(&wanted), "nothing is said of who is not named");
    let small = ask(RecordType::SRV, Some(1_232), Transport::Udp);
    assert!(small.metadata.truncation && small.to_vec().unwrap().len() <= 1_232);
    assert!(small.answers.len() > 3);
    let tiny = ask(RecordType::A, Some(0), Transport::Udp);
    assert!(tiny.to_vec().unwrap().len() <= 512);
    let huge = ask(RecordType::A, Some(u16::MAX), Transport::Udp);
    assert_eq!((huge.answers.len(), huge.metadata.truncation), (40, false));
    let tcp = ask(RecordType::SRV, None, Transport::Tcp);
    assert_eq!((tcp.answers.len(), tcp.metadata.truncation), (40, false));
}

#[test]
fn ten_thousand_instances_fit_a_message() {
    let mut world = World::new();
    for n in 0..9_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        world.register(AgentServiceRegistration {
            id: Some(format!("s{n}")),
            address: Some(format!("10.0.{high}.{low}")),
            port: Some(80),
            ..service("s")
        });
    }
    for kind in [RecordType::A, RecordType::SRV] {
        let response = ask(&world, &query("s.service.consul.", kind, None), Transport::Tcp);
        assert!(response.metadata.truncation);
        assert!(response.answers.len() > 500, "{}", response.answers.len());
        u16::try_from(response.to_vec().unwrap().len()).unwrap();
    }
}

#[test]
fn a_node_on_a_host_with_dots_is_found() {
    let mut world = World::new();
    world.register(with_sidecar(AgentServiceRegistration {
        port: Some(4000),
        ..service("node1@my-host.example.org")
    }));
    world.register(with_sidecar(service("NODE2@h")));
    let found = |name: &str| {
        let mut labels = Name::root();
        for label in name.split('.') {
            labels = labels.append_label(label.as_bytes()).unwrap();
        }
        let mut query = query("x.", RecordType::SRV, Some(4_096));
        query.queries[0].set_name(labels);
        ask(&world, &query, Transport::Udp).answers.len()
    };
    assert_eq!(found("node1@my-host.example.org.service.consul"), 1);
    assert_eq!(found("node2@h.service.dc1.consul"), 1, "DNS knows no case");
    assert_eq!(found("node2@h.service.dc2.consul"), 0);
    // The sidecar of either is critical: nobody listens.
    assert_eq!(found("node1@my-host.example.org.connect.consul"), 0);
}

#[test]
fn queries_that_are_none() {
    let world = world();
    let ask = |query: &Message| ask(&world, query, Transport::Udp).metadata.response_code;
    let mut two = query("echo.service.consul.", RecordType::A, None);
    two.add_query(two.queries[0].clone());
    assert_eq!(ask(&two), ResponseCode::FormErr);
    let mut update = query("echo.service.consul.", RecordType::A, None);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(ask(&update), ResponseCode::NotImp);
    for (name, code) in [
        ("consul.", ResponseCode::NoError),
        ("service.consul.", ResponseCode::NXDomain),
        ("x.consul.", ResponseCode::NXDomain),
        ("zz.addr.consul.", ResponseCode::NXDomain),
        ("1.2.in-addr.arpa.", ResponseCode::NXDomain),
        ("9.9.9.9.in-addr.arpa.", ResponseCode::NXDomain),
        (".", ResponseCode::Refused),
        ("consul.example.", ResponseCode::Refused),
    ] {
        assert_eq!(ask(&query(name, RecordType::A, None)), code, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_query_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let world = World::new();
        if let Ok(query) = Message::from_vec(&bytes) {
            let _any = ask(&world, &query, Transport::Udp);
        }
    }

    #[test]
    fn no_name_panics(labels in proptest::collection::vec("[a-z0-9_@.-]{1,20}", 0..6)) {
        let world = World::new();
        let mut name = Name::root();
        for label in labels.iter().map(String::as_bytes).chain([b"service".as_slice(), b"consul"]) {
            if let Ok(longer) = name.clone().append_label(label) { name = longer; }
        }
        let mut query = query("x.", RecordType::SRV, None);
        query.queries[0].set_name(name);
        let _any = ask(&world, &query, Transport::Udp);
    }
}
