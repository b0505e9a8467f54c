//! The certificate authority of the mesh: roots, their rotation, leaves.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshx_consul_api::{CaConfiguration, CaRoot, CaRoots, GoDuration, Leaf, SecretPem};
use meshx_core::{ServiceName, SpiffeId, TrustDomain};
use meshx_identity::IdentityError;
use meshx_identity::ca::CertificateAuthority;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::topics::{Topic, Topics};
use crate::limits;
use crate::refusal::Refusal;

/// The authority. Its signing key never leaves it but to be saved.
#[derive(Debug)]
pub(crate) struct Authority {
    trust_domain: TrustDomain,
    datacenter: String,
    active: CertificateAuthority,
    roots: Vec<TrustedRoot>,
    config: CaConfiguration,
    leaves: HashMap<ServiceName, IssuedLeaf>,
    serial: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TrustedRoot {
    info: CaRoot,
    /// When it stopped to sign, in seconds of the epoch.
    retired: Option<u64>,
}

#[derive(Debug)]
struct IssuedLeaf {
    leaf: Leaf,
    root: String,
    issued: SystemTime,
    renew: SystemTime,
}

/// A leaf as it is handed out.
#[derive(Debug)]
pub(crate) struct HandedLeaf {
    pub(crate) leaf: Leaf,
    /// It was issued before, this long ago; `None` when it is fresh.
    pub(crate) age: Option<Duration>,
    /// When there will be another.
    pub(crate) renew: SystemTime,
}

/// The authority on disk.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedAuthority {
    trust_domain: String,
    key_pem: SecretPem,
    roots: Vec<TrustedRoot>,
    config: CaConfiguration,
}

/// A change of the authority that is ready: saved first, then put in force.
pub(crate) struct CaChange {
    config: CaConfiguration,
    /// The authority that signs from now on, when it is another.
    active: Option<CertificateAuthority>,
    /// The roots that are trusted from now on, when they are others.
    roots: Option<Vec<TrustedRoot>>,
    serial: u64,
}

impl Authority {
    /// A new authority with a new root.
    pub(crate) fn generate(
        trust_domain: TrustDomain,
        datacenter: &str,
        index: u64,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let serial = first_serial(now);
        let active = CertificateAuthority::generate(&trust_domain, serial, now)?;
        let info = describe(&active, &trust_domain, None, index);
        let config =
            [("LeafCertTTL", "72h"), ("IntermediateCertTTL", "8760h"), ("RotationPeriod", "2160h")];
        let config = CaConfiguration {
            provider: "consul".to_owned(),
            config: config.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect(),
            create_index: index,
            modify_index: index,
            ..CaConfiguration::default()
        };
        Ok(Self {
            trust_domain,
            datacenter: datacenter.to_owned(),
            active,
            roots: vec![TrustedRoot { info, retired: None }],
            config,
            leaves: HashMap::new(),
            serial,
        })
    }

    /// The authority that was saved.
    pub(crate) fn restore(
        saved: SavedAuthority,
        datacenter: &str,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let malformed = |reason: &str| IdentityError::Malformed {
            what: "the saved certificate authority",
            reason: reason.to_owned(),
        };
        let active = saved.roots.iter().find(|root| root.info.active);
        let active = active.ok_or_else(|| malformed("no root is active"))?;
        let ca = CertificateAuthority::from_parts(&active.info.root_cert, saved.key_pem.expose())?;
        if ca.root_id() != active.info.id {
            return Err(malformed("the id of the root is not that of its certificate"));
        }
        if in_force(&ca, now).is_err() {
            tracing::warn!(root = ca.root_id(), "the active root is not in force: rotate it");
        }
        let mut authority = Self {
            trust_domain: saved.trust_domain.parse()?,
            datacenter: datacenter.to_owned(),
            active: ca,
            roots: saved.roots,
            config: saved.config,
            leaves: HashMap::new(),
            serial: first_serial(now),
        };
        if let Some(roots) = authority.roots_in_time(now) {
            authority.roots = roots;
        }
        Ok(authority)
    }

    /// What is saved; with `change`, as it will be.
    pub(crate) fn save(&self, change: Option<&CaChange>) -> SavedAuthority {
        let ca = change.and_then(|change| change.active.as_ref()).unwrap_or(&self.active);
        let roots = change.and_then(|change| change.roots.as_ref()).unwrap_or(&self.roots);
        SavedAuthority {
            trust_domain: self.trust_domain.to_string(),
            key_pem: SecretPem::from(ca.key_pem()),
            roots: roots.clone(),
            config: change.map_or(&self.config, |change| &change.config).clone(),
        }
    }

    /// The trust domain of the mesh.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots to trust, the oldest first.
    pub(crate) fn roots(&self) -> CaRoots {
        CaRoots {
            active_root_id: self.active.root_id().to_owned(),
            trust_domain: self.trust_domain.to_string(),
            roots: self.roots.iter().map(|root| root.info.clone()).collect(),
        }
    }

    /// The configuration, without any key.
    pub(crate) fn config(&self) -> &CaConfiguration {
        &self.config
    }

