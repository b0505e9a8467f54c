//! Who may talk to whom, also while they talk.

use std::time::{Duration, Instant};

use meshx_e2e::{ControlPlane, Mesh, Need, skips};
use rustix::process::Signal;

use crate::{A, B, pair};

/// From the command's start until the link is gone on both sides.
const CUT: Duration = Duration::from_secs(1);

#[test]
fn deny_cuts_the_live_link_and_allow_heals_it() {
    if skips(&[Need::Erlang]) {
        return;
    }
    deny_and_allow(ControlPlane::Agent);
}

#[test]
fn deny_cuts_the_live_link_with_consul_too() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    deny_and_allow(ControlPlane::Consul);
}

fn deny_and_allow(kind: ControlPlane) {
    let mesh = Mesh::start(kind);
    let (mut a, mut b) = pair(&mesh);
    let mut c = mesh.vm("node3@myhost");
    assert_eq!(c.connect(A), "true", "{}", c.stderr());
    b.await_eval("lists:sort(nodes())", "[node1@myhost,node3@myhost]", Duration::from_secs(5));
    // A bystander that loses sight of one of two peers makes `global` tear the rest down
    // ("prevent overlapping partitions", OTP 25); that is not what is tested here.
    assert_eq!(c.stop(0), Some(0));
    b.await_eval("nodes()", "[node1@myhost]", Duration::from_secs(5));

    let start = Instant::now();
    let deny = mesh.cli(&["intentions", "deny", B, A]);
    assert_eq!(deny.code, 0, "{deny:?}");
    assert!(deny.stdout.contains("closed 1 live connection"), "{deny:?}");
    b.await_eval("nodes()", "[]", CUT);
    a.await_eval("nodes()", "[]", CUT);
    assert!(start.elapsed() < CUT, "cut after {:?}", start.elapsed());

    assert_eq!(mesh.cli(&["intentions", "check", B, A]).code, 1);
    assert_eq!(b.connect(A), "false");
    b.wrapper().await_stderr("denied", Duration::from_secs(2));
    // Both ways: an Erlang link carries traffic both ways whoever dialled.
    assert_eq!(mesh.cli(&["intentions", "check", A, B]).code, 1);
    assert_eq!(a.connect(B), "false");
    let why = mesh.cli(&["why", B, A]);
    assert_eq!(why.code, 1, "{why:?}");
    assert!(why.stdout.contains("denied"), "{why:?}");

    mesh.cli_ok(&["intentions", "allow", B, A]);
    assert_eq!(mesh.cli(&["intentions", "check", B, A]).code, 0);
    b.await_eval(&format!("net_kernel:connect_node('{A}')"), "true", Duration::from_secs(3));
    assert_eq!(b.eval(&format!("erpc:call('{A}', erlang, node, [])")), A);
}

#[test]
fn deny_of_one_pair_leaves_the_others_alone() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    // Without `global`'s full mesh, so that each link is our own doing.
    let start = |name: &str| mesh.vm_builder(name).erl(&["-connect_all", "false"]).start();
    let (mut a, mut b, mut c) = (start(A), start(B), start("node3@myhost"));
    for vm in [&mut b, &mut c] {
        assert_eq!(vm.connect(A), "true", "{}", vm.stderr());
    }
    let link = "proplists:get_value(owner, element(2, net_kernel:node_info('node1@myhost')))";
    let before = c.eval(link);
    mesh.cli_ok(&["intentions", "deny", B, A]);
    b.await_eval("nodes()", "[]", CUT);
    assert_eq!(a.nodes(), "[node3@myhost]");
    assert_eq!(c.eval(&format!("erpc:call('{A}', erlang, node, [])")), A);
    assert_eq!(c.eval(link), before, "the other link is the same one as before");
}

#[test]
fn deny_by_consuls_own_api_cuts_as_well() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (_a, mut b) = pair(&mesh);
    let start = Instant::now();
    let path = format!("/v1/connect/intentions/exact?source={B}&destination={A}");
    mesh.put(&path, &serde_json::json!({"Action": "deny"}));
    b.await_eval("nodes()", "[]", CUT);
    assert!(start.elapsed() < CUT, "cut after {:?}", start.elapsed());
}

#[test]
fn default_deny_lets_only_the_allowed_pair_in() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    mesh.cli_ok(&["intentions", "deny", "*", "*"]);
    mesh.cli_ok(&["intentions", "allow", B, A]);
    let _a = mesh.vm(A);
    let mut b = mesh.vm(B);
    let mut c = mesh.vm("node3@myhost");
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    assert_eq!(c.connect(A), "false");
    let list = mesh.cli_ok(&["intentions", "list"]);
    assert!(list.contains("deny") && list.contains(A), "{list}");
}

/// A wrapper that was stopped in its terminal (Ctrl-Z) answers nobody, and delays nobody.
#[test]
fn a_stopped_sidecar_delays_no_deny() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let stopped = mesh.exec(&["--name", "stopped"], &["sleep", "60"]);
    let (_a, mut b) = pair(&mesh);
    stopped.signal(Signal::STOP);
    let start = Instant::now();
    let deny = mesh.cli(&["intentions", "deny", B, A]);
    b.await_eval("nodes()", "[]", CUT);
    stopped.signal(Signal::CONT);
    assert!(start.elapsed() < 2 * CUT, "cut after {:?}", start.elapsed());
    assert!(deny.stdout.contains("closed 1 live connection"), "{deny:?}");
    assert!(deny.stderr.contains("stopped could not be asked"), "{deny:?}");
}
