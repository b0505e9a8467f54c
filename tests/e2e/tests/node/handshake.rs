//! How Rust nodes and stock VMs come together, and how they do not: refusals, lies of a port mapper,
//! one that hangs, and a connection that the other side takes for alive.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use meshx_e2e::{Epmd, PlainVm, Release, skips};
use meshx_node::carrier::{self, Static, Tcp};
use meshx_node::etf::{Pid, Term, term};
use meshx_node::{ConnectError, Cookie, Node, NodeEvent, Signal};
use rustix::process::Signal as Kill;

use crate::{COOKIE, LIMIT, Stock};

const RUST: &str = "rust@127.0.0.1";

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A Rust node that finds others by these port mappers.
async fn rust(epmds: &[u16]) -> Node {
    let mut node = Node::builder(RUST).cookie(Cookie::new(COOKIE));
    for &port in epmds {
        node = node.carrier(Tcp::loopback(carrier::Epmd::at_port(port)));
    }
    node.start().await.unwrap()
}

/// The VM hangs, and its connection with it; another one of its name comes and takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_started_again_takes_over() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut old = Stock::start(Release::Machine, "a");
    // Its first creation is the second in which it is started.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let epmd = Epmd::start(Release::Machine);
    let node = rust(&[old.epmd.port(), epmd.port()]).await;
    let mut inbox = node.mailbox().unwrap();
    inbox.register("inbox").unwrap();
    assert_eq!(old.vm.eval(&format!("net_kernel:connect_node('{RUST}')")), "true");
    old.vm.eval(&format!("{{inbox, '{RUST}'}} ! self()"));
    let Some(Signal::Message(message)) = inbox.receive_within(LIMIT).await else { panic!() };
    let there: Pid = message.body.typed().unwrap();
    let watched = inbox.monitor(&there).await;
    let mut events = node.monitor_nodes();
    old.vm.signal(Kill::STOP);

    let mut new = PlainVm::start(Release::Machine, &old.name, COOKIE, epmd.port());
    let begun = Instant::now();
    assert_eq!(new.eval(&format!("net_kernel:connect_node('{RUST}')")), "true");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let Some(Signal::Down(down)) = inbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!((down.reference, down.reason), (watched, term!(noconnection)));
    let Ok(NodeEvent::Down { .. }) = events.recv().await else { panic!() };
    let Ok(NodeEvent::Up { creation, .. }) = events.recv().await else { panic!() };
    assert_ne!(creation, there.node.creation());
    new.eval(&format!("{{inbox, '{RUST}'}} ! new"));
    let Some(Signal::Message(message)) = inbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!(message.body.term().unwrap(), term!(new));
    // The old one wakes, and sees that it is out.
    old.vm.signal(Kill::CONT);
    old.vm.await_eval("nodes(hidden)", "[]", LIMIT);
    assert_eq!(node.peers().len(), 1);
    assert_eq!(new.eval("nodes(hidden)"), format!("['{RUST}']"));
    // What is for a process of the old one does not get to the new one's of the same number.
    inbox.send_term(&there, &term!(stray)).await.unwrap();
    assert_eq!(new.eval("receive stray -> wrong after 200 -> right end"), "right");
}

/// The same the other way round: the VM answers `alive` to a Rust node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rust_node_that_is_started_again_takes_over() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut stock = Stock::start(Release::Machine, "a");
    let old = stock.beside("rust").start().await.unwrap();
    old.connect(&stock.name).await.unwrap();
    stock.vm.await_eval("nodes(hidden)", &format!("['{RUST}']"), LIMIT);
    stock.vm.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
    let new = known(&mut stock, RUST).start().await.unwrap();
    new.connect(&stock.name).await.unwrap();
    until("the old one is out", || old.peers().is_empty()).await;
    let seen = "receive {nodedown, _, _} -> receive {nodeup, N, _} -> N after 5000 -> late end \
                after 5000 -> late end";
    assert_eq!(stock.vm.eval(seen), format!("'{RUST}'"));
    new.rpc_term(&stock.name, "erlang", "node", vec![], LIMIT).await.unwrap();
    assert_eq!(new.peers().len(), 1);
}

/// A Rust node of that name that knows where the VM listens, and that nobody finds.
fn known(stock: &mut Stock, name: &str) -> meshx_node::Builder {
    let port = stock.vm.eval("element(2, erl_epmd:port_please(\"a\", {127,0,0,1}))");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    let carrier = Tcp::loopback(Static::new().with(&stock.name, address));
    Node::builder(name).cookie(Cookie::new(COOKIE)).carrier(carrier)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_allowed_is_told() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").allow(|name| !name.starts_with("a@")).start().await.unwrap();
    assert_eq!(stock.vm.eval(&format!("net_kernel:connect_node('{RUST}')")), "false");
    assert!(node.peers().is_empty());
    // Who does not let in may still go out, as with `net_kernel:allow/1` of one side only.
    node.connect(&stock.name).await.unwrap();
    stock.vm.await_eval("nodes(hidden)", &format!("['{RUST}']"), LIMIT);
    node.disconnect(&stock.name);
    stock.vm.await_eval("nodes(hidden)", "[]", LIMIT);
    stock.vm.eval("net_kernel:allow(['other@127.0.0.1'])");
    let begun = Instant::now();
    let error = node.connect(&stock.name).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(error.to_string().contains("NotAllowed"), "{error}");
    assert!(node.peers().is_empty());
    assert_eq!(stock.vm.eval("nodes(connected)"), "[]");
}

