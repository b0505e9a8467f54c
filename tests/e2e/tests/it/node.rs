//! Erlang nodes in Rust: in the mesh beside stock VMs, and the commands that talk to nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use meshx_e2e::{
    ControlPlane, Epmd, Mesh, Need, PlainVm, Process, Release, atom, free_port, meshx, skips,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{A, B};

const SOON: Duration = Duration::from_secs(5);
const BOOT: Duration = Duration::from_secs(20);
/// From the command's start until the link is gone on both sides.
const CUT: Duration = Duration::from_secs(1);

/// `meshx node` in a mesh, which says what comes and goes.
struct RustNode {
    process: Process,
}

impl RustNode {
    fn start(mesh: &Mesh, name: &str, arguments: &[&str]) -> Self {
        let all = [&["node", "--name", name, "--mesh", "-v"], arguments].concat();
        let process = Process::start(&format!("meshx node {name}"), &mut mesh.command(&all));
        let ready = process.next_line(BOOT);
        let ready = ready.unwrap_or_else(|| panic!("{name} did not start: {}", process.stderr()));
        assert!(ready.starts_with(name) && ready.contains("mutual TLS"), "{ready}");
        Self { process }
    }

    /// How many lines of its log say this.
    fn said(&self, words: &str) -> usize {
        self.process.stderr().lines().filter(|line| line.contains(words)).count()
    }

    fn await_said(&self, words: &str, times: usize, within: Duration) {
        self.process.until(words, within, || (self.said(words) >= times).then_some(()));
    }
}

#[test]
fn a_rust_node_and_a_stock_one_with_meshx_agent() {
    if skips(&[Need::Erlang]) {
        return;
    }
    a_rust_node_and_a_stock_one(ControlPlane::Agent);
}

#[test]
fn a_rust_node_and_a_stock_one_with_consul() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    a_rust_node_and_a_stock_one(ControlPlane::Consul);
}

fn a_rust_node_and_a_stock_one(kind: ControlPlane) {
    let mesh = Mesh::start(kind);
    let rust = RustNode::start(&mesh, B, &[]);
    let mut vm = mesh.vm(A);
    // The VM dials. Under Consul an instance is led to up to two seconds after it is passing.
    vm.await_eval(&format!("net_adm:ping('{B}')"), "pong", SOON);
    assert_eq!(vm.nodes(), format!("[{B}]"));
    rust.await_said("node up", 1, SOON);
    for (expression, expected) in [
        (
            "begin {echo, Peer} ! {self(), #{hello => [world]}},
          receive {From, What} -> {node(From), What} after 5000 -> timeout end end",
            "{node2@myhost,#{hello => [world]}}",
        ),
        ("gen_server:call({counter, Peer}, next)", "1"),
        ("gen_server:call({counter, Peer}, {add, 41})", "42"),
        ("erpc:call(Peer, erlang, node, [])", B),
        ("rpc:call(Peer, math, add, [40, 2])", "42"),
        ("byte_size(erpc:call(Peer, echo, echo, [binary:copy(<<7>>, 5000000)]))", "5000000"),
    ] {
        vm.eval(&format!("Peer = '{B}'"));
        assert_eq!(vm.eval(expression), expected, "{expression}\n{}", vm.stderr());
        vm.forget();
    }
    cut_and_heal(&mesh, &mut vm, &rust);
    // A second link, that the Rust node dialled.
    drop(rust);
    vm.await_eval("nodes()", "[]", SOON);
    let rust = RustNode::start(&mesh, B, &["--connect", A]);
    vm.await_eval("nodes()", &format!("[{B}]"), SOON);
    assert_eq!(vm.eval(&format!("gen_server:call({{counter, '{B}'}}, next)")), "1");
    cut_and_heal(&mesh, &mut vm, &rust);
}

