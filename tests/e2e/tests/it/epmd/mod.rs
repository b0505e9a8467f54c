//! `meshx epmd` in the place of OTP's daemon: stock VMs, hostile clients, the commands.

mod commands;
mod load;
mod vms;
mod wire;

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use meshx_e2e::{Process, free_port, meshx};
use rustix::process::Signal;

/// How long what is not immediate may take.
const SOON: Duration = Duration::from_secs(10);

/// A running `meshx epmd` on a port of its own.
struct Daemon {
    process: Process,
    port: u16,
}

impl Daemon {
    fn start(flags: &[&str]) -> Self {
        Self::start_at(free_port(), flags)
    }

    fn start_at(port: u16, flags: &[&str]) -> Self {
        Self::run(&mut Command::new(meshx()), port, flags)
    }

    /// With so many descriptors.
    fn with_descriptors(limit: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]).arg(meshx());
        Self::run(&mut command, free_port(), &[])
    }

    fn run(command: &mut Command, port: u16, flags: &[&str]) -> Self {
        command.args(["epmd", "-port", &port.to_string()]).args(flags);
        forget_settings(command);
        let process = Process::start("meshx epmd", command);
        process.until("it listens", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { process, port }
    }

    /// Ends it without a warning, and starts it again on the same port.
    fn restart(&mut self) {
        self.kill();
        *self = Self::start_at(self.port, &[]);
    }

    fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(SOON);
    }

    fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

/// The developer's own settings would change what is tested.
fn forget_settings(command: &mut Command) {
    for name in ["ERL_EPMD_PORT", "ERL_EPMD_ADDRESS", "ERL_EPMD_RELAXED_COMMAND_CHECK", "MESHX_LOG"]
    {
        command.env_remove(name);
    }
}

/// The 99th of a hundred durations.
fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let value = run();
    (value, begun.elapsed())
}
