//! Scenarios of the registry, in a time of their own.

use std::time::{Duration, Instant, SystemTime};

use meshx_consul_api::{
    AgentServiceRegistration, CatalogDeregistration, CatalogRegistration, CheckDefinition,
    CheckStatus, GoDuration, IntentionDefinition, ServiceConnect, SidecarService,
};
use meshx_core::Action;
use proptest::prelude::*;
use serde_json::json;

use super::record::CheckKind;
use super::*;

/// A registry with a clock that the test moves.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Instant,
}

impl World {
    pub(crate) fn new() -> Self {
        let identity = Identity {
            node: "n1".to_owned(),
            node_id: "11111111-2222-4333-8444-555555555555".to_owned(),
            address: "127.0.0.1".to_owned(),
            datacenter: "dc1".to_owned(),
            server_port: 8300,
        };
        let trust_domain = "ab.consul".parse().unwrap();
        let authority = Authority::generate(trust_domain, "dc1", 1, SystemTime::now()).unwrap();
        let intentions = Intentions::new(Vec::new(), Action::Allow).unwrap();
        let now = Instant::now();
        Self { state: State::new(identity, intentions, authority, 1, now), now }
    }

    pub(crate) fn register(&mut self, service: AgentServiceRegistration) {
        self.state.register(service, false, self.now).unwrap();
    }

    fn pass(&mut self, check: &str) {
        self.state.update_ttl(check, CheckStatus::Passing, "", self.now).unwrap();
    }

    /// Lets time pass, doing what is due at its moment.
    fn sleep(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= end) {
            self.now = at;
            self.state.tick(at);
        }
        self.now = end;
    }

    fn status(&self, check: &str) -> (CheckStatus, &str) {
        let check = &self.state.local().checks[check];
        (check.status, &check.output)
    }

    fn index(&self, topic: &Topic) -> u64 {
        self.state.topics.index(topic)
    }

    fn services(&self) -> Vec<String> {
        self.state.agent_services().into_keys().collect()
    }
}

pub(crate) fn service(name: &str) -> AgentServiceRegistration {
    AgentServiceRegistration { name: name.to_owned(), ..AgentServiceRegistration::default() }
}

fn ttl(seconds: u64) -> CheckDefinition {
    let ttl = Some(GoDuration::from_secs(seconds));
    CheckDefinition { ttl, ..CheckDefinition::default() }
}

