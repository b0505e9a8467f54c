//! What works on a plain cluster works in the mesh.

use std::time::Duration;

use meshx_e2e::{ControlPlane, Mesh, Need, Release, Vm, atom, skips};

use crate::{A, B, pair};

/// Time for a change on one node to be seen by the other.
const SOON: Duration = Duration::from_secs(5);

/// Time for a shell to come up.
const BOOT: Duration = Duration::from_secs(20);

#[test]
fn two_stock_nodes_with_meshx_agent() {
    if skips(&[Need::Erlang]) {
        return;
    }
    two_stock_nodes(ControlPlane::Agent);
}

#[test]
fn two_stock_nodes_with_consul() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    two_stock_nodes(ControlPlane::Consul);
}

fn two_stock_nodes(kind: ControlPlane) {
    let mesh = Mesh::start(kind);
    let (mut a, mut b) = pair(&mesh);
    assert_eq!(b.nodes(), format!("[{A}]"));
    a.await_eval("nodes()", &format!("[{B}]"), SOON);
    everything(&mut b, A);
    everything(&mut a, B);
    disconnects_and_connects_again(&mut b, &mut a, B, A);
    disconnects_and_connects_again(&mut a, &mut b, A, B);
}

/// Calls, processes, monitors, links, global names and large messages towards `peer`.
pub(crate) fn everything(vm: &mut Vm, peer: &str) {
    calls_and_monitors(vm, peer);
    let at_peer = atom(peer);
    let at_peer = at_peer.as_str();
    evaluate(
        vm,
        peer,
        &[
            (
                "begin Me = self(), spawn(Peer, fun() -> Me ! {from, node()} end),
                 receive {from, Node} -> Node after 5000 -> timeout end end",
                at_peer,
            ),
            (
                "begin process_flag(trap_exit, true), P = spawn_link(Peer, fun() -> exit(oops) end),
                 receive {'EXIT', P, Reason} -> Reason after 5000 -> timeout end end",
                "oops",
            ),
            // Many small messages keep their order.
            (
                "begin Echo = spawn(Peer, fun() -> Loop = fun Loop() -> receive
                 {M, F} -> F ! M, Loop(); stop -> ok end end, Loop() end),
                 [Echo ! {N, self()} || N <- lists:seq(1, 10000)],
                 Got = [receive M when is_integer(M) -> M after 5000 -> timeout end
                 || _ <- lists:seq(1, 10000)], Echo ! stop, Got =:= lists:seq(1, 10000) end",
                "true",
            ),
        ],
    );
}

/// What needs no code of the shell on the other side: a release may have none.
pub(crate) fn calls_and_monitors(vm: &mut Vm, peer: &str) {
    let at_peer = atom(peer);
    let at_peer = at_peer.as_str();
    evaluate(
        vm,
        peer,
        &[
            ("erpc:call(Peer, erlang, node, [])", at_peer),
            ("rpc:call(Peer, erlang, node, [])", at_peer),
            ("net_adm:ping(Peer)", "pong"),
            (
                "begin P = spawn(Peer, timer, sleep, [infinity]), R = monitor(process, P),
                 exit(P, kill), receive {'DOWN', R, process, P, Why} -> Why after 5000 -> timeout end
                 end",
                "killed",
            ),
            (
                "begin process_flag(trap_exit, true), P = spawn_link(Peer, erlang, exit, [oops]),
                 receive {'EXIT', P, Reason} -> Reason after 5000 -> timeout end end",
                "oops",
            ),
            // 5 MB out, 20 MB back: more than any buffer between the two.
            (
                "byte_size(erpc:call(Peer, binary, copy, [binary:copy(<<7>>, 5000000), 4]))",
                "20000000",
            ),
            (
                // `global` may still be meeting the peer when the link is young.
                "begin Name = {name, node()}, yes = global:register_name(Name, self()),
                 There = fun() -> erpc:call(Peer, global, whereis_name, [Name]) =:= self() end,
                 Wait = fun Wait(0) -> There(); Wait(N) ->
                   There() orelse begin timer:sleep(100), Wait(N - 1) end end,
                 Known = Wait(50), global:unregister_name(Name), Known end",
                "true",
            ),
        ],
    );
}

fn evaluate(vm: &mut Vm, peer: &str, expressions: &[(&str, &str)]) {
    for (expression, expected) in expressions {
        vm.eval(&format!("Peer = '{peer}'"));
        assert_eq!(vm.eval(expression), *expected, "{expression}\n{}", vm.stderr());
        vm.forget();
    }
}