fn cut_and_heal(mesh: &Mesh, vm: &mut meshx_e2e::Vm, rust: &RustNode) {
    let downs = rust.said("node down");
    vm.eval(&format!("begin monitor_node('{B}', true), monitor(process, {{echo, '{B}'}}) end"));
    let start = Instant::now();
    let deny = mesh.cli(&["intentions", "deny", B, A]);
    assert!(deny.stdout.contains("closed 1 live connection"), "{deny:?}");
    vm.await_eval("nodes()", "[]", CUT);
    rust.await_said("node down", downs + 1, CUT);
    assert!(start.elapsed() < CUT, "cut after {:?}", start.elapsed());
    // The sidecar that hears of it first cuts, and tells why.
    let told = format!("{}\n{}", rust.process.stderr(), vm.stderr());
    assert!(told.contains("was cut: denied by"), "{told}");
    let why = "receive {'DOWN', _, process, {echo, _}, Why} -> Why after 5000 -> timeout end";
    assert_eq!(vm.eval(why), "noconnection");
    assert_eq!(vm.eval("receive {nodedown, N} -> N after 5000 -> timeout end"), B);
    vm.forget();
    assert_eq!(vm.connect(B), "false");
    mesh.cli_ok(&["intentions", "allow", B, A]);
    vm.await_eval(&format!("net_kernel:connect_node('{B}')"), "true", SOON);
    vm.await_eval(&format!("erpc:call('{B}', erlang, node, [])"), B, SOON);
}

#[test]
fn commands_ask_nodes_in_the_mesh() {
    if skips(&[Need::Erlang]) {
        return;
    }
    commands_ask_nodes(ControlPlane::Agent);
}

#[test]
fn commands_ask_nodes_in_consuls_mesh() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    commands_ask_nodes(ControlPlane::Consul);
}

