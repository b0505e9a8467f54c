//! Real VMs, an EPMD of our own, and a relay that observes: blocking sockets and threads.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use meshx_dist::epmd::front_door::Lookup;
use meshx_dist::epmd::{Alive, AliveReply, NamesReply, PortReply, Request};
use meshx_dist::handshake::{Framing, HandshakeOutcome, Observer, Side};

/// No step of these tests takes nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether `erl` can be started; says so if not.
pub(crate) fn erl_is_here() -> bool {
    let found = Command::new("erl")
        .args(["-noshell", "-eval", "halt()."])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        writeln!(std::io::stderr(), "skipped: no `erl` on PATH").expect("stderr");
    }
    found
}

/// A VM, ended when dropped.
pub(crate) struct Vm(Child);

impl Vm {
    /// Starts a VM under `name` that asks `epmd`, evaluates `expression` and then stays.
    pub(crate) fn start(epmd: &Epmd, name: &str, cookie: &str, expression: &str) -> Self {
        let mut command = Self::command(Some(name), cookie, expression);
        command
            .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
            .env("ERL_EPMD_PORT", epmd.port.to_string());
        Self(command.spawn().expect("start erl"))
    }

    /// A VM on loopback. Without a name its distribution is not started.
    pub(crate) fn command(name: Option<&str>, cookie: &str, expression: &str) -> Command {
        let mut command = Command::new("erl");
        if let Some(name) = name {
            command.args(["-sname", name]);
        }
        command
            .env_remove("ERL_AFLAGS")
            .env_remove("ERL_ZFLAGS")
            .args(["-noshell", "-start_epmd", "false", "-setcookie", cookie])
            .args(["-kernel", "logger_level", "none", "-kernel", "net_setuptime", "1"])
            .args(["-eval", expression])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        Self(command.spawn().expect("start erl"))
    }

    /// What the VM printed, once it has halted by itself.
    pub(crate) fn output(mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().expect("a piped stdout");
        stdout.read_to_string(&mut text).expect("the output of erl");
        text
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[derive(Default)]
struct Registry {
    nodes: HashMap<String, (Alive, u32)>,
    redirects: HashMap<String, u16>,
    granted: u32,
}

/// An EPMD that can send askers to a relay.
#[derive(Clone)]
pub(crate) struct Epmd {
    pub(crate) port: u16,
    registry: Arc<Mutex<Registry>>,
}

impl Epmd {
    /// Serves stock VMs on loopback.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let epmd = Self { port, registry: Arc::default() };
        let server = epmd.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let epmd = server.clone();
                thread::spawn(move || epmd.serve(stream));
            }
        });
        epmd
    }

    /// Answers questions for `node` with this port, whatever it registered.
    pub(crate) fn redirect(&self, node: &str, port: u16) {
        self.registry.lock().expect("lock").redirects.insert(node.to_owned(), port);
    }

    /// Waits until `node` has registered: its registration and creation.
    pub(crate) fn registered(&self, node: &str) -> (Alive, u32) {
        let start = Instant::now();
        loop {
            if let Some(found) = self.registry.lock().expect("lock").nodes.get(node) {
                return found.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{node} did not register");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Serves one connection, of whatever kind of socket.
    pub(crate) fn serve(&self, mut stream: impl Read + Write) {
        let mut buffer = Vec::new();
        let request = loop {
            match Request::decode(&buffer).expect("a request of a real VM") {
                Some((request, _)) => break request,
                None if fill(&mut stream, &mut buffer) => {}
                None => return,
            }
        };
        let mut out = BytesMut::new();
        match request {
            Request::Alive(alive) => {
                let creation = {
                    let mut registry = self.registry.lock().expect("lock");
                    registry.granted += 1;
                    let creation = 1_000_000 + registry.granted;
                    registry.nodes.insert(alive.name.clone(), (alive.clone(), creation));
                    creation
                };
                AliveReply::granted(&alive, creation).encode(&mut out);
                stream.write_all(&out).expect("reply");
                while fill(&mut stream, &mut Vec::new()) {}
                let mut registry = self.registry.lock().expect("lock");
                if registry.nodes.get(&alive.name).is_some_and(|(_, held)| *held == creation) {
                    registry.nodes.remove(&alive.name);
                }
                return;
            }
            Request::PortPlease { name } => {
                let reply = self.port_of(&Lookup::parse(&name).expect("checked by decode"));
                reply.encode(&mut out).expect("a name that was checked");
            }
            Request::Names => {
                let registry = self.registry.lock().expect("lock");
                let nodes = registry.nodes.values().map(|(it, _)| (it.name.clone(), it.port));
                let reply =
                    NamesReply { port: self.port.into(), nodes: nodes.collect(), ignored: 0 };
                reply.encode(&mut out).expect("names that were checked");
            }
            other => panic!("a VM does not ask {other:?}"),
        }
        stream.write_all(&out).expect("reply");
    }

    fn port_of(&self, lookup: &Lookup) -> PortReply {
        let registry = self.registry.lock().expect("lock");
        let known = registry.nodes.get(&lookup.node).map(|(alive, _)| alive.clone());
        match (registry.redirects.get(&lookup.node), known) {
            (Some(port), _) => PortReply::Found(Alive::new(lookup.node.clone(), *port)),
            // What a node said of itself is not where to dial.
            (None, Some(alive)) => PortReply::Found(Alive { extra: Vec::new(), ..alive }),
            (None, None) => PortReply::NotFound { result: 1 },
        }
    }
}

/// A relay in front of one port, which judges the first connection through it.
pub(crate) struct Relay {
    pub(crate) port: u16,
    outcome: mpsc::Receiver<HandshakeOutcome>,
}

impl Relay {
    /// Relays to `target`, whose node is `wanted`.
    pub(crate) fn start(target: u16, wanted: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (sender, outcome) = mpsc::channel();
        let observer = Observer::new(Framing::U16).wanting(wanted);
        thread::spawn(move || {
            let (initiator, _) = listener.accept().expect("accept");
            let acceptor = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).expect("dial");
            let observer = Arc::new(Mutex::new(observer));
            for (side, from, to) in [
                (Side::Initiator, initiator.try_clone(), acceptor.try_clone()),
                (Side::Acceptor, acceptor.try_clone(), initiator.try_clone()),
            ] {
                let (from, to) = (from.expect("clone"), to.expect("clone"));
                let (observer, sender) = (Arc::clone(&observer), sender.clone());
                thread::spawn(move || copy(side, from, to, &observer, &sender));
            }
        });
        Self { port, outcome }
    }

    /// How the connection ended.
    pub(crate) fn outcome(&self) -> HandshakeOutcome {
        self.outcome.recv_timeout(PATIENCE).expect("the end of the connection")
    }
}

fn copy(
    side: Side,
    mut from: TcpStream,
    mut to: TcpStream,
    observer: &Mutex<Observer>,
    sender: &mpsc::Sender<HandshakeOutcome>,
) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        observer.lock().expect("lock").sent(side, &chunk[..count]);
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // The receiver takes the first of the two.
    drop(sender.send(observer.lock().expect("lock").diagnosis_at_close(side)));
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

/// Reads once; `false` at the end.
pub(crate) fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(count @ 1..) => {
            buffer.extend_from_slice(&chunk[..count]);
            true
        }
        _ => false,
    }
}
