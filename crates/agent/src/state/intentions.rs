//! The intentions, judged by [`IntentionSet`] and worded as Consul 1.8.7 words them.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshx_consul_api as api;
use meshx_core::{Action, IntentionName, IntentionSet, ServiceName, Verdict};
use sha2::{Digest, Sha256};

use super::authority::rfc3339;
use super::catalog::is_uuid;
use crate::limits;
use crate::refusal::{Refusal, several};

/// All intentions. A copy is changed, saved, and only then put in force.
#[derive(Clone, Debug)]
pub(crate) struct Intentions {
    /// Highest precedence first, then by source and destination: the order of Consul's lists.
    stored: Vec<Stored>,
    set: IntentionSet,
    default: Action,
}

#[derive(Clone, Debug)]
struct Stored {
    rule: meshx_core::Intention,
    record: api::Intention,
}

/// A write.
#[derive(Clone, Debug)]
pub(crate) enum IntentionChange {
    /// Makes a new one with this id.
    Create { id: String, definition: api::IntentionDefinition },
    /// Replaces the one of this id.
    Update { id: String, definition: api::IntentionDefinition },
    /// Removes the one of this id.
    Delete { id: String },
    /// Makes or replaces the one of this pair; a new one gets this id.
    Upsert { id: String, definition: api::IntentionDefinition },
    /// Removes the one of this pair, if it is there.
    Remove { source: String, destination: String },
}

impl Intentions {
    /// The intentions that were saved; `default` decides where none matches.
    pub(crate) fn new(
        saved: Vec<api::Intention>,
        default: Action,
    ) -> Result<Self, api::IntentionError> {
        let stored = saved
            .into_iter()
            .map(|record| Ok(Stored { rule: record.rule()?, record }))
            .collect::<Result<_, api::IntentionError>>()?;
        let mut all = Self { stored, set: IntentionSet::new(Vec::new(), default), default };
        all.arrange();
        Ok(all)
    }

    /// What holds where no intention matches.
    pub(crate) fn default_action(&self) -> Action {
        self.default
    }

    /// Makes one change, at this index and time.
    pub(crate) fn apply(
        &mut self,
        change: IntentionChange,
        index: u64,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        match change {
            IntentionChange::Create { id, definition } => {
                self.put(id, &definition, None, index, now)?;
            }
            IntentionChange::Update { id, definition } => {
                check_id(&id, "Intention lookup failed: ", Refusal::internal)?;
                let Some(at) = self.position(&id) else {
                    let text = format!("Cannot modify non-existent intention: '{id}'");
                    return Err(Refusal::internal(text));
                };
                self.put(id, &definition, Some(at), index, now)?;
            }
            IntentionChange::Delete { id } => {
                check_id(&id, "Intention lookup failed: ", Refusal::internal)?;
                let Some(at) = self.position(&id) else {
                    let text = format!("Cannot delete non-existent intention: '{id}'");
                    return Err(Refusal::internal(text));
                };
                self.stored.remove(at);
            }
            IntentionChange::Upsert { id, definition } => {
                let rule = judge_definition(&definition)?;
                let at = self.position_of(&rule.source, &rule.destination);
                let id = at.map_or(id, |at| self.stored[at].record.id.clone());
                self.put(id, &definition, at, index, now)?;
            }
            IntentionChange::Remove { source, destination } => {
                self.stored.retain(|stored| {
                    stored.record.source_name != source
                        || stored.record.destination_name != destination
                });
            }
        }
        self.arrange();
        Ok(())
    }

    fn put(
        &mut self,
        id: String,
        definition: &api::IntentionDefinition,
        replaced: Option<usize>,
        index: u64,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let rule = judge_definition(definition)?;
        let same = self.position_of(&rule.source, &rule.destination);
        if let Some(other) = same.filter(|at| Some(*at) != replaced) {
            let text = describe(&self.stored[other].record);
            return Err(Refusal::internal(format!("duplicate intention found: {text}")));
        }
        let old = replaced.map(|at| self.stored.remove(at).record);
        if old.is_none() && self.stored.len() >= limits::INTENTIONS {
            return Err(Refusal::full("intentions", limits::INTENTIONS));
        }
        let now = rfc3339(now);
        let (created_at, create_index) =
            old.map_or_else(|| (now.clone(), index), |old| (old.created_at, old.create_index));
        let mut record = api::Intention {
            id,
            description: definition.description.clone(),
            source_ns: "default".to_owned(),
            source_name: definition.source_name.clone(),
            destination_ns: "default".to_owned(),
            destination_name: definition.destination_name.clone(),
            source_type: "consul".to_owned(),
            action: rule.action.to_string(),
            meta: definition.meta.clone(),
            precedence: rule.precedence(),
            created_at,
            updated_at: now,
            create_index,
            modify_index: index,
            ..api::Intention::default()
        };
        record.hash = hash(&record);
        self.stored.push(Stored { rule, record });
        Ok(())
    }

    fn arrange(&mut self) {
        self.stored.sort_by(|a, b| {
            b.rule.precedence().cmp(&a.rule.precedence()).then_with(|| {
                (&a.rule.source, &a.rule.destination).cmp(&(&b.rule.source, &b.rule.destination))
            })
        });
        let rules = self.stored.iter().map(|stored| stored.rule.clone()).collect();
        self.set = IntentionSet::new(rules, self.default);
    }

    /// The lists of the API: highest precedence first.
    pub(crate) fn list(&self) -> impl Iterator<Item = &api::Intention> {
        self.stored.iter().map(|stored| &stored.record)
    }

