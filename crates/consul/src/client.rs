//! The HTTP API, one method per call that the product makes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use meshx_consul_api as api;
use meshx_core::{Action, IntentionName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::transport::Transport;
use crate::{Address, Config, ConsulError};

/// Largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Most characters that are shown of what an agent says in a refusal.
const MAX_WORDS: usize = 500;
/// Time for an answer that does not block.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a blocking query asks the agent to wait: below the 30 s at which some releases, and
/// many proxies, cut a connection.
pub(crate) const WAIT: Duration = Duration::from_secs(25);
/// What may stand unescaped in a path segment. `@` and `:` may, by RFC 3986.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@').remove(b':');

/// A client of one agent. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    config: Config,
}

/// An answer with what the agent says about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The body.
    pub value: T,
    /// `X-Consul-Index`; `None` where the agent sends none.
    pub index: Option<u64>,
    /// `X-Consul-Default-ACL-Policy`, from Consul 1.9.
    pub default_policy: Option<Action>,
}

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(config: Config) -> Result<Self, ConsulError> {
        let transport = Transport::new(&config)?;
        Ok(Self { inner: Arc::new(Inner { transport, config }) })
    }

    /// Where the agent is.
    pub fn address(&self) -> &Address {
        self.inner.transport.address()
    }

    /// `GET /v1/agent/self`: who answers.
    pub async fn agent_self(&self) -> Result<api::AgentSelf, ConsulError> {
        Ok(self.get("/v1/agent/self").await?.value)
    }

    /// `GET /v1/agent/service/:id`; `None` when the agent does not know it.
    pub async fn agent_service(&self, id: &str) -> Result<Option<api::AgentService>, ConsulError> {
        found(self.get(&format!("/v1/agent/service/{}", segment(id))).await)
    }

    /// `GET /v1/agent/services`.
    pub async fn agent_services(
        &self,
    ) -> Result<std::collections::BTreeMap<String, api::AgentService>, ConsulError> {
        Ok(self.get("/v1/agent/services").await?.value)
    }

    /// `GET /v1/agent/checks`.
    pub async fn agent_checks(
        &self,
    ) -> Result<std::collections::BTreeMap<String, api::HealthCheck>, ConsulError> {
        Ok(self.get("/v1/agent/checks").await?.value)
    }

    /// `GET /v1/catalog/services`: every service with its tags.
    pub async fn catalog_services(
        &self,
    ) -> Result<std::collections::BTreeMap<String, Vec<String>>, ConsulError> {
        Ok(self.get("/v1/catalog/services").await?.value)
    }

    /// `GET /v1/health/service/:name`: every instance, passing or not.
    pub async fn health_service(
        &self,
        name: &str,
    ) -> Result<Vec<api::HealthServiceEntry>, ConsulError> {
        Ok(self.get(&format!("/v1/health/service/{}", segment(name))).await?.value)
    }

    /// `GET /v1/health/connect/:name`: every sidecar of the service, passing or not.
    pub async fn health_connect(
        &self,
        name: &str,
    ) -> Result<Vec<api::HealthServiceEntry>, ConsulError> {
        Ok(self.get(&health_connect_path(name)).await?.value)
    }

    /// `GET /v1/agent/connect/ca/roots`.
    pub async fn ca_roots(&self) -> Result<api::CaRoots, ConsulError> {
        Ok(self.get("/v1/agent/connect/ca/roots").await?.value)
    }

    /// `PUT /v1/agent/service/register`, replacing the checks of an earlier registration.
    pub async fn register(
        &self,
        service: &api::AgentServiceRegistration,
    ) -> Result<(), ConsulError> {
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.send(Method::PUT, path, Some(service)).await.map(drop)
    }

    /// `PUT /v1/agent/service/deregister/:id`. Unknown ids are no error.
    pub async fn deregister(&self, id: &str) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/deregister/{}", segment(id));
        match self.send(Method::PUT, &path, NO_BODY).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            done => done.map(drop),
        }
    }

    /// `PUT /v1/agent/check/update/:id`: the state of a TTL check. `Ok(false)` when the agent does
    /// not know the check: register again.
    pub async fn update_check(
        &self,
        id: &str,
        update: &api::CheckUpdate,
    ) -> Result<bool, ConsulError> {
        let path = format!("/v1/agent/check/update/{}", segment(id));
        match self.send(Method::PUT, &path, Some(update)).await {
            // 1.8 answers an unknown TTL check with 500, later releases with 404.
            Err(error) if matches!(error.status(), Some(404 | 500)) => Ok(false),
            done => done.map(|_| true),
        }
    }

    /// `GET /v1/connect/intentions`.
    pub async fn intentions(&self) -> Result<Answer<Vec<api::Intention>>, ConsulError> {
        self.get("/v1/connect/intentions").await
    }

    /// Makes sure that exactly this action holds for the pair: `PUT …/exact` from Consul 1.9, the
    /// older calls by id where the agent does not know it.
    pub async fn put_intention(
        &self,
        source: &IntentionName,
        destination: &IntentionName,
        action: Action,
    ) -> Result<(), ConsulError> {
        let definition = api::IntentionDefinition {
            source_name: source.to_string(),
            destination_name: destination.to_string(),
            source_type: "consul".to_owned(),
            action: action.to_string(),
            ..api::IntentionDefinition::default()
        };
        let exact = exact_path(source, destination);
        let body = api::IntentionDefinition {
            source_name: String::new(),
            destination_name: String::new(),
            ..definition.clone()
        };
        match self.send(Method::PUT, &exact, Some(&body)).await {
            Err(error) if is_before_1_9(&error) => {}
            done => return done.map(drop),
        }
        match self.intention_id(source, destination).await? {
            Some(id) => {
                let path = format!("/v1/connect/intentions/{}", segment(&id));
                self.send(Method::PUT, &path, Some(&definition)).await.map(drop)
            }
            None => {
                let path = "/v1/connect/intentions";
                self.send(Method::POST, path, Some(&definition)).await.map(drop)
            }
        }
    }

    /// Removes the intention of exactly this pair; `false` when there is none.
    pub async fn delete_intention(
        &self,
        source: &IntentionName,
        destination: &IntentionName,
    ) -> Result<bool, ConsulError> {
        let Some(id) = self.intention_id(source, destination).await? else {
            return Ok(false);
        };
        let exact = exact_path(source, destination);
        match self.send(Method::DELETE, &exact, NO_BODY).await {
            Err(error) if is_before_1_9(&error) => {}
            done => return done.map(|_| true),
        }
        let path = format!("/v1/connect/intentions/{}", segment(&id));
        self.send(Method::DELETE, &path, NO_BODY).await.map(|_| true)
    }

    /// The id of the pair's intention; empty from agents that give none.
    async fn intention_id(
        &self,
        source: &IntentionName,
        destination: &IntentionName,
    ) -> Result<Option<String>, ConsulError> {
        let (source, destination) = (source.to_string(), destination.to_string());
        let list = self.intentions().await?.value;
        let found =
            list.into_iter().find(|i| i.source_name == source && i.destination_name == destination);
        Ok(found.map(|intention| intention.id))
    }

    /// A `GET` that does not block.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ConsulError> {
        let answer = self.send(Method::GET, path, NO_BODY).await?;
        self.decode("GET", path, &answer)
    }

    /// A `POST` without a body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ConsulError> {
        let answer = self.send(Method::POST, path, NO_BODY).await?;
        self.decode("POST", path, &answer)
    }

    /// A blocking query: answers when the index passes `index`, or after about 25 s.
    pub(crate) async fn get_blocking<T: DeserializeOwned>(
        &self,
        path: &str,
        index: u64,
    ) -> Result<Answer<T>, ConsulError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}index={index}&wait={}s", WAIT.as_secs());
        // The agent adds up to a sixteenth of jitter.
        let limit = WAIT + WAIT / 16 + ANSWER_LIMIT;
        // Never repeated: an agent that broke off may be back with another memory, and would let
        // a question with the old index wait for nothing.
        let answer = self.exchange(Method::GET, &path, NO_BODY, limit, Repeat::Never).await?;
        self.decode("GET", &path, &answer)
    }

    fn decode<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        answer: &Raw,
    ) -> Result<Answer<T>, ConsulError> {
        let value = serde_json::from_slice(&answer.body).map_err(|e| ConsulError::Unexpected {
            address: self.address().to_string(),
            request: format!("{method} {path}"),
            reason: e.to_string(),
        })?;
        Ok(Answer { value, index: answer.index, default_policy: answer.default_policy })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Raw, ConsulError> {
        let repeat = if method == Method::POST { Repeat::Unsent } else { Repeat::Idle };
        self.exchange(method, path, body, ANSWER_LIMIT, repeat).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
        repeat: Repeat,
    ) -> Result<Raw, ConsulError> {
        let request = || format!("{method} {path}");
        let broken = |reason: String| ConsulError::Broken {
            address: self.address().to_string(),
            request: request(),
            reason,
        };
        let body = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body).map_err(|e| broken(e.to_string()))?),
            None => Bytes::new(),
        };
        let exchange = async {
            loop {
                let (mut sender, used) = self.inner.transport.take().await?;
                let message = self.message(&method, path, body.clone())?;
                match sender.send_request(message).await {
                    Ok(response) => return Ok((sender, response)),
                    // The agent closed a connection that had been idle.
                    Err(error) if used && repeat.allows(&error) => {}
                    Err(error) => return Err(broken(error.to_string())),
                }
            }
        };
        let (sender, response) = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| broken(format!("no answer within {limit:?}")))??;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(limit, Limited::new(body, MAX_ANSWER).collect())
            .await
            .map_err(|_| broken(format!("the answer did not end within {limit:?}")))?
            .map_err(|e| broken(e.to_string()))?
            .to_bytes();
        self.inner.transport.keep(sender);
        if head.status != StatusCode::OK {
            return Err(ConsulError::Refused {
                address: self.address().to_string(),
                request: request(),
                status: head.status.as_u16(),
                text: printable(&String::from_utf8_lossy(&body)),
            });
        }
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let index = header("x-consul-index").and_then(|text| text.parse().ok());
        let default_policy = match header("x-consul-default-acl-policy") {
            Some("allow") => Some(Action::Allow),
            Some("deny") => Some(Action::Deny),
            _ => None,
        };
        Ok(Raw { body, index, default_policy })
    }

    fn message(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ConsulError> {
        let host = match self.address() {
            Address::Tcp { authority, .. } => authority.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut builder = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = self.token()? {
            let value = secret_header("CONSUL_HTTP_TOKEN", token.trim())?;
            builder = builder.header("x-consul-token", value);
        }
        if let Some(auth) = &self.inner.config.auth {
            use base64::Engine as _;
            let encoded =
                Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(auth.expose()));
            let value = Zeroizing::new(format!("Basic {}", *encoded));
            builder = builder.header(AUTHORIZATION, secret_header("CONSUL_HTTP_AUTH", &value)?);
        }
        builder
            .body(Full::new(body))
            .map_err(|e| ConsulError::config(&format!("the path {path}"), e))
    }

    fn token(&self) -> Result<Option<Zeroizing<String>>, ConsulError> {
        let config = &self.inner.config;
        match (&config.token_file, &config.token) {
            (Some(path), _) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(Zeroizing::new(text))),
                Err(error) => {
                    let setting = format!("CONSUL_HTTP_TOKEN_FILE={}", path.display());
                    Err(ConsulError::config(&setting, error))
                }
            },
            (None, Some(token)) => Ok(Some(Zeroizing::new(token.expose().to_owned()))),
            (None, None) => Ok(None),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.address())
    }
}

