//! Consul's DNS over the registry: `consul.` and reverse lookups.
//!
//! [`answer`] is pure: a query and a [`View`] in, a response out. It answers as Consul 1.8.7 does
//! (`tests/data/dns_1.8.7.txt`), but for three things that DNS asks for: what is left out is marked
//! with TC, a service whose name has dots is found under its whole name, and a name that exists
//! without records of the type is never `NXDOMAIN`.

mod names;
mod server;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::name::{CNAME, NS, PTR};
use hickory_proto::rr::rdata::{SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use meshx_consul_api::CheckStatus;

use self::names::{Question, addr_name, domain, name_of, node_name, service_name};
pub(crate) use self::server::{bind, serve};
use crate::limits;
use crate::state::{NodeRecord, ServiceRecord, State};

/// How the query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What an answer depends on.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    /// Seconds of the epoch: the serial number of the zone.
    pub(crate) now: u32,
    /// Orders the answers; 0 leaves them by node and id.
    pub(crate) seed: u64,
}

/// An instance that is in service.
type Instance<'a> = (&'a str, &'a NodeRecord, &'a ServiceRecord);

/// The response to a query, cut to what the transport and the client take.
pub(crate) fn answer(query: &Message, view: &View<'_>, transport: Transport) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    let refuse = |mut response: Message, code| {
        response.metadata.response_code = code;
        response
    };
    if query.metadata.message_type != MessageType::Query {
        return refuse(response, ResponseCode::FormErr);
    }
    if query.metadata.op_code != OpCode::Query {
        return refuse(response, ResponseCode::NotImp);
    }
    let [question] = query.queries.as_slice() else {
        return refuse(response, ResponseCode::FormErr);
    };
    response.add_query(question.clone());
    if let Some(edns) = &query.edns {
        let mut own = Edns::new();
        own.set_max_payload(edns.max_payload().max(limits::DNS_PLAIN));
        if edns.version() != 0 {
            response.set_edns(own);
            return refuse(response, ResponseCode::BADVERS);
        }
        response.set_edns(own);
    }
    let asked = match question.query_class() {
        DNSClass::IN | DNSClass::ANY => Question::read(question.name(), view.state),
        _ => Question::Foreign,
    };
    if asked == Question::Foreign {
        response.edns = None;
        return refuse(response, ResponseCode::Refused);
    }
    response.metadata.authoritative = true;
    let mut reply = Reply {
        view,
        name: question.name().clone(),
        kind: question.query_type(),
        most: match transport {
            Transport::Udp => limits::DNS_INSTANCES.0,
            Transport::Tcp => limits::DNS_INSTANCES.1,
        },
        exists: false,
        answered: HashSet::new(),
        helped: HashSet::new(),
        response,
    };
    reply.fill(asked);
    let mut response = reply.close();
    fit(&mut response, query, transport);
    response
}

/// A response in the making.
struct Reply<'a> {
    view: &'a View<'a>,
    name: Name,
    kind: RecordType,
    /// Instances to make an answer of.
    most: usize,
    /// The name exists, with records of whatever type.
    exists: bool,
    /// Addresses that are among the answers, names that are among the additional records.
    answered: HashSet<IpAddr>,
    helped: HashSet<Name>,
    response: Message,
}