fn commands_ask_nodes(kind: ControlPlane) {
    let mesh = Mesh::start(kind);
    let _vm = mesh.vm(A);
    let rust = RustNode::start(&mesh, B, &[]);
    mesh.json(&["services", "list"]);
    rust.process.until("the VM is passing", SOON, || {
        (mesh.cli(&["ping", A, "--mesh"]).code == 0).then_some(())
    });
    let ping = mesh.json(&["ping", A, "--mesh", "--count", "2"]);
    assert_eq!((&ping["schema"], &ping["hidden"]), (&"meshx.ping/1".into(), &Value::Bool(false)));
    assert_eq!(ping["round_trip_milliseconds"].as_array().unwrap().len(), 2);
    assert_eq!(mesh.cli_ok(&["call", A, "lists:sum([1, 2, 3])", "--mesh"]), "6\n");
    assert_eq!(mesh.cli_ok(&["call", B, "math:add(1, 2)", "--mesh"]), "3\n");
    let list = mesh.cli_ok(&["nodes", "--mesh"]);
    assert!(list.contains(A) && list.contains(B), "{list}");
    let matrix = mesh.json(&["nodes", "matrix", "--mesh"]);
    assert_eq!(matrix["sees"][A], serde_json::json!([]), "who asks is hidden: {matrix}");
    assert_eq!(matrix["sees"][B], serde_json::json!([]), "{matrix}");

    let unknown = mesh.cli(&["ping", "nobody@myhost", "--mesh"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stderr.contains("nobody@myhost") && unknown.stderr.contains("MX0201"));
    mesh.cli_ok(&["intentions", "deny", "probe@myhost", A]);
    for words in [&["ping", A][..], &["call", A, "erlang:node()"]] {
        let denied = mesh.cli(&[words, &["--mesh", "--as", "probe@myhost"]].concat());
        assert_eq!(denied.code, 5, "{denied:?}");
        assert!(denied.stderr.contains("denied by") && denied.stderr.contains("meshx why"));
    }
    mesh.cli_ok(&["intentions", "deny", "*", A]);
    let denied = mesh.cli(&["ping", A, "--mesh"]);
    assert_eq!(denied.code, 5, "{denied:?}");
    assert_eq!(denied.stderr.matches("denied by").count(), 1, "told once: {denied:?}");
    assert!(denied.stderr.contains("--as") && !denied.stderr.contains("meshx why"), "{denied:?}");
    mesh.cli_ok(&["intentions", "remove", "*", A]);
    // Interrupted, it leaves nothing behind.
    let words = ["call", A, "timer:sleep(60000)", "--mesh", "--as", "late@myhost"];
    let mut late = Process::start("meshx call", &mut mesh.command(&words));
    let is_there = |name: &str| mesh.cli_ok(&["services", "list"]).contains(name);
    late.until("it is registered", SOON, || is_there("late@myhost").then_some(()));
    late.signal(Signal::INT);
    assert_eq!(late.wait(SOON).code(), Some(130), "{}", late.stderr());
    assert!(!is_there("late@myhost"));
    // A name that is in use is refused, and says by whom.
    let taken = mesh.cli(&["node", "--name", B, "--mesh"]);
    assert_eq!(taken.code, 7, "{taken:?}");
    assert!(taken.stderr.contains("MX0307"), "{taken:?}");
}

#[test]
fn a_rust_node_leaves_the_mesh_when_it_is_asked_to() {
    let mesh = Mesh::agent();
    let mut rust = RustNode::start(&mesh, B, &[]);
    let other = RustNode::start(&mesh, A, &["--connect", B]);
    other.await_said("node up", 1, SOON);
    let status = mesh.cli_ok(&["status"]);
    assert!(status.contains("2 passing, 2 Erlang nodes"), "{status}");
    assert!(!status.contains("does not answer"), "{status}");
    assert_eq!(mesh.cli(&["why", A, B]).code, 0);
    rust.process.signal(Signal::TERM);
    assert_eq!(rust.process.wait(SOON).code(), Some(0), "{}", rust.process.stderr());
    other.await_said("node down", 1, SOON);
    let services = mesh.cli_ok(&["services", "list"]);
    assert!(services.contains(A) && !services.contains(B), "{services}");
    // One takes the place of another that lives, and ends of it.
    let mut other = other;
    let _new = RustNode::start(&mesh, A, &["--replace"]);
    assert_eq!(other.process.wait(SOON).code(), Some(0), "{}", other.process.stderr());
    assert!(mesh.cli_ok(&["services", "list"]).contains(A));
}

/// Without a mesh, as stock nodes are.
struct Plain {
    mesh: Mesh,
    epmd: Epmd,
}

impl Plain {
    fn start() -> Self {
        Self { mesh: Mesh::agent(), epmd: Epmd::start(Release::Machine) }
    }

    fn vm(&self, name: &str) -> PlainVm {
        PlainVm::start(Release::Machine, name, "OATMEAL", self.epmd.port())
    }

    fn cli(&self, words: &[&str]) -> meshx_e2e::Outcome {
        let port = self.epmd.port().to_string();
        self.mesh.cli(&[words, &["--epmd-port", &port]].concat())
    }

    fn cli_ok(&self, words: &[&str]) -> String {
        let done = self.cli(words);
        assert_eq!(done.code, 0, "{words:?}: {done:?}");
        done.stdout
    }

    fn node(&self, words: &[&str]) -> Process {
        let port = self.epmd.port().to_string();
        let all = [&["node", "--epmd-port", &port], words].concat();
        Process::start("meshx node", &mut self.mesh.command(&all))
    }
}

const VM: &str = "a@127.0.0.1";
const RUST: &str = "rust@127.0.0.1";

#[test]
fn a_node_beside_stock_ones_with_their_epmd() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let plain = Plain::start();
    let mut vm = plain.vm(VM);
    let mut rust = plain.node(&["--name", RUST, "--json"]);
    let ready: Value = serde_json::from_str(&rust.next_line(SOON).unwrap()).unwrap();
    assert_eq!((&ready["schema"], &ready["name"]), (&"meshx.node/1".into(), &RUST.into()));
    let port = ready["port"].as_u64().unwrap();
    let names = plain.cli_ok(&["nodes"]);
    assert!(names.contains(&format!("rust  {port}")), "{names}");
    assert_eq!(vm.eval(&format!("net_adm:ping('{RUST}')")), "pong");
    assert_eq!(vm.nodes(), format!("[{}]", atom(RUST)));
    vm.eval(&format!("gen_server:call({{counter, '{RUST}'}}, next)"));
    // What was sent before the end arrives, and the name is free at once.
    vm.eval(&format!("erlang:monitor_node('{RUST}', true)"));
    rust.signal(Signal::INT);
    assert_eq!(rust.wait(SOON).code(), Some(0), "{}", rust.stderr());
    assert_eq!(vm.eval("receive {nodedown, N} -> N after 5000 -> timeout end"), atom(RUST));
    assert!(!plain.cli_ok(&["nodes"]).contains("rust"));
    let hidden = plain.node(&["--name", RUST, "--hidden"]);
    assert!(hidden.next_line(SOON).unwrap().contains("hidden"));
    assert_eq!(vm.eval(&format!("{{net_adm:ping('{RUST}'), nodes()}}")), "{pong,[]}");
}

