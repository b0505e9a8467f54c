//! Consul's HTTP API over the registry.

mod agent;
mod catalog;
mod config_entries;
mod connect;
pub(crate) mod decode;
pub(crate) mod filter;
mod health;
mod intentions;
pub(crate) mod options;
mod reply;
pub(crate) mod request;
pub(crate) mod route;
pub(crate) mod server;
mod site;

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Serialize;

use self::filter::Filter;
use self::options::Options;
use self::reply::Reply;
use self::request::Request;
use self::route::Route;
pub(crate) use self::site::Site;
use crate::control::Control;
use crate::limits;
use crate::refusal::Refusal;
use crate::state::{State, Topic};

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) http: SocketAddr,
    pub(crate) dns: Option<SocketAddr>,
    pub(crate) site: Site,
}

/// One request at the registry.
struct Call<'a> {
    control: &'a Arc<Control>,
    facts: &'a Facts,
    request: &'a Request,
}

/// Answers a request.
pub(crate) async fn answer(control: &Arc<Control>, facts: &Facts, request: Request) -> Reply {
    let Some(route) = Route::of(&request.path) else { return Reply::unknown_path() };
    if let Route::Absent(what) = route {
        return Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            format!(
                "This is the embedded meshx agent for one machine; it has no {what}. HashiCorp \
                 Consul has: start it in place of the agent."
            ),
        )
        .into();
    }
    if route == Route::Acl {
        return Refusal::new(StatusCode::UNAUTHORIZED, "ACL support disabled").into();
    }
    if request.method == Method::OPTIONS {
        return Reply::empty().header("allow", route.allow());
    }
    if !route.methods().contains(&request.method) {
        let text = format!("method {} not allowed", request.method);
        return Reply::from(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text))
            .header("allow", route.allow());
    }
    let call = Call { control, facts, request: &request };
    call.dispatch(route).await.unwrap_or_else(Reply::from)
}

impl Call<'_> {
    async fn dispatch(&self, route: Route<'_>) -> Result<Reply, Refusal> {
        match route {
            Route::Root => Ok(self.front_page()),
            Route::AgentSelf => self.agent_self(),
            Route::AgentServices => self.agent_services(),
            Route::AgentService(id) => self.agent_service(id).await,
            Route::AgentServiceRegister => self.service_register(),
            Route::AgentServiceDeregister(id) => self.service_deregister(id),
            Route::AgentServiceMaintenance(id) => self.service_maintenance(id),
            Route::AgentChecks => self.agent_checks(),
            Route::AgentCheckRegister => self.check_register(),
            Route::AgentCheckDeregister(id) => Ok(self.check_deregister(id)),
            Route::AgentCheckPass(id) => self.check_note(id, "passing"),
            Route::AgentCheckWarn(id) => self.check_note(id, "warning"),
            Route::AgentCheckFail(id) => self.check_note(id, "critical"),
            Route::AgentCheckUpdate(id) => self.check_update(id),
            Route::AgentHealthById(id) => self.agent_health_by_id(id),
            Route::AgentHealthByName(name) => self.agent_health_by_name(name),
            Route::AgentMaintenance => self.node_maintenance(),
            Route::AgentMembers => self.members(),
            Route::AgentMetrics => self.metrics(),
            Route::AgentRoots => self.roots(true).await,
            Route::AgentLeaf(service) => self.leaf(service).await,
            Route::AgentAuthorize => self.authorize(),
            Route::CaRoots => self.roots(false).await,
            Route::CaConfiguration => self.ca_configuration().await,
            Route::Intentions => self.intentions().await,
            Route::IntentionsMatch => self.intentions_match().await,
            Route::IntentionsCheck => self.intentions_check(),
            Route::IntentionsExact => self.intention_exact().await,
            Route::Intention(id) => self.intention(id).await,
            Route::HealthService(name) => self.health_service(name, false).await,
            Route::HealthConnect(name) => self.health_service(name, true).await,
            Route::HealthChecks(name) => self.health_checks(name).await,
            Route::HealthNode(name) => self.health_node(name).await,
            Route::HealthState(word) => self.health_state(word).await,
            Route::HealthIngress(name) => self.health_ingress(name),
            Route::CatalogServices => self.catalog_services().await,
            Route::CatalogService(name) => self.catalog_service(name, false).await,
            Route::CatalogConnect(name) => self.catalog_service(name, true).await,
            Route::CatalogNodes => self.catalog_nodes().await,
            Route::CatalogNode(name) => self.catalog_node(name, false).await,
            Route::CatalogNodeServices(name) => self.catalog_node(name, true).await,
            Route::CatalogDatacenters => self.datacenters(),
            Route::CatalogRegister => self.catalog_register(),
            Route::CatalogDeregister => self.catalog_deregister(),
            Route::StatusLeader => self.leader(false),
            Route::StatusPeers => self.leader(true),
            Route::CoordinateNodes => self.coordinates(),
            Route::Config => self.config_put().await,
            Route::ConfigKind(path) => self.config_entry(path).await,
            Route::Acl | Route::Absent(_) => Ok(Reply::unknown_path()),
        }
    }

    /// JSON, pretty when the client asks.
    fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Reply, Refusal> {
        Reply::json(value, self.request.query.has("pretty"))
    }

    /// The filter of the request, for items of this kind.
    fn filter(&self, kind: filter::Kind) -> Result<Option<Filter>, Refusal> {
        self.request.query.filled("filter").map(|text| Filter::parse(text, kind)).transpose()
    }

    /// A query of the catalog: waits when asked to, then looks.
    async fn query<T: Serialize>(
        &self,
        topic: Topic,
        look: impl FnOnce(&State) -> Result<T, Refusal>,
    ) -> Result<Reply, Refusal> {
        let options = Options::parse(&self.request.query)?;
        let datacenter = self.request.query.filled("dc");
        self.control.read(|state| state.check_datacenter(datacenter))?;
        let topics = [topic];
        self.control.wait(&topics, options.wait).await?;
        let (value, index, default) = self.control.read(|state| {
            let default = state.intentions.default_action();
            look(state).map(|value| (value, state.topics.index(&topics[0]), default))
        })?;
        let mut reply = self.json(&value)?.indexed(index, default).consistency(options.consistency);
        if options.is_cached {
            reply = reply.cached(Some(0));
        }
        Ok(reply)
    }

    /// Refuses a body that does not decode, with Consul's prefix.
    fn decode<T: serde::de::DeserializeOwned>(
        &self,
        schema: &decode::Schema,
    ) -> Result<T, Refusal> {
        decode::decode(&self.request.body, schema)
            .map_err(|text| Refusal::bad(format!("Request decode failed: {text}")))
    }

    fn front_page(&self) -> Reply {
        let dns = self.facts.dns.map_or_else(|| "off".to_owned(), |dns| dns.to_string());
        let text = format!(
            "meshx agent {} - the control plane of a mesh on one machine.\n\n\
             It speaks the HTTP API of HashiCorp Consul under http://{}/v1/ and its DNS on {dns}.\n\
             Try: curl http://{}/v1/catalog/services\n",
            env!("CARGO_PKG_VERSION"),
            self.facts.http,
            self.facts.http,
        );
        Reply::text(StatusCode::OK, "text/plain; charset=utf-8", text)
    }
}

/// A body within the bound, or why not.
fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("Request body too large, max size: {} bytes", limits::BODY),
    )
}
