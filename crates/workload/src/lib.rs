//! What `meshx exec` and `meshx proxy` do: bring a program into the mesh without changing it.
//!
//! * [`Member`]: one service instance in the mesh: certificate, intentions, sidecar, registration.
//! * [`Mesh`]: the same for Rust programs, as [`meshx_core::ServiceMesh`].
//! * [`exec`]: runs a command as a member. An Erlang VM gets a private EPMD front door and the epmd
//!   module that asks it, by its environment alone.
//! * [`admin`]: what a sidecar tells about itself, over a Unix socket of its user.
//!
//! Nothing here prints: what a person should read goes through [`Notice`].

pub mod admin;
mod child;
mod claim;
mod error;
pub mod exec;
mod front_door;
pub mod listening;
mod member;
mod mesh;
mod naming;
mod notice;
mod rundir;
mod serve;
mod upstreams;
mod vm;

/// What is written there compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub use child::launch;
pub use error::WorkloadError;
pub use member::{Member, MemberConfig, UpstreamGuard};
pub use mesh::Mesh;
pub use naming::NamesMode;
pub use notice::{Notice, Notify};
pub use serve::{ProxyConfig, proxy};
pub use upstreams::{UpstreamSpec, variables};