/// Stock nodes with long names do not dial those with short ones, and let them in nonetheless; so
/// does a Rust node either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_the_wrong_form() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut stock = Stock::start(Release::Machine, "a");
    let short = known(&mut stock, "rust@localhost").start().await.unwrap();
    let mut inbox = short.mailbox().unwrap();
    inbox.register("inbox").unwrap();
    short.connect(&stock.name).await.unwrap();
    stock.vm.await_eval("nodes(hidden)", "[rust@localhost]", LIMIT);
    stock.vm.eval("{inbox, rust@localhost} ! hello");
    let Some(Signal::Message(message)) = inbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!(message.body.term().unwrap(), term!(hello));
    short.disconnect(&stock.name);
    stock.vm.await_eval("nodes(hidden)", "[]", LIMIT);
    assert_eq!(stock.vm.eval("net_kernel:connect_node(rust@localhost)"), "false");
    for name in ["a", "a@", "@127.0.0.1", "a@b@c", "a b@127.0.0.1", "ä@127.0.0.1", ""] {
        let error = short.connect(name).await.unwrap_err();
        assert!(matches!(error, ConnectError::Name(_)), "{name}: {error}");
    }
}

/// A port mapper that answers every question for a node with this port.
fn liar(port: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // A registration lasts as long as its connection.
        let mut registered = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let Ok(read) = stream.read(&mut request) else { continue };
            let Some(&[_, _, kind, ref name @ ..]) = request.get(..read) else { continue };
            let mut answer = vec![];
            if kind == b'z' {
                answer.extend([119, 0]);
                answer.extend(port.to_be_bytes());
                answer.extend([77, 0, 0, 6, 0, 5]);
                answer.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
                answer.extend(name);
                answer.extend([0, 0]);
            } else {
                answer.extend([118, 0, 0, 0, 1, 2]);
            }
            drop(stream.write_all(&answer));
            if kind == b'x' {
                registered.push(stream);
            }
        }
    });
    own
}

/// E9 of the faults: a port mapper that leads to another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_mapper_that_lies_leads_to_no_connection() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut other = Stock::start(Release::Machine, "b");
    let port = other.vm.eval("element(2, erl_epmd:port_please(\"b\", {127,0,0,1}))");
    let node = rust(&[liar(port.parse().unwrap())]).await;
    let mut events = node.monitor_nodes();
    let begun = Instant::now();
    let error = node.connect("a@127.0.0.1").await.unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(error.contains("a@127.0.0.1 was dialled, but b@127.0.0.1 answered"), "{error}");
    assert!(node.peers().is_empty() && events.try_recv().is_err());
    other.vm.await_eval("nodes(connected)", "[]", LIMIT);
    // Nothing of that stands in the way of who is really meant.
    node.connect("b@127.0.0.1").await.unwrap();
    assert_eq!(node.peers().len(), 1);
    // With another cookie the right name is not enough either.
    let stranger = Node::builder("stranger@127.0.0.1")
        .cookie(Cookie::new("another"))
        .carrier(Tcp::loopback(carrier::Epmd::at_port(liar(port.parse().unwrap()))))
        .start()
        .await
        .unwrap();
    assert!(stranger.connect("b@127.0.0.1").await.is_err());
    // To one that accepts and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let node = rust(&[liar(silent.local_addr().unwrap().port())]).await;
    let begun = Instant::now();
    let error = node.connect("a@127.0.0.1").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    assert!(node.peers().is_empty());
}

/// E10 of the faults: a port mapper that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_mapper_that_hangs_is_named() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut epmd = Epmd::start(Release::Machine);
    let node = rust(&[epmd.port()]).await;
    epmd.process().signal(Kill::STOP);
    for name in ["a@127.0.0.1", "a@localhost"] {
        let begun = Instant::now();
        let error = node.connect(name).await.unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
        assert!(error.contains("EPMD at 127.0.0.1:") && error.contains("no answer"), "{error}");
        assert!(error.contains("look up a"), "{error}");
    }
    let begun = Instant::now();
    let second = Node::builder("second@127.0.0.1")
        .cookie(Cookie::new(COOKIE))
        .carrier(Tcp::loopback(carrier::Epmd::at_port(epmd.port())));
    let error = second.start().await.unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(error.contains("register second") && error.contains("EPMD at"), "{error}");
    epmd.process().signal(Kill::CONT);
    let error = node.connect("a@127.0.0.1").await.unwrap_err().to_string();
    assert!(error.contains("knows no node a"), "{error}");
}

