//! What works on a plain cluster works in the mesh.

use std::time::Duration;

use meshx_e2e::{ControlPlane, Mesh, Need, Vm, skips};

const A: &str = "node1@myhost";
const B: &str = "node2@myhost";

/// Two VMs that are connected.
fn pair(mesh: &Mesh) -> (Vm, Vm) {
    let a = mesh.vm(A);
    let mut b = mesh.vm(B);
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    (a, b)
}

#[test]
fn plain() {
    let mesh = Mesh::start(ControlPlane::Agent);
    let mut a = mesh.vm("node1@localhost");
    let mut b = mesh.vm("node2@localhost");
    assert_eq!(a.connect("node2@localhost"), "true");
    everything(&mut a, &mut b);
}
