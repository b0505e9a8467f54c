//! A program that we started, and end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to end after SIGTERM, before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// A running program. Its stderr goes to a file, so that nobody has to read it while we measure.
/// Dropping it ends it, by its id, and waits for that.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; its stderr goes to `log`, and so does stdout unless it is wanted.
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf) -> Result<Self> {
        Self::spawn(name, command, log, false)
    }

    /// Starts `command`, whose stdout [`Program::take_stdout`] gives.
    pub(crate) fn start_with_stdout(
        name: &str,
        command: &mut Command,
        log: PathBuf,
    ) -> Result<Self> {
        Self::spawn(name, command, log, true)
    }

    fn spawn(name: &str, command: &mut Command, log: PathBuf, stdout: bool) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let output = if stdout { Stdio::piped() } else { Stdio::from(file.try_clone()?) };
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it wrote on stderr, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join(" | ");
        format!("{} said: {last}", self.name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let begun = Instant::now();
        while self.is_running() {
            if begun.elapsed() > GRACE {
                let _gone = self.child.kill();
                let _gone = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