/// A VM that is killed, and another of its name, are found again without anybody's doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_kept_is_connected_again() {
    if skips(Release::Machine.needs()) {
        return;
    }
    let mut stock = Stock::start(Release::Machine, "a");
    let node = stock.beside("rust").auto_connect(false).start().await.unwrap();
    let kept = node.keep(&stock.name).unwrap();
    tokio::time::timeout(LIMIT, kept.up()).await.unwrap();
    let mut events = node.monitor_nodes();
    for _ in 0..2 {
        stock.vm.signal(Kill::KILL);
        let Ok(NodeEvent::Down { .. }) = events.recv().await else { panic!() };
        // Meanwhile it is looked for, less and less often.
        tokio::time::sleep(Duration::from_secs(4)).await;
        stock.vm = PlainVm::start(Release::Machine, &stock.name, COOKIE, stock.epmd.port());
        let begun = Instant::now();
        let Ok(NodeEvent::Up { .. }) = events.recv().await else { panic!() };
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        stock.vm.await_eval("nodes(hidden)", &format!("['{RUST}']"), LIMIT);
    }
    assert!(events.try_recv().is_err());
    let two = vec![term!([1, 1])];
    let sum = node.rpc_term(&stock.name, "lists", "sum", two, LIMIT).await.unwrap();
    assert_eq!(sum, Term::from(2));
}

/// A Rust node that gets its name from a VM, and one that gets it from a Rust node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rust_node_without_a_name_gets_one() {
    for release in [Release::Machine, Release::Otp27] {
        if skips(release.needs()) {
            continue;
        }
        let mut stock = Stock::start(release, "a");
        stock.vm.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
        let asks = |from: &str| {
            Node::dynamic("127.0.0.1", from)
                .cookie(Cookie::new(COOKIE))
                .carrier(Tcp::loopback(carrier::Epmd::at_port(stock.epmd.port())))
        };
        let node = asks(&stock.name).start().await.unwrap();
        let second = asks(&stock.name).start().await.unwrap();
        assert_ne!(node.name(), second.name());
        second.stop().await;
        let name = node.name().as_str().to_owned();
        assert!(name.ends_with("@127.0.0.1") && name != "@127.0.0.1", "{name}");
        assert!(node.addresses().is_empty());
        stock.vm.await_eval("nodes(hidden)", &format!("['{name}']"), LIMIT);
        assert_eq!(stock.vm.eval("nodes()"), "[]");
        // It is known by its name and its creation, as any other.
        let mut inbox = node.mailbox().unwrap();
        inbox.register("inbox").unwrap();
        stock.vm.eval("register(me, self())");
        inbox
            .send_term(("me", stock.name.as_str()), &term!({from, (inbox.pid().clone())}))
            .await
            .unwrap();
        stock.vm.eval("receive {from, P} -> P ! {self(), node(P)} after 5000 -> late end");
        let Some(Signal::Message(message)) = inbox.receive_within(LIMIT).await else { panic!() };
        let (from, seen): (Pid, meshx_node::etf::Atom) = message.body.typed().unwrap();
        assert_eq!(seen, *node.name());
        stock.vm.eval("monitor(process, P)");
        // Another node meets it under that name, and so does the first one when they were parted.
        let mut other = PlainVm::start(release, "b@127.0.0.1", COOKIE, stock.epmd.port());
        node.connect("b@127.0.0.1").await.unwrap();
        other.await_eval("nodes(hidden)", &format!("['{name}']"), LIMIT);
        node.disconnect(&stock.name);
        let down = "receive {'DOWN', _, process, P, Why} -> Why after 5000 -> late end";
        assert_eq!(stock.vm.eval(down), "noconnection");
        inbox.send_term(&from, &term!(again)).await.unwrap();
        assert_eq!(stock.vm.eval("receive again -> ok after 5000 -> late end"), "ok");
        assert_eq!(stock.vm.eval("nodes(hidden)"), format!("['{name}']"));
        // When nobody is left, its name is another's, and so it is no node any more.
        drop(other);
        node.disconnect(&stock.name);
        assert!(inbox.receive_within(LIMIT).await.is_none());
        let error = node.connect(&stock.name).await.unwrap_err();
        assert!(matches!(error, ConnectError::Stopping), "{error}");
        stock.vm.await_eval("nodes(hidden)", "[]", LIMIT);
        let next = asks(&stock.name).start().await.unwrap();
        assert_ne!((next.name(), next.creation()), (node.name(), node.creation()));
        // Whoever asks a node that is not there, or with another cookie, is told by whom.
        let error = asks("nobody@127.0.0.1").start().await.unwrap_err().to_string();
        assert!(error.contains("got no name of nobody@127.0.0.1"), "{error}");
        let error = asks(&stock.name).cookie(Cookie::new("another")).start().await.unwrap_err();
        assert!(error.to_string().contains("last step"), "{error}");
        let error = Node::dynamic("a b", &stock.name).cookie(Cookie::new("x")).start().await;
        assert!(error.unwrap_err().to_string().contains("is no node name"));
    }
}
