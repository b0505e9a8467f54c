//! The ends of things: of a root, of a leaf, of an import.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::state::topics::Topics;

const HOUR: Duration = Duration::from_hours(1);

struct World {
    authority: Authority,
    topics: Topics,
}

impl World {
    fn new(now: SystemTime) -> Self {
        let domain = "ab.consul".parse().unwrap();
        let authority = Authority::generate(domain, "dc1", 1, now).unwrap();
        Self { authority, topics: Topics::new(1) }
    }

    fn configure(&mut self, config: &Value, now: SystemTime) -> Result<(), Refusal> {
        let request = json!({"Provider": "consul", "Config": config});
        let request = serde_json::from_value(request).unwrap();
        let index = self.topics.next();
        let change = self.authority.prepare(request, index, now)?;
        self.authority.commit(change, &mut self.topics, index);
        Ok(())
    }

    fn leaf(&mut self, service: &str, now: SystemTime) -> Leaf {
        let service = service.parse().unwrap();
        self.authority.leaf(&service, &mut self.topics, now).unwrap().leaf
    }

    fn roots(&self) -> usize {
        self.authority.roots().roots.len()
    }
}

#[test]
fn a_retired_root_is_trusted_for_two_lives_of_a_leaf() {
    let start = SystemTime::now();
    let mut world = World::new(start);
    assert!(world.authority.prune(start + 10_000 * HOUR).is_none(), "the active root stays");
    world.configure(&json!({"LeafCertTTL": "72h", "PrivateKey": ""}), start).unwrap();
    assert!(world.authority.prune(start + 143 * HOUR).is_none());
    assert!(world.authority.prune(SystemTime::UNIX_EPOCH).is_none(), "the clock may be wrong");
    let change = world.authority.prune(start + 145 * HOUR).unwrap();
    let saved = world.authority.save(Some(&change));
    assert_eq!((saved.roots.len(), world.roots()), (1, 2), "saved first");
    let active = world.authority.roots().active_root_id;
    world.authority.commit(change, &mut world.topics, 99);
    assert_eq!((world.roots(), world.topics.index(&Topic::Roots)), (1, 99));
    assert_eq!(world.authority.roots().active_root_id, active);
    assert_eq!(world.authority.roots().roots[0].id, active);
}

#[test]
fn a_restart_ends_the_trust_too() {
    let start = SystemTime::now();
    let mut world = World::new(start);
    world.configure(&json!({"PrivateKey": ""}), start).unwrap();
    for (hours, roots) in [(1, 2), (145, 1)] {
        let saved = world.authority.save(None);
        let again = Authority::restore(saved, "dc1", start + hours * HOUR).unwrap();
        assert_eq!(again.roots().roots.len(), roots, "after {hours} h");
    }
}

#[test]
fn a_root_that_is_not_in_force_is_no_import() {
    let now = SystemTime::now();
    let mut world = World::new(now);
    let domain = world.authority.trust_domain().clone();
    let year = 365 * 24 * HOUR;
    for (made, reason) in [(now - 11 * year, "expired at"), (now + HOUR, "is valid from")] {
        let ca = CertificateAuthority::generate(&domain, 7, made).unwrap();
        let config = json!({"RootCert": ca.cert_pem(), "PrivateKey": *ca.key_pem()});
        let refusal = world.configure(&config, now).unwrap_err();
        assert!(refusal.text.contains(reason), "{}", refusal.text);
        assert_eq!(world.roots(), 1);
    }
    let ca = CertificateAuthority::generate(&domain, 7, now - HOUR).unwrap();
    let config = json!({"RootCert": ca.cert_pem(), "PrivateKey": *ca.key_pem()});
    world.configure(&config, now).unwrap();
    assert_eq!(world.authority.roots().active_root_id, ca.root_id());
}

#[test]
fn the_life_of_a_leaf_has_both_bounds() {
    let now = SystemTime::now();
    let mut world = World::new(now);
    for life in ["59m", "8761h", "2562047h"] {
        assert!(world.configure(&json!({"LeafCertTTL": life}), now).is_err(), "{life}");
    }
    for life in ["1h", "8760h"] {
        world.configure(&json!({"LeafCertTTL": life}), now).unwrap();
    }
}

#[test]
fn leaves_and_their_indexes_are_bounded() {
    let now = SystemTime::now();
    let mut world = World::new(now);
    world.leaf("first", now);
    let waits = world.topics.waiter(&Topic::Leaf("first".to_owned()));
    let indexes = world.topics.count();
    for n in 0..3 * limits::LEAVES {
        world.leaf(&format!("s{n}"), now + Duration::from_secs(1));
    }
    assert_eq!(world.authority.leaves.len(), limits::LEAVES);
    assert_eq!(world.topics.count() - indexes, limits::LEAVES - 1);
    let held = world.authority.leaves.contains_key(&"first".parse().unwrap());
    assert!(held, "somebody waits for it");
    drop(waits);
    world.leaf("last", now + Duration::from_secs(1));
    assert!(!world.authority.leaves.contains_key(&"first".parse().unwrap()));
}
