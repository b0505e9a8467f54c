//! What a stranger sends, as one function of bytes, for the fuzz target `agent_request`. Nothing of
//! it is part of the library: it is compiled for the fuzzer and for tests only.

use std::time::{Instant, SystemTime};

use hickory_proto::op::Message;
use hyper::Uri;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use meshx_consul_api::{
    AgentCheckRegistration, AgentServiceRegistration, AuthorizeRequest, CaConfiguration,
    CatalogDeregistration, CatalogRegistration, CheckUpdate, IntentionDefinition, ServiceConnect,
    SidecarService,
};
use meshx_core::{Action, IntentionName, ServiceName, SpiffeId};

use crate::dns::{self, Transport, View};
use crate::http::filter::{Filter, Kind};
use crate::http::options::Options;
use crate::http::request::{Query, decode_path};
use crate::http::route::Route;
use crate::http::{Site, decode};
use crate::state::{Authority, Identity, IntentionChange, Intentions, State};

/// The first byte says what the rest is: `D` a DNS message over UDP, `T` one over TCP, `A` an origin
/// form of HTTP with a line of `Host` and `Origin`, else `PATH?QUERY`, a line feed and a body.
pub fn agent_request(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b'D' => ask_dns(rest, Transport::Udp),
        b'T' => ask_dns(rest, Transport::Tcp),
        b'A' => ask_site(rest),
        _ => ask_http(rest),
    }
}

fn state() -> Option<State> {
    let now = SystemTime::now();
    let identity = Identity {
        node: "n1".to_owned(),
        node_id: "11111111-2222-4333-8444-555555555555".to_owned(),
        address: "127.0.0.1".to_owned(),
        datacenter: "dc1".to_owned(),
        server_port: 8300,
    };
    let authority = Authority::generate("ab.consul".parse().ok()?, "dc1", 1, now).ok()?;
    let intentions = Intentions::new(Vec::new(), Action::Allow).ok()?;
    let mut state = State::new(identity, intentions, authority, 1, Instant::now());
    let sidecar_service = Some(Box::new(SidecarService::default()));
    let web = AgentServiceRegistration {
        name: "web".to_owned(),
        port: Some(80),
        tags: vec!["v1".to_owned()],
        connect: Some(ServiceConnect { sidecar_service, ..ServiceConnect::default() }),
        ..AgentServiceRegistration::default()
    };
    state.register(web, false, Instant::now()).ok()?;
    Some(state)
}

fn ask_dns(bytes: &[u8], transport: Transport) {
    let Ok(query) = Message::from_vec(bytes) else { return };
    let Some(state) = state() else { return };
    let view = View { state: &state, now: 1_795_159_251, seed: 0 };
    let response = dns::answer(&query, &view, transport);
    assert_eq!(response.metadata.id, query.metadata.id);
    if let Ok(bytes) = response.to_vec() {
        assert!(transport == Transport::Tcp || bytes.len() <= 4_096, "larger than a datagram");
        assert!(Message::from_vec(&bytes).is_ok(), "an answer that nobody can read");
    }
}

fn ask_site(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for (name, line) in [HOST, ORIGIN].into_iter().zip(lines.by_ref()) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let uri = lines.next().and_then(|line| Uri::try_from(line).ok()).unwrap_or_default();
    let site = Site::new(([127, 0, 0, 1], 8500).into(), [127, 0, 0, 1].into(), "n1");
    let is_answered = site.check(&uri, &headers).is_ok();
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let evil = b"evil.example";
    assert!(!is_answered || !host.starts_with(evil), "another site is answered");
}

