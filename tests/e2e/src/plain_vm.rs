//! A stock Erlang VM with nothing of the product in it, and a real EPMD for it.

use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::mesh::{Home, forget_own_settings, free_port};
use crate::netns::Namespace;
use crate::vm::DRIVER;
use crate::{Process, Release, Vm};

/// A stock `erl`, not wrapped by anything, that is killed without a warning when dropped.
///
/// It is a [`Vm`]: evaluate with [`Vm::eval`] and its kin. Its distribution listens on 127.0.0.1
/// only. Expressions run one after the other in one process with its bindings, so
/// `register(me, self())` and later `receive … end` work as in a shell.
///
/// ```no_run
/// use meshx_e2e::{Epmd, PlainVm, Release};
/// let epmd = Epmd::start(Release::Machine);
/// let mut vm = PlainVm::start(Release::Otp27, "a@127.0.0.1", "secret", epmd.port());
/// assert_eq!(vm.eval("node()"), "'a@127.0.0.1'");
/// assert_eq!(vm.eval("net_adm:ping('nobody@127.0.0.1')"), "pang");
/// ```
#[derive(Debug)]
pub struct PlainVm {
    vm: Vm,
    home: Home,
}

impl PlainVm {
    /// Starts a visible node and waits until it evaluates.
    ///
    /// The name may be without a host, and is a long one if its host has a dot or a colon. The VM
    /// asks, and registers with, whatever listens on `epmd_port` of 127.0.0.1, and starts no EPMD.
    pub fn start(release: Release, name: &str, cookie: &str, epmd_port: u16) -> Self {
        Self::builder(release, name, cookie, epmd_port).start()
    }

    /// As [`PlainVm::start`], to be refined. Without a name (`""`) it is no node.
    pub fn builder(release: Release, name: &str, cookie: &str, epmd_port: u16) -> PlainVmBuilder {
        PlainVmBuilder {
            release,
            name: name.to_owned(),
            cookie: cookie.to_owned(),
            epmd_port,
            arguments: Vec::new(),
            environment: Vec::new(),
            starts_epmd: false,
            namespace: None,
        }
    }

    /// The folder that is its `HOME` and the one it runs in; removed with it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Sends a signal: `STOP` and `CONT` for a peer that hangs, `KILL` for one that dies.
    pub fn signal(&mut self, signal: Signal) {
        self.vm.wrapper().signal(signal);
    }
}

impl Deref for PlainVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl DerefMut for PlainVm {
    fn deref_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }
}

impl Drop for PlainVm {
    fn drop(&mut self) {
        let process = self.vm.wrapper();
        if process.is_running() {
            process.signal(Signal::KILL);
            process.wait(Duration::from_secs(10));
        }
    }
}

/// How a plain VM is to be started.
#[derive(Clone, Debug)]
pub struct PlainVmBuilder {
    release: Release,
    name: String,
    cookie: String,
    epmd_port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    starts_epmd: bool,
    namespace: Option<Namespace>,
}

impl PlainVmBuilder {
    /// Started with `-hidden`.
    #[must_use]
    pub fn hidden(self) -> Self {
        self.args(&["-hidden"])
    }

    /// More arguments of `erl`, such as `-erl_epmd_port` or `-kernel net_ticktime 8`.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// A variable for the VM.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts an EPMD where none answers, as stock VMs do. That daemon outlives the VM: whoever
    /// says this must see to its end.
    #[must_use]
    pub fn starts_epmd(mut self) -> Self {
        self.starts_epmd = true;
        self
    }

    /// Run in a network namespace, where it listens on all addresses. Of the machine's own release
    /// only.
    #[must_use]
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Starts it and waits until it evaluates.
    pub fn start(&self) -> PlainVm {
        let home = Home::make();
        let vm = Vm::attach(self.spawn(home.path()));
        PlainVm { vm, home }
    }

    /// Starts it in a folder of the test's own, without waiting for it.
    pub fn spawn(&self, home: &Path) -> Process {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = namespace.command(Path::new("erl"));
                own(&mut command, home);
                command
            }
            None => command(self.release, "erl", home),
        };
        if !self.name.is_empty() {
            let host = self.name.split_once('@').map_or("", |(_, host)| host);
            let flag = if host.contains(['.', ':']) { "-name" } else { "-sname" };
            command.args([flag, &self.name, "-setcookie", &self.cookie]);
            if self.namespace.is_none() {
                command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]);
            }
            if !self.starts_epmd {
                command.args(["-start_epmd", "false"]);
            }
        }
        command.args(&self.arguments).args(["-noshell", "-eval", DRIVER]);
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(&format!("erl {} ({:?})", self.name, self.release), &mut command)
    }
}

/// A real `epmd` on a free port of 127.0.0.1, ended when dropped.
#[derive(Debug)]
pub struct Epmd {
    process: Process,
    port: u16,
    _home: Home,
}

impl Epmd {
    /// Starts it and waits until it answers.
    pub fn start(release: Release) -> Self {
        let home = Home::make();
        let port = free_port();
        let mut command = command(release, "epmd", home.path());
        command.args(["-port", &port.to_string(), "-address", "127.0.0.1"]);
        let process = Process::start(&format!("epmd ({release:?})"), &mut command);
        process.until("it listens", Duration::from_secs(10), || {
            TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
        Self { process, port, _home: home }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A program of a release, with nothing of the developer's own settings.
fn command(release: Release, program: &str, home: &Path) -> Command {
    let words = release.program(program);
    let mut words = words.iter();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    own(&mut command, home);
    command
}

/// With a home of its own, and nothing of the developer's settings.
fn own(command: &mut Command, home: &Path) {
    forget_own_settings(command);
    command.current_dir(home).env("HOME", home).env("LC_ALL", "C.UTF-8");
}
