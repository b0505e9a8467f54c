//! Fixtures for tests with whole meshes: a control plane, wrapped programs, real Erlang VMs.
//!
//! Nothing here uses the crates of the product: the tests see what a user sees, which is the
//! `meshx` binary, its output and its exit status.
//!
//! * [`Mesh`] is a running control plane (`meshx agent` or real Consul) with a home folder.
//! * [`Vm`] is a stock Erlang VM under `meshx exec`; [`Vm::eval`] runs an expression in it.
//! * [`Process`] is any program with captured output.
//!
//! Every fixture ends what it started, and only that, when it is dropped. Every wait has a deadline.
#![allow(
    clippy::panic_in_result_fn,
    clippy::unwrap_used,
    reason = "a fixture that cannot be set up fails its test"
)]

pub mod capture;
pub mod hostile;
mod mesh;
mod needs;
pub mod netns;
mod process;
pub mod sockets;
mod vm;

pub use mesh::{ControlPlane, Home, Mesh, Outcome};
pub use needs::{Need, consul, meshx, otp27_erl, skips};
pub use process::{Process, wait_until};
pub use vm::{Vm, VmBuilder, atom};
