//! How long a user waits.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use meshx_e2e::{Mesh, Need, Process, skips, wait_until};

use crate::sample::Sample;

pub(crate) fn agent_ready() {
    let mut sample = Sample::default();
    for _ in 0..20 {
        let start = Instant::now();
        let mesh = Mesh::agent();
        sample.push(start.elapsed());
        drop(mesh);
    }
    sample.report("agent: start until it answers", "meshx agent", "200 ms");
}

pub(crate) fn exec_true() {
    let mesh = Mesh::agent();
    let mut sample = Sample::default();
    for _ in 0..20 {
        let start = Instant::now();
        let status = mesh.command(&["exec", "--name", "job", "--", "true"]).status().unwrap();
        sample.push(start.elapsed());
        assert!(status.success());
    }
    sample.report("`exec -- true`, start to end", "meshx exec", "150 ms");
    let mut sample = Sample::default();
    for _ in 0..20 {
        let start = Instant::now();
        Command::new("true").status().unwrap();
        sample.push(start.elapsed());
    }
    sample.report("`true`", "plain", "");
}

/// Two fresh VMs, from the first `exec` until `connect_node` is true.
pub(crate) fn two_nodes_connected() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mut sample = Sample::default();
    for _ in 0..5 {
        let mesh = Mesh::agent();
        let start = Instant::now();
        let first = mesh.vm_builder("node1@myhost").spawn();
        let mut second = mesh.vm("node2@myhost");
        second.await_eval("net_kernel:connect_node('node1@myhost')", "true", LIMIT);
        sample.push(start.elapsed());
        drop(first);
    }
    sample.report("two fresh VMs until connected", "meshx exec", "3 s");
    let mut sample = Sample::default();
    for _ in 0..5 {
        sample.push(two_plain_nodes());
    }
    sample.report("two fresh VMs until connected", "plain Erlang with EPMD", "");
}

const LIMIT: Duration = Duration::from_secs(30);

/// The same without meshx, with an EPMD of its own.
fn two_plain_nodes() -> Duration {
    let mesh = Mesh::agent();
    let address = Mesh::free_address();
    let port = address.rsplit(':').next().unwrap();
    let mut epmd = mesh.bare_command(Path::new("epmd"));
    let _epmd = Process::start("epmd", epmd.args(["-port", port]));
    let listens = || std::net::TcpStream::connect(&address).ok();
    wait_until("epmd", LIMIT, listens);
    let erl = |name: &str, program: &str| {
        let mut command = mesh.bare_command(Path::new("erl"));
        command.env("ERL_EPMD_PORT", port);
        command.args(["-sname", name, "-start_epmd", "false", "-noshell", "-eval", program]);
        Process::start(name, &mut command)
    };
    let start = Instant::now();
    let _first = erl("node1@localhost", "ok.");
    let second = erl(
        "node2@localhost",
        "spawn(fun() -> F = fun F() -> case net_kernel:connect_node('node1@localhost') of
         true -> io:format(\"connected~n\"); _ -> timer:sleep(20), F() end end, F() end).",
    );
    second.await_stdout("connected", LIMIT);
    start.elapsed()
}
