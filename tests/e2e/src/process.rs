//! A program with captured output that is ended with its fixture.

use std::cell::Cell;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait for the end of a stream after the end of its program.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value, or fails the test at the deadline, naming `what`.
pub fn wait_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(POLL);
    }
}

/// A running program: stdin writable, stdout line by line, stderr as a growing text.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    /// How much of stdout was taken as lines.
    taken: Cell<usize>,
    stderr: Arc<Stream>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = Stream::read(child.stdout.take().unwrap());
        let stderr = Stream::read(child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        let taken = Cell::new(0);
        Self { name: name.to_owned(), child, stdin, stdout, taken, stderr, ended: None }
    }

    /// The process id of what was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.state.lock().unwrap().text.clone()
    }

    /// Writes to the program's stdin.
    pub fn write(&mut self, text: &str) {
        let outcome = self.stdin.as_mut().unwrap().write_all(text.as_bytes());
        outcome.unwrap_or_else(|error| panic!("{}: stdin: {error}\n{}", self.name, self.stderr()));
    }

    /// Closes the program's stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line of stdout, or `None` once there will be no more.
    pub fn next_line(&self, within: Duration) -> Option<String> {
        let line = self.stdout.wait(within, |state| {
            let rest = &state.text[self.taken.get()..];
            match rest.split_once('\n') {
                Some((line, _)) => {
                    self.taken.set(self.taken.get() + line.len() + 1);
                    Some(Some(line.to_owned()))
                }
                None if state.is_closed && rest.is_empty() => Some(None),
                None if state.is_closed => {
                    self.taken.set(state.text.len());
                    Some(Some(rest.to_owned()))
                }
                None => None,
            }
        });
        line.unwrap_or_else(|| self.fail(&format!("no line on stdout within {within:?}")))
    }

    /// Waits until stdout contains `text` after what was taken already, and takes all up to its
    /// end. For prompts, which end with no line.
    pub fn await_stdout(&self, text: &str, within: Duration) {
        let found = self.stdout.wait(within, |state| {
            let at = state.text[self.taken.get()..].find(text)?;
            self.taken.set(self.taken.get() + at + text.len());
            Some(())
        });
        found.unwrap_or_else(|| self.fail(&format!("no `{text}` on stdout within {within:?}")));
    }

    /// Waits until stderr contains `text`, and returns all of it.
    pub fn await_stderr(&self, text: &str, within: Duration) -> String {
        let found =
            self.stderr.wait(within, |state| state.text.contains(text).then(|| state.text.clone()));
        found.unwrap_or_else(|| self.fail(&format!("no `{text}` on stderr within {within:?}")))
    }

    /// Waits for a condition that this program brings about.
    pub fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            if start.elapsed() > within {
                self.fail(&format!("not within {within:?}: {what}"));
            }
            thread::sleep(POLL);
        }
    }

    fn fail(&self, what: &str) -> ! {
        let stdout = self.stdout.state.lock().unwrap().text.clone();
        let from = stdout.ceil_char_boundary(stdout.len().saturating_sub(4000));
        panic!(
            "{}: {what}\n--- stdout\n{}\n--- stderr\n{}",
            self.name,
            &stdout[from..],
            self.stderr()
        )
    }

    /// Sends a signal to what was started.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none()
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for the program's end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait() {
                // Its last words may still be on their way; a grandchild may hold the pipe open.
                let _ = self.stderr.wait(LAST_WORDS, |state| state.is_closed.then_some(()));
                return status;
            }
            if start.elapsed() > within {
                self.fail(&format!("did not end within {within:?}"));
            }
            thread::sleep(POLL);
        }
    }

    /// Ends the program: stdin closed and SIGTERM, then SIGKILL after ten seconds.
    pub fn end(&mut self) {
        self.stdin = None;
        if self.try_wait().is_some() {
            return;
        }
        self.signal(Signal::TERM);
        let start = Instant::now();
        while self.try_wait().is_none() {
            if start.elapsed() > GRACE {
                self.signal(Signal::KILL);
                self.ended = self.child.wait().ok();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a program writes, as it grows.
#[derive(Debug, Default)]
struct Stream {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    is_closed: bool,
}

impl Stream {
    fn read(mut source: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let sink = Arc::clone(&stream);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = source.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]);
                sink.state.lock().unwrap().text.push_str(&text);
                sink.grown.notify_all();
            }
            sink.state.lock().unwrap().is_closed = true;
            sink.grown.notify_all();
        });
        stream
    }

    /// Waits until `look` sees what it wants; `None` at the deadline.
    fn wait<T>(&self, within: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let end = Instant::now() + within;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(seen) = look(&state) {
                return Some(seen);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.grown.wait_timeout(state, left).unwrap().0;
        }
    }
}
