//! How a command fails: a code, a sentence, a hint, a status.

use std::fmt::Display;

use meshx_core::{Code, Diagnostic};

/// Exit statuses, documented in the README and stable.
pub(crate) mod exit {
    /// Done; warnings included.
    pub(crate) const SUCCESS: u8 = 0;
    /// A negative answer: denied, a check failed, a function returned an error.
    pub(crate) const NEGATIVE: u8 = 1;
    /// Wrong usage.
    pub(crate) const USAGE: u8 = 2;
    /// The control plane, or an RPC server, does not answer.
    pub(crate) const UNREACHABLE: u8 = 3;
    /// No such service, node, intention or function.
    pub(crate) const NOT_FOUND: u8 = 4;
    /// The token is not enough, or a policy denies it.
    pub(crate) const DENIED: u8 = 5;
    /// Something did not become ready in time.
    pub(crate) const TIMED_OUT: u8 = 6;
    /// The name is registered and alive.
    pub(crate) const CONFLICT: u8 = 7;
    /// What was called elsewhere raised, exited or threw, or could not be done.
    pub(crate) const REMOTE: u8 = 8;
    /// The configuration is invalid; restarting will not help.
    pub(crate) const CONFIGURATION: u8 = 9;
    /// A bug.
    pub(crate) const INTERNAL: u8 = 70;
    /// The program is not there.
    pub(crate) const NO_PROGRAM: u8 = 127;
    /// A signal came before the answer.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// `exec`: we failed before the child started, and nothing above fits.
    pub(crate) const EXEC: u8 = 125;
}

/// A failure, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) exit: u8,
    /// What a function raised on another node: class, reason, stack.
    pub(crate) raised: Option<serde_json::Value>,
    /// What is known of a call that failed: its kind, whether it ran, the function's own value.
    pub(crate) rpc: Option<serde_json::Value>,
}

impl Failure {
    pub(crate) fn new(code: u16, exit: u8, message: impl Into<String>) -> Self {
        let (code, message) = (Code(code), message.into());
        Self { code, message, hint: None, exit, raised: None, rpc: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn internal(what: &str, error: &dyn Display) -> Self {
        Self::new(700, exit::INTERNAL, format!("cannot {what}: {error}"))
            .hint("this is a bug in meshx, or the machine is out of resources")
    }

    /// A failure of `exec` before its child started keeps its meaning where it has one.
    pub(crate) fn before_child(mut self) -> Self {
        if !matches!(
            self.exit,
            exit::UNREACHABLE
                | exit::DENIED
                | exit::TIMED_OUT
                | exit::CONFLICT
                | exit::CONFIGURATION
        ) {
            self.exit = exit::EXEC;
        }
        self
    }
}

impl Failure {
    /// Of an error that says what it is.
    pub(crate) fn of(error: &dyn Diagnostic) -> Self {
        let exit = match error.code().0 {
            // 109, 110: it answers, but not as a control plane should.
            101 | 109 | 110 => exit::UNREACHABLE,
            102 | 307 => exit::CONFLICT,
            106 | 706 => exit::DENIED,
            // 120 to 129: the agent could not start.
            120..=129 | 304 | 401..=499 => exit::CONFIGURATION,
            201 | 202 => exit::NOT_FOUND,
            212 | 311 | 806 => exit::TIMED_OUT,
            805 => exit::REMOTE,
            _ => exit::NEGATIVE,
        };
        let (code, hint) = (error.code(), error.hint());
        Self { code, message: error.to_string(), hint, exit, raised: None, rpc: None }
    }
}

impl<E: Diagnostic> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}