/// A `disconnect_node` is seen at both ends, and a new connection can be made.
///
/// Just after a disconnect `global` may dial by itself, and a dial in each direction at the same
/// time can fail on a plain cluster too. So this asks until it is so.
fn disconnects_and_connects_again(vm: &mut Vm, other: &mut Vm, own: &str, peer: &str) {
    other.eval("net_kernel:monitor_nodes(true)");
    let is_apart = format!("begin erlang:disconnect_node('{peer}'), nodes() end");
    vm.await_eval(&is_apart, "[]", SOON);
    let event = "receive {nodedown, Down} -> Down after 5000 -> timeout end";
    assert_eq!(other.eval(event), atom(own));
    other.forget();
    vm.await_eval(&format!("net_kernel:connect_node('{peer}')"), "true", SOON);
    let event = "receive {nodeup, Up} -> Up after 5000 -> timeout end";
    assert_eq!(other.eval(event), atom(own));
    other.forget();
    other.eval("net_kernel:monitor_nodes(false)");
    other.await_eval("nodes()", &format!("[{}]", atom(own)), SOON);
}

#[test]
fn a_node_that_is_up_can_be_dialled_at_once() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm(A);
    for name in [B, "node3@myhost", "node4@myhost"] {
        let _newest = mesh.vm(name);
        assert_eq!(a.connect(name), "true", "{}", a.stderr());
    }
}

#[test]
fn a_node_that_is_up_can_be_dialled_soon_with_consul() {
    if skips(&[Need::Erlang, Need::Consul]) {
        return;
    }
    let mesh = Mesh::start(ControlPlane::Consul);
    let mut a = mesh.vm(A);
    for name in [B, "node3@myhost"] {
        let _newest = mesh.vm(name);
        // Consul passes a check's state on to its aliases up to two seconds later.
        a.await_eval(&format!("net_kernel:connect_node('{name}')"), "true", SOON);
    }
}

#[test]
fn a_stopped_node_comes_back() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (a, mut b) = pair(&mesh);
    assert_eq!(a.stop(0), Some(0));
    b.await_eval("nodes()", "[]", SOON);
    assert_eq!(b.connect(A), "false");
    let mut a = mesh.vm(A);
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
    everything(&mut a, B);
}

#[test]
fn wrong_cookie_is_refused_and_named() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = mesh.vm(A);
    let mut b = mesh.vm_builder(B).erl(&["-setcookie", "RAISIN"]).start();
    assert_eq!(b.connect(A), "false");
    assert_eq!(b.nodes(), "[]");
    assert_eq!(a.nodes(), "[]");
    b.wrapper().await_stderr("cookie", SOON);
    let why = mesh.cli(&["why", B, A]);
    assert!(why.stdout.contains("cookie"), "{why:?}");
    b.eval(&format!("erlang:set_cookie('{A}', 'OATMEAL')"));
    assert_eq!(b.connect(A), "true", "{}", b.stderr());
}

#[test]
fn unknown_node_is_named() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut b = mesh.vm(B);
    assert_eq!(b.connect("nobody@myhost"), "false");
    b.wrapper().await_stderr("nobody@myhost", SOON);
    let why = mesh.cli(&["why", B, "nobody@myhost"]);
    assert_ne!(why.code, 0, "{why:?}");
    assert!(why.stdout.contains("no service `nobody@myhost` is registered"), "{why:?}");
}

#[test]
fn otp_27_and_the_machines_own_otp_work_together() {
    two_releases((Release::Otp27, A), (Release::Machine, B));
}

#[test]
fn otp_29_and_the_machines_own_otp_work_together() {
    two_releases((Release::Otp29, A), (Release::Machine, B));
}

#[test]
fn otp_27_and_otp_29_work_together() {
    two_releases((Release::Otp27, A), (Release::Otp29, B));
}

/// Before 24.2 a VM dials no host that it cannot resolve, whatever the epmd module says.
#[test]
fn otp_23_and_the_machines_own_otp_work_together() {
    two_releases((Release::Otp23, "node1@10.1.2.3"), (Release::Machine, "node2@10.1.2.4"));
}

#[test]
fn two_nodes_of_otp_23_work_together() {
    two_releases((Release::Otp23, "node1@10.1.2.3"), (Release::Otp23, "node2@10.1.2.4"));
}