fn ask_http(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (target, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let Ok(target) = std::str::from_utf8(target) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (Ok(path), Ok(query)) = (decode_path(path), Query::parse(query)) else { return };
    let Some(route) = Route::of(&path) else { return };
    assert!(!route.allow().is_empty(), "{route:?} takes no method");
    let _options = Options::parse(&query);
    let Some(mut state) = state() else { return };
    if let Some(text) = query.filled("filter") {
        filter(text, &state);
    }
    let before = state.counts();
    write(route, body, &mut state);
    let now = Instant::now();
    if let Some(at) = state.next_deadline() {
        state.tick(at);
    }
    let _effects = state.take_effects();
    for (id, service) in state.agent_services() {
        serde_json::to_vec(&service).expect("what is kept can be told");
        state.deregister(&id, now);
    }
    for (id, check) in state.agent_checks() {
        serde_json::to_vec(&check).expect("what is kept can be told");
        state.deregister_check(&id, now);
    }
    if !matches!(route, Route::CatalogRegister) {
        assert_eq!(state.counts(), (1, 1), "of {before:?}, something was not taken out");
    }
}

fn filter(text: &str, state: &State) {
    for kind in [
        Kind::AgentService,
        Kind::Check,
        Kind::HealthEntry,
        Kind::CatalogService,
        Kind::Node,
        Kind::NodeService,
        Kind::Intention,
    ] {
        if let Ok(filter) = Filter::parse(text, kind) {
            for service in state.agent_services().values() {
                let _matches = filter.matches(service);
            }
        }
    }
}

fn write(route: Route<'_>, body: &[u8], state: &mut State) {
    let now = Instant::now();
    match route {
        Route::AgentServiceRegister => {
            if let Ok(request) = decode::decode::<AgentServiceRegistration>(body, &decode::SERVICE)
            {
                let again = request.clone();
                if state.register(request, true, now).is_ok() {
                    assert!(state.register(again, true, now).is_ok(), "it was taken before");
                }
            }
        }
        Route::AgentCheckRegister => {
            if let Ok(request) =
                decode::decode::<AgentCheckRegistration>(body, &decode::AGENT_CHECK)
            {
                let _result = state.register_check(request, now);
            }
        }
        Route::AgentCheckUpdate(id) => {
            if let Ok(update) = decode::decode::<CheckUpdate>(body, &decode::CHECK_UPDATE) {
                let status = meshx_consul_api::CheckStatus::from_word(&update.status);
                let _result = state.update_ttl(id, status.unwrap_or_default(), &update.output, now);
            }
        }
        Route::CatalogRegister => {
            let schema = &decode::CATALOG_REGISTRATION;
            if let Ok(request) = decode::decode::<CatalogRegistration>(body, schema) {
                let _result = state.catalog_register(&request, now);
            }
        }
        Route::CatalogDeregister => {
            let schema = &decode::CATALOG_DEREGISTRATION;
            if let Ok(request) = decode::decode::<CatalogDeregistration>(body, schema) {
                let _result = state.catalog_deregister(&request, now);
            }
        }
        Route::Intentions | Route::Intention(_) | Route::IntentionsExact => {
            if let Ok(definition) = decode::decode::<IntentionDefinition>(body, &decode::INTENTION)
            {
                let id = "00000000-0000-4000-8000-000000000001".to_owned();
                let change = IntentionChange::Upsert { id, definition };
                let _result = state.intentions.apply(change, 9, SystemTime::now());
                for intention in state.intentions.list() {
                    assert!(intention.rule().is_ok(), "an intention that states no rule");
                }
            }
        }
        Route::CaConfiguration => {
            if let Ok(request) = decode::decode::<CaConfiguration>(body, &decode::CA_CONFIGURATION)
                && let Ok(change) = state.authority.prepare(request, 9, SystemTime::now())
            {
                let State { authority, topics, .. } = state;
                authority.commit(change, topics, 9);
                if let Ok(service) = "web".parse::<ServiceName>() {
                    let _leaf = authority.leaf(&service, topics, SystemTime::now());
                }
            }
        }
        Route::AgentAuthorize => {
            if let Ok(request) = decode::decode::<AuthorizeRequest>(body, &decode::AUTHORIZE) {
                let _id = request.client_cert_uri.parse::<SpiffeId>();
                if let Ok(name) = request.target.parse::<IntentionName>() {
                    let _action = state.intentions.judge_names(&name, &name);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The target on each of its seeds and on some of their beginnings, on stable.
    #[test]
    fn agent_request() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/agent_request");
        let mut count = 0;
        for seed in std::fs::read_dir(&folder).unwrap() {
            let seed = std::fs::read(seed.unwrap().path()).unwrap();
            for end in (0..seed.len()).step_by(7).chain([seed.len()]) {
                super::agent_request(&seed[..end]);
            }
            count += 1;
        }
        assert!(count >= 10, "only {count} seeds in {}", folder.display());
    }
}
