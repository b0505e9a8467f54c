//! Intentions, in the 1.8 form and in that of 1.9's `/exact`.

use std::collections::BTreeMap;

use meshx_core::{Action, NameError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tolerant::{is_default, null_default};

/// An intention as the control plane stores it (`GET /v1/connect/intentions`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Intention {
    /// The id, a UUID; Consul from 1.9 has none for an intention made through `/exact`.
    #[serde(rename = "ID", deserialize_with = "null_default")]
    pub id: String,
    /// Words for people.
    #[serde(deserialize_with = "null_default")]
    pub description: String,
    /// The namespace of the source, `default`.
    #[serde(rename = "SourceNS", deserialize_with = "null_default")]
    pub source_ns: String,
    /// Who dials, or `*`.
    pub source_name: String,
    /// The namespace of the destination, `default`.
    #[serde(rename = "DestinationNS", deserialize_with = "null_default")]
    pub destination_ns: String,
    /// Who is dialled, or `*`.
    pub destination_name: String,
    /// `consul`.
    #[serde(deserialize_with = "null_default")]
    pub source_type: String,
    /// `allow` or `deny`; empty when [`permissions`](Self::permissions) decide.
    #[serde(deserialize_with = "null_default")]
    pub action: String,
    /// Rules about HTTP requests (Consul 1.9), opaque here.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub permissions: Vec<Value>,
    /// Unused by Consul.
    #[serde(deserialize_with = "null_default")]
    pub default_addr: String,
    /// Unused by Consul.
    #[serde(deserialize_with = "null_default")]
    pub default_port: u16,
    /// Metadata.
    #[serde(deserialize_with = "null_default")]
    pub meta: BTreeMap<String, String>,
    /// 9 exact to exact, 8 any to exact, 6 exact to any, 5 any to any.
    #[serde(deserialize_with = "null_default")]
    pub precedence: u8,
    /// When it was made, RFC 3339.
    #[serde(deserialize_with = "null_default")]
    pub created_at: String,
    /// When it was changed, RFC 3339.
    #[serde(deserialize_with = "null_default")]
    pub updated_at: String,
    /// A hash of its content, in base64.
    #[serde(deserialize_with = "null_default")]
    pub hash: String,
    /// The index at which it was made.
    pub create_index: u64,
    /// The index at which it changed last.
    pub modify_index: u64,
}

impl Intention {
    /// The rule that it states about connections.
    ///
    /// An intention with HTTP permissions denies: whoever sees only connections cannot tell which
    /// requests would be allowed (Consul's `authorize` answers the same).
    pub fn rule(&self) -> Result<meshx_core::Intention, IntentionError> {
        let action = match self.action.as_str() {
            _ if !self.permissions.is_empty() => Action::Deny,
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            _ => return Err(IntentionError::Action),
        };
        let (source, destination) = (self.source_name.parse()?, self.destination_name.parse()?);
        Ok(meshx_core::Intention::new(source, destination, action))
    }
}

/// Why an intention of the API states no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntentionError {
    /// Its action is neither `allow` nor `deny`.
    #[error("an intention has an action that is neither allow nor deny")]
    Action,
    /// One of its names is not a service.
    #[error("an intention names no service: {0}")]
    Name(#[from] NameError),
}

/// The body that makes or changes an intention: `POST /v1/connect/intentions`,
/// `PUT /v1/connect/intentions/:id`, and with the names left out `PUT …/exact` (Consul 1.9).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IntentionDefinition {
    /// Who dials, or `*`.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub source_name: String,
    /// Who is dialled, or `*`.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub destination_name: String,
    /// `consul`.
    #[serde(deserialize_with = "null_default")]
    pub source_type: String,
    /// `allow` or `deny`.
    #[serde(deserialize_with = "null_default")]
    pub action: String,
    /// Words for people.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub description: String,
    /// Metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub meta: BTreeMap<String, String>,
}

impl From<&meshx_core::Intention> for IntentionDefinition {
    fn from(rule: &meshx_core::Intention) -> Self {
        Self {
            source_name: rule.source.to_string(),
            destination_name: rule.destination.to_string(),
            source_type: "consul".to_owned(),
            action: rule.action.to_string(),
            ..Self::default()
        }
    }
}

/// The id of what was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Created {
    /// The id.
    #[serde(rename = "ID")]
    pub id: String,
}

/// The answer of `GET /v1/connect/intentions/check`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IntentionCheck {
    /// True when the connection may be.
    pub allowed: bool,
}
