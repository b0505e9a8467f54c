//! OTP's daemon, for a test.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use meshx_epmd::Client;

/// Whether the test must be skipped because there is no `epmd`; said on stderr and noted in
/// `MESHX_TEST_SKIPS`. A failure under `CI=true`.
pub(crate) fn is_missing() -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&folders).any(|folder| folder.join("epmd").is_file()) {
        return false;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: no epmd\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    assert!(!is_ci, "CI=true allows no skipped test: {line}");
    if let Some(path) = std::env::var_os("MESHX_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
    true
}

/// OTP's `epmd` on 127.0.0.1, killed when dropped.
pub(crate) struct Otp {
    child: Child,
    address: SocketAddr,
}

impl Otp {
    /// On a free port.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_at(free_port(), flags)
    }

    pub(crate) fn start_at(port: u16, flags: &[&str]) -> Self {
        let mut command = Command::new("epmd");
        command.args(["-port", &port.to_string(), "-address", "127.0.0.1"]).args(flags);
        command.env_remove("ERL_EPMD_RELAXED_COMMAND_CHECK").stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "epmd does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::at(self.address)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Otp {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port that is free now and not one the kernel hands out by itself.
pub(crate) fn free_port() -> u16 {
    let seed = meshx_rt::random::below(8000);
    let mut ports = (20_000..28_000).cycle().skip(seed).take(8000);
    ports.find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap()
}