/// From 26 on OTP refuses peers that are older than 24; the reason is named.
#[test]
fn otp_27_refuses_otp_23_and_the_reason_is_said() {
    const OLD: &str = "node1@10.1.2.3";
    const NEW: &str = "node2@10.1.2.4";
    if skips(&[Release::Otp23.needs(), Release::Otp27.needs()].concat()) {
        return;
    }
    let mesh = Mesh::agent();
    let mut old = vm_of(&mesh, Release::Otp23, OLD);
    let mut new = vm_of(&mesh, Release::Otp27, NEW);
    for (vm, peer) in [(&mut new, OLD), (&mut old, NEW)] {
        assert_eq!(vm.connect(peer), "false");
        let stderr = vm.wrapper().await_stderr("V4_NC", SOON);
        assert!(stderr.contains("too old"), "{peer}: {stderr}");
    }
}

fn two_releases((first, one): (Release, &str), (second, two): (Release, &str)) {
    if skips(&[first.needs(), second.needs()].concat()) {
        return;
    }
    let mesh = Mesh::agent();
    let mut a = vm_of(&mesh, first, one);
    let mut b = vm_of(&mesh, second, two);
    assert_eq!(b.connect(one), "true", "{}", b.stderr());
    calls_and_monitors(&mut a, two);
    calls_and_monitors(&mut b, one);
    disconnects_and_connects_again(&mut a, &mut b, one, two);
    disconnects_and_connects_again(&mut b, &mut a, two, one);
}

fn vm_of(mesh: &Mesh, release: Release, name: &str) -> Vm {
    let program = release.program("erl");
    let program: Vec<&str> = program.iter().map(String::as_str).collect();
    let mut vm = mesh.vm_builder(name).program(&program).start();
    let is = vm.eval("erlang:system_info(otp_release)");
    let wanted = match release {
        Release::Machine => return vm,
        Release::Otp23 => "\"23\"",
        Release::Otp27 => "\"27\"",
        Release::Otp29 => "\"29\"",
    };
    assert_eq!(is, wanted);
    vm
}

#[test]
fn three_nodes_form_a_full_mesh() {
    if skips(&[Need::Erlang]) {
        return;
    }
    let mesh = Mesh::agent();
    let (mut a, mut b) = pair(&mesh);
    let mut c = mesh.vm("node3@myhost");
    assert_eq!(c.connect(A), "true", "{}", c.stderr());
    // global connects the third pair by itself.
    b.await_eval("lists:sort(nodes())", "[node1@myhost,node3@myhost]", SOON);
    c.await_eval("lists:sort(nodes())", "[node1@myhost,node2@myhost]", SOON);
    a.await_eval("lists:sort(nodes())", "[node2@myhost,node3@myhost]", SOON);
}

#[test]
fn a_remote_shell_opens() {
    if skips(&[Need::Erlang, Need::Elixir]) {
        return;
    }
    let mesh = Mesh::agent();
    let libraries = elixir_libraries();
    let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
    let mut a = mesh.vm_builder(A).erl(&[&["-pa"], &libraries[..]].concat()).start();
    a.eval("{ok, _} = application:ensure_all_started(iex)");
    let mut shell = mesh.on_terminal(&["--name", "shell@myhost"], &["iex", "--remsh", A]);
    shell.await_stdout("iex(node1@myhost)", BOOT);
    assert_eq!(a.eval("nodes(hidden) ++ nodes()"), "[shell@myhost]");
    shell.write("IO.puts(\"I am at #{node()}\")\n");
    shell.await_stdout("I am at node1@myhost", SOON);
}

#[test]
fn iex_keeps_its_terminal() {
    if skips(&[Need::Erlang, Need::Elixir]) {
        return;
    }
    let mesh = Mesh::agent();
    let mut iex = mesh.on_terminal(&["--name", B], &["iex"]);
    iex.await_stdout("iex(node2@myhost)1>", BOOT);
    iex.write("IO.ANSI.enabled?() |> IO.inspect(label: \"colours\")\n");
    iex.await_stdout("colours: true", SOON);
    iex.write("System.halt(3)\n");
    assert_eq!(iex.wait(SOON).code(), Some(3));
}

/// The folders of compiled code of Elixir and its shell.
fn elixir_libraries() -> Vec<String> {
    let program = "for app <- [:elixir, :logger, :iex], do: IO.puts(:code.lib_dir(app))";
    let output = std::process::Command::new("elixir").args(["-e", program]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    output.lines().map(|folder| format!("{folder}/ebin")).collect()
}
