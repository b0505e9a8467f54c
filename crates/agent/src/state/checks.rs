//! The life of a check: TTL, probe results, aliases, maintenance, reaping.

use std::collections::BTreeSet;
use std::time::Instant;

use meshx_consul_api::CheckStatus;

use super::record::{CheckKind, CheckRecord};
use super::{Effect, SERF_HEALTH, State, Timer};
use crate::limits;
use crate::refusal::Refusal;

impl State {
    /// Adds or replaces a check. A check that existed keeps its state, as with Consul: registering
    /// again is not news about health. A check that says the same as before wakes nobody.
    pub(super) fn insert_check(&mut self, node: &str, mut record: CheckRecord, now: Instant) {
        let is_local = node == self.identity.node;
        let Some(entry) = self.nodes.get_mut(node) else { return };
        let old = entry.checks.remove(&record.id);
        if let Some(old) = &old {
            if is_local {
                record.status = old.status;
                record.output.clone_from(&old.output);
            }
            record.create_index = old.create_index;
            record.modify_index = old.modify_index;
            record.reaped = old.reaped;
        }
        self.generation += 1;
        record.generation = self.generation;
        let is_news = old.as_ref().is_none_or(|old| !old.says_the_same(&record));
        if is_news {
            record.modify_index = self.topics.next();
            if old.is_none() {
                record.create_index = record.modify_index;
                self.checks += 1;
            }
        }
        let (id, service, index) =
            (record.id.clone(), record.service_id.clone(), record.modify_index);
        if let Some(old) = &old {
            self.disarm(old, is_local);
            self.unlink(node, old);
        }
        self.link(node, &record);
        if is_local {
            self.arm(&mut record, now);
        }
        let old_service = old.map(|old| old.service_id).filter(|old| *old != service);
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.checks.insert(id.clone(), record);
        }
        if is_news {
            self.touch_check(node, &service, index);
            if let Some(old_service) = old_service {
                self.touch_check(node, &old_service, index);
            }
        }
        if is_local {
            self.evaluate_alias(&id, now);
        }
        self.follow(node, &service, now);
    }

    /// Removes a check.
    pub(super) fn remove_check(&mut self, node: &str, id: &str, now: Instant) {
        let is_local = node == self.identity.node;
        let Some(entry) = self.nodes.get_mut(node) else { return };
        let Some(record) = entry.checks.remove(id) else { return };
        self.checks -= 1;
        self.disarm(&record, is_local);
        self.unlink(node, &record);
        let index = self.topics.next();
        self.touch_check(node, &record.service_id, index);
        self.follow(node, &record.service_id, now);
    }

    /// The owner of a TTL check reports.
    pub(crate) fn update_ttl(
        &mut self,
        id: &str,
        status: CheckStatus,
        output: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        let unknown =
            || Refusal::internal(format!("CheckID \"{id}\" does not have associated TTL"));
        let node = self.identity.node.clone();
        let entry = self.nodes.get_mut(&node).ok_or_else(unknown)?;
        let record = entry.checks.get_mut(id).ok_or_else(unknown)?;
        let CheckKind::Ttl(ttl) = record.kind else { return Err(unknown()) };
        if let Some(at) = record.expires.replace(now + ttl) {
            self.timers.remove(&(at, Timer::Expire(id.to_owned())));
        }
        self.timers.insert((now + ttl, Timer::Expire(id.to_owned())));
        self.set_state(id, status, cut(output), now);
        Ok(())
    }

    /// A probe reports. The state of the check after that; `None` when nobody waits for the probe
    /// any more.
    pub(crate) fn report(
        &mut self,
        id: &str,
        generation: u64,
        status: CheckStatus,
        output: &str,
        now: Instant,
    ) -> Option<CheckStatus> {
        let node = self.identity.node.clone();
        let record = self.nodes.get_mut(&node)?.checks.get_mut(id)?;
        if record.generation != generation {
            return None;
        }
        let is_due = if status == CheckStatus::Critical {
            record.successes.1 = 0;
            record.failures.1 = record.failures.1.saturating_add(1);
            record.failures.1 >= record.failures.0
        } else {
            record.failures.1 = 0;
            record.successes.1 = record.successes.1.saturating_add(1);
            record.successes.1 >= record.successes.0
        };
        let status = if is_due { status } else { record.status };
        self.set_state(id, status, cut(output), now);
        Some(status)
    }

    /// Does what is due: expires TTLs, removes services that were critical for too long.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, timer));
                return;
            }
            match timer {
                Timer::Expire(id) => self.expire(&id, now),
                Timer::Reap(id) => {
                    let service = self.local().checks.get(&id).map(|c| c.service_id.clone());
                    if let Some(service) = service {
                        tracing::info!(service, check = id, "critical for too long, deregistered");
                        self.deregister(&service, now);
                    }
                }
            }
        }
    }

    fn expire(&mut self, id: &str, now: Instant) {
        let node = self.identity.node.clone();
        let Some(record) = self.nodes.get_mut(&node).and_then(|entry| entry.checks.get_mut(id))
        else {
            return;
        };
        record.expires = None;
        let output = match record.output.as_str() {
            last if record.status == CheckStatus::Critical && last.starts_with("TTL expired") => {
                last.to_owned()
            }
            "" => "TTL expired".to_owned(),
            last => format!("TTL expired (last output before timeout follows): {last}"),
        };
        self.set_state(id, CheckStatus::Critical, output, now);
    }

    /// Takes a service out of service, or back.
    pub(crate) fn service_maintenance(
        &mut self,
        id: &str,
        reason: Option<&str>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(service) = self.local().services.get(id).filter(|s| !s.is_hidden) else {
            return Err(Refusal::missing(format!("No service registered with ID \"{id}\"")));
        };
        let mut check = maintenance(
            &format!("_service_maintenance:{id}"),
            "Service Maintenance Mode",
            "service",
            reason,
        );
        id.clone_into(&mut check.service_id);
        check.service_name.clone_from(&service.name);
        check.service_tags.clone_from(&service.tags);
        self.maintain(check, reason.is_some(), now);
        Ok(())
    }

    /// Takes the whole node out of service, or back.
    pub(crate) fn node_maintenance(&mut self, reason: Option<&str>, now: Instant) {
        let check = maintenance("_node_maintenance", "Node Maintenance Mode", "node", reason);
        self.maintain(check, reason.is_some(), now);
    }

    fn maintain(&mut self, check: CheckRecord, is_on: bool, now: Instant) {
        let node = self.identity.node.clone();
        let is_there = self.local().checks.contains_key(&check.id);
        match (is_on, is_there) {
            (true, false) => self.insert_check(&node, check, now),
            (false, true) => self.remove_check(&node, &check.id, now),
            _ => {}
        }
    }

    /// Sets the state of a check of the local node. A new output alone wakes nobody.
    fn set_state(&mut self, id: &str, status: CheckStatus, output: String, now: Instant) {
        let node = self.identity.node.clone();
        let Some(record) = self.nodes.get_mut(&node).and_then(|entry| entry.checks.get_mut(id))
        else {
            return;
        };
        let is_news = record.status != status;
        let is_louder = record.output != output;
        record.output = output;
        let service = record.service_id.clone();
        if is_news {
            let index = self.topics.next();
            record.modify_index = index;
            transition(record, status, now, &mut self.timers);
            self.touch_check(&node, &service, index);
        }
        if is_news || is_louder {
            self.follow(&node, &service, now);
        }
    }

    /// Evaluates the aliases that follow this service, or every alias that looks at this node when
    /// the check belongs to the node, and the aliases that follow those. Each is looked at once, so
    /// that aliases in a circle end.
    pub(super) fn follow(&mut self, node: &str, service: &str, now: Instant) {
        let mut seen = BTreeSet::new();
        let mut next: Vec<(String, String)> = vec![(node.to_owned(), service.to_owned())];
        while let Some((node, service)) = next.pop() {
            let due: Vec<String> = if service.is_empty() {
                let of_node = self.aliases.iter().filter(|((of, _), _)| *of == node);
                of_node.flat_map(|(_, checks)| checks.iter().cloned()).collect()
            } else {
                let key = (node, service);
                self.aliases.get(&key).into_iter().flatten().cloned().collect()
            };
            for id in due {
                if !seen.insert(id.clone()) {
                    continue;
                }
                if let Some(service) = self.judge_alias(&id, now) {
                    next.push((self.identity.node.clone(), service));
                }
            }
        }
    }

    fn evaluate_alias(&mut self, id: &str, now: Instant) {
        // Those who follow the alias are evaluated by the caller.
        let _changed = self.judge_alias(id, now);
    }

    /// Sets the state of one alias. When it changed: the service it belongs to.
    fn judge_alias(&mut self, id: &str, now: Instant) -> Option<String> {
        let record = self.local().checks.get(id)?;
        let CheckKind::Alias { node, service } = &record.kind else { return None };
        let (status, output) = self.alias_state(id, node, service);
        if record.status == status && record.output == output {
            return None;
        }
        let home = self.identity.node.clone();
        let record = self.nodes.get_mut(&home)?.checks.get_mut(id)?;
        let of = record.service_id.clone();
        record.output = output;
        if record.status != status {
            let index = self.topics.next();
            record.modify_index = index;
            transition(record, status, now, &mut self.timers);
            self.touch_check(&home, &of, index);
        }
        Some(of)
    }

    /// The worst of the checks of the node and of the service, in Consul's words.
    fn alias_state(&self, id: &str, node: &str, service: &str) -> (CheckStatus, String) {
        let entry = self.nodes.get(node);
        let record = entry.and_then(|entry| entry.services.get(service));
        let (Some(entry), true) = (entry, service.is_empty() || record.is_some()) else {
            let text = format!("Service {service} could not be found on node {node}");
            return (CheckStatus::Critical, text);
        };
        let of_service = record.into_iter().flat_map(|record| &record.checks);
        // Aliases of the node itself say nothing new, and two of them would hold each other down.
        let is_echo = |check: &CheckRecord| {
            check.service_id.is_empty() && matches!(check.kind, CheckKind::Alias { .. })
        };
        let mut state = (CheckStatus::Passing, "No checks found.".to_owned());
        for check in entry.own_checks.iter().chain(of_service) {
            let Some(check) = entry.checks.get(check) else { continue };
            if check.id == id || check.id == SERF_HEALTH || is_echo(check) {
                continue;
            }
            if check.status > state.0 {
                let text = format!("Aliased check \"{}\" failing: {}", check.name, check.output);
                state = (check.status, cut(&text));
            } else if state.0 == CheckStatus::Passing {
                "All checks passing.".clone_into(&mut state.1);
            }
        }
        state
    }

    /// Starts the clocks and probes of a check of the local node.
    fn arm(&mut self, record: &mut CheckRecord, now: Instant) {
        match &record.kind {
            CheckKind::Ttl(ttl) => {
                record.expires = Some(now + *ttl);
                self.timers.insert((now + *ttl, Timer::Expire(record.id.clone())));
            }
            CheckKind::Probe(probe) => self.effects.push(Effect::Start {
                check: record.id.clone(),
                generation: record.generation,
                probe: probe.clone(),
            }),
            CheckKind::Alias { .. } | CheckKind::Passive(_) => {}
        }
        if record.service_id.is_empty() {
            // A check of the node has no service to remove.
            record.deregister_after = None;
        }
        record.reaped = match record.deregister_after {
            Some(after) if record.status == CheckStatus::Critical => {
                Some(record.reaped.unwrap_or(now + after))
            }
            _ => None,
        };
        if let Some(at) = record.reaped {
            self.timers.insert((at, Timer::Reap(record.id.clone())));
        }
    }

    /// Stops them.
    fn disarm(&mut self, record: &CheckRecord, is_local: bool) {
        if !is_local {
            return;
        }
        if let Some(at) = record.expires {
            self.timers.remove(&(at, Timer::Expire(record.id.clone())));
        }
        if let Some(at) = record.reaped {
            self.timers.remove(&(at, Timer::Reap(record.id.clone())));
        }
        if let CheckKind::Probe(_) = record.kind {
            self.effects.push(Effect::Stop { check: record.id.clone() });
        }
    }

    /// Enters a check in the lists of its service or node, and of what it follows.
    fn link(&mut self, node: &str, record: &CheckRecord) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        match entry.services.get_mut(&record.service_id) {
            Some(service) => service.checks.insert(record.id.clone()),
            None => entry.own_checks.insert(record.id.clone()),
        };
        if let CheckKind::Alias { node, service } = &record.kind {
            let key = (node.clone(), service.clone());
            self.aliases.entry(key).or_default().insert(record.id.clone());
        }
    }

    fn unlink(&mut self, node: &str, record: &CheckRecord) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        entry.own_checks.remove(&record.id);
        if let Some(service) = entry.services.get_mut(&record.service_id) {
            service.checks.remove(&record.id);
        }
        if let CheckKind::Alias { node, service } = &record.kind {
            let key = (node.clone(), service.clone());
            if let Some(checks) = self.aliases.get_mut(&key) {
                checks.remove(&record.id);
                if checks.is_empty() {
                    self.aliases.remove(&key);
                }
            }
        }
    }
}

