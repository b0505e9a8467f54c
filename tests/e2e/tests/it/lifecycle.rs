//! From the start of `meshx exec` to the end of its program.

use std::path::Path;
use std::time::{Duration, Instant};

use meshx_e2e::{Mesh, Need, skips, wait_until};
use rustix::process::Signal;

use crate::{A, pair};

const SOON: Duration = Duration::from_secs(5);

fn is_alive(pid: u32) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn exit_status_is_the_programs_own() {
    let mesh = Mesh::agent();
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    {
        let outcome = mesh.cli(&["exec", "--name", "job", "--", "sh", "-c", script]);
        assert_eq!(outcome.code, code, "{script}: {outcome:?}");
    }
    let outcome = mesh.cli(&["exec", "--name", "job", "--", "no-such-program-anywhere"]);
    assert_eq!(outcome.code, 127, "{outcome:?}");
    let outcome = mesh.cli(&["exec", "--name", "job", "--", "/etc/passwd"]);
    assert_eq!(outcome.code, 126, "{outcome:?}");
}

#[test]
fn streams_and_arguments_pass_untouched() {
    let mesh = Mesh::agent();
    let script = "printf '%s\\n' \"$@\"; cat; echo to-stderr >&2";
    let mut process =
        mesh.exec(&["--name", "job"], &["sh", "-c", script, "sh", "--name", "a b", "$HOME", ""]);
    process.write("from stdin\n");
    process.close_stdin();
    let lines: Vec<String> = std::iter::from_fn(|| process.next_line(SOON)).collect();
    assert_eq!(lines, ["--name", "a b", "$HOME", "", "from stdin"]);
    assert_eq!(process.wait(SOON).code(), Some(0));
    assert!(process.stderr().contains("to-stderr"));
}

#[test]
fn vm_exit_status_is_passed_through_and_the_service_goes() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let a = mesh.vm(A);
    assert_eq!(mesh.get_json(&format!("/v1/catalog/service/{A}")).as_array().unwrap().len(), 1);
    assert_eq!(a.stop(5), Some(5));
    assert_eq!(mesh.get(&format!("/v1/catalog/service/{A}")).unwrap().trim(), "[]");
    let services = mesh.get_json("/v1/agent/services");
    assert!(services.as_object().unwrap().is_empty(), "{services}");
}

#[test]
fn signals_reach_the_program() {
    let mesh = Mesh::agent();
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")] {
        let script = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let mut process = mesh.exec(&["--name", "job"], &["sh", "-c", &script]);
        assert_eq!(process.next_line(SOON).as_deref(), Some("ready"));
        process.signal(signal);
        assert_eq!(process.wait(SOON).code(), Some(9), "{name}: {}", process.stderr());
    }
    assert!(mesh.get_json("/v1/agent/services").as_object().unwrap().is_empty());
}

#[test]
fn terminal_interrupts_are_the_programs_business() {
    let mesh = Mesh::agent();
    let mut process = mesh.exec(&["--name", "job"], &["sh", "-c", "echo ready; sleep 1; exit 4"]);
    assert_eq!(process.next_line(SOON).as_deref(), Some("ready"));
    // A terminal sends it to the whole group; here it comes to the wrapper alone.
    process.signal(Signal::INT);
    process.signal(Signal::QUIT);
    assert_eq!(process.wait(SOON).code(), Some(4), "{}", process.stderr());
}

#[test]
fn two_of_one_name_are_refused() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (mut a, _b) = pair(&mesh);
    let start = Instant::now();
    let second = mesh.cli(&["exec", "--name", A, "--", "true"]);
    assert_eq!(second.code, 7, "{second:?}");
    assert!(second.stderr.contains(A) && second.stderr.contains("hint"), "{second:?}");
    assert!(start.elapsed() < SOON);
    assert_eq!(a.nodes(), "[node2@myhost]", "the first one is not disturbed");
}

#[test]
fn replace_takes_the_name_over() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (_old, mut b) = pair(&mesh);
    let _new = mesh.vm_builder(A).exec(&["--replace"]).start();
    b.await_eval("nodes()", "[]", SOON);
    b.await_eval(&format!("net_kernel:connect_node('{A}')"), "true", SOON);
}

#[test]
fn killed_wrapper_takes_its_vm_along_and_the_name_is_free_at_once() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (mut a, mut b) = pair(&mesh);
    let vm = a.pid();
    a.wrapper().signal(Signal::KILL);
    a.wrapper().wait(SOON);
    wait_until("the VM's end", SOON, || (!is_alive(vm)).then_some(()));
    b.await_eval("nodes()", "[]", SOON);
    let start = Instant::now();
    let _a = mesh.vm(A);
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn without_a_control_plane_exec_says_so() {
    let mesh = Mesh::agent();
    let mut command = mesh.command(&["exec", "--name", "job", "--", "true"]);
    let start = Instant::now();
    let mut process = meshx_e2e::Process::start(
        "meshx exec without an agent",
        command.env("CONSUL_HTTP_ADDR", "127.0.0.1:1"),
    );
    let status = process.wait(Duration::from_secs(30));
    assert_eq!(status.code(), Some(3), "{}", process.stderr());
    assert!(process.stderr().contains("meshx agent"), "the hint: {}", process.stderr());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn nothing_is_left_behind() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (a, b) = pair(&mesh);
    let pids = [a.pid(), b.pid()];
    assert_eq!(b.stop(0), Some(0));
    assert_eq!(a.stop(0), Some(0));
    for pid in pids {
        assert!(!is_alive(pid), "VM {pid} runs on");
    }
    let left: Vec<_> = std::fs::read_dir(mesh.home())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".erlang") && !Path::new(name).starts_with(".cache"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
