//! The words of the mesh.
//!
//! Every other crate speaks in these types: a [`ServiceName`] is valid wherever it appears, a
//! [`SpiffeId`] has been parsed, an [`IntentionSet`] gives the same verdict in the sidecar, the
//! control plane and the command line. There is no I/O here, no clock and no runtime.
//!
//! ```
//! use meshx_core::{Action, IntentionName, IntentionSet, Intention, ServiceName};
//!
//! let a: ServiceName = "node1@myhost".parse()?;
//! let b: ServiceName = "node2@myhost".parse()?;
//! let deny = Intention::new(IntentionName::Exact(b.clone()), IntentionName::Any, Action::Deny);
//! let policy = IntentionSet::new(vec![deny], Action::Allow);
//! assert_eq!(policy.judge(&a, &b).action, Action::Allow);
//! assert_eq!(policy.judge(&b, &a).action, Action::Deny);
//! # Ok::<(), meshx_core::NameError>(())
//! ```

mod error;
mod intention;
mod mesh;
mod name;
mod service;
mod spiffe;

pub use error::{Code, Diagnostic};
pub use intention::{Action, Intention, IntentionName, IntentionSet, Verdict};
pub use mesh::{Connected, Lease, MeshError, Running, ServiceMesh};
pub use name::{HostForm, NameError, NodeName, ServiceId, ServiceName};
pub use service::{Endpoint, Health, Service, Upstream};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
