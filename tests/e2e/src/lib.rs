//! Fixtures for tests with whole meshes: a control plane, wrapped programs, real Erlang VMs.
//!
//! Nothing here uses the crates of the product: the tests see what a user sees, which is the
//! `meshx` binary, its output and its exit status.
//!
//! * [`Mesh`] is a running control plane (`meshx agent` or real Consul) with a home folder.
//! * [`Vm`] is a stock Erlang VM under `meshx exec`; [`Vm::eval`] runs an expression in it.
//! * [`PlainVm`] is a stock VM without any of the product; [`Epmd`] is a real port mapper for it, and
//!   [`Release`] chooses among releases of OTP.
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
mod plain_vm;
mod process;
mod release;
pub mod sockets;
mod vm;

pub use mesh::{ControlPlane, Home, Mesh, Outcome, free_port};
pub use needs::{Need, consul, example, meshx, skips};
pub use plain_vm::{Epmd, PlainVm, PlainVmBuilder};
pub use process::{Process, wait_until};
pub use release::Release;
pub use vm::{Vm, VmBuilder, atom};
