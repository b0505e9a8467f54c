//! The nodes, and what happens to them.

use std::time::{Duration, Instant};

use meshx_e2e::{Epmd, PlainVm, Release};
use meshx_node::carrier::{self, Tcp};
use meshx_node::etf::{Pid, Term};
use meshx_node::{Cookie, Mailbox, Node, Signal, Ticktime};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Seeded;
use super::actor::{self, Actor, Command, Line};
use super::checker::{Died, Disturbed, History};
use super::gate::{Gated, Gates};
use crate::{COOKIE, LIMIT};

const TICKTIME: Duration = Duration::from_secs(1);
const RUST: [&str; 3] = ["c1@127.0.0.1", "c2@127.0.0.1", "c3@127.0.0.1"];
const VM: &str = "vm@127.0.0.1";
/// So long what is to come may take to come.
const SETTLED: Duration = Duration::from_secs(4);
/// Actors on each node.
const ACTORS: usize = 8;

/// A Rust node in a runtime of its own, so that it can be killed with all it has.
struct Host {
    runtime: Option<Runtime>,
    node: Node,
    actors: Vec<Actor>,
}

pub(crate) struct World {
    dice: Seeded,
    epmd: Epmd,
    gates: Gates,
    hosts: Vec<Host>,
    vm: PlainVm,
    /// What runs in the VM: its number there, and its pid.
    workers: Vec<(u64, Pid)>,
    /// Of a node that nothing happens to.
    inbox: Mailbox,
    log: UnboundedSender<Line>,
    lines: UnboundedReceiver<Line>,
    history: History,
    numbers: u64,
    restarts_of_vm: u32,
    frozen: Option<(&'static str, &'static str, Instant)>,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let epmd = Epmd::start(Release::Machine);
        let gates = Gates::default();
        let (log, lines) = unbounded_channel();
        let mut hosts = Vec::new();
        for name in RUST {
            hosts.push(host(name, epmd.port(), &gates).await);
        }
        let tcp = Tcp::loopback(carrier::Epmd::at_port(epmd.port()));
        let quiet = Node::builder("quiet@127.0.0.1").cookie(Cookie::new(COOKIE)).carrier(tcp);
        let inbox = quiet.start().await.unwrap().mailbox().unwrap();
        inbox.register("inbox").unwrap();
        let vm = start_vm(epmd.port());
        let mut world = Self {
            dice: Seeded(seed),
            epmd,
            gates,
            hosts,
            vm,
            workers: Vec::new(),
            inbox,
            log,
            lines,
            history: History::default(),
            numbers: 0,
            restarts_of_vm: 0,
            frozen: None,
        };
        for host in 0..RUST.len() {
            for _ in 0..ACTORS {
                world.start_actor(host);
            }
        }
        for _ in 0..ACTORS / 2 {
            world.start_worker().await;
        }
        world
    }

    pub(crate) async fn run(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.step().await;
            let pause = self.dice.below(3000);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            self.thaw(false);
        }
    }

    async fn step(&mut self) {
        match self.dice.below(1000) {
            0..300 => self.tell(Command::Monitor),
            300..360 => {
                let which = self.dice.index(5);
                self.tell(|_| Command::Demonitor(which));
            }
            360..620 => self.tell(Command::Link),
            620..720 => self.tell(Command::Unlink),
            720..800 => {
                let number = self.number();
                self.tell(|pid| Command::Shoot(pid, number));
            }
            800..950 => self.replace_actor().await,
            950..980 => self.cut(),
            980..990 => self.freeze(),
            990..997 => self.kill_node().await,
            _ => self.kill_vm().await,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// One actor is to do something to another process, anywhere.
    fn tell(&mut self, command: impl FnOnce(Pid) -> Command) {
        let target = self.some_pid();
        let host = self.dice.index(self.hosts.len());
        let actor = self.dice.index(self.hosts[host].actors.len());
        let mut actor = self.hosts[host].actors[actor].clone();
        let command = command(target.clone());
        let target = match command {
            // Of two actors always the same one links and unlinks, so that both need not be right
            // about what the other one did at the same time.
            Command::Link(_) | Command::Unlink(_) if key(&target) > key(&actor.pid) => {
                let mut actors = self.hosts.iter().flat_map(|host| &host.actors);
                if let Some(owner) = actors.find(|owner| owner.pid == target) {
                    let other = std::mem::replace(&mut actor, owner.clone());
                    other.pid
                } else {
                    target
                }
            }
            _ => target,
        };
        if actor.pid != target {
            drop(actor.commands.send(command.to(target)));
        }
    }

    fn some_pid(&mut self) -> Pid {
        let node = self.dice.index(self.hosts.len() + 1);
        if node == self.hosts.len() {
            let which = self.dice.index(self.workers.len());
            return self.workers[which].1.clone();
        }
        let which = self.dice.index(self.hosts[node].actors.len());
        self.hosts[node].actors[which].pid.clone()
    }

    fn start_actor(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        let _inside = host.runtime.as_ref().unwrap().enter();
        host.actors.push(actor::start(&host.node, self.log.clone()));
    }

    async fn replace_actor(&mut self) {
        let number = self.number();
        if self.dice.below(5) == 0 {
            let which = self.dice.index(self.workers.len());
            let (worker, pid) = self.workers.swap_remove(which);
            self.history.died.push(Died::of(pid, Some(actor::ended(number))));
            self.vm.eval(&format!("w{worker} ! {{stop, {{ended, {number}}}}}"));
            return self.start_worker().await;
        }
        let host = self.dice.index(self.hosts.len());
        let which = self.dice.index(self.hosts[host].actors.len());
        let ends = self.hosts[host].actors.swap_remove(which);
        self.history.died.push(Died::of(ends.pid, Some(actor::ended(number))));
        drop(ends.commands.send(Command::End(number)));
        self.start_actor(host);
    }

    async fn start_worker(&mut self) {
        let number = self.number();
        self.vm.eval(&format!("register(w{number}, spawn(Worker))"));
        self.vm.eval(&format!("{{inbox, 'quiet@127.0.0.1'}} ! whereis(w{number})"));
        let Some(Signal::Message(message)) = self.inbox.receive_within(LIMIT).await else {
            panic!("the VM does not say whom it started")
        };
        let Ok(Term::Pid(pid)) = message.body.term() else { panic!() };
        self.workers.push((number, pid));
    }

    /// Two different nodes, the first of Rust.
    fn two(&mut self) -> (usize, &'static str) {
        let one = self.dice.index(RUST.len());
        let others: Vec<_> =
            RUST.iter().copied().chain([VM]).filter(|other| *other != RUST[one]).collect();
        (one, others[self.dice.index(others.len())])
    }

    fn cut(&mut self) {
        let (one, other) = self.two();
        self.disturb(RUST[one], other);
        if other == VM && self.dice.below(2) == 0 {
            self.vm.eval(&format!("erlang:disconnect_node('{}')", RUST[one]));
        } else {
            self.hosts[one].node.disconnect(other);
        }
    }

    /// Nothing gets through between two nodes, until their ticktime is over.
    fn freeze(&mut self) {
        if self.frozen.is_none() {
            let (one, other) = self.two();
            self.disturb(RUST[one], other);
            self.gates.set(RUST[one], other, false);
            let millis = 200 + self.dice.below(1800);
            self.frozen = Some((RUST[one], other, Instant::now() + Duration::from_millis(millis)));
        }
    }

    fn thaw(&mut self, at_once: bool) {
        if let Some((one, other, until)) = self.frozen
            && (at_once || until <= Instant::now())
        {
            self.disturb(one, other);
            self.gates.set(one, other, true);
            self.frozen = None;
        }
    }

    fn disturb(&mut self, one: &str, other: &str) {
        let nodes = [one.to_owned(), other.to_owned()];
        self.history.disturbed.push(Disturbed { nodes, at: Instant::now() });
    }

    fn disturb_all(&mut self, node: &str) {
        for other in RUST.iter().copied().chain([VM]).filter(|other| *other != node) {
            self.disturb(node, other);
        }
    }

    /// A node is gone without a word, and comes back as another one.
    async fn kill_node(&mut self) {
        let which = self.dice.index(self.hosts.len());
        self.disturb_all(RUST[which]);
        let host = &mut self.hosts[which];
        for actor in host.actors.drain(..) {
            self.history.died.push(Died::of(actor.pid, None));
        }
        host.runtime.take().unwrap().shutdown_background();
        self.hosts[which] = self::host(RUST[which], self.epmd.port(), &self.gates).await;
        for _ in 0..ACTORS {
            self.start_actor(which);
        }
        self.disturb_all(RUST[which]);
    }

    async fn kill_vm(&mut self) {
        // It takes a while.
        self.restarts_of_vm += 1;
        if self.restarts_of_vm > 3 {
            return;
        }
        self.disturb_all(VM);
        for (_, pid) in self.workers.drain(..) {
            self.history.died.push(Died::of(pid, None));
        }
        self.vm.signal(rustix::process::Signal::KILL);
        self.vm = start_vm(self.epmd.port());
        for _ in 0..ACTORS / 2 {
            self.start_worker().await;
        }
        self.disturb_all(VM);
    }

    /// Everything heals, and everyone ends; what must come by then has come.
    pub(crate) async fn end(mut self) -> History {
        self.thaw(true);
        tokio::time::sleep(SETTLED).await;
        // Those in the VM first, as they note nothing; then one node after the other.
        for (worker, pid) in std::mem::take(&mut self.workers) {
            let number = self.number();
            self.history.died.push(Died::of(pid, Some(actor::ended(number))));
            self.vm.eval(&format!("w{worker} ! {{stop, {{ended, {number}}}}}"));
        }
        for host in 0..self.hosts.len() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for actor in std::mem::take(&mut self.hosts[host].actors) {
                let number = self.number();
                self.history.died.push(Died::of(actor.pid, Some(actor::ended(number))));
                drop(actor.commands.send(Command::End(number)));
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        while let Ok(line) = self.lines.try_recv() {
            self.history.lines.push(line);
        }
        for host in &mut self.hosts {
            host.runtime.take().unwrap().shutdown_background();
        }
        self.history
    }
}

fn key(pid: &Pid) -> (u32, u32, u32, &str) {
    (pid.id, pid.serial, pid.node.creation(), pid.node.name().as_str())
}

async fn host(name: &'static str, epmd: u16, gates: &Gates) -> Host {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .unwrap();
    let gates = gates.clone();
    let starting = runtime.spawn(async move {
        let begun = Instant::now();
        loop {
            let tcp = Tcp::loopback(carrier::Epmd::at_port(epmd));
            let gated = Gated { tcp, own: name.to_owned(), gates: gates.clone() };
            let builder = Node::builder(name)
                .cookie(Cookie::new(COOKIE))
                .carrier(gated)
                .setup_time(Duration::from_secs(1))
                .ticktime(Ticktime { time: TICKTIME, intensity: 4 });
            match builder.start().await {
                Ok(node) => return node,
                // EPMD has not noticed yet that the one before is gone.
                Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let node = starting.await.unwrap();
    Host { runtime: Some(runtime), node, actors: Vec::new() }
}

fn start_vm(epmd: u16) -> PlainVm {
    let ticktime = TICKTIME.as_secs().to_string();
    let arguments = ["-kernel", "net_ticktime", &ticktime, "-kernel", "net_setuptime", "1"];
    let mut vm = PlainVm::builder(Release::Machine, VM, COOKIE, epmd).args(&arguments).start();
    vm.eval(
        "Worker = fun() -> process_flag(trap_exit, true), \
         Loop = fun Loop() -> receive {stop, X} -> exit(X); _ -> Loop() end end, Loop() end",
    );
    vm
}
