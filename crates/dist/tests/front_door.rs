//! The epmd module of `meshx exec` in real VMs, talking to a front door made of our codec: both ends
//! of the conventions in `epmd::front_door`. Skipped with a notice where there is no `erl`.

mod support;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use meshx_dist::epmd::front_door::{Family, Origin};
use meshx_dist::epmd::{NodeType, PROTOCOL_TCP, VERSION_5, VERSION_6};
use support::{Epmd, PATIENCE, Vm, erl_is_here};

/// A front door on a Unix socket, gone with its folder.
struct Door {
    epmd: Epmd,
    folder: PathBuf,
}

impl Door {
    fn start(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("meshx-dist-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the socket");
        let listener = UnixListener::bind(folder.join("epmd")).expect("bind");
        let epmd = Epmd::start();
        let server = epmd.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let epmd = server.clone();
                thread::spawn(move || epmd.serve(stream));
            }
        });
        Self { epmd, folder }
    }

    fn vm(&self, name: &str, protocol: &str, interface: &str, expression: &str) -> Vm {
        let mut command = self.command(Some(name), expression);
        command.args(["-proto_dist", protocol, "-kernel", "inet_dist_use_interface", interface]);
        Vm::spawn(command)
    }

    fn command(&self, name: Option<&str>, expression: &str) -> Command {
        let mut command = Vm::command(name, "cookie", expression);
        command
            .env("MESHX_EPMD_SOCKET", self.folder.join("epmd"))
            .args(["-epmd_module", "meshx_epmd", "-pa"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../workload/erlang"));
        command
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn registers_and_connects(test: &str, protocol: &str, interface: &str, family: Family) {
    let door = Door::start(test);
    let _shop = door.vm("shop@nowhere", protocol, interface, "ok.");
    let (alive, _) = door.epmd.registered("shop");
    assert_eq!((alive.node_type, alive.protocol), (NodeType::NORMAL, PROTOCOL_TCP));
    assert_eq!((alive.highest, alive.lowest), (VERSION_6, VERSION_5));
    let origin = Origin { family, host: Some("nowhere".into()) };
    assert_eq!(Origin::parse(&alive.extra), Ok(Some(origin)));

    let expression = "io:format(\"~p ~p ~p ~p\", [net_adm:ping('shop@nowhere'), \
        net_adm:ping('nobody@nowhere'), erlang:system_info(creation), \
        [N || {N, _} <- element(2, net_adm:names(nowhere))] -- [\"asker\"]]), halt().";
    let asker = door.vm("asker@elsewhere", protocol, interface, expression);
    assert_eq!(asker.output(), "pong pang 1000002 [\"shop\"]");
}

#[test]
fn vms_register_and_connect_over_ipv4() {
    if erl_is_here() {
        registers_and_connects("v4", "inet_tcp", "{127,0,0,1}", Family::Inet);
    }
}

#[test]
fn vms_register_and_connect_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_ok() && erl_is_here() {
        registers_and_connects("v6", "inet6_tcp", "{0,0,0,0,0,0,0,1}", Family::Inet6);
    }
}

#[test]
fn the_lease_follows_the_distribution() {
    if !erl_is_here() {
        return;
    }
    let door = Door::start("lease");
    // Started later, stopped, started under the same name at once, and under another; the lease notices
    // the end on its own.
    let expression = "P = fun(N) -> {ok, _} = net_kernel:start([N, shortnames]), \
        C = erlang:system_info(creation), ok = net_kernel:stop(), C end, \
        [A, B, C] = [P(N) || N <- [x@h, x@h, y@h]], \
        Last = fun Last(0) -> whereis(meshx_epmd); \
            Last(N) -> case whereis(meshx_epmd) of \
                undefined -> undefined; _ -> timer:sleep(10), Last(N - 1) end end, \
        io:format(\"~p\", [[A < B, B < C, Last(500)]]), halt().";
    let output = Vm::spawn(door.command(None, expression)).output();
    assert_eq!(output, "[true,true,undefined]");
}

/// A VM that is started without a name has no host when it registers, and tells it afterwards.
#[test]
fn the_host_of_a_late_name_is_told() {
    if !erl_is_here() {
        return;
    }
    let door = Door::start("late");
    let expression = "{ok, _} = net_kernel:start(['late@10.0.0.5', longnames]), \
        C = erlang:system_info(creation), timer:sleep(500), \
        io:format(\"~p\", [[C, erlang:system_info(creation)]]), halt().";
    let vm = Vm::spawn(door.command(None, expression));
    let hosts =
        || Origin::parse(&door.epmd.registered("late").0.extra).expect("ours").expect("ours").host;
    let start = Instant::now();
    while hosts().is_none() {
        assert!(start.elapsed() < PATIENCE, "the host was never told");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(hosts().as_deref(), Some("10.0.0.5"));
    // A second creation was granted, but the VM keeps the first.
    assert_eq!(door.epmd.registered("late").1, 1_000_002);
    assert_eq!(vm.output(), "[1000001,1000001]");
}
