//! A control plane of its own for a test, and the commands against it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::netns::Namespace;
use crate::vm::VmBuilder;
use crate::{Process, Vm, consul, meshx};

/// What plays the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlPlane {
    /// `meshx agent`.
    Agent,
    /// Consul 1.8.7 in development mode.
    Consul,
}

/// A control plane on a free port, with a home folder for the programs around it.
#[derive(Debug)]
pub struct Mesh {
    kind: ControlPlane,
    process: Option<Process>,
    address: String,
    home: Home,
    namespace: Option<Namespace>,
}

/// What a command left.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status; 128 + N after a signal.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Mesh {
    /// Starts `meshx agent`.
    pub fn agent() -> Self {
        Self::start(ControlPlane::Agent)
    }

    /// Starts a control plane and waits until it answers.
    pub fn start(kind: ControlPlane) -> Self {
        let mut mesh = Self {
            kind,
            process: None,
            address: String::new(),
            home: Home::make(),
            namespace: None,
        };
        mesh.start_control_plane();
        mesh
    }

    /// The same mesh seen from another network namespace: `address` is its agent there.
    #[must_use]
    pub fn elsewhere(&self, namespace: &Namespace, address: &str) -> Self {
        Self {
            kind: self.kind,
            process: None,
            address: address.to_owned(),
            home: Home::make(),
            namespace: Some(namespace.clone()),
        }
    }

    /// Commands and lookups against another control plane of the same machine.
    #[must_use]
    pub fn beside(&self, address: &str) -> Self {
        Self {
            kind: self.kind,
            process: None,
            address: address.to_owned(),
            home: Home::make(),
            namespace: None,
        }
    }

    /// A folder of its own, removed when dropped.
    pub fn folder() -> Home {
        Home::make()
    }

    /// A loopback address that was free a moment ago.
    pub fn free_address() -> String {
        format!("127.0.0.1:{}", free_port())
    }

    /// A mesh around a control plane that the test starts by itself.
    #[must_use]
    pub fn around(process: Process, namespace: &Namespace, address: &str) -> Self {
        Self {
            kind: ControlPlane::Consul,
            process: Some(process),
            address: address.to_owned(),
            home: Home::make(),
            namespace: Some(namespace.clone()),
        }
    }

    /// Starts the control plane, on the port of last time if there was one.
    pub fn start_control_plane(&mut self) {
        if self.address.is_empty() {
            self.address = format!("127.0.0.1:{}", free_port());
        }
        let process = match self.kind {
            ControlPlane::Agent => {
                let mut command = self.bare_command(&meshx());
                command.args(["agent", "--dns-addr", "none", "--http-addr", &self.address]);
                Process::start("meshx agent", &mut command)
            }
            ControlPlane::Consul => Process::start("consul", &mut self.consul_command()),
        };
        let path = match self.kind {
            ControlPlane::Agent => "/v1/status/leader",
            // The CA comes up a moment after the leader.
            ControlPlane::Consul => "/v1/connect/ca/roots",
        };
        process.until("it answers", Duration::from_secs(20), || {
            let answer = self.get(path)?;
            (self.kind == ControlPlane::Agent || answer.contains("BEGIN CERTIFICATE")).then_some(())
        });
        self.process = Some(process);
    }

    /// Kills the control plane without a warning.
    pub fn kill_control_plane(&mut self) {
        let mut process = self.process.take().expect("a control plane runs");
        process.signal(rustix::process::Signal::KILL);
        process.wait(Duration::from_secs(5));
    }

    /// The control plane's own process.
    pub fn control_plane(&mut self) -> &mut Process {
        self.process.as_mut().expect("a control plane runs")
    }

    /// `HOST:PORT` of the HTTP API.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A folder that is removed with the mesh; `HOME` of everything that runs in it.
    pub fn home(&self) -> &Path {
        &self.home.path
    }

    /// Any program with the environment of this mesh and nothing of the developer's own.
    pub fn bare_command(&self, program: &Path) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        };
        forget_own_settings(&mut command);
        command
            .current_dir(self.home())
            .env("HOME", self.home())
            .env("CONSUL_HTTP_ADDR", &self.address)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("RUST_LOG");
        command
    }

    /// `meshx ARGUMENTS`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare_command(&meshx());
        command.args(arguments);
        command
    }

    /// Runs `meshx ARGUMENTS` to its end.
    pub fn cli(&self, arguments: &[&str]) -> Outcome {
        run(&format!("meshx {}", arguments.join(" ")), &mut self.command(arguments))
    }

    /// Runs `meshx ARGUMENTS`, which must succeed, and returns its stdout.
    pub fn cli_ok(&self, arguments: &[&str]) -> String {
        let outcome = self.cli(arguments);
        assert_eq!(outcome.code, 0, "meshx {}: {outcome:?}", arguments.join(" "));
        outcome.stdout
    }

    /// Runs `meshx ARGUMENTS --json`, which must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let stdout = self.cli_ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Starts `meshx exec EXEC_ARGUMENTS -- PROGRAM`.
    pub fn exec(&self, exec_arguments: &[&str], program: &[&str]) -> Process {
        let arguments = [&["exec"], exec_arguments, &["--"], program].concat();
        Process::start(&format!("meshx {}", arguments.join(" ")), &mut self.command(&arguments))
    }

    /// Starts `meshx exec EXEC_ARGUMENTS -- PROGRAM` on a terminal of its own (of `script`), whose
    /// output comes on stdout.
    pub fn on_terminal(&self, exec_arguments: &[&str], program: &[&str]) -> Process {
        let meshx = meshx();
        let arguments = [&["exec"], exec_arguments, &["--"], program].concat();
        let line = format!("exec '{}' {}", meshx.display(), arguments.join(" "));
        let mut command = self.bare_command(Path::new("script"));
        command.env("TERM", "xterm").args(["-q", "-f", "-e", "-c", &line, "/dev/null"]);
        Process::start(&line, &mut command)
    }

    /// Starts a stock VM under `meshx exec --name NAME`.
    pub fn vm(&self, name: &str) -> Vm {
        self.vm_builder(name).start()
    }

    /// A stock VM under `meshx exec --name NAME`, to be refined.
    pub fn vm_builder<'a>(&'a self, name: &str) -> VmBuilder<'a> {
        VmBuilder::new(self, name)
    }

    /// The body of a GET on the HTTP API, or `None` if there is no 200.
    pub fn get(&self, path: &str) -> Option<String> {
        assert!(
            self.namespace.is_none(),
            "the API of another namespace is not reachable from here"
        );
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).filter(|status| *status == "200").map(|_| body.to_owned())
    }

    /// GET of a path that answers with JSON.
    pub fn get_json(&self, path: &str) -> Value {
        let body = self.get(path).unwrap_or_else(|| panic!("no answer to {path}"));
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// PUT of a JSON body; the answer must be a 200.
    pub fn put(&self, path: &str, body: &Value) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).expect("the HTTP API listens");
        let request = format!(
            "PUT {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some("200"), "PUT {path}: {answer}");
    }

    /// Address and port of the public listener of the sidecar of `service`, as peers see it.
    pub fn public_address(&self, service: &str) -> String {
        let entries = self.get_json(&format!("/v1/health/connect/{service}"));
        let entry = &entries[0]["Service"];
        let address = match entry["Address"].as_str() {
            Some(address) if !address.is_empty() => address.to_owned(),
            _ => entries[0]["Node"]["Address"].as_str().unwrap_or_default().to_owned(),
        };
        assert!(entry["Port"].is_u64(), "{service} has no sidecar: {entries}");
        format!("{address}:{}", entry["Port"])
    }

    fn consul_command(&self) -> Command {
        let port = self.address.rsplit(':').next().unwrap();
        let mut command = self.bare_command(&consul().expect("Consul is there"));
        command.args(["agent", "-dev", "-node=n1", "-bind=127.0.0.1", "-client=127.0.0.1"]);
        command.args(["-dns-port=-1", "-grpc-port=-1", "-serf-wan-port=-1"]);
        command.arg(format!("-http-port={port}"));
        command.arg(format!("-server-port={}", free_port()));
        command.arg(format!("-serf-lan-port={}", free_port()));
        command
    }
}

