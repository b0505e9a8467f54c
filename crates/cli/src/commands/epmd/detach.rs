//! `-daemon`: the daemon in a session of its own, and its start told to who asked for it.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use meshx_epmd::daemon::BindError;

/// Set for the process in the background: it reports on its stdout.
const REPORT: &str = "MESHX_EPMD_REPORT";
/// How long the start of the process in the background may take.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How a daemon in the background began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It listens.
    Ready,
    /// Somebody listens there already.
    InUse(SocketAddr),
    /// It does not run, for this reason.
    Failed(String),
}

impl Start {
    pub(super) fn of(outcome: Result<(), &BindError>) -> Self {
        match outcome {
            Ok(()) => Self::Ready,
            Err(BindError::InUse(address)) => Self::InUse(*address),
            Err(other) => Self::Failed(other.to_string()),
        }
    }

    fn to_line(&self) -> String {
        match self {
            Self::Ready => "ready\n".to_owned(),
            Self::InUse(address) => format!("in use {address}\n"),
            Self::Failed(why) => format!("failed {}\n", why.replace('\n', " ")),
        }
    }

    fn from_line(line: &str) -> Self {
        let line = line.trim_end();
        if line == "ready" {
            return Self::Ready;
        }
        if let Some(Ok(address)) = line.strip_prefix("in use ").map(str::parse) {
            return Self::InUse(address);
        }
        let why = line.strip_prefix("failed ").unwrap_or("it ended before it listened");
        Self::Failed(why.to_owned())
    }
}

/// Starts this program again as `epmd`, with the same flags, and waits until it listens or fails.
pub(super) fn start(flags: &[OsString]) -> Start {
    start_within(flags).unwrap_or_else(|error| Start::Failed(error.to_string()))
}

fn start_within(flags: &[OsString]) -> std::io::Result<Start> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("epmd").args(flags).env(REPORT, "1").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if let Some(stdout) = stdout {
            // An error leaves the line empty, which says enough.
            drop(BufReader::new(stdout).read_line(&mut line));
        }
        drop(sender.send(line));
    });
    match receiver.recv_timeout(START_LIMIT) {
        Ok(line) => Ok(Start::from_line(&line)),
        Err(_) => {
            child.kill()?;
            Ok(Start::Failed(format!("it did not listen within {START_LIMIT:?}")))
        }
    }
}

/// Whether this process is the one in the background.
pub(super) fn is_background() -> bool {
    std::env::var_os(REPORT).is_some()
}

/// Leaves the session of who started it, so that no terminal's end is its own, and takes the name
/// by which a daemon is looked for.
pub(super) fn settle() {
    // Fails only for who leads a session already.
    let _leads_already = rustix::process::setsid();
    // Shown by ps and asked for by pkill; nothing depends on it.
    drop(std::fs::write("/proc/self/comm", "epmd"));
}

/// Tells who waits in [`start`].
pub(super) fn report(start: &Start) {
    let mut stdout = std::io::stdout().lock();
    drop(stdout.write_all(start.to_line().as_bytes()).and_then(|()| stdout.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for start in [
            Start::Ready,
            Start::InUse(SocketAddr::from(([127, 0, 0, 1], 4369))),
            Start::Failed("cannot listen on 192.0.2.1:1: no such address".to_owned()),
        ] {
            assert_eq!(Start::from_line(&start.to_line()), start);
        }
        assert!(matches!(Start::from_line(""), Start::Failed(why) if why.contains("ended")));
    }
}
