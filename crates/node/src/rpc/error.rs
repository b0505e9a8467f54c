//! Why a call has no result.

use std::time::Duration;

use meshx_core::{Code, Diagnostic};
use meshx_etf::{Atom, Term, TypedError};

use crate::error::{ConnectError, SendError};

/// Why a remote procedure call gave no value; the classes are those of `erpc:call/5`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The function threw this.
    #[error("the function threw {0}")]
    Throw(Term),
    /// The function called `exit/1` with this.
    #[error("the function exited: {0}")]
    Exit(Term),
    /// The process in which the function ran was ended from elsewhere, with this reason.
    #[error("the function's process was ended: {0}")]
    Signal(Term),
    /// The function raised an error. `undef` with the function itself on top of the stack says that
    /// there is no such function.
    #[error("the function raised {reason}{}", at(stack))]
    Error {
        /// What it raised.
        reason: Term,
        /// Where, as Erlang tells it: a list of `{Module, Function, Arity or arguments, Location}`.
        stack: Term,
    },
    /// The node could not be reached; nothing was called.
    #[error(transparent)]
    Connect(ConnectError),
    /// The connection was lost. Whether the function was called is not known.
    #[error("the connection was lost before the result came")]
    NoConnection,
    /// No result in time. The function may be running still.
    #[error("no result within {0:?}")]
    Timeout(Duration),
    /// The peer does not take such calls.
    #[error("the node does not take remote procedure calls")]
    NotSupported,
    /// The peer could not start the call: `system_limit` says that it runs as many already as it can.
    #[error("the node refused the call: {0}")]
    Refused(Atom),
    /// The call was not sent: an argument has no form in Erlang's terms, or there are too many.
    #[error("the call could not be sent: {0}")]
    Send(#[source] SendError),
    /// The value is not of the type that was wanted.
    #[error("the result is not what was expected: {0}")]
    Answer(#[source] TypedError),
}

/// The top of a stack, as `Mod:fun/Arity`.
fn at(stack: &Term) -> String {
    let frame = stack.as_list().and_then(<[Term]>::first).and_then(Term::as_tuple);
    let Some([Term::Atom(module), Term::Atom(function), arity, ..]) = frame else {
        return String::new();
    };
    let arity = match arity.as_list() {
        Some(arguments) => arguments.len().to_string(),
        None => arity.to_string(),
    };
    format!(" in {module}:{function}/{arity}")
}

impl RpcError {
    /// Of an `{'EXIT', Reason}` that `rpc` makes of exits and errors alike.
    pub(super) fn of_badrpc(reason: Term, limit: Duration) -> Self {
        match reason {
            Term::Atom(reason) if reason == "timeout" => Self::Timeout(limit),
            Term::Atom(reason) if reason == "nodedown" => Self::NoConnection,
            Term::Atom(reason) if reason == "notsup" => Self::NotSupported,
            Term::Tuple(parts) => match <[Term; 2]>::try_from(parts) {
                Ok([Term::Atom(exit), reason]) if exit == "EXIT" => Self::of_exit(reason),
                Ok(pair) => Self::Exit(Term::Tuple(pair.into())),
                Err(parts) => Self::Exit(Term::Tuple(parts)),
            },
            other => Self::Exit(other),
        }
    }

    fn of_exit(reason: Term) -> Self {
        match reason {
            Term::Tuple(parts) => match <[Term; 2]>::try_from(parts) {
                Ok([reason, stack]) if stack.as_list().is_some() => Self::Error { reason, stack },
                Ok(pair) => Self::Exit(Term::Tuple(pair.into())),
                Err(parts) => Self::Exit(Term::Tuple(parts)),
            },
            other => Self::Exit(other),
        }
    }
}

impl From<SendError> for RpcError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect(error) => Self::Connect(error),
            other => Self::Send(other),
        }
    }
}

impl Diagnostic for RpcError {
    fn code(&self) -> Code {
        match self {
            Self::Connect(error) => error.code(),
            Self::NoConnection => Code(213),
            Self::Timeout(_) => Code(806),
            Self::NotSupported | Self::Refused(_) => Code(803),
            Self::Send(_) => Code(401),
            _ => Code(805),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Error { reason, .. } if reason.is_atom("undef") => {
                Some("is the module loaded there, and the number of arguments right?".to_owned())
            }
            Self::Timeout(_) => Some("the function may be running still".to_owned()),
            _ => None,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Refused(_) => true,
            // The function may have run.
            _ => false,
        }
    }
}
