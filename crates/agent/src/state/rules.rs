//! Consul's rules about what may be registered.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use meshx_consul_api::{Proxy, ServiceAddress, Upstream, Weights};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::limits;
use crate::refusal::{Refusal, several};

/// Refuses an address that nobody can dial.
pub(super) fn check_address(address: &str) -> Result<(), Refusal> {
    if address.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(Refusal::bad("Invalid service address"));
    }
    check_texts([address])
}

pub(super) fn check_weights(weights: Weights) -> Result<(), Refusal> {
    let text = if weights.passing < 1 {
        "Passing must be greater than 0"
    } else if weights.passing > 65_535 || weights.warning > 65_535 {
        "DNS Weight must be between 0 and 65535"
    } else {
        return Ok(());
    };
    Err(Refusal::bad(format!("Invalid Weights: {text}")))
}

pub(super) fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), String> {
    let (entries, key_size, value_size) = limits::META;
    if meta.len() > entries {
        return Err("Node metadata cannot contain more than 64 key/value pairs".to_owned());
    }
    for (key, value) in meta {
        let fail =
            |why: &str| Err(format!("Couldn't load metadata pair ('{key}', '{value}'): {why}"));
        if key.is_empty() {
            return fail("Key cannot be blank");
        }
        if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return fail("Key contains invalid characters");
        }
        if key.len() > key_size {
            return fail("Key is too long (limit: 128 characters)");
        }
        if key.starts_with("consul-") {
            return fail("Key prefix 'consul-' is reserved for internal use");
        }
        if value.len() > value_size {
            return fail("Value is too long (limit: 512 characters)");
        }
    }
    Ok(())
}

/// Refuses text of the client's own keys that is too much to keep.
pub(super) fn check_pairs(what: &str, pairs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let (entries, key_size, value_size) = limits::META;
    let fits =
        |(key, value): (&String, &String)| key.len() <= key_size && value.len() <= value_size;
    if pairs.len() > entries || !pairs.iter().all(fits) {
        return Err(Refusal::bad(format!(
            "{what} has at most {entries} keys of {key_size} bytes and values of {value_size}"
        )));
    }
    Ok(())
}

/// Refuses JSON that is too large to keep.
pub(super) fn check_size<T: Serialize>(what: &str, value: &T, limit: usize) -> Result<(), Refusal> {
    let size = serde_json::to_vec(value).map_or(usize::MAX, |text| text.len());
    if size > limit {
        return Err(Refusal::bad(format!("{what} is longer than {limit} bytes of JSON")));
    }
    Ok(())
}

/// Refuses a sidecar that says too much.
pub(super) fn check_proxy_size(proxy: &Proxy) -> Result<(), Refusal> {
    check_size("Proxy.Config", &proxy.config, limits::OPAQUE)?;
    for upstream in &proxy.upstreams {
        check_size("the Config of an upstream", &upstream.config, limits::OPAQUE)?;
    }
    check_size("Proxy", proxy, limits::PROXY)
}

/// Refuses addresses that are too many or too long.
pub(super) fn check_tagged(tagged: &BTreeMap<String, ServiceAddress>) -> Result<(), Refusal> {
    if tagged.len() > limits::TAGGED_ADDRESSES {
        let most = limits::TAGGED_ADDRESSES;
        return Err(Refusal::bad(format!("there are more than {most} tagged addresses")));
    }
    for (tag, address) in tagged {
        check_texts([tag, &address.address])?;
    }
    Ok(())
}

pub(super) fn check_texts<T: AsRef<str>>(
    texts: impl IntoIterator<Item = T>,
) -> Result<(), Refusal> {
    let mut count = 0;
    for text in texts {
        count += 1;
        if text.as_ref().len() > limits::TEXT {
            return Err(Refusal::bad(format!("a text is longer than {} bytes", limits::TEXT)));
        }
    }
    if count > limits::TAGS {
        return Err(Refusal::bad(format!("there are more than {} tags", limits::TAGS)));
    }
    Ok(())
}