#[test]
fn a_node_that_cannot_register_says_who_refused() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let plain = Plain::start();
    let rust = plain.node(&["--name", RUST]);
    rust.next_line(SOON).unwrap();
    let taken = plain.cli(&["node", "--name", RUST]);
    assert_eq!(taken.code, 7, "{taken:?}");
    assert!(taken.stderr.contains("the name is taken"), "{taken:?}");
    assert!(taken.stderr.contains("take another name"), "{taken:?}");
    let port = free_port().to_string();
    let alone = plain.mesh.cli(&["node", "--name", RUST, "--epmd-port", &port]);
    assert_eq!(alone.code, 1, "{alone:?}");
    assert!(alone.stderr.contains(&format!("meshx epmd -daemon -port {port}")), "{alone:?}");
    assert!(alone.stderr.contains("--no-epmd"), "{alone:?}");
    // Not without telling what it is.
    let shell = plain.cli(&["shell", RUST]);
    assert_eq!(shell.code, 1, "{shell:?}");
    assert!(shell.stderr.contains(&format!("meshx call {RUST}")), "{shell:?}");
    for words in [["shell"].as_slice(), &["nodes", "matrix"]] {
        let nobody = plain.cli(&[words, &["nope@127.0.0.1"]].concat());
        assert_eq!(nobody.code, 4, "{nobody:?}");
        assert_eq!(nobody.stdout, "");
        assert!(nobody.stderr.contains("MX0201"), "{nobody:?}");
    }
    let kept = plain.node(&["--name", "quiet@127.0.0.1", "--connect", "nope@127.0.0.1", "-q"]);
    let said = kept.await_stderr("is dialled again until it is there", SOON);
    assert!(
        said.starts_with("meshx: 'nope@127.0.0.1' could not be reached") && said.contains("MX0201"),
        "{said}"
    );
    kept.signal(Signal::TERM);
    assert_eq!(kept.next_line(SOON), None, "no banner with -q");
    assert_eq!(plain.cli(&["ping", RUST, "--timeout", "0"]).code, 2);
    let mut pings = plain.mesh.command(&[
        "ping",
        RUST,
        "-c",
        "99",
        "--epmd-port",
        &plain.epmd.port().to_string(),
    ]);
    let mut pings = Process::start("meshx ping", &mut pings);
    let pong = || std::iter::repeat_with(|| pings.next_line(SOON)).flatten();
    assert_eq!(pong().filter(|line| line.starts_with("pong")).take(2).count(), 2);
    pings.signal(Signal::INT);
    assert_eq!(pings.wait(SOON).code(), Some(130), "{}", pings.stderr());
    pings.await_stdout("2 round trips", SOON);
}

/// What was started in a terminal ends with it.
#[test]
fn a_closed_terminal_ends_agents_and_nodes() {
    let mesh = Mesh::agent();
    let (http, dist) = (free_port(), free_port());
    let agent = format!("agent --http-addr 127.0.0.1:{http} --dns-addr none");
    let node = format!("node --name rust@127.0.0.1 --no-epmd --port {dist}");
    for (arguments, port) in [(agent, http), (node, dist)] {
        let line = format!("exec '{}' {arguments}", meshx().display());
        let mut command = mesh.bare_command(Path::new("script"));
        command.env("TERM", "xterm").args(["-q", "-f", "-e", "-c", &line, "/dev/null"]);
        let terminal = Process::start(&line, &mut command);
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        terminal.until("it listens", SOON, || listens().then_some(()));
        terminal.await_stdout("Ctrl-C stops", SOON);
        terminal.signal(Signal::KILL);
        meshx_e2e::wait_until("it has ended", SOON, || (!listens()).then_some(()));
    }
}

#[test]
fn commands_ask_stock_nodes() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let plain = Plain::start();
    let mut vm = plain.vm(VM);
    let ping = plain.cli_ok(&["ping", VM]);
    assert!(ping.contains("a@127.0.0.1: visible") && ping.contains("pong in"), "{ping}");
    vm.await_eval("nodes(connected)", "[]", SOON);
    assert_eq!(plain.cli_ok(&["call", VM, "lists:reverse([a, {\"b\"}])"]), "[{\"b\"},a]\n");
    let raised = plain.cli(&["call", VM, "erlang:error({oops, 1})", "--json"]);
    assert_eq!(raised.code, 8, "{raised:?}");
    let error: Value = serde_json::from_str(&raised.stderr).unwrap();
    assert_eq!(error["error"]["raised"]["class"], "error");
    assert_eq!(error["error"]["raised"]["reason"]["tuple"][0]["atom"], "oops");
    for (call, words) in [("erlang:exit(bye)", "exit: bye"), ("erlang:throw(x)", "throw: x")] {
        let raised = plain.cli(&["call", VM, call]);
        assert_eq!((raised.code, raised.stderr.contains(words)), (8, true), "{raised:?}");
    }
    let slow = plain.cli(&["call", VM, "timer:sleep(60000)", "--timeout", "200ms"]);
    assert_eq!(slow.code, 6, "{slow:?}");
    assert!(slow.took < SOON, "{slow:?}");
    assert_eq!(plain.cli(&["call", VM, "no call"]).code, 2);
    assert_eq!(plain.cli(&["ping", "nobody@127.0.0.1"]).code, 4);
    assert_eq!(plain.mesh.cli(&["ping", VM, "--epmd-port", "1"]).code, 1);

    let show = plain.cli_ok(&["nodes", "show", VM, "--json"]);
    let show: Value = serde_json::from_str(&show).unwrap();
    assert_eq!(show["facts"]["os_pid"], vm.pid().to_string());
    assert_eq!(show["hidden"], false, "{show}");
    let _b = plain.vm("b@127.0.0.1");
    assert_eq!(vm.connect("b@127.0.0.1"), "true");
    let matrix = plain.cli(&["nodes", "matrix", VM, "--json"]);
    let seen: Value = serde_json::from_str(&matrix.stdout).unwrap();
    assert_eq!(seen["sees"]["b@127.0.0.1"], serde_json::json!([VM]), "{matrix:?}");
    assert_eq!(matrix.code, 0, "{matrix:?}");
}

