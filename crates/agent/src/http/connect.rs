//! Roots, leaves, authorisation: `/v1/agent/connect/…` and `/v1/connect/ca/…`.

use std::time::{Duration, SystemTime};

use hyper::{Method, StatusCode};
use meshx_consul_api::{AuthorizeRequest, AuthorizeResponse, CaConfiguration};
use meshx_core::{Action, ServiceName, SpiffeError, SpiffeId};

use super::Call;
use super::decode::{AUTHORIZE, CA_CONFIGURATION};
use super::options::{Options, parse_wait};
use super::reply::Reply;
use super::request::go_bool;
use crate::control::Wait;
use crate::refusal::Refusal;
use crate::state::{HandedLeaf, Topic, describe_intention};

/// A waiting leaf query looks at the wall clock this often: a clock that jumps must not let a
/// certificate run out behind its back.
const CLOCK_STEP: Duration = Duration::from_secs(10);

impl Call<'_> {
    /// `agent/connect/ca/roots` and `connect/ca/roots`.
    pub(super) async fn roots(&self, from_agent: bool) -> Result<Reply, Refusal> {
        let query = &self.request.query;
        let options = Options::parse(query)?;
        let is_pem = match query.get("pem").filter(|_| !from_agent) {
            // Consul wants a value; `?pem` alone is nothing.
            None | Some("") => false,
            Some(word) => go_bool(word).ok_or_else(|| {
                Refusal::bad("Bad request: The 'pem' query parameter must be a boolean value")
            })?,
        };
        self.control.wait(&[Topic::Roots], options.wait).await?;
        let (roots, index, default) = self.control.read(|state| {
            let index = state.topics.index(&Topic::Roots);
            (state.authority.roots(), index, state.intentions.default_action())
        });
        if is_pem {
            let pem: String = roots.roots.into_iter().map(|root| root.root_cert).collect();
            return Ok(Reply::text(StatusCode::OK, "application/pem-certificate-chain", pem));
        }
        let reply = self.json(&roots)?.indexed(index, default);
        Ok(if from_agent { reply.cached(Some(0)) } else { reply })
    }

    /// `agent/connect/ca/leaf/:service`. A query that waits ends when the root rotates or when two
    /// thirds of the life of the leaf are over.
    pub(super) async fn leaf(&self, service: &str) -> Result<Reply, Refusal> {
        let wait = parse_wait(&self.request.query)?;
        if service.is_empty() {
            return Err(Refusal::internal("URI must be either service or agent"));
        }
        let service: ServiceName = service.parse().map_err(|error| {
            Refusal::internal(format!("SPIFFE ID is not in the expected format: {error}"))
        })?;
        let topics = [Topic::Leaf(service.to_string()), Topic::Roots];
        let deadline = tokio::time::Instant::now() + wait.time;
        let handed = loop {
            // Read before the leaf is: what happens in between ends the wait at once.
            let seen = self.control.read(|state| state.topics.last());
            let handed = self.issue(&service)?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let is_news = wait.index == 0 || handed.leaf.modify_index > wait.index;
            if is_news || left.is_zero() || self.control.stop.is_cancelled() {
                break handed;
            }
            let until_renewal = handed.renew.duration_since(SystemTime::now()).unwrap_or_default();
            let time = left.min(until_renewal).min(CLOCK_STEP);
            self.control.wait(&topics, Wait { index: seen, time }).await?;
        };
        let index = handed.leaf.modify_index;
        let default = self.control.read(|state| state.intentions.default_action());
        let age = handed.age.map(|age| age.as_secs());
        Ok(self.json(&handed.leaf)?.indexed(index, default).cached(age))
    }

    fn issue(&self, service: &ServiceName) -> Result<HandedLeaf, Refusal> {
        self.control
            .write(|state, _| {
                let crate::state::State { authority, topics, .. } = state;
                authority.leaf(service, topics, SystemTime::now())
            })
            .map_err(|error| Refusal::internal(error.to_string()))
    }

    pub(super) fn authorize(&self) -> Result<Reply, Refusal> {
        let request: AuthorizeRequest =
            self.decode(&AUTHORIZE).map_err(|refusal| refusal.prefixed("Bad request: "))?;
        if request.target.is_empty() {
            return Err(Refusal::bad("Bad request: Target service must be specified"));
        }
        let id: SpiffeId = request.client_cert_uri.parse().map_err(|error| {
            // A SPIFFE id of something else than a service is Connect's, but of no use here.
            let uri = request.client_cert_uri.as_str();
            let is_other = matches!(error, SpiffeError::Path)
                && (uri.matches('/').count() == 2 || uri.contains("/agent/"));
            let what = if is_other { "Service" } else { "Connect" };
            Refusal::bad(format!("Bad request: ClientCertURI not a valid {what} identifier"))
        })?;
        let target: ServiceName = request.target.parse().map_err(|error| {
            Refusal::bad(format!("Bad request: Target is not a service: {error}"))
        })?;
        let response = self.control.read(|state| {
            let (verdict, record) = state.intentions.judge(id.service(), &target);
            let reason = match (record, verdict.action) {
                (Some(record), _) => format!("Matched intention: {}", describe_intention(record)),
                (None, Action::Allow) => "ACLs disabled, access is allowed by default".to_owned(),
                (None, Action::Deny) => "Default behavior configured by ACLs".to_owned(),
            };
            AuthorizeResponse { authorized: verdict.is_allowed(), reason }
        });
        Ok(self.json(&response)?.cached(Some(0)))
    }

    pub(super) async fn ca_configuration(&self) -> Result<Reply, Refusal> {
        if self.request.method == Method::GET {
            let config = self.control.read(|state| state.authority.config().clone());
            return self.json(&config);
        }
        let request: CaConfiguration =
            self.decode(&CA_CONFIGURATION).map_err(|refusal| refusal.prefixed("Bad request: "))?;
        self.control.change_authority(request).await?;
        Ok(Reply::empty())
    }
}