/// Gives a check a new status; one that becomes critical begins to count towards its removal.
fn transition(
    record: &mut CheckRecord,
    status: CheckStatus,
    now: Instant,
    timers: &mut BTreeSet<(Instant, Timer)>,
) {
    record.status = status;
    let timer = Timer::Reap(record.id.clone());
    if let (CheckStatus::Critical, Some(after)) = (status, record.deregister_after) {
        let at = *record.reaped.get_or_insert(now + after);
        timers.insert((at, timer));
    } else if let Some(at) = record.reaped.take() {
        timers.remove(&(at, timer));
    }
}

fn maintenance(id: &str, name: &str, of: &str, reason: Option<&str>) -> CheckRecord {
    let mut check = CheckRecord::passive(id, name, CheckStatus::Critical, "maintenance");
    check.notes = match reason {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => format!(
            "Maintenance mode is enabled for this {of}, but no reason was provided. This is a \
             default message."
        ),
    };
    check
}

/// An output of at most 4096 bytes, with Consul's mark when some is lost.
fn cut(output: &str) -> String {
    if output.len() <= limits::CHECK_OUTPUT {
        return output.to_owned();
    }
    let end = output.floor_char_boundary(limits::CHECK_OUTPUT);
    format!("{} ... (captured {end} of {} bytes)", &output[..end], output.len())
}
