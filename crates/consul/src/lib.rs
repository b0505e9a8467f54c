//! The control plane as a client sees it: HashiCorp Consul, or `meshx agent`, which answers alike.
//!
//! * [`Config`] reads the same environment as Consul's own tools (`CONSUL_HTTP_ADDR` and the rest).
//! * [`Client`] speaks the HTTP API: TCP, TLS or a Unix socket, tokens, blocking queries.
//! * [`Follow`] turns a blocking query into a stream of changes that survives restarts of the agent
//!   and resets of its index.
//! * [`follow_identity`], [`follow_intentions`] and [`follow_endpoints`] keep what a sidecar needs;
//!   the last good answer stays while the control plane is away.
//! * [`Registration`] keeps one instance registered: checks fresh, registered again when the agent
//!   lost it, deregistered at the end.

mod client;
mod config;
mod error;
mod follow;
mod registration;
mod transport;
mod views;

pub use client::{Answer, Client};
pub use config::{Address, Config, Secret, TlsFiles};
pub use error::ConsulError;
pub use follow::Follow;
pub use registration::{Instance, Registration};
pub use views::{follow_endpoints, follow_identity, follow_intentions, policy_now};
