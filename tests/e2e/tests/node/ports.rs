//! Rust nodes and stock VMs without any port mapper: at one port for all, and at the port that each
//! name says, as with Caravan.

use std::net::SocketAddr;
use std::process::Command;

use meshx_e2e::{Mesh, PlainVm, Release, free_port, skips};
use meshx_node::carrier::{OnePort, PortInName, Resolve, Tcp};
use meshx_node::etf::Atom;
use meshx_node::{ConnectError, Cookie, Node};

use crate::{COOKIE, LIMIT};

/// Nothing listens there.
const NO_EPMD: u16 = 1;

fn node(name: &str, listen: &str, resolver: impl Resolve) -> meshx_node::Builder {
    let listen: SocketAddr = listen.parse().unwrap();
    Node::builder(name).cookie(Cookie::new(COOKIE)).carrier(Tcp::new(listen, resolver))
}

/// Both dial, and both are told when they part.
async fn meet(vm: &mut PlainVm, vm_name: &str, node: &Node) {
    let name = node.name().as_str();
    assert_eq!(vm.eval(&format!("net_adm:ping('{name}')")), "pong", "{}", vm.stderr());
    assert_eq!(node.peers().len(), 1);
    vm.eval(&format!("erlang:disconnect_node('{name}')"));
    vm.await_eval("nodes(connected)", "[]", LIMIT);
    while !node.peers().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let there: Atom = node.rpc(vm_name, "erlang", "node", (), LIMIT).await.unwrap();
    assert_eq!(there, vm_name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_for_all() {
    for release in [Release::Machine, Release::Otp27] {
        if skips(release.needs()) {
            continue;
        }
        let port = free_port();
        let flags = ["-erl_epmd_port", &port.to_string()];
        let mut vm = PlainVm::builder(release, "a@127.0.0.1", COOKIE, NO_EPMD).args(&flags).start();
        // Each has an address of its own.
        let rust = node("rust@127.0.0.2", "127.0.0.2:0", OnePort::new(port)).start().await.unwrap();
        assert_eq!(rust.addresses(), [format!("127.0.0.2:{port}")]);
        meet(&mut vm, "a@127.0.0.1", &rust).await;
        // Of a second one at that address there can be none, and it says where.
        let taken = node("other@127.0.0.2", "127.0.0.2:0", OnePort::new(port)).start().await;
        let taken = taken.unwrap_err().to_string();
        assert!(taken.contains(&format!("127.0.0.2:{port}")), "{taken}");
        // But for one that finds others and is not found.
        let deaf =
            node("deaf@127.0.0.2", &format!("127.0.0.2:{}", free_port()), OnePort::new(port));
        let deaf = deaf.start().await.unwrap();
        deaf.connect("a@127.0.0.1").await.unwrap();
        // A wrong host is another node, if there is one at all.
        let error = deaf.connect("a@127.0.0.2").await.unwrap_err().to_string();
        assert!(error.contains("rust@127.0.0.2 answered"), "{error}");
        let error = deaf.connect("a@127.0.0.3").await.unwrap_err();
        assert!(matches!(error, ConnectError::Reach { .. }), "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.3:{port}")), "{error}");
    }
}

/// What a stock VM needs to do the same: the four functions that OTP asks for, and the rule.
const MODULE: &str = "-module(port_in_name).
-export([start_link/0, register_node/3, address_please/3, listen_port_please/2, names/1]).
start_link() -> ignore.
register_node(_, _, _) -> {ok, -1}.
names(_) -> {error, address}.
listen_port_please(Name, _) -> {ok, port(Name)}.
address_please(Name, Host, Family) ->
    case inet:getaddr(Host, Family) of
        {ok, Ip} -> {ok, Ip, port(Name), 5};
        Error -> Error
    end.
port(Name) ->
    [Node | _] = string:split(if is_atom(Name) -> atom_to_list(Name); true -> Name end, \"@\"),
    {match, [Digits]} = re:run(Node, \"[0-9]+$\", [{capture, first, list}]),
    list_to_integer(Digits).
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_that_the_name_says() {
    let release = Release::Machine;
    if skips(release.needs()) {
        return;
    }
    let home = Mesh::folder();
    std::fs::write(home.path().join("port_in_name.erl"), MODULE).unwrap();
    let words = release.program("erl");
    let compile = "{ok, _} = compile:file(port_in_name), halt().";
    let done = Command::new(&words[0])
        .args(&words[1..])
        .args(["-noshell", "-eval", compile])
        .current_dir(home.path())
        .status()
        .unwrap();
    assert!(done.success());
    let start = |name: &str| {
        let path = home.path().to_str().unwrap();
        let flags = ["-pa", path, "-epmd_module", "port_in_name"];
        PlainVm::builder(release, name, COOKIE, NO_EPMD).args(&flags).start()
    };
    let ports = PortInName::new();
    let own = free_port();
    let rust = node(&format!("rust-{own}@127.0.0.1"), "127.0.0.1:0", ports).start().await.unwrap();
    assert_eq!(rust.addresses(), [format!("127.0.0.1:{own}")]);
    let name = format!("app{}@127.0.0.1", free_port());
    let mut vm = start(&name);
    meet(&mut vm, &name, &rust).await;
    let second = format!("app{}@127.0.0.1", free_port());
    let mut other = start(&second);
    assert_eq!(other.eval(&format!("net_adm:ping('{name}')")), "pong");
    rust.connect(&second).await.unwrap();
    assert_eq!(rust.peers().len(), 2);

    // The holes of the rule.
    for (name, words) in [
        ("app@127.0.0.1", "no digits"),
        ("web1@127.0.0.1", "stands for port 1,"),
        ("app-65536@127.0.0.1", "stands for port 65536"),
    ] {
        let error = rust.connect(name).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(name), "{error}");
        let error = node(name, "127.0.0.1:0", ports).start().await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // Who would listen elsewhere than others look is told.
    let elsewhere = node("rust-20001@127.0.0.1", &format!("127.0.0.1:{}", free_port()), ports);
    let error = elsewhere.start().await.unwrap_err().to_string();
    assert!(error.contains("others will look for it at port 20001"), "{error}");
    // As a remote shell of a release is named, it is led to the node that it is for.
    let error = rust.connect(&format!("rem-1f2e-{name}")).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{name} answered")), "{error}");
    // Counted from a base.
    let web = u16::try_from(vm_port(&name) - 20).unwrap();
    let counts = node(
        "count@127.0.0.1",
        "127.0.0.1:0",
        PortInName::from_base(web).without_digits(free_port()),
    );
    let counts = counts.start().await.unwrap();
    let error = counts.connect("web20@127.0.0.1").await.unwrap_err().to_string();
    assert!(error.contains(&format!("{name} answered")), "{error}");
}

fn vm_port(name: &str) -> u32 {
    let (alive, _) = name.split_once('@').unwrap();
    alive.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}
