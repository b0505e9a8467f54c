//! The control plane goes away and comes back.

use std::time::{Duration, Instant};

use meshx_e2e::{ControlPlane, Mesh, Need, skips, wait_until};

use crate::{A, B, pair};

/// From the agent's return until everything is registered again.
const BACK: Duration = Duration::from_secs(5);

#[test]
fn link_outlives_the_agent_and_everything_comes_back() {
    if skips(&[Need::Erlang]) {
        return;
    }
    link_outlives(ControlPlane::Agent);
}

#[test]
fn link_outlives_consul_and_everything_comes_back() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    link_outlives(ControlPlane::Consul);
}

fn link_outlives(kind: ControlPlane) {
    let mut mesh = Mesh::start(kind);
    let (mut a, mut b) = pair(&mesh);
    let call = format!("erpc:call('{A}', erlang, node, [])");
    b.eval("net_kernel:monitor_nodes(true)");
    mesh.kill_control_plane();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(b.eval(&call), A);
        std::thread::sleep(Duration::from_millis(100));
    }
    mesh.start_control_plane();
    let start = Instant::now();
    for name in [A, B] {
        wait_until("both are registered again", BACK, || {
            let passing = mesh.get(&format!("/v1/health/connect/{name}?passing"))?;
            passing.contains(name).then_some(())
        });
    }
    assert!(start.elapsed() < BACK, "{:?}", start.elapsed());
    assert_eq!(b.eval(&call), A);
    let events = "receive {nodedown, N} -> {down, N} after 0 -> none end";
    assert_eq!(b.eval(events), "none", "the link never broke");
    // The control plane forgot its authority too: new connections need new certificates.
    b.eval("net_kernel:monitor_nodes(false)");
    assert_eq!(b.eval(&format!("erlang:disconnect_node('{A}')")), "true");
    b.await_eval(&format!("net_kernel:connect_node('{A}')"), "true", BACK);
    let mut c = mesh.vm("node3@myhost");
    // The newcomer's certificate is of the new authority from the start; the others follow.
    c.await_eval(&format!("net_kernel:connect_node('{A}')"), "true", BACK);
    a.await_eval("lists:member('node3@myhost', nodes())", "true", BACK);
}

#[test]
fn a_new_agent_with_the_same_data_keeps_authority_and_intentions() {
    let mesh = Mesh::agent();
    let data = mesh.home().join("data");
    let data = data.to_str().unwrap();
    let start = |address: &str| {
        let arguments = ["agent", "--dns-addr", "none", "--http-addr", address, "--data-dir", data];
        let process = meshx_e2e::Process::start("meshx agent", &mut mesh.command(&arguments));
        let seen = mesh.beside(address);
        wait_until("the agent", BACK, || seen.get("/v1/status/leader"));
        (process, seen)
    };
    let address = Mesh::free_address();
    let (mut process, seen) = start(&address);
    seen.cli_ok(&["intentions", "deny", "web", "db"]);
    let roots = |mesh: &Mesh| mesh.get_json("/v1/connect/ca/roots")["ActiveRootID"].clone();
    let before = roots(&seen);
    process.signal(rustix::process::Signal::KILL);
    process.wait(BACK);
    let (_process, seen) = start(&address);
    assert_eq!(roots(&seen), before);
    assert_eq!(seen.cli(&["intentions", "check", "web", "db"]).code, 1);
}
