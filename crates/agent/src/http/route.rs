//! Paths and the methods they take.

use hyper::Method;

/// A path that the agent knows. What follows a prefix is the client's, slashes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Root,
    AgentSelf,
    AgentServices,
    AgentService(&'a str),
    AgentServiceRegister,
    AgentServiceDeregister(&'a str),
    AgentServiceMaintenance(&'a str),
    AgentChecks,
    AgentCheckRegister,
    AgentCheckDeregister(&'a str),
    AgentCheckPass(&'a str),
    AgentCheckWarn(&'a str),
    AgentCheckFail(&'a str),
    AgentCheckUpdate(&'a str),
    AgentHealthById(&'a str),
    AgentHealthByName(&'a str),
    AgentMaintenance,
    AgentMembers,
    AgentMetrics,
    AgentRoots,
    AgentLeaf(&'a str),
    AgentAuthorize,
    CaRoots,
    CaConfiguration,
    Intentions,
    IntentionsMatch,
    IntentionsCheck,
    IntentionsExact,
    Intention(&'a str),
    HealthService(&'a str),
    HealthConnect(&'a str),
    HealthChecks(&'a str),
    HealthNode(&'a str),
    HealthState(&'a str),
    HealthIngress(&'a str),
    CatalogServices,
    CatalogService(&'a str),
    CatalogConnect(&'a str),
    CatalogNodes,
    CatalogNode(&'a str),
    CatalogNodeServices(&'a str),
    CatalogDatacenters,
    CatalogRegister,
    CatalogDeregister,
    StatusLeader,
    StatusPeers,
    CoordinateNodes,
    Config,
    ConfigKind(&'a str),
    /// Consul answers `ACL support disabled`.
    Acl,
    /// Consul has it, the embedded agent has not; the word says what.
    Absent(&'static str),
}

const GET: &[Method] = &[Method::GET];
const PUT: &[Method] = &[Method::PUT];
const POST: &[Method] = &[Method::POST];

impl<'a> Route<'a> {
    /// The route of a decoded path.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        if path == "/" {
            return Some(Self::Root);
        }
        let path = path.strip_prefix("/v1/")?;
        Self::exact(path).or_else(|| Self::prefixed(path)).or_else(|| Self::absent(path))
    }

    fn exact(path: &str) -> Option<Self> {
        Some(match path {
            "agent/self" => Self::AgentSelf,
            "agent/services" => Self::AgentServices,
            "agent/service/register" => Self::AgentServiceRegister,
            "agent/checks" => Self::AgentChecks,
            "agent/check/register" => Self::AgentCheckRegister,
            "agent/maintenance" => Self::AgentMaintenance,
            "agent/members" => Self::AgentMembers,
            "agent/metrics" => Self::AgentMetrics,
            "agent/connect/ca/roots" => Self::AgentRoots,
            "agent/connect/authorize" => Self::AgentAuthorize,
            "connect/ca/roots" => Self::CaRoots,
            "connect/ca/configuration" => Self::CaConfiguration,
            "connect/intentions" => Self::Intentions,
            "connect/intentions/match" => Self::IntentionsMatch,
            "connect/intentions/check" => Self::IntentionsCheck,
            "connect/intentions/exact" => Self::IntentionsExact,
            "catalog/services" => Self::CatalogServices,
            "catalog/nodes" => Self::CatalogNodes,
            "catalog/datacenters" => Self::CatalogDatacenters,
            "catalog/register" => Self::CatalogRegister,
            "catalog/deregister" => Self::CatalogDeregister,
            "status/leader" => Self::StatusLeader,
            "status/peers" => Self::StatusPeers,
            "coordinate/nodes" => Self::CoordinateNodes,
            "config" => Self::Config,
            _ => return None,
        })
    }

    /// Paths that end in something of the client's.
    fn prefixed(path: &'a str) -> Option<Self> {
        type Make<'a> = fn(&'a str) -> Route<'a>;
        let table: &[(&str, Make<'a>)] = &[
            ("agent/service/deregister/", Self::AgentServiceDeregister),
            ("agent/service/maintenance/", Self::AgentServiceMaintenance),
            ("agent/service/", Self::AgentService),
            ("agent/check/deregister/", Self::AgentCheckDeregister),
            ("agent/check/pass/", Self::AgentCheckPass),
            ("agent/check/warn/", Self::AgentCheckWarn),
            ("agent/check/fail/", Self::AgentCheckFail),
            ("agent/check/update/", Self::AgentCheckUpdate),
            ("agent/health/service/id/", Self::AgentHealthById),
            ("agent/health/service/name/", Self::AgentHealthByName),
            ("agent/connect/ca/leaf/", Self::AgentLeaf),
            ("agent/token/", |_| Self::Acl),
            ("acl/", |_| Self::Acl),
            ("connect/intentions/", Self::Intention),
            ("health/service/", Self::HealthService),
            ("health/connect/", Self::HealthConnect),
            ("health/checks/", Self::HealthChecks),
            ("health/node/", Self::HealthNode),
            ("health/state/", Self::HealthState),
            ("health/ingress/", Self::HealthIngress),
            ("catalog/service/", Self::CatalogService),
            ("catalog/connect/", Self::CatalogConnect),
            ("catalog/node/", Self::CatalogNode),
            ("catalog/node-services/", Self::CatalogNodeServices),
            ("config/", Self::ConfigKind),
        ];
        table.iter().find_map(|(prefix, route)| path.strip_prefix(prefix).map(route))
    }

    fn absent(path: &str) -> Option<Self> {
        const ABSENT: [(&str, &str); 19] = [
            ("kv/", "key-value store"),
            ("session/", "sessions"),
            ("txn", "transactions"),
            ("event/", "user events"),
            ("query", "prepared queries"),
            ("snapshot", "snapshots"),
            ("operator/", "operator endpoints"),
            ("internal/", "user interface of Consul"),
            ("discovery-chain/", "discovery chains"),
            ("coordinate/", "network coordinates beyond /v1/coordinate/nodes"),
            ("catalog/gateway-services/", "gateways"),
            ("agent/monitor", "log stream"),
            ("agent/host", "host report"),
            ("agent/reload", "configuration to reload"),
            ("agent/leave", "cluster to leave"),
            ("agent/join/", "cluster to join"),
            ("agent/force-leave/", "cluster to leave"),
            ("agent/keyring", "gossip keyring"),
            ("acl", "ACLs"),
        ];
        let found = ABSENT.iter().find(|(prefix, _)| path.starts_with(prefix));
        found.map(|(_, what)| Self::Absent(what))
    }

    /// The methods that the path takes, as Consul's `Allow` lists them after `OPTIONS`. Empty: any.
    pub(crate) fn methods(self) -> &'static [Method] {
        match self {
            Self::AgentServiceRegister
            | Self::AgentServiceDeregister(_)
            | Self::AgentServiceMaintenance(_)
            | Self::AgentCheckRegister
            | Self::AgentCheckDeregister(_)
            | Self::AgentCheckPass(_)
            | Self::AgentCheckWarn(_)
            | Self::AgentCheckFail(_)
            | Self::AgentCheckUpdate(_)
            | Self::AgentMaintenance
            | Self::CatalogRegister
            | Self::CatalogDeregister
            | Self::Config => PUT,
            Self::AgentAuthorize => POST,
            Self::CaConfiguration => &[Method::GET, Method::PUT],
            Self::Intentions => &[Method::GET, Method::POST],
            Self::IntentionsExact | Self::Intention(_) => {
                &[Method::GET, Method::PUT, Method::DELETE]
            }
            Self::ConfigKind(_) => &[Method::GET, Method::DELETE],
            Self::Acl | Self::Absent(_) => &[],
            _ => GET,
        }
    }

    /// The `Allow` header.
    pub(crate) fn allow(self) -> String {
        let methods = self.methods().iter().map(Method::as_str);
        std::iter::once("OPTIONS").chain(methods).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let of = |path| Route::of(path);
        assert_eq!(of("/v1/agent/service/a/b:c@d"), Some(Route::AgentService("a/b:c@d")));
        assert_eq!(of("/v1/agent/service/register"), Some(Route::AgentServiceRegister));
        assert_eq!(of("/v1/connect/intentions/match"), Some(Route::IntentionsMatch));
        assert_eq!(of("/v1/connect/intentions/xyz"), Some(Route::Intention("xyz")));
        assert_eq!(of("/v1/health/service/"), Some(Route::HealthService("")));
        assert_eq!(of("/v1/kv/a"), Some(Route::Absent("key-value store")));
        for unknown in ["/nope", "/v1/agent/nope", "/v1/agent/self/", "/v1/namespaces", "/v1", ""] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
        assert_eq!(Route::AgentServiceRegister.allow(), "OPTIONS,PUT");
        assert_eq!(Route::Intention("x").allow(), "OPTIONS,GET,PUT,DELETE");
    }
}
