//! How a node gets its name.

use std::time::Duration;

use meshx_e2e::{ControlPlane, Mesh, Need, skips};

use crate::cluster::everything;

/// How long what is not immediate may take.
const SOON: Duration = Duration::from_secs(10);

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

/// A VM without a name is given one later, and connects at once, to a peer and by a peer.
fn late_name(late: &str, domain: &str, peer: &str, exec: &[&str]) {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm(peer);
    let mut b = mesh.vm_builder("").exec(exec).start();
    assert_eq!(b.eval("node()"), "nonode@nohost");
    let start = format!("{{ok, _}} = net_kernel:start(['{late}', {domain}])");
    let both = format!("begin {start}, net_kernel:connect_node('{peer}') end");
    for _ in 0..3 {
        assert_eq!(b.eval(&both), "true", "{}", b.stderr());
        assert_eq!(b.eval("node()").trim_matches('\''), late);
        b.eval("ok = net_kernel:stop()");
    }
    b.eval(&start);
    a.await_eval(&format!("net_kernel:connect_node('{late}')"), "true", SOON);
    everything(&mut b, peer);
    let warnings = b.stderr().matches("calls itself").count();
    assert_eq!(warnings, usize::from(!exec.is_empty()), "{}", b.stderr());
}

#[test]
fn late_short_name_without_a_flag() {
    late_name("late@elsewhere", "shortnames", "node1@myhost", &[]);
}

#[test]
fn late_long_name_without_a_flag() {
    late_name("late@10.0.0.5", "longnames", "node1@a.mesh", &[]);
}

#[test]
fn late_long_name_with_an_ipv6_address() {
    // The VM has to speak IPv6 from its boot on, which it does if a name with such an address is
    // expected.
    let expected = ["--name", "said@fd00::9", "--names", "none"];
    late_name("late@fd00::5", "longnames", "node1@fd00::1", &expected);
}

#[test]
fn late_name_with_consul() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    let mesh = Mesh::start(ControlPlane::Consul);
    let _a = mesh.vm("node1@a.mesh");
    // Consul shows a new service a moment later.
    let mut c = mesh.vm("node2@a.mesh");
    c.await_eval("net_kernel:connect_node('node1@a.mesh')", "true", SOON);
    let mut b = mesh.vm_builder("").start();
    let start = "{ok, _} = net_kernel:start(['late@10.0.0.5', longnames])";
    let both = format!("begin {start}, net_kernel:connect_node('node1@a.mesh') end");
    assert_eq!(b.eval(&both), "true", "{}", b.stderr());
}

#[test]
fn late_name_without_a_host() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let _a = mesh.vm("node1@myhost");
    let mut b = mesh.vm_builder("").start();
    let start = "{ok, _} = net_kernel:start([late, shortnames])";
    let both = format!("begin {start}, net_kernel:connect_node('node1@myhost') end");
    assert_eq!(b.eval(&both), "true", "{}", b.stderr());
}

#[test]
fn late_name_that_does_not_listen() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let _a = mesh.vm("node1@myhost");
    let silent = ["-kernel", "dist_listen", "false"];
    let quiet = mesh.vm_builder("late@myhost").exec(&["--names", "none", "--hidden"]);
    let mut b = quiet.erl(&silent).start();
    let start = "{ok, _} = net_kernel:start(['late@myhost', shortnames])";
    let both = format!("begin {start}, net_kernel:connect_node('node1@myhost') end");
    assert_eq!(b.eval(&both), "true", "{}", b.stderr());
    assert_eq!(b.eval("nodes(hidden)"), "[node1@myhost]");
}

#[test]
fn another_name_than_the_flag_said() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm("node1@a.mesh");
    for true_name in ["said@true.mesh", "other@true.mesh"] {
        let mut b = mesh.vm_builder("said@first.mesh").exec(&["--names", "none"]).start();
        let start = format!("{{ok, _}} = net_kernel:start(['{true_name}', longnames])");
        let both = format!("begin {start}, net_kernel:connect_node('node1@a.mesh') end");
        assert_eq!(b.eval(&both), "true", "{}", b.stderr());
        assert_eq!(a.nodes(), format!("['{true_name}']"));
        let warning = format!("the program calls itself {true_name}, not said@first.mesh");
        assert_eq!(b.stderr().matches("calls itself").count(), 1, "{}", b.stderr());
        assert!(b.stderr().contains(&warning), "{}", b.stderr());
        let known = mesh.cli_ok(&["services", "list"]);
        assert!(known.contains(true_name) && !known.contains("first.mesh"), "{known}");
    }
}

#[test]
fn a_name_that_a_live_process_holds_is_refused_to_the_vm() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    // The command tells no host, so only the VM's own registration can find out.
    let taken = mesh.vm_builder("").erl(&["-sname", "taken"]);
    let _holder = taken.start();
    let mut second = taken.spawn();
    let status = second.wait(Duration::from_secs(20));
    assert!(!status.success(), "{}", second.stderr());
    let stderr = second.stderr();
    assert!(stderr.contains("MX0307") && stderr.contains("already registered"), "{stderr}");
}

#[test]
fn a_late_name_that_a_live_process_holds_is_said_once() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let holder = mesh.vm("late@myhost");
    let mut a = mesh.vm("node1@myhost");
    let mut b = mesh.vm_builder("").start();
    let start = "{ok, _} = net_kernel:start(['late@myhost', shortnames])";
    let both = format!("begin {start}, net_kernel:connect_node('node1@myhost') end");
    assert_eq!(b.eval(&both), "false", "{}", b.stderr());
    // The module tries again every two seconds.
    std::thread::sleep(Duration::from_millis(4500));
    assert_eq!(b.stderr().matches("MX0307").count(), 1, "{}", b.stderr());
    assert_eq!(a.connect("late@myhost"), "true");
    holder.stop(0);
    b.await_eval("net_kernel:connect_node('node1@myhost')", "true", SOON);
}

#[test]
fn without_the_control_plane_nobody_is_said_to_be_missing() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mut mesh = Mesh::agent();
    let mut a = mesh.vm("node1@myhost");
    mesh.kill_control_plane();
    assert_eq!(a.connect("unknown@myhost"), "false");
    let stderr = a.stderr();
    assert!(stderr.contains("failed (control_plane)"), "{stderr}");
    assert!(stderr.contains("MX0101") && stderr.contains("CONSUL_HTTP_ADDR"), "{stderr}");
    assert!(!stderr.contains("MX0201"), "{stderr}");
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
