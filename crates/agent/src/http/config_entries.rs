//! `service-intentions` through `/v1/config` (Consul 1.9): the same intentions, by destination.

use hyper::Method;
use meshx_consul_api::{Intention, IntentionDefinition};
use serde_json::{Value, json};

use super::Call;
use super::options::Options;
use super::reply::Reply;
use crate::control::new_uuid;
use crate::refusal::Refusal;
use crate::state::{IntentionChange, Topic};

const KIND: &str = "service-intentions";

impl Call<'_> {
    /// `PUT /v1/config`: the sources of one destination become exactly these.
    pub(super) async fn config_put(&self) -> Result<Reply, Refusal> {
        let failed = |text: String| Refusal::bad(format!("Bad request: {text}"));
        let body: Value = serde_json::from_slice(&self.request.body)
            .map_err(|error| failed(format!("Request decoding failed: {error}")))?;
        let kind = body["Kind"].as_str().or_else(|| body["kind"].as_str()).unwrap_or_default();
        if kind != KIND {
            return Err(failed(format!(
                "Request decoding failed: invalid config entry kind: {kind}"
            )));
        }
        let name = body["Name"].as_str().or_else(|| body["name"].as_str()).unwrap_or_default();
        let sources = body.get("Sources").or_else(|| body.get("sources"));
        let sources = sources.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut wanted = Vec::new();
        for source in sources {
            let text = |upper: &str, lower: &str| {
                let value = source[upper].as_str().or_else(|| source[lower].as_str());
                value.unwrap_or_default().to_owned()
            };
            if source.get("Permissions").or_else(|| source.get("permissions")).is_some() {
                return Err(failed(
                    "Permissions: the embedded agent judges connections, not requests".to_owned(),
                ));
            }
            wanted.push(IntentionDefinition {
                source_name: text("Name", "name"),
                destination_name: name.to_owned(),
                source_type: text("Type", "type"),
                action: text("Action", "action"),
                description: text("Description", "description"),
                ..IntentionDefinition::default()
            });
        }
        let mut changes: Vec<IntentionChange> = self
            .entry(name)
            .into_iter()
            .filter(|old| !wanted.iter().any(|new| new.source_name == old.source_name))
            .map(|old| IntentionChange::Remove {
                source: old.source_name,
                destination: old.destination_name,
            })
            .collect();
        changes.extend(
            wanted
                .into_iter()
                .map(|definition| IntentionChange::Upsert { id: new_uuid(), definition }),
        );
        self.control.change_intentions(changes).await?;
        self.json(&true)
    }

    /// `GET|DELETE /v1/config/:kind[/:name]`.
    pub(super) async fn config_entry(&self, path: &str) -> Result<Reply, Refusal> {
        let (kind, name) = path.split_once('/').unwrap_or((path, ""));
        if self.request.method == Method::DELETE {
            if kind == KIND {
                let gone = self.entry(name).into_iter().map(|old| IntentionChange::Remove {
                    source: old.source_name,
                    destination: old.destination_name,
                });
                self.control.change_intentions(gone.collect()).await?;
            }
            return self.json(&json!({}));
        }
        let options = Options::parse(&self.request.query)?;
        self.control.wait(&[Topic::Intentions], options.wait).await?;
        let (index, default) = self.control.read(|state| {
            (state.topics.index(&Topic::Intentions), state.intentions.default_action())
        });
        if name.is_empty() {
            let mut names: Vec<String> = self.control.read(|state| {
                state.intentions.list().map(|i| i.destination_name.clone()).collect()
            });
            names.sort();
            names.dedup();
            names.retain(|_| kind == KIND);
            let entries: Vec<Value> =
                names.iter().map(|name| entry_view(name, &self.entry(name))).collect();
            return Ok(self.json(&entries)?.indexed(index, default));
        }
        let found = if kind == KIND { self.entry(name) } else { Vec::new() };
        if found.is_empty() {
            let text = format!("Config entry not found for \"{kind}\" / \"{name}\"");
            return Ok(Reply::from(Refusal::missing(text)).indexed(index, default));
        }
        Ok(self.json(&entry_view(name, &found))?.indexed(index, default))
    }

    fn entry(&self, destination: &str) -> Vec<Intention> {
        self.control.read(|state| {
            let list = state.intentions.list();
            list.filter(|i| i.destination_name == destination).cloned().collect()
        })
    }
}

fn entry_view(name: &str, intentions: &[Intention]) -> Value {
    let sources: Vec<Value> = intentions
        .iter()
        .map(|intention| {
            json!({
                "Name": intention.source_name,
                "Action": intention.action,
                "Precedence": intention.precedence,
                "Type": intention.source_type,
                "Description": intention.description,
            })
        })
        .collect();
    json!({
        "Kind": KIND,
        "Name": name,
        "Sources": sources,
        "CreateIndex": intentions.iter().map(|i| i.create_index).min(),
        "ModifyIndex": intentions.iter().map(|i| i.modify_index).max(),
    })
}