/// Removes the developer's own variables for what is under test.
pub(crate) fn forget_own_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_foreign = ["MESHX_", "CONSUL_", "ERL_", "RELEASE_", "XDG_", "ELIXIR_"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if is_foreign {
            command.env_remove(&name);
        }
    }
}

/// Runs a command to its end.
pub(crate) fn run(name: &str, command: &mut Command) -> Outcome {
    let start = Instant::now();
    let mut process = Process::start(name, command);
    process.close_stdin();
    let status = process.wait(Duration::from_mins(1));
    let took = start.elapsed();
    let mut stdout = String::new();
    while let Some(line) = process.next_line(Duration::from_secs(5)) {
        stdout.push_str(&line);
        stdout.push('\n');
    }
    Outcome { code: code_of(status), stdout, stderr: process.stderr(), took }
}

/// As a shell counts: 128 + N after signal N.
fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A port that was free a moment ago, below those that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 23_000 + (std::process::id().wrapping_mul(31).wrapping_add(step) % 9_000);
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A folder in the system's one for temporary files, with an Erlang cookie.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new one, with a cookie file that no VM of these tests should read.
    pub fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("meshx-e2e-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        let cookie = path.join(".erlang.cookie");
        fs::write(&cookie, "OATMEAL").unwrap();
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).unwrap();
        Self { path }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ignored = fs::remove_dir_all(&self.path);
    }
}
