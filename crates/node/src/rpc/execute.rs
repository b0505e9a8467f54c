//! One call of a function of this node.

use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use meshx_etf::{Atom, Pid, Term, term};

use super::RpcError;
use super::client::Call;
use super::table::{ALL_AT_ONCE, AT_ONCE, Raise, RpcCall, RpcTable};
use crate::node::{Inner, Node};

/// What is offered, and how much of it runs.
#[derive(Debug, Default)]
pub(crate) struct Rpc {
    table: RpcTable,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    all: usize,
    of: HashMap<Atom, usize>,
}

/// One of the calls that a peer may have, until it is dropped: when the result is on its way, so that who
/// takes no results gets no more of them.
#[derive(Debug)]
pub(super) struct Place {
    node: Arc<Inner>,
    peer: Atom,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Return(Term),
    Throw(Term),
    Exit(Term),
    Error {
        reason: Term,
        stack: Term,
    },
    /// The function was not called, or not to its end, for this reason.
    Refused(&'static str),
}

impl Rpc {
    pub(crate) fn of(table: RpcTable) -> Self {
        Self { table, running: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let running = self.running();
        running.all == 0 && running.of.is_empty()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.node.config.rpc.running();
        running.all -= 1;
        if let Some(count) = running.of.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                running.of.remove(&self.peer);
            }
        }
    }
}

impl Inner {
    /// Room for a call of this peer, unless it has too many, or all have.
    pub(super) fn place(self: &Arc<Self>, peer: &Atom) -> Option<Place> {
        let mut running = self.config.rpc.running();
        if running.all >= ALL_AT_ONCE {
            return None;
        }
        let count = running.of.entry(peer.clone()).or_default();
        if *count >= AT_ONCE {
            return None;
        }
        *count += 1;
        running.all += 1;
        Some(Place { node: Arc::clone(self), peer: peer.clone() })
    }

    /// Calls the function `[Module, Function, Arguments]`.
    pub(super) async fn apply(
        self: &Arc<Self>,
        place: Option<&Place>,
        function: Vec<Term>,
        caller: &Pid,
        process: &Pid,
    ) -> Outcome {
        match Call::of(function) {
            Ok(call) => self.execute(place, call, caller, process).await,
            Err(other) => Outcome::not_applicable(other),
        }
    }

    /// Calls a function of the table, on behalf of `caller`, in `process`.
    pub(super) async fn execute(
        self: &Arc<Self>,
        place: Option<&Place>,
        call: Call,
        caller: &Pid,
        process: &Pid,
    ) -> Outcome {
        let rpc = &self.config.rpc;
        if place.is_none() {
            return Outcome::Refused("system_limit");
        }
        let Call { module, function, arguments } = call;
        let Some(run) = rpc.table.get(&module, &function, arguments.len()) else {
            let frame = frame(module, function, Term::List(arguments));
            return Outcome::Error { reason: term!(undef), stack: frame };
        };
        let arity = arguments.len();
        let run = Arc::clone(run);
        let call = RpcCall {
            node: Node::of(Arc::clone(self)),
            process: process.clone(),
            caller: caller.clone(),
            arguments,
        };
        let running = caught(async move { run(call).await });
        let error = |reason| {
            let arity = Term::from(i64::try_from(arity).unwrap_or(i64::MAX));
            Outcome::Error { reason, stack: frame(module, function, arity) }
        };
        match tokio::time::timeout(rpc.table.limit, running).await {
            Ok(Some(Ok(value))) => Outcome::Return(value),
            Ok(Some(Err(Raise::Throw(value)))) => Outcome::Throw(value),
            Ok(Some(Err(Raise::Exit(reason)))) => Outcome::Exit(reason),
            Ok(Some(Err(Raise::Error(reason)))) => error(reason),
            Ok(Some(Err(Raise::Clause))) => error(term!(function_clause)),
            Ok(None) => error(term!(panic)),
            Err(_) => Outcome::Refused("timeout"),
        }
    }
}

/// `None`: it panicked, which its hook has told.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // What it leaves behind is not looked at again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// The stack of which this function is all.
fn frame(module: Atom, function: Atom, arity: Term) -> Term {
    term!([{(module), (function), (arity), []}])
}

impl Outcome {
    /// Of what is no module, function and list of arguments.
    pub(super) fn not_applicable(what: Vec<Term>) -> Self {
        let stack = frame(Atom::cut("erlang"), Atom::cut("apply"), Term::List(what));
        Self::Error { reason: term!(badarg), stack }
    }

    /// As the reason with which a process of `erpc:execute_call/4` ends.
    pub(super) fn into_reason(self, reference: Term) -> Term {
        match self {
            Self::Return(value) => term!({(reference), return, (value)}),
            Self::Throw(value) => term!({(reference), throw, (value)}),
            Self::Exit(reason) => term!({(reference), exit, (reason)}),
            Self::Error { reason, stack } => term!({(reference), error, (reason), (stack)}),
            Self::Refused(reason) => term!({(reference), error, {erpc, (Term::atom(reason))}}),
        }
    }

    /// As `rex` answers a call.
    pub(super) fn into_reply(self) -> Term {
        let exit = |reason| term!({badrpc, {atom "EXIT", (reason)}});
        match self {
            Self::Return(value) | Self::Throw(value) => value,
            Self::Exit(reason) => exit(reason),
            Self::Error { reason, stack } => exit(term!({(reason), (stack)})),
            Self::Refused(reason) => exit(Term::atom(reason)),
        }
    }

    /// As an error of who called on the same node.
    pub(super) fn into_result(self, limit: Duration) -> Result<Term, RpcError> {
        Err(match self {
            Self::Return(value) => return Ok(value),
            Self::Throw(value) => RpcError::Throw(value),
            Self::Exit(reason) => RpcError::Exit(reason),
            Self::Error { reason, stack } => RpcError::Error { reason, stack },
            Self::Refused("timeout") => RpcError::Timeout(limit),
            Self::Refused(reason) => RpcError::Refused(Atom::cut(reason)),
        })
    }
}
