//! JSON types of Consul's HTTP API, shared by client and agent.
//!
//! The types speak as Consul 1.8.7 does, recorded from the real program:
//!
//! * what is written carries Go's field names, and a field that is absent is left out, so that a
//!   request holds nothing a 1.8 agent would refuse;
//! * what is read tolerates fields that are unknown and lists that are `null`, so that a client
//!   works with every later Consul.
//!
//! Refusing unknown keys, and accepting keys in other cases, is the duty of a server that decodes
//! requests; it is not done here.
//!
//! ```
//! use meshx_consul_api::{AgentServiceRegistration, CheckDefinition, GoDuration};
//!
//! let web = AgentServiceRegistration {
//!     name: "web".to_owned(),
//!     port: Some(8080),
//!     check: Some(CheckDefinition {
//!         ttl: Some(GoDuration::from_secs(90)),
//!         ..CheckDefinition::default()
//!     }),
//!     ..AgentServiceRegistration::default()
//! };
//! let json = serde_json::to_string(&web)?;
//! assert_eq!(json, r#"{"Name":"web","Port":8080,"Check":{"TTL":"1m30s"}}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod agent;
mod catalog;
mod check;
mod connect;
mod duration;
mod intention;
mod proxy;
mod registration;
mod tolerant;

pub use agent::{AgentDebugConfig, AgentMember, AgentSelf, AgentSelfConfig, AgentService};
pub use catalog::{
    CatalogDeregistration, CatalogNode, CatalogRegistration, CatalogService, HealthServiceEntry,
    Node, NodeService, NodeServiceRegistration,
};
pub use check::{
    AgentCheckRegistration, AgentServiceHealth, CheckDefinition, CheckStatus, CheckUpdate,
    HealthCheck,
};
pub use connect::{
    AuthorizeRequest, AuthorizeResponse, CaConfiguration, CaRoot, CaRoots, Leaf, SecretPem,
};
pub use duration::{DurationError, GoDuration};
pub use intention::{Created, Intention, IntentionCheck, IntentionDefinition, IntentionError};
pub use proxy::{Proxy, ServiceConnect, SidecarService, Upstream};
pub use registration::{AgentServiceRegistration, ServiceAddress, Weights};