#[test]
fn a_cookie_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mesh = Mesh::agent();
    let file = mesh.home().join("cookie");
    std::fs::write(&file, "OATMEAL").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    let open = mesh.cli(&["ping", "a@127.0.0.1", "--cookie-file", path]);
    assert_eq!(open.code, 9, "{open:?}");
    assert!(open.stderr.contains("owner only") && open.stderr.contains("chmod"), "{open:?}");
    assert!(!open.stderr.contains("OATMEAL"), "{open:?}");
    assert_eq!(mesh.cli(&["ping", "a@127.0.0.1", "--cookie-file", "/nowhere"]).code, 9);
}

#[test]
fn a_wrong_cookie_is_named() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let plain = Plain::start();
    let _vm = PlainVm::start(Release::Machine, VM, "RAISIN", plain.epmd.port());
    let ping = plain.cli(&["ping", VM]);
    assert_eq!(ping.code, 1, "{ping:?}");
    assert!(ping.stderr.contains("cookie"), "{ping:?}");
    let mesh = Mesh::agent();
    let _vm = mesh.vm_builder(A).erl(&["-setcookie", "RAISIN"]).start();
    let ping = mesh.cli(&["ping", A, "--mesh"]);
    assert_eq!(ping.code, 1, "{ping:?}");
    assert!(ping.stderr.contains("cookie"), "{ping:?}");
}

#[test]
fn a_shell_opens_with_and_without_the_mesh() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let plain = Plain::start();
    let _there = plain.vm(VM);
    let _in_mesh = plain.mesh.vm(A);
    let port = plain.epmd.port().to_string();
    for (node, words) in [(VM, ["--epmd-port", port.as_str()]), (A, ["--mesh", "-q"])] {
        let line = format!("exec '{}' shell {node} {}", meshx().display(), words.join(" "));
        let mut command = plain.mesh.bare_command(Path::new("script"));
        command.env("TERM", "xterm").args(["-q", "-f", "-e", "-c", &line, "/dev/null"]);
        let mut shell = Process::start(&line, &mut command);
        shell.await_stdout(&format!("({node})1>"), BOOT);
        shell.write("{at, node()}.\n");
        shell.await_stdout(&format!("{{at,{}}}", atom(node)), SOON);
    }
}

