//! How a node gets its name.

use meshx_e2e::{Mesh, Need, skips};

use crate::cluster::everything;

/// Boots a pair by the given names and lets them work.
fn works_with_names(first: &str, second: &str) {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm(first);
    let mut b = mesh.vm(second);
    assert_eq!(b.eval("node()").trim_matches('\''), second);
    assert_eq!(b.connect(first), "true", "{}", b.stderr());
    everything(&mut b, first);
    everything(&mut a, second);
}

#[test]
fn long_names_with_hosts_that_nobody_can_resolve() {
    works_with_names("node1@pod-1.app.mesh", "node2@pod-2.app.mesh");
}

#[test]
fn long_names_with_foreign_ipv4_addresses() {
    works_with_names("node1@10.1.2.3", "node2@10.1.2.4");
}

#[test]
fn long_names_with_ipv6_addresses() {
    works_with_names("node1@fd00::1", "node2@fd00::2");
}

#[test]
fn same_name_on_two_hosts() {
    works_with_names("app@host1", "app@host2");
}

#[test]
fn name_in_the_programs_own_arguments() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm_builder("").erl(&["-sname", "own1@myhost"]).start();
    let mut b = mesh.vm_builder("").erl(&["-sname", "own2@myhost"]).start();
    assert_eq!(a.eval("node()"), "own1@myhost");
    assert_eq!(b.connect("own1@myhost"), "true", "{}", b.stderr());
    everything(&mut a, "own2@myhost");
}

#[test]
fn long_name_in_the_programs_own_arguments() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let _a = mesh.vm_builder("").erl(&["-name", "own1@a.mesh"]).start();
    let mut b = mesh.vm("own2@b.mesh");
    assert_eq!(b.connect("own1@a.mesh"), "true", "{}", b.stderr());
}

#[test]
fn two_different_names_are_refused_before_anything_runs() {
    let mesh = Mesh::agent();
    let outcome = mesh.cli(&["exec", "--name", "a@myhost", "--", "erl", "-sname", "b@myhost"]);
    assert!(outcome.code != 0 && outcome.code != 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("a@myhost") && outcome.stderr.contains("b@myhost"),
        "{outcome:?}"
    );
}

#[test]
fn name_given_later_by_net_kernel() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let _a = mesh.vm("node1@myhost");
    let mut b = mesh.vm_builder("late@myhost").exec(&["--names", "none"]).start();
    assert_eq!(b.eval("node()"), "nonode@nohost");
    b.eval("{ok, _} = net_kernel:start(['late@myhost', shortnames])");
    assert_eq!(b.connect("node1@myhost"), "true", "{}", b.stderr());
    everything(&mut b, "node1@myhost");
    b.eval("ok = net_kernel:stop()");
    b.eval("{ok, _} = net_kernel:start(['late@myhost', shortnames])");
    assert_eq!(b.connect("node1@myhost"), "true", "{}", b.stderr());
}

#[test]
fn child_vms_do_not_inherit_the_name() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm("node1@myhost");
    let child = "os:cmd(\"erl -noshell -eval 'io:format(\\\"~s\\\", [node()]), halt().'\")";
    assert_eq!(a.eval(child), "\"nonode@nohost\"");
}

#[test]
fn bad_names_are_refused_at_the_border() {
    let mesh = Mesh::agent();
    for name in ["", "a b@myhost", "a@", "@myhost", "a@b@c", "a\n@myhost", &"x".repeat(300)] {
        let outcome = mesh.cli(&["exec", "--name", name, "--", "true"]);
        assert_ne!(outcome.code, 0, "{name:?}: {outcome:?}");
        assert!(outcome.stderr.contains("error"), "{name:?}: {outcome:?}");
    }
}
