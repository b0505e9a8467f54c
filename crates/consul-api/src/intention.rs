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
    /// The peered cluster of the source (Consul 1.13); empty for a service of this one.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub source_peer: String,
    /// The group of clusters of the source (Consul 1.16 Enterprise).
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub source_sameness_group: String,
    /// The partition of the source (Consul 1.11 Enterprise).
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub source_partition: String,
    /// The namespace of the source, `default`.
    #[serde(rename = "SourceNS", deserialize_with = "null_default")]
    pub source_ns: String,
    /// Who dials, or `*`.
    pub source_name: String,
    /// The partition of the destination (Consul 1.11 Enterprise).
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub destination_partition: String,
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
    /// What a request must prove by a token (Consul 1.15), opaque here.
    #[serde(rename = "JWT", skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Value>,
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
    /// The rule that it states about connections between services of this mesh: those of the
    /// namespace and partition `default`, without a peer.
    ///
    /// What is not understood denies. So an intention with HTTP permissions or tokens denies (whoever
    /// sees only connections cannot tell which requests would be allowed; Consul's `authorize`
    /// answers the same), and so does one whose action is unknown.
    ///
    /// An intention that speaks of somebody else alone, such as a peer's services, is an
    /// [`Elsewhere`](IntentionError::Elsewhere): the caller passes over it. One that speaks of more
    /// than this mesh (a namespace or partition `*`, a sameness group, a source that is not of the
    /// type `consul`) counts when it denies, and is passed over when it allows.
    pub fn rule(&self) -> Result<meshx_core::Intention, IntentionError> {
        let is_l7 = !self.permissions.is_empty() || self.jwt.is_some();
        let action = match self.action.as_str() {
            "allow" if !is_l7 => Action::Allow,
            _ => Action::Deny,
        };
        match self.scope() {
            Scope::Here => {}
            Scope::More if action == Action::Deny => {}
            Scope::More | Scope::Elsewhere => return Err(IntentionError::Elsewhere),
        }
        let (source, destination) = (self.source_name.parse()?, self.destination_name.parse()?);
        Ok(meshx_core::Intention::new(source, destination, action))
    }

    fn scope(&self) -> Scope {
        let tenancy = [
            &self.source_partition,
            &self.source_ns,
            &self.destination_partition,
            &self.destination_ns,
        ];
        let scopes = tenancy.map(|name| match name.as_str() {
            "" => Scope::Here,
            "*" => Scope::More,
            name if name.eq_ignore_ascii_case("default") => Scope::Here,
            _ => Scope::Elsewhere,
        });
        let widest = scopes.into_iter().max().unwrap_or(Scope::Here);
        if !self.source_peer.is_empty() {
            return Scope::Elsewhere;
        }
        let is_consul = matches!(self.source_type.as_str(), "" | "consul");
        if is_consul && self.source_sameness_group.is_empty() {
            return widest;
        }
        widest.max(Scope::More)
    }
}

/// Whom an intention speaks of, the widest last but for those elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// The services of this mesh.
    Here,
    /// Them and others.
    More,
    /// Others.
    Elsewhere,
}

/// Why an intention of the API states no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntentionError {
    /// It speaks of another namespace, partition, group or peer than this mesh.
    #[error("an intention speaks of services outside this mesh (namespace, partition or peer)")]
    Elsewhere,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<String, IntentionError> {
        let intention: Intention = serde_json::from_str(text).unwrap();
        intention.rule().map(|rule| rule.action.to_string())
    }

    /// An intention `web -> db` with these fields.
    fn with(fields: &str) -> Result<String, IntentionError> {
        rule(&format!(r#"{{"SourceName":"web","DestinationName":"db",{fields}}}"#))
    }

    #[test]
    fn only_what_speaks_of_this_mesh_allows() {
        for here in [
            r#""Action":"allow""#,
            r#""SourceNS":"default","DestinationNS":"Default","SourceType":"consul","Action":"allow""#,
            r#""SourcePartition":"default","DestinationPartition":"","SourcePeer":"","Action":"allow""#,
        ] {
            assert_eq!(with(here).as_deref(), Ok("allow"), "{here}");
        }
        for outside in [
            r#""SourcePeer":"other""#,
            r#""SourceNS":"team""#,
            r#""DestinationNS":"team""#,
            r#""SourcePartition":"part""#,
            r#""DestinationPartition":"part""#,
        ] {
            for action in ["allow", "deny", "bogus"] {
                let fields = format!(r#"{outside},"Action":"{action}""#);
                assert_eq!(with(&fields), Err(IntentionError::Elsewhere), "{fields}");
            }
        }
        for more in [
            r#""SourceNS":"*""#,
            r#""DestinationNS":"*""#,
            r#""SourcePartition":"*""#,
            r#""SourceSamenessGroup":"all""#,
            r#""SourceType":"external""#,
        ] {
            let allow = format!(r#"{more},"Action":"allow""#);
            assert_eq!(with(&allow), Err(IntentionError::Elsewhere), "{allow}");
            let deny = format!(r#"{more},"Action":"deny""#);
            assert_eq!(with(&deny).as_deref(), Ok("deny"), "{deny}");
            let both = format!(r#"{more},"SourcePeer":"other","Action":"deny""#);
            assert_eq!(with(&both), Err(IntentionError::Elsewhere), "{both}");
        }
    }

    #[test]
    fn what_is_not_understood_denies() {
        for fields in [
            r#""Action":"deny""#,
            r#""Action":"Allow""#,
            r#""Action":"audit""#,
            r#""Action":"""#,
            r#""Action":null"#,
            r#""Description":"no action at all""#,
            r#""Permissions":[{"Action":"allow"}]"#,
            r#""Permissions":[{"Action":"allow"}],"Action":"allow""#,
            r#""JWT":{"Providers":[]},"Action":"allow""#,
        ] {
            assert_eq!(with(fields).as_deref(), Ok("deny"), "{fields}");
        }
        let nobody = rule(r#"{"SourceName":"a b","DestinationName":"db","Action":"deny"}"#);
        assert!(matches!(nobody, Err(IntentionError::Name(_))));
    }
}