    /// The leaf of a service: the same one until two thirds of its life are over or the root
    /// rotates.
    pub(crate) fn leaf(
        &mut self,
        service: &ServiceName,
        topics: &mut Topics,
        now: SystemTime,
    ) -> Result<HandedLeaf, IdentityError> {
        if let Some(held) = self.leaves.get(service) {
            let is_current = held.root == self.active.root_id() && now < held.renew;
            if is_current && held.issued <= now {
                let age = now.duration_since(held.issued).unwrap_or_default();
                let leaf = held.leaf.clone();
                return Ok(HandedLeaf { leaf, age: Some(age), renew: held.renew });
            }
        }
        self.serial += 1;
        let id = SpiffeId::new(self.trust_domain.clone(), &self.datacenter, service.clone());
        let life = leaf_life(&self.config.config).unwrap_or(limits::LEAF_LIFE);
        let issued = self.active.issue(&id, self.serial, now, life)?;
        let index = topics.next();
        let intermediates = self.roots.iter().find(|root| root.info.active);
        let intermediates = intermediates.and_then(|root| root.info.intermediate_certs.as_ref());
        let mut cert_pem = issued.cert_pem;
        for intermediate in intermediates.into_iter().flatten() {
            cert_pem.push_str(intermediate);
        }
        let leaf = Leaf {
            serial_number: serial_text(issued.serial),
            cert_pem,
            private_key_pem: issued.key_pem.into(),
            service: service.to_string(),
            service_uri: id.to_string(),
            valid_after: rfc3339_seconds(issued.valid_after),
            valid_before: rfc3339_seconds(issued.valid_before),
            create_index: index,
            modify_index: index,
        };
        let renew = now + life / 3 * 2;
        self.make_room(topics, index);
        let root = self.active.root_id().to_owned();
        let held = IssuedLeaf { leaf: leaf.clone(), root, issued: now, renew };
        self.leaves.insert(service.clone(), held);
        topics.touch(Topic::Leaf(service.to_string()), index);
        Ok(HandedLeaf { leaf, age: None, renew })
    }

    /// Forgets a leaf, and the index of its topic, when there are as many as may be.
    fn make_room(&mut self, topics: &mut Topics, index: u64) {
        if self.leaves.len() < limits::LEAVES {
            return;
        }
        let topic = |service: &ServiceName| Topic::Leaf(service.to_string());
        let first = self
            .leaves
            .iter()
            .min_by_key(|(service, held)| (topics.is_awaited(&topic(service)), held.renew));
        if let Some(service) = first.map(|(service, _)| service.clone()) {
            self.leaves.remove(&service);
            topics.remove(&topic(&service), index);
        }
    }

    /// The change that ends the trust in roots that were retired long ago; `None` when there is none
    /// such. A root that stays has a key that may leak.
    pub(crate) fn prune(&self, now: SystemTime) -> Option<CaChange> {
        let roots = Some(self.roots_in_time(now)?);
        Some(CaChange { config: self.config.clone(), active: None, roots, serial: self.serial })
    }