/// Consul's rules for a `connect-proxy`.
pub(super) fn check_proxy(proxy: &Proxy, port: u16, native: bool) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    if proxy.destination_service_name.is_empty() {
        problems.push(
            "Proxy.DestinationServiceName must be non-empty for Connect proxy services".to_owned(),
        );
    }
    if port == 0 {
        problems.push("Port must be set for a Connect proxy".to_owned());
    }
    if native {
        problems.push("A Proxy cannot also be Connect Native, only typical services".to_owned());
    }
    let mut binds = HashSet::new();
    let mut names = HashSet::new();
    for upstream in &proxy.upstreams {
        if let Some(problem) = upstream_problem(upstream) {
            problems.push(problem);
            continue;
        }
        let host = Some(upstream.local_bind_address.as_str()).filter(|host| !host.is_empty());
        let bind = format!("{}:{}", host.unwrap_or("127.0.0.1"), upstream.local_bind_port);
        let name = format!(
            "[type=\"{}\", name=\"{}\", namespace=\"{}\", datacenter=\"{}\"]",
            upstream_type(upstream),
            upstream.destination_name,
            upstream.destination_namespace,
            upstream.datacenter.as_deref().unwrap_or_default()
        );
        if !binds.insert(bind.clone()) {
            problems.push(format!(
                "upstreams cannot contain duplicates by local bind address and port; \"{bind}\" \
                 is specified twice"
            ));
        } else if !names.insert(name.clone()) {
            problems.push(format!("upstreams cannot contain duplicates of {name}"));
        }
    }
    if proxy.upstreams.len() > limits::UPSTREAMS {
        problems.push(format!("a sidecar has at most {} upstreams", limits::UPSTREAMS));
    }
    if problems.is_empty() { Ok(()) } else { Err(Refusal::bad(several(&problems))) }
}

fn upstream_problem(upstream: &Upstream) -> Option<String> {
    if !matches!(upstream_type(upstream), "service" | "prepared_query") {
        return Some(format!(
            "unknown upstream destination type: \"{}\"",
            upstream.destination_type
        ));
    }
    if upstream.destination_name.is_empty() {
        return Some("upstream destination name cannot be empty".to_owned());
    }
    (upstream.local_bind_port == 0).then(|| "upstream local bind port cannot be zero".to_owned())
}

fn upstream_type(upstream: &Upstream) -> &str {
    if upstream.destination_type.is_empty() { "service" } else { &upstream.destination_type }
}

/// Fills in what every answer of Consul carries.
pub(super) fn complete_proxy(proxy: &mut Proxy) {
    let is_beside = !proxy.destination_service_id.is_empty() || proxy.local_service_port != 0;
    if is_beside && proxy.local_service_address.is_empty() {
        "127.0.0.1".clone_into(&mut proxy.local_service_address);
    }
    proxy.mesh_gateway.get_or_insert_default();
    proxy.expose.get_or_insert_default();
    for upstream in &mut proxy.upstreams {
        upstream_type(upstream).to_owned().clone_into(&mut upstream.destination_type);
        upstream.mesh_gateway.get_or_insert_default();
        upstream.datacenter = upstream.datacenter.take().filter(|dc| !dc.is_empty());
        let is_empty =
            |config: &Value| config.is_null() || config.as_object().is_some_and(Map::is_empty);
        upstream.config = upstream.config.take().filter(|config| !is_empty(config));
    }
}

/// Consul names an address that is an IP in four more ways.
pub(super) fn tagged_addresses(
    given: &BTreeMap<String, ServiceAddress>,
    address: &str,
    port: u16,
) -> BTreeMap<String, ServiceAddress> {
    let mut tagged = given.clone();
    if let Ok(ip) = address.parse::<IpAddr>() {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        for place in ["lan", "wan"] {
            let own = ServiceAddress { address: address.to_owned(), port };
            tagged.entry(format!("{place}_{family}")).or_insert(own);
        }
    }
    tagged
}
