//! `/v1/connect/intentions…`, in the form of 1.8 and in that of 1.9's `exact`.

use std::collections::BTreeMap;

use hyper::Method;
use meshx_consul_api::{Created, IntentionCheck, IntentionDefinition};
use meshx_core::{Action, IntentionName};
use serde_json::Value;

use super::Call;
use super::decode::{self, INTENTION};
use super::filter::Kind;
use super::options::Options;
use super::reply::Reply;
use crate::control::new_uuid;
use crate::refusal::Refusal;
use crate::state::{IntentionChange, Topic};

impl Call<'_> {
    pub(super) async fn intentions(&self) -> Result<Reply, Refusal> {
        if self.request.method == Method::POST {
            return self.intention_create().await;
        }
        let options = Options::parse(&self.request.query)?;
        let filter = self.filter(Kind::Intention)?;
        self.control.wait(&[Topic::Intentions], options.wait).await?;
        let (mut list, index, default) = self.control.read(|state| {
            let list: Vec<_> = state.intentions.list().cloned().collect();
            let index = state.topics.index(&Topic::Intentions);
            (list, index, state.intentions.default_action())
        });
        if let Some(filter) = filter {
            list.retain(|intention| filter.matches(intention));
        }
        Ok(self.json(&list)?.indexed(index, default))
    }

    async fn intention_create(&self) -> Result<Reply, Refusal> {
        let body = decode::read(&self.request.body, &INTENTION)
            .map_err(|text| Refusal::internal(format!("Failed to decode request body: {text}")))?;
        if body["ID"].as_str().is_some_and(|id| !id.is_empty()) {
            return Err(Refusal::internal("ID must be empty when creating a new intention"));
        }
        let definition = definition(body).map_err(|text| {
            Refusal::internal(format!("Failed to decode request body: {text}"))
        })??;
        let id = new_uuid();
        let change = IntentionChange::Create { id: id.clone(), definition };
        self.control.change_intentions(vec![change]).await?;
        self.json(&Created { id })
    }

    /// `connect/intentions/:id`.
    pub(super) async fn intention(&self, id: &str) -> Result<Reply, Refusal> {
        match self.request.method {
            Method::PUT => {
                let definition = self.intention_body()?;
                let change = IntentionChange::Update { id: id.to_owned(), definition };
                self.control.change_intentions(vec![change]).await?;
                self.json(&Created { id: id.to_owned() })
            }
            Method::DELETE => {
                let change = IntentionChange::Delete { id: id.to_owned() };
                self.control.change_intentions(vec![change]).await?;
                self.json(&true)
            }
            _ => {
                let found = self.control.read(|state| state.intentions.by_id(id).cloned())?;
                self.json(&found)
            }
        }
    }

    /// `connect/intentions/exact?source=&destination=` (Consul 1.9).
    pub(super) async fn intention_exact(&self) -> Result<Reply, Refusal> {
        let source = self.exact_name("source")?;
        let destination = self.exact_name("destination")?;
        match self.request.method {
            Method::PUT => {
                let mut definition = self.intention_body()?;
                for (field, name) in [
                    (&mut definition.source_name, &source),
                    (&mut definition.destination_name, &destination),
                ] {
                    if !field.is_empty() && field != name {
                        return Err(Refusal::bad(
                            "Bad request: the body names another source or destination than the \
                             query",
                        ));
                    }
                    field.clone_from(name);
                }
                let change = IntentionChange::Upsert { id: new_uuid(), definition };
                self.control.change_intentions(vec![change]).await?;
                self.json(&true)
            }
            Method::DELETE => {
                let change = IntentionChange::Remove { source, destination };
                self.control.change_intentions(vec![change]).await?;
                self.json(&true)
            }
            _ => {
                let found = self
                    .control
                    .read(|state| state.intentions.by_pair(&source, &destination).cloned());
                self.json(&found.ok_or_else(|| Refusal::missing("Intention not found"))?)
            }
        }
    }

    pub(super) async fn intentions_match(&self) -> Result<Reply, Refusal> {
        let options = Options::parse(&self.request.query)?;
        let query = &self.request.query;
        let by = query.get("by");
        let by = by.ok_or_else(|| Refusal::internal("required query parameter 'by' not set"))?;
        let by_source = match by {
            "source" => true,
            "destination" => false,
            _ => {
                return Err(Refusal::internal(
                    "'by' parameter must be one of 'source' or 'destination'",
                ));
            }
        };
        let names: Vec<&str> = query.all("name").collect();
        if names.is_empty() {
            return Err(Refusal::internal("required query parameter 'name' not set"));
        }
        self.control.wait(&[Topic::Intentions], options.wait).await?;
        let (matches, index, default) = self.control.read(|state| {
            let matches: BTreeMap<&str, Option<Vec<_>>> = names
                .iter()
                .map(|name| {
                    let bare = name.strip_prefix("default/").unwrap_or(name);
                    let found = state.intentions.matching(bare, by_source);
                    let found: Vec<_> = found.into_iter().cloned().collect();
                    (*name, Some(found).filter(|found| !found.is_empty()))
                })
                .collect();
            let index = state.topics.index(&Topic::Intentions);
            (matches, index, state.intentions.default_action())
        });
        // Consul 1.8 tells no index here; telling it lets clients wait.
        Ok(self.json(&matches)?.indexed(index, default))
    }

    pub(super) fn intentions_check(&self) -> Result<Reply, Refusal> {
        let query = &self.request.query;
        let name = |key: &str| {
            let text = query.get(key).ok_or_else(|| {
                Refusal::internal(format!("required query parameter '{key}' not set"))
            })?;
            let bare = text.strip_prefix("default/").unwrap_or(text);
            bare.parse::<IntentionName>()
                .map_err(|error| Refusal::internal(format!("{key}: {error}")))
        };
        let (source, destination) = (name("source")?, name("destination")?);
        if let Some(other) = query.filled("source-type").filter(|kind| *kind != "consul") {
            return Err(Refusal::internal(format!("unsupported SourceType: \"{other}\"")));
        }
        let action = self.control.read(|state| state.intentions.judge_names(&source, &destination));
        self.json(&IntentionCheck { allowed: action == Action::Allow })
    }

    /// The body of a write to an intention that is named by the path or the query.
    fn intention_body(&self) -> Result<IntentionDefinition, Refusal> {
        let failed = |text| Refusal::bad(format!("Bad request: Request decode failed: {text}"));
        let body = decode::read(&self.request.body, &INTENTION).map_err(failed)?;
        definition(body).map_err(failed)?
    }

    fn exact_name(&self, key: &str) -> Result<String, Refusal> {
        let text = self.request.query.filled(key).ok_or_else(|| {
            Refusal::bad(format!("Bad request: required query parameter '{key}' not set"))
        })?;
        Ok(text.strip_prefix("default/").unwrap_or(text).to_owned())
    }
}

/// What a body defines: the outer error is one of decoding, the inner one of meaning.
fn definition(body: Value) -> Result<Result<IntentionDefinition, Refusal>, String> {
    for side in ["SourceNS", "DestinationNS"] {
        if body[side].as_str().is_some_and(|ns| !matches!(ns, "" | "default")) {
            return Ok(Err(Refusal::internal(format!(
                "{side}: Namespaces are a Consul Enterprise feature"
            ))));
        }
    }
    if body["Permissions"].as_array().is_some_and(|rules| !rules.is_empty()) {
        return Ok(Err(Refusal::internal(
            "Permissions: the embedded agent judges connections, not requests; use Action",
        )));
    }
    decode::typed(body).map(Ok)
}
