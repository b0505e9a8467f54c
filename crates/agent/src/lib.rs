//! The embedded control plane for one machine.
//!
//! [`Agent`] answers the part of HashiCorp Consul's HTTP API and DNS that a mesh needs, as Consul
//! 1.8.7 answers it: services and their sidecars, checks, health, the catalog, Connect certificates,
//! intentions, blocking queries. Consul's own clients work against it. It is judged by the same
//! conformance suite as the real program (`tests/conformance`).
//!
//! What it is not: a cluster. It knows one node, has no key-value store, no sessions, no ACLs, and
//! keeps services in memory: sidecars register again. Growing up means starting Consul on the same
//! port.
//!
//! Its own promises:
//!
//! * an index of a result set only rises, with a data directory over restarts too, and a write wakes
//!   only the queries whose result it changes;
//! * with a data directory, a write to the intentions or the certificate authority is on disk
//!   before it is acknowledged;
//! * everything that is kept, received or waited for has a bound: requests (512 KiB, 64 KiB of
//!   headers), connections (2048), blocking queries (4096), services, nodes and intentions (10 000
//!   each), checks (20 000), leaf certificates (16 384), roots (16), the texts and JSON of each;
//! * it answers to this machine alone when it listens on loopback, and to no page of another site.
//!
//! ```
//! use meshx_agent::{Agent, AgentConfig};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), meshx_agent::AgentError> {
//! let config = AgentConfig {
//!     http_addr: ([127, 0, 0, 1], 0).into(),
//!     dns_addr: None,
//!     ..AgentConfig::default()
//! };
//! let agent = Agent::start(config).await?;
//! println!("http://{} is the control plane of {}", agent.http_addr(), agent.trust_domain());
//! agent.shutdown().await;
//! # Ok(()) }
//! ```

mod agent;
mod config;
mod control;
mod dns;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod limits;
mod probe;
mod refusal;
mod state;
mod store;

pub use agent::Agent;
pub use config::AgentConfig;
pub use error::{AgentError, Holder};

/// The version of Consul whose API is spoken.
pub(crate) const CONSUL_VERSION: &str = "1.8.7";
