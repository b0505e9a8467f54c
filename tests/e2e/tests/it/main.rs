//! Whole meshes, as a user sees them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod commands;
mod demo_rpc;
mod epmd;
mod etf;
mod faults;
mod hostile;
mod hosts;
mod lifecycle;
mod names;
mod node;
mod plain;
mod policy;
mod releases;
mod rpc;
mod tcp;
mod wire;

use meshx_e2e::{Mesh, Vm};

const A: &str = "node1@myhost";
const B: &str = "node2@myhost";

/// Two VMs, connected by the second one.
fn pair(mesh: &Mesh) -> (Vm, Vm) {
    let a = mesh.vm(A);
    let mut b = mesh.vm(B);
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    (a, b)
}
