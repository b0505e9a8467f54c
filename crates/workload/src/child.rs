//! The child process: started so that it cannot outlive us, signalled, waited for.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::WorkloadError;

/// Replaces this process by the command, after arranging that the command is asked to end
/// (`SIGTERM`) when our parent dies.
///
/// `meshx exec` starts its child through this: the parent-death signal (prctl(2),
/// `PR_SET_PDEATHSIG`) must be set in the new process, and survives its `exec`. Returns only on
/// failure, with the status that shells use: 127 not found, 126 not executable.
pub fn launch(parent: u32, command: &[OsString]) -> (u8, String) {
    let Some((program, arguments)) = command.split_first() else {
        return (127, "there is no command".to_owned());
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return (126, format!("cannot tie the program to its wrapper: {error}"));
    }
    let alive = rustix::process::getppid()
        .is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok() == Some(parent));
    if !alive {
        return (126, "the wrapper ended before the program could start".to_owned());
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    (status, format!("cannot run {}: {error}", program.to_string_lossy()))
}

/// Starts the command through `launcher` (ourselves). Must be called on a thread that lives as long
/// as we do: the kernel ties the child to the thread that made it.
pub(crate) fn spawn(
    launcher: &[OsString],
    command: &[OsString],
    variables: Vec<(String, String)>,
) -> Result<Child, WorkloadError> {
    let (program, arguments) =
        launcher.split_first().ok_or_else(|| WorkloadError::Config("no launcher".to_owned()))?;
    tokio::process::Command::new(program)
        .args(arguments)
        .arg(std::process::id().to_string())
        .arg("--")
        .args(command)
        .envs(variables)
        .spawn()
        .map_err(WorkloadError::io("cannot start the program"))
}

/// The signals that concern a wrapper. From the moment that this exists, none of them ends us.
pub(crate) struct Signals {
    term: Stream,
    hup: Stream,
    int: Stream,
    quit: Stream,
    usr1: Stream,
    usr2: Stream,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, WorkloadError> {
        let listen = |kind| signal(kind).map_err(WorkloadError::io("cannot listen for signals"));
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            hup: listen(SignalKind::hangup())?,
            int: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            usr1: listen(SignalKind::user_defined1())?,
            usr2: listen(SignalKind::user_defined2())?,
        })
    }

    /// The status to end with if we were asked to end before there was a child.
    pub(crate) async fn early(&mut self) -> Option<u8> {
        tokio::select! {
            biased;
            _ = self.int.recv() => Some(130),
            _ = self.term.recv() => Some(143),
            _ = self.hup.recv() => Some(129),
            _ = self.quit.recv() => Some(131),
            () = std::future::ready(()) => None,
        }
    }

    /// Waits for the child to end, passing signals on to it.
    ///
    /// `SIGTERM`, `SIGHUP`, `SIGUSR1` and `SIGUSR2` are forwarded. `SIGINT` and `SIGQUIT` come from
    /// the terminal, which sends them to the child as well; we only must not die of them. After a
    /// `SIGTERM` the child has `kill_after` to end. `before_term` runs before the first `SIGTERM` is
    /// passed on; cancelling `stop` has the effect of a `SIGTERM`.
    pub(crate) async fn supervise(
        mut self,
        child: &mut Child,
        kill_after: Duration,
        stop: CancellationToken,
        before_term: impl AsyncFnOnce(),
    ) -> Result<ExitStatus, WorkloadError> {
        loop {
            tokio::select! {
                status = child.wait() => return status.map_err(WorkloadError::io("wait")),
                _ = self.term.recv() => break,
                () = stop.cancelled() => break,
                _ = self.hup.recv() => send(child, Signal::HUP),
                _ = self.usr1.recv() => send(child, Signal::USR1),
                _ = self.usr2.recv() => send(child, Signal::USR2),
                _ = self.int.recv() => {}
                _ = self.quit.recv() => {}
            }
        }
        tokio::select! {
            status = child.wait() => return status.map_err(WorkloadError::io("wait")),
            () = before_term() => {}
            // A second request does not wait.
            _ = self.term.recv() => {}
        }
        send(child, Signal::TERM);
        tokio::select! {
            status = child.wait() => return status.map_err(WorkloadError::io("wait")),
            () = tokio::time::sleep(kill_after) => {}
        }
        send(child, Signal::KILL);
        child.wait().await.map_err(WorkloadError::io("wait"))
    }
}

/// The status that we end with: the child's own, or 128 + N when signal N ended it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125)
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, signal)
    {
        tracing::debug!(%error, "the child could not be signalled");
    }
}
