//! The names of `consul.`: what they ask for, and how they are built.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

use crate::state::State;

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// `consul.`
    Apex,
    /// `NAME.service`, `TAG.NAME.service`, `_NAME._TAG.service` (RFC 2782).
    Service { name: String, tag: Option<String> },
    /// `NAME.connect`
    Connect(String),
    /// `NAME.node`
    Node(String),
    /// `HEX.addr`
    Address(IpAddr),
    /// `…in-addr.arpa`, `…ip6.arpa`
    Reverse(IpAddr),
    /// Below `consul.`, but nothing.
    Unknown,
    /// Not ours.
    Foreign,
}

impl Question {
    /// Reads a name. Letters lose their case, labels that are not UTF-8 are nobody's.
    pub(super) fn read(name: &Name, state: &State) -> Self {
        let labels: Option<Vec<String>> = name
            .iter()
            .map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase))
            .collect();
        let Some(labels) = labels else { return Self::Unknown };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [rest @ .., "in-addr", "arpa"] => reverse_v4(rest).map_or(Self::Unknown, Self::Reverse),
            [rest @ .., "ip6", "arpa"] => reverse_v6(rest).map_or(Self::Unknown, Self::Reverse),
            [rest @ .., "consul"] => Self::below(rest, state),
            _ => Self::Foreign,
        }
    }

    fn below(labels: &[&str], state: &State) -> Self {
        if labels.is_empty() {
            return Self::Apex;
        }
        let is_kind = |label: &&str| {
            matches!(*label, "service" | "connect" | "node" | "addr" | "query" | "ingress")
        };
        let Some(at) = labels.iter().rposition(is_kind) else {
            return Self::Unknown;
        };
        let (what, kind, suffix) = (&labels[..at], labels[at], &labels[at + 1..]);
        let is_local = match suffix {
            [] => true,
            [datacenter] => state.identity.datacenter.eq_ignore_ascii_case(datacenter),
            _ => false,
        };
        if !is_local || what.is_empty() {
            return Self::Unknown;
        }
        match (kind, what) {
            ("service", [name, tag]) if name.starts_with('_') && tag.starts_with('_') => {
                let tag = Some(tag[1..].to_owned()).filter(|tag| tag != "tcp");
                Self::Service { name: name[1..].to_owned(), tag }
            }
            ("service", _) => {
                let whole = what.join(".");
                let (name, tags) = match what.split_last() {
                    // An Erlang node on a host with dots is a service of this name.
                    Some(_) if state.instances(&whole).next().is_some() => {
                        return Self::Service { name: whole, tag: None };
                    }
                    Some((name, tags)) => (*name, tags),
                    None => return Self::Unknown,
                };
                let tag = (!tags.is_empty()).then(|| tags.join("."));
                Self::Service { name: name.to_owned(), tag }
            }
            ("connect", _) => Self::Connect(what.join(".")),
            ("node", _) => Self::Node(what.join(".")),
            ("addr", [hex]) => from_hex(hex).map_or(Self::Unknown, Self::Address),
            _ => Self::Unknown,
        }
    }
}

/// `consul.`
pub(super) fn domain() -> Name {
    name_of("consul.")
}

/// A name from text; the root where it is no name.
pub(super) fn name_of(text: &str) -> Name {
    let labels = text.trim_end_matches('.').split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

/// `NODE.node.DC.consul.`
pub(super) fn node_name(node: &str, datacenter: &str) -> Name {
    name_of(&format!("{node}.node.{datacenter}.consul."))
}

/// `SERVICE.service.consul.`
pub(super) fn service_name(service: &str) -> Name {
    name_of(&format!("{service}.service.consul."))
}

/// `7f000001.addr.DC.consul.`
pub(super) fn addr_name(ip: IpAddr, datacenter: &str) -> Name {
    let hex: String = match ip {
        IpAddr::V4(ip) => ip.octets().iter().map(|byte| format!("{byte:02x}")).collect(),
        IpAddr::V6(ip) => ip.octets().iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    name_of(&format!("{hex}.addr.{datacenter}.consul."))
}

fn from_hex(hex: &str) -> Option<IpAddr> {
    if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        8 => u32::from_str_radix(hex, 16).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        32 => u128::from_str_radix(hex, 16).ok().map(|bits| Ipv6Addr::from_bits(bits).into()),
        _ => None,
    }
}

fn reverse_v4(labels: &[&str]) -> Option<IpAddr> {
    let [d, c, b, a] = labels else { return None };
    let octets = [a, b, c, d].map(|label| label.parse::<u8>().ok());
    let [Some(a), Some(b), Some(c), Some(d)] = octets else { return None };
    Some(Ipv4Addr::new(a, b, c, d).into())
}

fn reverse_v6(labels: &[&str]) -> Option<IpAddr> {
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    let hex: String = labels.iter().rev().copied().collect();
    from_hex(&hex)
}