impl Reply<'_> {
    fn fill(&mut self, asked: Question) {
        let view = self.view;
        match asked {
            Question::Apex => self.apex(),
            Question::Service { name, tag } => {
                let found = instances(view, &name, tag.as_deref(), false);
                self.services(&found);
            }
            Question::Connect(name) => {
                let found = instances(view, &name, None, true);
                self.services(&found);
            }
            Question::Node(name) => self.node(&name),
            Question::Address(ip) => {
                self.exists = true;
                self.add_address(self.name.clone(), ip, true);
            }
            Question::Reverse(ip) => self.reverse(ip),
            Question::Unknown | Question::Foreign => {}
        }
    }

    /// `consul.` itself.
    fn apex(&mut self) {
        self.exists = true;
        let wants = |kind| self.kind == kind || self.kind == RecordType::ANY;
        let (soa, ns) = (wants(RecordType::SOA), wants(RecordType::NS));
        let state = self.view.state;
        let server = node_name(&state.identity.node, &state.identity.datacenter);
        let servers = Record::from_rdata(domain(), 0, RData::NS(NS(server.clone())));
        if soa {
            self.response.add_answer(self.soa());
        }
        if ns {
            self.response.add_answer(servers);
        } else if soa {
            self.response.add_authority(servers);
        }
        if let (true, Ok(ip)) = (soa || ns, state.identity.address.parse()) {
            self.add_address(server, ip, false);
        }
    }

    fn services(&mut self, found: &[Instance<'_>]) {
        self.exists = !found.is_empty();
        self.response.metadata.truncation = found.len() > self.most;
        let found = &found[..found.len().min(self.most)];
        if self.kind == RecordType::SRV {
            for (node, record, service) in found {
                self.srv(node, record, service);
            }
            return;
        }
        for (_, node, service) in found {
            let host = if service.address.is_empty() { &node.address } else { &service.address };
            match host.parse() {
                Ok(ip) => self.add_address(self.name.clone(), ip, true),
                Err(_) => self.cname(host),
            }
        }
    }

    fn srv(&mut self, node: &str, record: &NodeRecord, service: &ServiceRecord) {
        let datacenter = &self.view.state.identity.datacenter;
        let at_node = node_name(node, datacenter);
        let (target, ip) = if service.address.is_empty() {
            (at_node.clone(), record.address.parse::<IpAddr>().ok())
        } else if let Ok(ip) = service.address.parse::<IpAddr>() {
            (addr_name(ip, datacenter), Some(ip))
        } else {
            (name_of(&service.address), None)
        };
        let weight = match State::status(record, service) {
            CheckStatus::Passing => service.weights.passing,
            _ => service.weights.warning,
        };
        let weight = u16::try_from(weight).unwrap_or(u16::MAX);
        let srv = SRV::new(1, weight, service.port, target.clone());
        self.response.add_answer(Record::from_rdata(self.name.clone(), 0, RData::SRV(srv)));
        if let Some(ip) = ip {
            self.add_address(target, ip, false);
        }
        for text in meta_texts(record) {
            self.response.add_additional(Record::from_rdata(at_node.clone(), 0, text));
        }
    }

    fn node(&mut self, name: &str) {
        let nodes = self.view.state.nodes();
        let record = nodes.iter().find(|(node, _)| node.eq_ignore_ascii_case(name));
        let Some((_, record)) = record else { return };
        self.exists = true;
        if self.kind != RecordType::TXT {
            match record.address.parse() {
                Ok(ip) => self.add_address(self.name.clone(), ip, true),
                Err(_) => self.cname(&record.address),
            }
        }
        for text in meta_texts(record) {
            let text = Record::from_rdata(self.name.clone(), 0, text);
            if matches!(self.kind, RecordType::TXT | RecordType::ANY) {
                self.response.add_answer(text);
            } else if !self.response.answers.is_empty() {
                self.response.add_additional(text);
            }
        }
    }

    fn reverse(&mut self, ip: IpAddr) {
        let state = self.view.state;
        let has = |address: &str| address.parse() == Ok(ip);
        let datacenter = &state.identity.datacenter;
        let node = state.nodes().iter().find(|(_, node)| has(&node.address));
        let service = || {
            let all = state.nodes().values().flat_map(|node| node.services.values());
            all.into_iter().find(|service| has(&service.address))
        };
        let target = match node {
            Some((node, _)) => node_name(node, datacenter),
            None => match service() {
                Some(service) => service_name(&service.name),
                None => return,
            },
        };
        self.exists = true;
        if matches!(self.kind, RecordType::PTR | RecordType::ANY) {
            let pointer = RData::PTR(PTR(target));
            self.response.add_answer(Record::from_rdata(self.name.clone(), 0, pointer));
        }
    }

    /// An address record, as an answer when its type is asked for, once.
    fn add_address(&mut self, name: Name, ip: IpAddr, is_answer: bool) {
        let record = Record::from_rdata(name, 0, RData::from(ip));
        if !is_answer {
            if self.helped.insert(record.name.clone()) {
                self.response.add_additional(record);
            }
            return;
        }
        let is_asked = self.kind == record.record_type() || self.kind == RecordType::ANY;
        if is_asked && self.answered.insert(ip) {
            self.response.add_answer(record);
        }
    }

    fn cname(&mut self, host: &str) {
        let wants = matches!(
            self.kind,
            RecordType::A | RecordType::AAAA | RecordType::CNAME | RecordType::ANY
        );
        // One alias only: a name with two is not valid DNS.
        if wants && !host.is_empty() && self.response.answers.is_empty() {
            let alias = RData::CNAME(CNAME(name_of(host)));
            self.response.add_answer(Record::from_rdata(self.name.clone(), 0, alias));
        }
    }

    fn soa(&self) -> Record {
        let (ns, mail) = (name_of("ns.consul."), name_of("hostmaster.consul."));
        let soa = SOA::new(ns, mail, self.view.now, 3_600, 600, 86_400, 0);
        Record::from_rdata(domain(), 0, RData::SOA(soa))
    }

    /// Says what is missing: the type, or the name.
    fn close(mut self) -> Message {
        if self.response.answers.is_empty() {
            if !self.exists {
                self.response.metadata.response_code = ResponseCode::NXDomain;
            }
            self.response.add_authority(self.soa());
        }
        self.response
    }
}