/// Nobody listens at port 1, where a port mapper would be.
#[test]
fn nodes_are_found_without_epmd() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let port = free_port().to_string();
    let vm = || {
        let flags = ["-erl_epmd_port", &port];
        PlainVm::builder(Release::Machine, VM, "OATMEAL", 1).args(&flags).start()
    };
    let mut there = vm();
    let ways: [&[&str]; 3] =
        [&["ping", VM], &["call", VM, "erlang:node()"], &["nodes", "show", VM]];
    for words in ways {
        mesh.cli_ok(&[words, &["--peer-port", &port]].concat());
    }
    let wrong = free_port().to_string();
    let refused = mesh.cli(&["ping", VM, "--peer-port", &wrong]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&format!("127.0.0.1:{wrong}")), "{refused:?}");

    // Both have one port, so each has an address of its own; and they stay together.
    let words = ["node", "--name", "rust@127.0.0.2", "--listen", "127.0.0.2", "--peer-port", &port];
    let words = [&words[..], &["--connect", VM]].concat();
    let rust = Process::start("meshx node", &mut mesh.command(&words));
    assert!(rust.next_line(SOON).unwrap().contains(&format!("127.0.0.2:{port}")));
    let seen = format!("[{}]", atom("rust@127.0.0.2"));
    there.await_eval("nodes()", &seen, SOON);
    there.signal(Signal::KILL);
    drop(there);
    let said = "is dialled again until it is there";
    rust.until(said, SOON, || rust.stderr().contains(said).then_some(()));
    let mut there = vm();
    there.await_eval("nodes()", &seen, SOON);
    there.eval("erlang:disconnect_node('rust@127.0.0.2')");
    there.await_eval("nodes()", "[]", SOON);
    there.await_eval("nodes()", &seen, SOON);
    drop(rust);

    let mut shells = vec![vec!["shell", VM, "--peer-port", &port]];
    if !skips(&[Need::Elixir]) {
        shells.push(vec!["shell", "--iex", VM, "--peer-port", &port]);
    }
    for words in shells {
        let line = format!("exec '{}' {}", meshx().display(), words.join(" "));
        let mut command = mesh.bare_command(Path::new("script"));
        command.env("TERM", "xterm").env("ERL_EPMD_PORT", "1");
        command.args(["-q", "-f", "-e", "-c", &line, "/dev/null"]);
        let mut shell = Process::start(&line, &mut command);
        if words.contains(&"--iex") {
            // It got there, and found a VM without Elixir.
            shell.await_stdout(&format!("Could not find IEx on remote node {VM}"), BOOT);
        } else {
            shell.await_stdout(&format!("({VM})1>"), BOOT);
            shell.write("{at, node()}.\n");
            shell.await_stdout(&format!("{{at,{}}}", atom(VM)), SOON);
        }
    }
}

#[test]
fn ports_are_in_names() {
    let mesh = Mesh::agent();
    let port = free_port();
    let name = format!("rust-{port}@127.0.0.1");
    let words = ["node", "--name", &name, "--port-base", "0"];
    let rust = Process::start("meshx node", &mut mesh.command(&words));
    assert!(rust.next_line(SOON).unwrap().contains(&format!("127.0.0.1:{port}")));
    mesh.cli_ok(&["ping", &name, "--port-base", "0"]);
    assert_eq!(mesh.cli_ok(&["call", &name, "math:add(1, 2)", "--port-base", "0"]), "3\n");
    // Another number of the same port is another node's name.
    let base = (port - 7).to_string();
    let other = mesh.cli(&["ping", "web7@127.0.0.1", "--port-base", &base]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains(&format!("{name} answered")), "{other:?}");
    for words in [
        &["ping", "web1@127.0.0.1"][..],
        &["ping", "web@127.0.0.1"],
        &["shell", "web@127.0.0.1"],
        &["node", "--name", "web@127.0.0.1"],
    ] {
        let refused = mesh.cli(&[words, &["--port-base", "0"]].concat());
        assert_eq!(refused.code, 9, "{refused:?}");
        assert!(refused.stderr.contains("MX0401") && refused.stderr.contains("web"), "{refused:?}");
    }
    for way in ["--epmd-port", "--peer-port"] {
        let both = mesh.cli(&["ping", &name, "--port-base", "0", way, "4369"]);
        assert_eq!(both.code, 2, "{both:?}");
    }
    assert_eq!(mesh.cli(&["ping", &name, "--port-base", "0", "--mesh"]).code, 2);
}

#[test]
fn the_demo_runs_rust_nodes() {
    let mesh = Mesh::agent();
    let empty = mesh.home().join("empty");
    std::fs::create_dir(&empty).unwrap();
    // With a cookie, and for a user who never had one.
    for (words, home) in [(&["demo", "--with", "node"][..], mesh.home()), (&["demo"], &empty)] {
        let mut command = mesh.command(words);
        command.env("HOME", home);
        // Without `erl` on the path, this is what the demo runs by itself.
        command.env_remove("CONSUL_HTTP_ADDR").env("PATH", mesh.home());
        let mut demo = Process::start("meshx demo", &mut command);
        demo.close_stdin();
        assert_eq!(demo.wait(Duration::from_mins(1)).code(), Some(0), "{}", demo.stderr());
        let story: String = std::iter::from_fn(|| demo.next_line(SOON)).collect();
        for word in ["GenServer.call", "deny", "was cut", "allow", "spiffe://"] {
            assert!(story.contains(word), "no `{word}`: {story}");
        }
    }
}