/// The path of `health/connect` for a service, without a query.
pub(crate) fn health_connect_path(name: &str) -> String {
    format!("/v1/health/connect/{}", segment(name))
}

/// A path segment, percent-encoded.
pub(crate) fn segment(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, SEGMENT)
}

const NO_BODY: Option<&()> = None;

/// When a request is sent again because a kept connection turned out to be closed.
#[derive(Clone, Copy)]
enum Repeat {
    /// Not at all.
    Never,
    /// If it was not sent.
    Unsent,
    /// Even if it was sent and there was no answer: doing it twice is doing it once.
    Idle,
}

impl Repeat {
    fn allows(self, error: &hyper::Error) -> bool {
        match self {
            Self::Never => false,
            Self::Unsent => error.is_canceled(),
            Self::Idle => error.is_canceled() || error.is_incomplete_message(),
        }
    }
}

/// What of an agent's words may be shown: Consul's own have line breaks and tabs.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() && !"\n\t".contains(c) { '\u{fffd}' } else { c };
    let text = text.trim();
    // A page, not a sentence: what answers is no agent.
    if text.starts_with('<') {
        return "(a web page)".to_owned();
    }
    text.chars().take(MAX_WORDS).map(plain).collect()
}

struct Raw {
    body: Bytes,
    index: Option<u64>,
    default_policy: Option<Action>,
}

fn found<T>(answer: Result<Answer<T>, ConsulError>) -> Result<Option<T>, ConsulError> {
    match answer {
        Ok(answer) => Ok(Some(answer.value)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn exact_path(source: &IntentionName, destination: &IntentionName) -> String {
    let encode =
        |name: &IntentionName| utf8_percent_encode(&name.to_string(), NON_ALPHANUMERIC).to_string();
    let (source, destination) = (encode(source), encode(destination));
    format!("/v1/connect/intentions/exact?source={source}&destination={destination}")
}

/// Before 1.9 the agent takes `exact` for an id, and complains that it is too short for one
/// (1.8.7, recorded), or does not know the path at all.
fn is_before_1_9(error: &ConsulError) -> bool {
    match error {
        ConsulError::Refused { status: 400 | 500, text, .. } => {
            text.contains("UUID must be 36 characters") || text.contains("non-existent intention")
        }
        ConsulError::Refused { status: 404 | 405, text, .. } => text.is_empty(),
        _ => false,
    }
}

fn secret_header(setting: &str, text: &str) -> Result<HeaderValue, ConsulError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| ConsulError::config(setting, "it has characters that HTTP does not allow"))?;
    value.set_sensitive(true);
    Ok(value)
}