/// The instances that are in service, in the order of the seed.
fn instances<'a>(
    view: &View<'a>,
    name: &str,
    tag: Option<&str>,
    is_connect: bool,
) -> Vec<Instance<'a>> {
    let state = view.state;
    let is_up = |(_, node, service): &(&String, &NodeRecord, &ServiceRecord)| {
        State::status(node, service) != CheckStatus::Critical
    };
    let has_tag = |service: &ServiceRecord| {
        tag.is_none_or(|tag| service.tags.iter().any(|have| have.eq_ignore_ascii_case(tag)))
    };
    let mut found: Vec<Instance<'a>> = if is_connect {
        let all = state.connectable(name).filter(is_up);
        all.map(|(node, record, service)| (node.as_str(), record, service)).collect()
    } else {
        let all = state.instances(name).filter(is_up);
        all.map(|(node, record, service)| (node.as_str(), record, service)).collect()
    };
    found.retain(|(_, _, service)| has_tag(service));
    shuffle(&mut found, view.seed);
    found
}

/// Fisher and Yates, with a xorshift: order is for balance, not for secrets.
fn shuffle<T>(items: &mut [T], seed: u64) {
    if seed == 0 {
        return;
    }
    let mut random = seed;
    for last in (1..items.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let bound = last as u64 + 1;
        items.swap(last, usize::try_from(random % bound).unwrap_or(0));
    }
}

/// The metadata of a node as texts, `key=value` (RFC 1464); a key `rfc1035-…` gives its value alone.
fn meta_texts(node: &NodeRecord) -> impl Iterator<Item = RData> {
    node.meta.iter().flatten().map(|(key, value)| {
        let text = if key.starts_with("rfc1035-") {
            value.clone()
        } else {
            format!("{}={value}", key.replace('`', "``").replace('=', "`="))
        };
        // A character string holds 255 bytes (RFC 1035, 3.3).
        let parts = text.as_bytes().chunks(255);
        let parts: Vec<&[u8]> = if text.is_empty() { vec![b""] } else { parts.collect() };
        RData::TXT(TXT::from_bytes(parts))
    })
}

/// Cuts a response to what the transport and the client take; what is lost is marked with TC.
fn fit(response: &mut Message, query: &Message, transport: Transport) {
    let limit = match (transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => limits::DNS_PLAIN,
        (Transport::Udp, Some(edns)) => {
            edns.max_payload().clamp(limits::DNS_PLAIN, limits::DNS_UDP_MAX)
        }
    };
    if transport == Transport::Udp && query.edns.is_none() {
        keep(response, limits::DNS_UDP_ANSWERS);
    }
    if length(response) <= usize::from(limit) {
        return;
    }
    // What helps goes first, texts before addresses.
    response.additionals.retain(|record| record.record_type() != RecordType::TXT);
    if length(response) <= usize::from(limit) {
        return;
    }
    let (mut fits, mut fails) = (0, response.answers.len());
    while fails - fits > 1 {
        let middle = usize::midpoint(fits, fails);
        let mut trial = response.clone();
        keep(&mut trial, middle);
        if length(&trial) <= usize::from(limit) { fits = middle } else { fails = middle }
    }
    keep(response, fits);
    if length(response) > usize::from(limit) {
        response.additionals.clear();
        response.authorities.clear();
        response.metadata.truncation = true;
    }
}

/// Keeps the first answers, and of the rest what speaks of them.
fn keep(response: &mut Message, count: usize) {
    if response.answers.len() <= count {
        return;
    }
    response.answers.truncate(count);
    response.metadata.truncation = true;
    let targets: HashSet<Name> = response
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.target.clone()),
            _ => None,
        })
        .collect();
    response.additionals.retain(|record| targets.contains(&record.name));
}

/// The bytes of a response. The encoder drops what does not fit 64 KiB without a word: then it is
/// too long.
fn length(response: &Message) -> usize {
    let Ok(bytes) = response.to_vec() else { return usize::MAX };
    let count =
        |at: usize| bytes.get(at..at + 2).map(|c| usize::from(c[0]) << 8 | usize::from(c[1]));
    let additional = response.additionals.len() + usize::from(response.edns.is_some());
    let is_whole = count(6) == Some(response.answers.len())
        && count(8) == Some(response.authorities.len())
        && count(10) == Some(additional);
    if is_whole { bytes.len() } else { usize::MAX }
}
