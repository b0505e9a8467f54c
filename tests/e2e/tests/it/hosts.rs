//! Peers on different hosts, as network namespaces.

use std::path::Path;
use std::time::Duration;

use meshx_e2e::netns::{Namespace, Pair};
use meshx_e2e::{Mesh, Need, Process, consul, skips, wait_until};

use crate::cluster::everything;

/// The cluster's gossip needs a moment to spread a deny; the cut itself does not.
const SOON: Duration = Duration::from_secs(5);

/// A Consul agent of one host: server, or client that joins the server.
fn consul_agent(home: &Path, host: &Namespace, node: &str, join: Option<&Namespace>) -> Process {
    let mut command = host.command(&consul().unwrap());
    command.current_dir(home).args(["agent", "-client=127.0.0.1", "-node", node]);
    command.args(["-bind", host.address()]);
    command.arg("-data-dir").arg(home.join(node));
    command.args(["-hcl", "connect { enabled = true } ports { dns = -1 }"]);
    match join {
        None => command.args(["-server", "-bootstrap-expect=1"]),
        Some(server) => command.args(["-retry-interval=1s", "-retry-join", server.address()]),
    };
    Process::start(node, &mut command)
}

#[test]
fn two_hosts_with_one_consul_cluster() {
    if skips(&[Need::Erlang, Need::Consul, Need::Ip, Need::Root]) {
        return;
    }
    let pair = Pair::make();
    let folder = Mesh::folder();
    let server = consul_agent(folder.path(), &pair.a, "host-a", None);
    let client = consul_agent(folder.path(), &pair.b, "host-b", Some(&pair.a));
    let on_a = Mesh::around(server, &pair.a, "127.0.0.1:8500");
    let on_b = Mesh::around(client, &pair.b, "127.0.0.1:8500");
    for mesh in [&on_a, &on_b] {
        // The certificate authority comes up after the leader.
        wait_until("a host whose agent is ready", Duration::from_secs(30), || {
            (mesh.cli(&["exec", "--name", "probe", "--", "true"]).code == 0).then_some(())
        });
    }
    works_between(&on_a, &on_b, &pair);
}

#[test]
fn two_hosts_with_one_meshx_agent() {
    if skips(&[Need::Erlang, Need::Ip, Need::Root]) {
        return;
    }
    let pair = Pair::make();
    let address = format!("{}:8500", pair.a.address());
    let mut command = pair.a.command(&meshx_e2e::meshx());
    command.args(["agent", "--dns-addr", "none", "--http-addr", &address]);
    let on_a = Mesh::around(Process::start("meshx agent", &mut command), &pair.a, &address);
    let on_b = on_a.elsewhere(&pair.b, &address);
    wait_until("the agent", Duration::from_secs(10), || {
        (on_b.cli(&["services", "list"]).code == 0).then_some(())
    });
    works_between(&on_a, &on_b, &pair);
}

fn works_between(on_a: &Mesh, on_b: &Mesh, pair: &Pair) {
    let (first, second) = ("node1@host-a", "node2@host-b");
    let start = |mesh: &Mesh, name: &str, host: &Namespace| {
        mesh.vm_builder(name).exec(&["--advertise", host.address()]).start()
    };
    let mut a = start(on_a, first, &pair.a);
    let mut b = start(on_b, second, &pair.b);
    b.await_eval(&format!("net_kernel:connect_node('{first}')"), "true", SOON);
    everything(&mut b, first);
    everything(&mut a, second);
    let deny = on_b.cli(&["intentions", "deny", second, first]);
    assert_eq!(deny.code, 0, "{deny:?}");
    b.await_eval("nodes()", "[]", SOON);
    a.await_eval("nodes()", "[]", SOON);
    on_b.cli_ok(&["intentions", "allow", second, first]);
    b.await_eval(&format!("net_kernel:connect_node('{first}')"), "true", SOON);
}
