//! Stock VMs that know nothing of meshx.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use meshx_e2e::{Mesh, Need, PlainVm, Process, Release, meshx, skips, wait_until};
use rustix::process::Signal;

use super::wire::lookup;
use super::{Daemon, SOON, forget_settings, free_port};

const A: &str = "a@127.0.0.1";
const B: &str = "b@127.0.0.1";

fn vm(name: &str, daemon: &Daemon) -> PlainVm {
    PlainVm::start(Release::Machine, name, "secret", daemon.port)
}

/// The names that `net_adm:names()` tells, without their ports.
fn names(vm: &mut PlainVm) -> String {
    vm.eval(
        "begin {ok, Known} = net_adm:names({127,0,0,1}), lists:sort([N || {N, _} <- Known]) end",
    )
}

#[test]
fn two_vms_find_each_other_and_outlive_the_daemon() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut daemon = Daemon::start(&[]);
    let (mut a, mut b) = (vm(A, &daemon), vm(B, &daemon));
    assert_eq!(a.connect(B), "true", "{}", a.stderr());
    assert_eq!(b.eval(&format!("erpc:call('{A}', erlang, node, [])")), format!("'{A}'"));
    assert_eq!(names(&mut a), r#"["a","b"]"#);
    assert_eq!(a.connect("nobody@127.0.0.1"), "false");
    for vm in [&mut a, &mut b] {
        vm.eval("net_kernel:monitor_nodes(true)");
    }

    daemon.restart();
    let begun = Instant::now();
    for name in ["a", "b"] {
        wait_until("the node is registered again", Duration::from_secs(5), || {
            lookup(daemon.port, name)
        });
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for vm in [&mut a, &mut b] {
        let lost = vm.eval("receive {nodedown, Node} -> Node after 0 -> none end");
        assert_eq!(lost, "none", "no link was lost");
    }
    assert_eq!(a.nodes(), format!("['{B}']"));
    // New nodes are found, and find the old ones.
    let mut c = vm("c@127.0.0.1", &daemon);
    assert_eq!(c.connect(A), "true");
    assert_eq!(b.connect("c@127.0.0.1"), "true");
}

#[test]
fn the_name_of_a_killed_vm_is_free_at_once() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let daemon = Daemon::start(&[]);
    let mut first = vm(A, &daemon);
    let creation = "erlang:system_info(creation)";
    let before = first.eval(creation);
    let second = PlainVm::builder(Release::Machine, A, "secret", daemon.port);
    let home = Mesh::folder();
    let mut refused = second.spawn(home.path());
    assert!(!refused.wait(SOON).success(), "the name is taken");
    assert_eq!(first.eval("node()"), format!("'{A}'"));
    first.signal(Signal::KILL);
    let begun = Instant::now();
    wait_until("the name is free", Duration::from_secs(1), || {
        lookup(daemon.port, "a").is_none().then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(1));
    drop(first);
    let mut again = second.start();
    assert_ne!(again.eval(creation), before);
    assert!(lookup(daemon.port, "a").is_some());
}

#[test]
fn vms_of_other_releases() {
    for release in Release::ALL {
        if skips(release.needs()) {
            continue;
        }
        let daemon = Daemon::start(&[]);
        let mut a = PlainVm::start(release, A, "secret", daemon.port);
        let mut b = vm(B, &daemon);
        assert_eq!(a.connect(B), "true", "{release:?}: {}", a.stderr());
        assert_eq!(names(&mut a), r#"["a","b"]"#, "{release:?}");
        assert_eq!(names(&mut b), r#"["a","b"]"#, "{release:?}");
        let creation: u32 = a.eval("erlang:system_info(creation)").parse().unwrap();
        assert!(creation >= 4);
    }
}

#[test]
fn erl_ends_soon_where_the_daemon_hangs() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let daemon = Daemon::start(&[]);
    let mut a = vm(A, &daemon);
    daemon.process.signal(Signal::STOP);
    let begun = Instant::now();
    // The VM's own limit, net_setuptime, is 7 s.
    assert_eq!(a.connect(B), "false");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    daemon.process.signal(Signal::CONT);
    let _b = vm(B, &daemon);
    a.await_eval(&format!("net_kernel:connect_node('{B}')"), "true", SOON);
}

/// A process that runs our binary as `epmd -daemon` for this port.
fn started_daemon(port: u16) -> Option<u32> {
    let ours = meshx().canonicalize().unwrap();
    let setting = format!("ERL_EPMD_PORT={port}");
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let is_ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == ours);
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_set = environment.split(|byte| *byte == 0).any(|it| it == setting.as_bytes());
        (is_ours && is_set).then_some(pid)
    })
}

/// Runs a VM that has to start its daemon by itself, and ends the daemon.
fn starts_by_itself(port: u16, command: &mut Command) {
    let print = "{ok, Known} = net_adm:names({127,0,0,1}), \
                 io:format(\"~p ~p~n\", [node(), [N || {N, _} <- Known]]), halt().";
    command.args(["-name", A, "-setcookie", "secret", "-noshell", "-eval", print]);
    command.env("ERL_EPMD_PORT", port.to_string());
    let mut vm = Process::start("erl", command);
    assert_eq!(vm.next_line(Duration::from_secs(30)).unwrap(), format!(r#"'{A}' ["a"]"#));
    assert!(vm.wait(SOON).success(), "{}", vm.stderr());
    assert_eq!(vm.stderr(), "");
    let pid = started_daemon(port).expect("the daemon is ours and lives on");
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name, "epmd\n");
    // OTP's program ends it.
    let mut kill = Command::new("epmd");
    forget_settings(&mut kill);
    let port = port.to_string();
    wait_until("the name is given back", SOON, || {
        let output = kill.args(["-port", &port, "-kill"]).output().unwrap();
        (output.stdout == b"Killed\n").then_some(())
    });
    wait_until("the daemon ended", SOON, || {
        started_daemon(port.parse().unwrap()).is_none().then_some(())
    });
}

#[test]
fn erl_starts_it_by_its_flag() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let home = Mesh::folder();
    let mut command = Command::new("erl");
    forget_settings(&mut command);
    command.env("HOME", home.path());
    command.args(["-epmd", &format!("{} epmd -daemon", meshx().display())]);
    starts_by_itself(free_port(), &mut command);
}

#[test]
fn erl_starts_it_in_the_place_of_otps() {
    if skips(&[Need::Erlang]) {
        return;
    }
    // A folder as erts-VERSION/bin, with our link in it.
    let home = Mesh::folder();
    let root = "io:put_chars(filename:join([code:root_dir(), \
                [\"erts-\", erlang:system_info(version)]])), halt().";
    let root = Command::new("erl").args(["-noshell", "-eval", root]).output().unwrap();
    let erts = PathBuf::from(String::from_utf8(root.stdout).unwrap());
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for entry in std::fs::read_dir(erts.join("bin")).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())).unwrap();
    }
    std::fs::remove_file(bin.join("epmd")).unwrap();
    std::os::unix::fs::symlink(meshx(), bin.join("epmd")).unwrap();
    let mut command = Command::new(bin.join("erlexec"));
    forget_settings(&mut command);
    command.env("HOME", home.path()).env("BINDIR", &bin).env("EMU", "beam").env("PROGNAME", "erl");
    command.env("ROOTDIR", erts.parent().unwrap_or(Path::new("/")));
    starts_by_itself(free_port(), &mut command);
}