    /// The roots without those that were retired too long ago, when there are such. A retired root is
    /// of use as long as a leaf that it signed may live; twice that is Consul's rule.
    fn roots_in_time(&self, now: SystemTime) -> Option<Vec<TrustedRoot>> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let life = leaf_life(&self.config.config).unwrap_or(limits::LEAF_LIFE);
        let trusted = (limits::RETIRED_LIVES * life.min(limits::LEAF_LIFE_MAX)).as_secs();
        let is_trusted = |root: &&TrustedRoot| {
            root.info.active || root.retired.is_none_or(|at| at.saturating_add(trusted) > seconds)
        };
        let roots: Vec<TrustedRoot> = self.roots.iter().filter(is_trusted).cloned().collect();
        (roots.len() < self.roots.len()).then_some(roots)
    }

    /// Judges a new configuration. A `PrivateKey` in it rotates the root: with a `RootCert` to that
    /// certificate and key, empty to new ones. Without it the root stays.
    pub(crate) fn prepare(
        &self,
        request: CaConfiguration,
        index: u64,
        now: SystemTime,
    ) -> Result<CaChange, Refusal> {
        if request.provider != "consul" {
            return Err(Refusal::internal(format!(
                "could not initialize provider: unknown CA provider \"{}\"",
                request.provider
            )));
        }
        let mut config = request.config;
        let life = leaf_life(&config)
            .map_err(|text| Refusal::internal(format!("error configuring provider: {text}")))?;
        if life < limits::LEAF_LIFE_MIN {
            return Err(Refusal::internal(
                "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s",
            ));
        }
        if life > limits::LEAF_LIFE_MAX {
            return Err(Refusal::internal(
                "error configuring provider: leaf cert TTL must be less than 8760h0m0s",
            ));
        }
        let key = config.remove("PrivateKey");
        let cert = config.remove("RootCert");
        let text = |value: &Option<Value>| {
            value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (key_pem, cert_pem) = (text(&key), text(&cert));
        let mut serial = self.serial;
        let (active, roots) = match key {
            Some(_) => {
                let (active, roots) = self.rotate(&key_pem, &cert_pem, &mut serial, index, now)?;
                (Some(active), Some(roots))
            }
            None => (None, None),
        };
        let config = CaConfiguration {
            provider: request.provider,
            config,
            create_index: self.config.create_index,
            modify_index: index,
            ..CaConfiguration::default()
        };
        Ok(CaChange { config, active, roots, serial })
    }

    fn rotate(
        &self,
        key_pem: &str,
        cert_pem: &str,
        serial: &mut u64,
        index: u64,
        now: SystemTime,
    ) -> Result<(CertificateAuthority, Vec<TrustedRoot>), Refusal> {
        let failed = |e: IdentityError| {
            Refusal::internal(format!("error generating CA root certificate: {e}"))
        };
        let new = match (key_pem.is_empty(), cert_pem.is_empty()) {
            (true, true) => {
                *serial += 1;
                CertificateAuthority::generate(&self.trust_domain, *serial, now).map_err(failed)?
            }
            (false, false) => {
                let ca = CertificateAuthority::from_parts(cert_pem, key_pem).map_err(failed)?;
                in_force(&ca, now).map_err(|text| {
                    Refusal::internal(format!("error generating CA root certificate: {text}"))
                })?;
                ca
            }
            _ => {
                return Err(Refusal::internal(
                    "error generating CA root certificate: give PrivateKey and RootCert together, \
                     or leave both empty for new ones",
                ));
            }
        };
        if self.roots.iter().any(|root| root.info.id == new.root_id()) {
            return Err(Refusal::internal(
                "error generating CA root certificate: this root is trusted already",
            ));
        }
        *serial += 1;
        let bridge = self.active.cross_sign(&new, *serial, now).map_err(failed)?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut roots = self.roots_in_time(now).unwrap_or_else(|| self.roots.clone());
        if roots.len() >= limits::ROOTS {
            return Err(Refusal::internal(format!(
                "{} roots are trusted already; the retired ones must run out first",
                limits::ROOTS
            )));
        }
        for root in roots.iter_mut().filter(|root| root.info.active) {
            root.info.active = false;
            root.info.modify_index = index;
            root.retired = Some(seconds);
        }
        let info = describe(&new, &self.trust_domain, Some(bridge), index);
        roots.push(TrustedRoot { info, retired: None });
        Ok((new, roots))
    }

    /// Puts a prepared change in force.
    pub(crate) fn commit(&mut self, change: CaChange, topics: &mut Topics, index: u64) {
        self.config = change.config;
        self.serial = self.serial.max(change.serial);
        if let Some(active) = change.active {
            self.active = active;
        }
        if let Some(roots) = change.roots {
            self.roots = roots;
            topics.touch(Topic::Roots, index);
        }
    }
}

fn describe(
    ca: &CertificateAuthority,
    trust_domain: &TrustDomain,
    bridge: Option<String>,
    index: u64,
) -> CaRoot {
    let domain = trust_domain.as_str();
    let (key_type, key_bits) = ca.key_type();
    CaRoot {
        id: ca.root_id().to_owned(),
        name: "meshx CA Root Cert".to_owned(),
        serial_number: ca.serial(),
        signing_key_id: ca.signing_key_id().to_owned(),
        external_trust_domain: domain.strip_suffix(".consul").unwrap_or(domain).to_owned(),
        not_before: rfc3339_seconds(ca.not_before()),
        not_after: rfc3339_seconds(ca.not_after()),
        root_cert: ca.cert_pem().to_owned(),
        intermediate_certs: bridge.map(|bridge| vec![bridge]),
        active: true,
        private_key_type: key_type.to_owned(),
        private_key_bits: u32::try_from(key_bits).unwrap_or_default(),
        create_index: index,
        modify_index: index,
    }
}

/// Refuses a root whose leaves nobody would accept now.
fn in_force(ca: &CertificateAuthority, now: SystemTime) -> Result<(), String> {
    if now < ca.not_before() {
        return Err(format!("the root is valid from {} on", rfc3339_seconds(ca.not_before())));
    }
    if now >= ca.not_after() {
        return Err(format!("the root expired at {}", rfc3339_seconds(ca.not_after())));
    }
    Ok(())
}

/// The life of a leaf that a configuration asks for.
fn leaf_life(config: &Map<String, Value>) -> Result<Duration, String> {
    let Some(value) = config.get("LeafCertTTL") else { return Ok(limits::LEAF_LIFE) };
    serde_json::from_value::<GoDuration>(value.clone())
        .map(Duration::from)
        .map_err(|error| format!("error decoding 'LeafCertTTL': {error}"))
}

/// Serial numbers begin at a place that no earlier run of the agent reached: the second of its start
/// and twenty bits to count in.
fn first_serial(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() << 20
}

/// The bytes of a serial number in hex with colons.
fn serial_text(serial: u64) -> String {
    let bytes = serial.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    bytes[skip..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// RFC 3339 with a fraction, as Go writes a time.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// RFC 3339 in whole seconds, as certificates have them.
fn rfc3339_seconds(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