pub(crate) fn with_sidecar(mut service: AgentServiceRegistration) -> AgentServiceRegistration {
    let sidecar_service = Some(Box::new(SidecarService::default()));
    service.connect = Some(ServiceConnect { sidecar_service, ..ServiceConnect::default() });
    service
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_ttl_expires_and_is_renewed() {
    let mut world = World::new();
    world.register(AgentServiceRegistration { check: Some(ttl(10)), ..service("web") });
    assert_eq!(world.status("service:web"), (CheckStatus::Critical, ""));
    for _ in 0..5 {
        world.pass("service:web");
        world.sleep(9 * SECOND);
    }
    assert_eq!(world.status("service:web").0, CheckStatus::Passing);
    world.sleep(SECOND);
    assert_eq!(world.status("service:web"), (CheckStatus::Critical, "TTL expired"));
    world.state.update_ttl("service:web", CheckStatus::Warning, "hm", world.now).unwrap();
    world.sleep(10 * SECOND);
    let output = "TTL expired (last output before timeout follows): hm";
    assert_eq!(world.status("service:web"), (CheckStatus::Critical, output));
    assert_eq!(world.state.next_deadline(), None);
}

#[test]
fn a_service_that_is_critical_for_too_long_is_removed_with_its_sidecar() {
    let mut world = World::new();
    let after = Some(GoDuration::from_secs(90));
    let check = CheckDefinition { deregister_critical_service_after: after, ..ttl(10) };
    world.register(with_sidecar(AgentServiceRegistration { check: Some(check), ..service("web") }));
    world.pass("service:web");
    world.sleep(99 * SECOND);
    assert_eq!(world.services(), ["web", "web-sidecar-proxy"]);
    world.pass("service:web");
    world.sleep(99 * SECOND);
    assert_eq!(world.services(), ["web", "web-sidecar-proxy"], "a pass starts the count anew");
    world.sleep(SECOND);
    assert!(world.services().is_empty());
    assert_eq!(world.state.counts(), (1, 1), "only `consul` and its check are left");
    assert_eq!(world.state.next_deadline(), None);
}

#[test]
fn registering_again_is_no_news_about_health() {
    let mut world = World::new();
    let web = AgentServiceRegistration { check: Some(ttl(10)), ..service("web") };
    world.register(web.clone());
    world.pass("service:web");
    let before = world.index(&Topic::Service("web".to_owned()));
    world.sleep(5 * SECOND);
    world.register(web);
    assert_eq!(world.status("service:web").0, CheckStatus::Passing);
    assert_eq!(world.index(&Topic::Service("web".to_owned())), before, "nobody is woken");
    world.sleep(9 * SECOND);
    assert_eq!(world.status("service:web").0, CheckStatus::Passing, "the TTL began anew");
}

#[test]
fn an_alias_follows_its_service_at_once() {
    let mut world = World::new();
    world.register(with_sidecar(AgentServiceRegistration {
        check: Some(ttl(10)),
        ..service("web")
    }));
    let alias = "service:web-sidecar-proxy:2";
    let failing = "Aliased check \"Service 'web' check\" failing: ";
    assert_eq!(world.status(alias), (CheckStatus::Critical, failing));
    world.pass("service:web");
    assert_eq!(world.status(alias), (CheckStatus::Passing, "All checks passing."));
    world.state.node_maintenance(Some("patching"), world.now);
    assert_eq!(world.status(alias).0, CheckStatus::Critical);
    world.state.node_maintenance(None, world.now);
    assert_eq!(world.status(alias).0, CheckStatus::Passing);
    world.state.service_maintenance("web", Some(""), world.now).unwrap();
    assert_eq!(world.status(alias).0, CheckStatus::Critical);
    world.state.service_maintenance("web", None, world.now).unwrap();
    world.state.deregister_check("service:web", world.now);
    assert_eq!(world.status(alias), (CheckStatus::Passing, "No checks found."));
}

#[test]
fn aliases_in_a_circle_end() {
    let mut world = World::new();
    for (name, follows) in [("a", "b"), ("b", "a")] {
        let alias_service = Some(follows.to_owned());
        let check = CheckDefinition { alias_service, ..CheckDefinition::default() };
        world.register(AgentServiceRegistration { check: Some(check), ..service(name) });
    }
    for _ in 0..100 {
        world.state.node_maintenance(Some("on"), world.now);
        world.state.node_maintenance(None, world.now);
    }
    assert!(world.status("service:a").1.len() <= 5_000);
}

#[test]
fn a_sidecar_takes_consuls_defaults() {
    let mut world = World::new();
    let web = AgentServiceRegistration {
        id: Some("web-1".to_owned()),
        port: Some(80),
        address: Some("10.0.0.1".to_owned()),
        tags: vec!["v1".to_owned()],
        ..service("web")
    };
    world.register(with_sidecar(web.clone()));
    let sidecar = world.state.agent_service("web-1-sidecar-proxy").unwrap();
    let proxy = sidecar.proxy.unwrap();
    assert_eq!((sidecar.service.as_str(), sidecar.port), ("web-sidecar-proxy", 21000));
    assert_eq!((sidecar.address.as_str(), sidecar.tags), ("10.0.0.1", vec!["v1".to_owned()]));
    assert_eq!((proxy.destination_service_id.as_str(), proxy.local_service_port), ("web-1", 80));
    assert_eq!(proxy.local_service_address, "127.0.0.1");
    let Some(Effect::Start { check, probe, .. }) = world.state.take_effects().pop() else {
        panic!("the sidecar is probed");
    };
    assert_eq!(check, "service:web-1-sidecar-proxy:1");
    assert_eq!(probe.target, Target::Tcp("10.0.0.1:21000".to_owned()));
    world.register(with_sidecar(service("other")));
    assert_eq!(world.state.agent_service("other-sidecar-proxy").unwrap().port, 21001);
    world.register(with_sidecar(web));
    assert_eq!(world.state.agent_service("web-1-sidecar-proxy").unwrap().port, 21000, "it stays");
    world.state.deregister("web-1", world.now);
    assert_eq!(world.services(), ["other", "other-sidecar-proxy"]);
}

#[test]
fn sidecar_ports_run_out_in_consuls_words() {
    let mut world = World::new();
    for n in 0..256 {
        world.register(with_sidecar(service(&format!("s{n}"))));
    }
    let error = world.state.register(with_sidecar(service("one-more")), false, world.now);
    assert!(error.unwrap_err().text.contains("none left in the configured range [21000, 21255]"));
    assert!(!world.services().contains(&"one-more".to_owned()), "nothing was half done");
}

#[test]
fn a_write_wakes_only_what_it_changes() {
    let mut world = World::new();
    world
        .register(with_sidecar(AgentServiceRegistration { check: Some(ttl(9)), ..service("web") }));
    world.register(service("db"));
    let watched = [
        Topic::Service("db".to_owned()),
        Topic::Connect("db".to_owned()),
        Topic::Nodes,
        Topic::Intentions,
        Topic::Roots,
        Topic::Service("nobody".to_owned()),
    ];
    let all = |world: &World| watched.clone().map(|topic| world.index(&topic));
    let before = all(&world);
    let connect = world.index(&Topic::Connect("web".to_owned()));
    let catalog = world.index(&Topic::Services);
    world.pass("service:web");
    assert_eq!(all(&world), before);
    assert!(world.index(&Topic::Connect("web".to_owned())) > connect, "the alias turned");
    assert_eq!(world.index(&Topic::Services), catalog, "no service came or went");
    world.register(service("cache"));
    assert_eq!(all(&world), before);
    assert!(world.index(&Topic::Services) > catalog);
    let checks = world.index(&Topic::Checks);
    world.state.update_ttl("service:web", CheckStatus::Passing, "still well", world.now).unwrap();
    assert_eq!(world.index(&Topic::Checks), checks, "a heartbeat is no news");
    assert_eq!(world.status("service:web").1, "still well");
}

#[test]
fn no_index_ever_falls() {
    let mut world = World::new();
    let topic = || Topic::Service("web".to_owned());
    let mut last = world.index(&topic());
    for _ in 0..3 {
        world.register(AgentServiceRegistration { check: Some(ttl(9)), ..service("web") });
        assert!(world.index(&topic()) > last);
        last = world.index(&topic());
        world.state.deregister("web", world.now);
        assert!(world.index(&topic()) > last);
        last = world.index(&topic());
    }
    assert_eq!(world.state.instances("web").count(), 0);
}

#[test]
fn names_are_checked_at_the_border() {
    let mut world = World::new();
    for name in ["*", "a b", "a/b", "two\nlines", ".dot", &"x".repeat(256)] {
        let refused = world.state.register(service(name), false, world.now).unwrap_err();
        assert_eq!(refused.status, 400, "{name:?}");
    }
    world.register(service("node1@my-host.example.org"));
    world.register(service("node1@fdaa::3"));
    let mut consul = service("x");
    consul.id = Some("consul".to_owned());
    assert!(world.state.register(consul, false, world.now).is_err(), "the agent's own");
}

#[test]
fn replaced_checks_go() {
    let mut world = World::new();
    world.register(AgentServiceRegistration { checks: vec![ttl(9), ttl(9)], ..service("web") });
    let one = AgentServiceRegistration { checks: vec![ttl(9)], ..service("web") };
    world.register(one.clone());
    let ids = |world: &World| world.state.agent_checks().into_keys().collect::<Vec<_>>();
    assert_eq!(ids(&world), ["service:web", "service:web:1", "service:web:2"]);
    world.state.register(one, true, world.now).unwrap();
    assert_eq!(ids(&world), ["service:web"]);
}

#[test]
fn probe_results_of_an_earlier_definition_are_ignored() {
    let mut world = World::new();
    let tcp = |port: u16| CheckDefinition {
        tcp: Some(format!("127.0.0.1:{port}")),
        interval: Some(GoDuration::from_secs(10)),
        failures_before_critical: 2,
        ..CheckDefinition::default()
    };
    world.register(AgentServiceRegistration { check: Some(tcp(1)), ..service("web") });
    let [Effect::Start { generation: first, .. }] = world.state.take_effects()[..] else {
        panic!("one probe starts");
    };
    world.register(AgentServiceRegistration { check: Some(tcp(2)), ..service("web") });
    let effects = world.state.take_effects();
    assert!(matches!(effects[0], Effect::Stop { .. }));
    let Effect::Start { generation, .. } = effects[1] else { panic!("another probe starts") };
    let (state, now) = (&mut world.state, world.now);
    let mut report = |generation, status| state.report("service:web", generation, status, "", now);
    assert_eq!(report(first, CheckStatus::Passing), None);
    assert_eq!(report(generation, CheckStatus::Passing), Some(CheckStatus::Passing));
    assert_eq!(
        report(generation, CheckStatus::Critical),
        Some(CheckStatus::Passing),
        "one is not two"
    );
    assert_eq!(report(generation, CheckStatus::Critical), Some(CheckStatus::Critical));
    world.state.deregister("web", world.now);
    assert!(matches!(world.state.take_effects()[..], [Effect::Stop { .. }]));
}

#[test]
fn nodes_without_an_agent_come_and_go() {
    let mut world = World::new();
    let request: CatalogRegistration = serde_json::from_value(json!({
        "Node": "ext1", "Address": "10.0.0.9",
        "Service": {"ID": "db1", "Service": "extdb", "Port": 5432},
        "Check": {"CheckID": "c1", "Status": "passing", "ServiceID": "db1"},
    }))
    .unwrap();
    world.state.catalog_register(&request, world.now).unwrap();
    let entries: Vec<_> = world
        .state
        .instances("EXTDB")
        .map(|(node, record, service)| world.state.entry_view(node, record, service))
        .collect();
    assert_eq!((entries[0].host(), entries[0].service.port), ("10.0.0.9", 5432));
    assert_eq!(entries[0].checks[0].service_name, "extdb");
    let before = world.index(&Topic::Service("extdb".to_owned()));
    world.state.catalog_register(&request, world.now).unwrap();
    assert_eq!(world.index(&Topic::Service("extdb".to_owned())), before, "the same again");
    let own = CatalogRegistration { node: "n1".to_owned(), ..request };
    assert_eq!(world.state.catalog_register(&own, world.now).unwrap_err().status, 400);
    let gone = CatalogDeregistration { node: "ext1".to_owned(), ..Default::default() };
    world.state.catalog_deregister(&gone, world.now).unwrap();
    assert_eq!(world.state.nodes().len(), 1);
    assert_eq!(world.state.counts(), (1, 1));
    assert!(world.index(&Topic::Service("extdb".to_owned())) > before);
}

#[test]
fn bounds_hold() {
    let mut world = World::new();
    for n in 0..crate::limits::SERVICES - 1 {
        world.register(service(&format!("s{n}")));
    }
    let full = world.state.register(service("one-more"), false, world.now).unwrap_err();
    assert_eq!(full.status, 503);
    world.register(service("s1"));
    world.state.deregister("s1", world.now);
    world.register(service("one-more"));
}

#[test]
fn a_leaf_is_the_same_until_two_thirds_of_its_life_or_a_rotation() {
    let mut world = World::new();
    let web = "web".parse().unwrap();
    let start = SystemTime::now();
    let hour = Duration::from_hours(1);
    let mut leaf = |at| {
        let State { authority, topics, .. } = &mut world.state;
        authority.leaf(&web, topics, at).unwrap().leaf
    };
    let first = leaf(start);
    assert_eq!(leaf(start + 47 * hour), first);
    let second = leaf(start + 49 * hour);
    assert!(second.modify_index > first.modify_index);
    assert_ne!(second.serial_number, first.serial_number);
    let request =
        serde_json::from_value(json!({"Provider": "consul", "Config": {"PrivateKey": ""}}));
    let change = world.state.authority.prepare(request.unwrap(), 99, start).unwrap();
    let State { authority, topics, .. } = &mut world.state;
    authority.commit(change, topics, 99);
    let third = authority.leaf(&web, topics, start + 49 * hour).unwrap().leaf;
    assert_eq!(third.cert_pem.matches("BEGIN CERTIFICATE").count(), 2, "leaf and bridge");
    let roots = authority.roots().roots;
    assert_eq!(roots.iter().map(|root| root.active).collect::<Vec<_>>(), [false, true]);
    assert_eq!(world.index(&Topic::Roots), 99);
}

#[test]
fn roots_are_bounded_and_retire() {
    let mut world = World::new();
    let rotate = |world: &mut World, at: SystemTime| {
        let request = json!({"Provider": "consul", "Config": {"PrivateKey": ""}});
        let request = serde_json::from_value(request).unwrap();
        let change = world.state.authority.prepare(request, 9, at)?;
        let State { authority, topics, .. } = &mut world.state;
        authority.commit(change, topics, 9);
        Ok::<_, crate::refusal::Refusal>(())
    };
    let start = SystemTime::now();
    for _ in 1..crate::limits::ROOTS {
        rotate(&mut world, start).unwrap();
    }
    assert!(rotate(&mut world, start).is_err());
    rotate(&mut world, start + Duration::from_hours(145)).unwrap();
    assert_eq!(world.state.authority.roots().roots.len(), 2);
}

#[test]
fn intentions_in_consuls_order_and_words() {
    let mut intentions = Intentions::new(Vec::new(), Action::Allow).unwrap();
    let mut id = 0;
    let mut create = |source: &str, destination: &str, action: &str| {
        id += 1;
        let definition = IntentionDefinition {
            source_name: source.to_owned(),
            destination_name: destination.to_owned(),
            action: action.to_owned(),
            ..IntentionDefinition::default()
        };
        let id = format!("00000000-0000-4000-8000-{id:012}");
        let change = IntentionChange::Create { id, definition };
        intentions.apply(change, id_index(), SystemTime::now()).map_err(|refusal| refusal.text)
    };
    create("*", "*", "deny").unwrap();
    create("web", "*", "deny").unwrap();
    create("*", "db", "deny").unwrap();
    create("web", "db", "allow").unwrap();
    assert_eq!(
        create("web", "db", "deny").unwrap_err(),
        "duplicate intention found: ALLOW default/web => default/db (ID: \
         00000000-0000-4000-8000-000000000004, Precedence: 9)"
    );
    assert_eq!(
        create("we*", "", "maybe").unwrap_err(),
        "3 errors occurred:\n\t* SourceName: wildcard character '*' cannot be used with partial \
         values\n\t* DestinationName must be set\n\t* Action must be set to 'allow' or 'deny'\n\n"
    );
    let order: Vec<u8> = intentions.list().map(|i| i.precedence).collect();
    assert_eq!(order, [9, 8, 6, 5]);
    let judge = |source: &str, destination: &str| {
        let (verdict, record) =
            intentions.judge(&source.parse().unwrap(), &destination.parse().unwrap());
        (verdict.is_allowed(), record.map(|record| record.precedence))
    };
    assert_eq!(judge("web", "db"), (true, Some(9)));
    assert_eq!(judge("web", "x"), (false, Some(6)));
    assert_eq!(judge("x", "db"), (false, Some(8)));
    assert_eq!(judge("x", "y"), (false, Some(5)));
    assert_eq!(intentions.matching("db", false).len(), 4);
    assert_eq!(intentions.matching("web", true).len(), 4);
    assert_eq!(intentions.matching("x", true).len(), 2);
}

fn id_index() -> u64 {
    7
}

/// What a client may do, over few enough names that everything meets everything.
#[derive(Clone, Copy, Debug)]
enum Step {
    Register { name: u8, id: u8, sidecar: bool, alias: Option<u8>, ttl: u8, replace: bool },
    Deregister(u8),
    Check { id: u8, service: Option<u8> },
    DeregisterCheck(u8),
    Update { check: u8, status: u8 },
    Maintain { service: Option<u8>, on: bool },
    CatalogRegister { node: u8, name: u8, check: bool },
    CatalogDeregister { node: u8, what: u8 },
    Report { check: u8, status: u8 },
    Sleep(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..4_u8;
    prop_oneof![
        (n(), n(), any::<bool>(), proptest::option::of(n()), n(), any::<bool>()).prop_map(
            |(name, id, sidecar, alias, ttl, replace)| Step::Register {
                name,
                id,
                sidecar,
                alias,
                ttl,
                replace
            }
        ),
        n().prop_map(Step::Deregister),
        (n(), proptest::option::of(n())).prop_map(|(id, service)| Step::Check { id, service }),
        n().prop_map(Step::DeregisterCheck),
        (n(), 0..3_u8).prop_map(|(check, status)| Step::Update { check, status }),
        (proptest::option::of(n()), any::<bool>())
            .prop_map(|(service, on)| Step::Maintain { service, on }),
        (n(), n(), any::<bool>()).prop_map(|(node, name, check)| Step::CatalogRegister {
            node,
            name,
            check
        }),
        (n(), 0..3_u8).prop_map(|(node, what)| Step::CatalogDeregister { node, what }),
        (n(), 0..3_u8).prop_map(|(check, status)| Step::Report { check, status }),
        (0..120_u8).prop_map(Step::Sleep),
    ]
}

const STATES: [CheckStatus; 3] =
    [CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical];

fn take(world: &mut World, step: Step) {
    let now = world.now;
    let state = &mut world.state;
    match step {
        Step::Register { name, id, sidecar, alias, ttl: seconds, replace } => {
            let mut request = service(&format!("s{name}"));
            request.id = Some(format!("i{id}"));
            let after = Some(GoDuration::from_secs(60));
            let mut check = CheckDefinition { deregister_critical_service_after: after, ..ttl(1) };
            match alias {
                Some(alias) => {
                    check.ttl = None;
                    check.alias_service = Some(format!("i{alias}"));
                }
                None if seconds == 0 => {
                    check.ttl = None;
                    check.tcp = Some("127.0.0.1:1".to_owned());
                    check.interval = Some(GoDuration::from_secs(9));
                }
                None => check.ttl = Some(GoDuration::from_secs(u64::from(seconds) * 10)),
            }
            request.check = Some(check);
            let request = if sidecar { with_sidecar(request) } else { request };
            state.register(request, replace, now).unwrap();
        }
        Step::Deregister(id) => state.deregister(&format!("i{id}"), now),
        Step::Check { id, service } => {
            let request = json!({
                "ID": format!("c{id}"), "Name": "c", "TTL": "20s",
                "ServiceID": service.map(|id| format!("i{id}")),
            });
            let _unknown_service =
                state.register_check(serde_json::from_value(request).unwrap(), now);
        }
        Step::DeregisterCheck(id) => state.deregister_check(&format!("c{id}"), now),
        Step::Update { check, status } => {
            let id = format!("service:i{check}");
            let _no_ttl = state.update_ttl(&id, STATES[usize::from(status)], "", now);
        }
        Step::Maintain { service: Some(id), on } => {
            let _unknown = state.service_maintenance(&format!("i{id}"), on.then_some("x"), now);
        }
        Step::Maintain { service: None, on } => state.node_maintenance(on.then_some("x"), now),
        Step::CatalogRegister { node, name, check } => {
            let mut request = json!({
                "Node": format!("ext{node}"), "Address": "10.0.0.1",
                "Service": {"Service": format!("s{name}")},
            });
            if check {
                request["Check"] = json!({"CheckID": "e", "ServiceID": format!("s{name}")});
            }
            let request = serde_json::from_value(request).unwrap();
            state.catalog_register(&request, now).unwrap();
        }
        Step::CatalogDeregister { node, what } => {
            let node = format!("ext{node}");
            let mut request = CatalogDeregistration { node, ..Default::default() };
            match what {
                0 => {}
                1 => request.service_id = "s1".to_owned(),
                _ => request.check_id = "e".to_owned(),
            }
            state.catalog_deregister(&request, now).unwrap();
        }
        Step::Report { check, status } => {
            let id = format!("service:i{check}");
            let generation = state.local().checks.get(&id).map_or(0, |check| check.generation);
            let _none = state.report(&id, generation, STATES[usize::from(status)], "r", now);
        }
        Step::Sleep(seconds) => world.sleep(u32::from(seconds) * SECOND),
    }
}

/// Everything that is kept twice agrees.
fn check_invariants(world: &World) {
    let state = &world.state;
    let services: usize = state.nodes.values().map(|node| node.services.len()).sum();
    let checks: usize = state.nodes.values().map(|node| node.checks.len()).sum();
    assert_eq!(state.counts(), (services, checks));
    let (mut names, mut connects) = (Instances::new(), Instances::new());
    for (name, node) in &state.nodes {
        let mut linked: Vec<&String> = node.own_checks.iter().collect();
        for (id, service) in &node.services {
            let key = (name.clone(), id.clone());
            names.entry(fold(&service.name)).or_default().insert(key.clone());
            if let Some(of) = service.connects_for() {
                connects.entry(fold(of)).or_default().insert(key);
            }
            assert!(service.checks.iter().all(|check| node.checks[check].service_id == *id));
            linked.extend(&service.checks);
        }
        assert!(node.own_checks.iter().all(|check| node.checks[check].service_id.is_empty()));
        linked.sort();
        assert_eq!(linked, node.checks.keys().collect::<Vec<_>>(), "every check has one place");
    }
    assert_eq!((&state.by_name, &state.by_connect), (&names, &connects));
    let local = state.local();
    let aliases: usize = state.aliases.values().map(BTreeSet::len).sum();
    let is_alias = |check: &&CheckRecord| matches!(check.kind, CheckKind::Alias { .. });
    assert_eq!(aliases, local.checks.values().filter(is_alias).count());
    let expiring = local
        .checks
        .values()
        .filter_map(|check| check.expires.map(|at| (at, Timer::Expire(check.id.clone()))));
    let reaping = local
        .checks
        .values()
        .filter_map(|check| check.reaped.map(|at| (at, Timer::Reap(check.id.clone()))));
    assert_eq!(state.timers, expiring.chain(reaping).collect::<BTreeSet<_>>());
    for check in local.checks.values() {
        let counts = check.status == CheckStatus::Critical && check.deregister_after.is_some();
        assert_eq!(check.reaped.is_some(), counts, "{}", check.id);
    }
}

fn watched() -> Vec<Topic> {
    let mut topics = vec![Topic::Nodes, Topic::Services, Topic::Checks];
    for n in 0..4 {
        topics.push(Topic::Service(format!("s{n}")));
        topics.push(Topic::Connect(format!("s{n}")));
        topics.push(Topic::Node(format!("ext{n}")));
        topics.push(Topic::NodeChecks(format!("ext{n}")));
    }
    topics
}

/// What each watched query would answer.
fn answers(state: &State) -> Vec<String> {
    let text = |value: serde_json::Result<String>| value.unwrap();
    let view = |topic: &Topic| match topic {
        Topic::Service(name) => state
            .instances(name)
            .map(|(n, r, s)| text(serde_json::to_string(&quiet(state.entry_view(n, r, s)))))
            .collect(),
        Topic::Connect(name) => state
            .connectable(name)
            .map(|(n, r, s)| text(serde_json::to_string(&quiet(state.entry_view(n, r, s)))))
            .collect(),
        Topic::Nodes => state.nodes.keys().cloned().collect::<String>(),
        Topic::Services => {
            let services = state.nodes.values().flat_map(|node| node.services.values());
            services.map(|service| service.name.clone()).collect()
        }
        _ => String::new(),
    };
    watched().iter().map(view).collect()
}

/// An entry without what may change unheard.
fn quiet(mut entry: meshx_consul_api::HealthServiceEntry) -> meshx_consul_api::HealthServiceEntry {
    for check in &mut entry.checks {
        check.output.clear();
        check.modify_index = 0;
    }
    entry
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_clients_do(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        let topics = watched();
        let indexes = |world: &World| -> Vec<u64> {
            topics.iter().map(|topic| world.index(topic)).collect()
        };
        let (mut before, mut said) = (indexes(&world), answers(&world.state));
        for step in steps {
            take(&mut world, step);
            check_invariants(&world);
            let (after, says) = (indexes(&world), answers(&world.state));
            for (at, topic) in topics.iter().enumerate() {
                prop_assert!(after[at] >= before[at], "{topic:?} fell");
                let is_told = after[at] > before[at];
                prop_assert!(is_told || said[at] == says[at], "{topic:?} changed unheard");
            }
            (before, said) = (after, says);
        }
    }
}