    /// One by its id.
    pub(crate) fn by_id(&self, id: &str) -> Result<&api::Intention, Refusal> {
        check_id(id, "Bad request: ", Refusal::bad)?;
        let at = self.position(id).ok_or_else(|| Refusal::missing("Intention not found"))?;
        Ok(&self.stored[at].record)
    }

    /// One by its pair.
    pub(crate) fn by_pair(&self, source: &str, destination: &str) -> Option<&api::Intention> {
        self.list().find(|r| r.source_name == source && r.destination_name == destination)
    }

    /// Those that speak of this name as source or as destination.
    pub(crate) fn matching(&self, name: &str, by_source: bool) -> Vec<&api::Intention> {
        let speaks = |side: &IntentionName| match side {
            IntentionName::Any => true,
            IntentionName::Exact(exact) => exact.as_str() == name,
        };
        self.stored
            .iter()
            .filter(|s| speaks(if by_source { &s.rule.source } else { &s.rule.destination }))
            .map(|stored| &stored.record)
            .collect()
    }

    /// The verdict on a connection, with the intention that decided.
    pub(crate) fn judge(
        &self,
        source: &ServiceName,
        destination: &ServiceName,
    ) -> (Verdict, Option<&api::Intention>) {
        let verdict = self.set.judge(source, destination);
        let record = verdict.rule.as_ref().and_then(|rule| {
            let at = self.position_of(&rule.source, &rule.destination)?;
            Some(&self.stored[at].record)
        });
        (verdict, record)
    }

    /// The verdict where a side may be `*`: only the intentions about every service speak of it.
    pub(crate) fn judge_names(
        &self,
        source: &IntentionName,
        destination: &IntentionName,
    ) -> Action {
        if let (IntentionName::Exact(source), IntentionName::Exact(destination)) =
            (source, destination)
        {
            return self.set.judge(source, destination).action;
        }
        let speaks = |side: &IntentionName, name| *side == IntentionName::Any || side == name;
        let mut rules = self.set.intentions().iter();
        let rule = rules.find(|r| speaks(&r.source, source) && speaks(&r.destination, destination));
        rule.map_or(self.default, |rule| rule.action)
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.stored.iter().position(|stored| stored.record.id.eq_ignore_ascii_case(id))
    }

    fn position_of(&self, source: &IntentionName, destination: &IntentionName) -> Option<usize> {
        self.stored
            .iter()
            .position(|s| s.rule.source == *source && s.rule.destination == *destination)
    }
}

/// `ALLOW default/web => default/db (ID: …, Precedence: 9)`: how Consul names an intention.
pub(crate) fn describe(record: &api::Intention) -> String {
    format!(
        "{} {}/{} => {}/{} (ID: {}, Precedence: {})",
        record.action.to_ascii_uppercase(),
        record.source_ns,
        record.source_name,
        record.destination_ns,
        record.destination_name,
        record.id,
        record.precedence
    )
}

/// Judges what a client wants to write.
fn judge_definition(
    definition: &api::IntentionDefinition,
) -> Result<meshx_core::Intention, Refusal> {
    let (entries, key_size, value_size) = limits::META;
    let mut problems = Vec::new();
    let source = judge_name("SourceName", &definition.source_name, &mut problems);
    let destination = judge_name("DestinationName", &definition.destination_name, &mut problems);
    if definition.description.len() > limits::DESCRIPTION {
        problems.push("Description exceeds maximum length 512".to_owned());
    }
    if definition.meta.len() > entries {
        problems.push("Meta exceeds maximum element count 64".to_owned());
    }
    for (key, value) in &definition.meta {
        if key.len() > key_size {
            problems.push(format!("Meta key \"{key}\" exceeds maximum length 128"));
        }
        if value.len() > value_size {
            problems.push(format!("Meta value for key \"{key}\" exceeds maximum length 512"));
        }
    }
    let action = match definition.action.as_str() {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        _ => {
            problems.push("Action must be set to 'allow' or 'deny'".to_owned());
            None
        }
    };
    if !matches!(definition.source_type.as_str(), "" | "consul") {
        problems.push("SourceType must be set to 'consul'".to_owned());
    }
    match (source, destination, action) {
        (Some(source), Some(destination), Some(action)) if problems.is_empty() => {
            Ok(meshx_core::Intention::new(source, destination, action))
        }
        _ => Err(Refusal::internal(several(&problems))),
    }
}

fn judge_name(field: &str, name: &str, problems: &mut Vec<String>) -> Option<IntentionName> {
    if name.is_empty() {
        problems.push(format!("{field} must be set"));
        return None;
    }
    if name.contains('*') && name != "*" {
        problems
            .push(format!("{field}: wildcard character '*' cannot be used with partial values"));
        return None;
    }
    match name.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            problems.push(format!("{field}: {error}"));
            None
        }
    }
}

fn check_id(id: &str, prefix: &str, refuse: fn(String) -> Refusal) -> Result<(), Refusal> {
    let text = if id.len() != 36 {
        "UUID must be 36 characters".to_owned()
    } else if is_uuid(id) {
        return Ok(());
    } else {
        format!("Invalid UUID: {id:?}")
    };
    Err(refuse(format!("{prefix}failed intention lookup: index error: {text}")))
}

/// A hash of the content, so that a replicator sees what changed.
fn hash(record: &api::Intention) -> String {
    let mut digest = Sha256::new();
    let mut feed = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    for text in [
        &record.id,
        &record.description,
        &record.source_ns,
        &record.source_name,
        &record.destination_ns,
        &record.destination_name,
        &record.source_type,
        &record.action,
    ] {
        feed(text);
    }
    for (key, value) in &record.meta {
        feed(key);
        feed(value);
    }
    STANDARD.encode(digest.finalize())
}
