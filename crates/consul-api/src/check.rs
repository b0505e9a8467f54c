//! Checks: their definitions, their state.

use std::collections::BTreeMap;

use meshx_core::Health;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::tolerant::{is_default, null_default};
use crate::{AgentService, GoDuration};

/// The state of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "Consul's three states")]
pub enum CheckStatus {
    /// Peers may be led here.
    Passing,
    /// Peers may be led here; somebody should look.
    Warning,
    /// Peers are not led here.
    #[default]
    Critical,
}

impl CheckStatus {
    /// The state that this word names.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "passing" => Some(Self::Passing),
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }

    /// Consul's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl<'de> Deserialize<'de> for CheckStatus {
    /// A word of a later Consul that is not known reads as critical: no peer is led there.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::from_word(&word).unwrap_or(Self::Critical))
    }
}

impl From<CheckStatus> for Health {
    fn from(status: CheckStatus) -> Self {
        match status {
            CheckStatus::Passing => Self::Passing,
            CheckStatus::Warning => Self::Warning,
            CheckStatus::Critical => Self::Critical,
        }
    }
}

impl From<Health> for CheckStatus {
    fn from(health: Health) -> Self {
        match health {
            Health::Passing => Self::Passing,
            Health::Warning => Self::Warning,
            Health::Critical => Self::Critical,
        }
    }
}

/// A check inside a registration (`Check`, `Checks`). Which of `TTL`, `TCP`, `HTTP`, `AliasService`
/// is given decides its type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckDefinition {
    /// The id; derived from the service when absent.
    #[serde(rename = "CheckID", skip_serializing_if = "Option::is_none")]
    pub check_id: Option<String>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Notes for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The initial state; critical when absent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_status")]
    pub status: Option<CheckStatus>,
    /// Critical when the owner is silent for this long.
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// Passing when a connection to this `host:port` opens.
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Passing when a request to this URL is answered with 2xx; 429 warns.
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Method of the request; `GET` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields of the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub header: BTreeMap<String, Vec<String>>,
    /// Body of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Accepts any certificate of an `https` URL.
    #[serde(
        rename = "TLSSkipVerify",
        skip_serializing_if = "is_default",
        deserialize_with = "null_default"
    )]
    pub tls_skip_verify: bool,
    /// `host:port[/service]` of a gRPC health service.
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// A script to run.
    #[serde(
        alias = "Args",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub script_args: Vec<String>,
    /// Time between two probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Patience of one probe; 10 s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Takes the state of this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_service: Option<String>,
    /// Takes the state of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_node: Option<String>,
    /// Consecutive successes before the check passes.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub success_before_passing: u32,
    /// Consecutive failures before the check is critical.
    #[serde(skip_serializing_if = "is_default", deserialize_with = "null_default")]
    pub failures_before_critical: u32,
    /// Removes the service when the check is critical for this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deregister_critical_service_after: Option<GoDuration>,
}

/// A check to register on its own (`PUT /v1/agent/check/register`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentCheckRegistration {
    /// The id; the name when absent.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The service it belongs to; the node when absent.
    #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
    pub service_id: Option<String>,
    /// What is checked.
    #[serde(flatten)]
    pub definition: CheckDefinition,
}

/// A new state of a TTL check (`PUT /v1/agent/check/update/:id`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckUpdate {
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// A line for people.
    #[serde(deserialize_with = "null_default")]
    pub output: String,
}

/// A check and its state, as `agent/checks` and `health/*` answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// The node it runs on.
    pub node: String,
    /// Its id on that node.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// A name for people.
    pub name: String,
    /// Its state.
    pub status: CheckStatus,
    /// Notes for people.
    pub notes: String,
    /// What the last probe said.
    pub output: String,
    /// The service it belongs to, empty for a check of the node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The name of that service.
    pub service_name: String,
    /// The tags of that service.
    #[serde(deserialize_with = "null_default")]
    pub service_tags: Vec<String>,
    /// `ttl`, `tcp`, `http`, `alias`, `maintenance`, or empty.
    #[serde(rename = "Type")]
    pub check_type: String,
    /// The definition, where Consul tells it.
    pub definition: Value,
    /// The index at which it was made.
    pub create_index: u64,
    /// The index at which it changed last.
    pub modify_index: u64,
}

/// The state of one local service (`GET /v1/agent/health/service/{id,name}/:x`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentServiceHealth {
    /// `passing`, `warning`, `critical`, or `maintenance`.
    pub aggregated_status: String,
    /// The service, absent when it is unknown.
    pub service: Option<AgentService>,
    /// Its checks and those of its node.
    pub checks: Option<Vec<HealthCheck>>,
}

/// Reads the empty word, which Go clients send, as no word.
fn empty_status<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<CheckStatus>, D::Error> {
    let word = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if word.is_empty() {
        return Ok(None);
    }
    Ok(Some(CheckStatus::from_word(&word).unwrap_or(CheckStatus::Critical)))
}
