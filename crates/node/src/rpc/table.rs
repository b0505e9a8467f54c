//! Which functions others may call.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, Pid, Term, term, to_term};
use serde::Serialize;

use super::arguments::Parameters;
use crate::node::Node;

/// So many calls of one peer run, or have results that wait to be sent, at a time; more are refused with
/// `system_limit`.
pub(super) const AT_ONCE: usize = 4096;
/// So many calls of all peers together run at a time.
pub(super) const ALL_AT_ONCE: usize = 1 << 16;
/// No call runs longer if nothing else is said ([`RpcTable::limit`]).
const LIMIT: Duration = Duration::from_hours(1);

/// The functions that other nodes may call on this one, by `erpc`, by `rpc`, or as a C node does.
///
/// Nothing else is callable: whatever is not in the table does not exist for the caller (`undef`).
/// A new table has what operators ask of any node: `erlang:node/0`, `erlang:nodes/0` and
/// `erlang:is_alive/0`; an [`empty`](Self::empty) one has nothing.
///
/// Each call runs in a process of its own; one that panics is an error `panic` of the caller and of
/// nobody else. A peer may have 4096 calls that run or whose results it has not taken, all together
/// 65 536; more fail with `system_limit`.
///
/// What a stock node does otherwise:
///
/// * it runs a function to its end; here a call is dropped when nobody waits for it any more: the
///   caller has ended, or has waited long enough, or its connection is lost (only the latter for calls
///   through `rex`, by C nodes and `rpc:block_call/4`; casts run to their end);
/// * it calls `erlang:apply/2` and `/3`, and funs; here they are functions like any other, and not in
///   the table;
/// * it prints where the caller can read it; here functions have no group leader;
/// * `rpc:block_call/4` keeps its `rex` from everything else; here block calls wait for each other only.
///
/// ```
/// use meshx_node::{Raise, RpcTable};
/// let table = RpcTable::new()
///     .function("math", "add", |(a, b): (i64, i64)| async move {
///         a.checked_add(b).ok_or(Raise::error("badarith"))
///     })
///     .function("greeter", "greet", |(name,): (String,)| async move { Ok(format!("hi {name}")) });
/// assert!(table.has("math", "add", 2));
/// assert!(!table.has("os", "cmd", 1));
/// ```
#[derive(Clone)]
pub struct RpcTable {
    /// By module, name and number of parameters; `None`: any.
    functions: HashMap<(Atom, Atom, Option<u8>), Arc<Function>>,
    pub(super) limit: Duration,
}

pub(super) type Function =
    dyn Fn(RpcCall) -> Pin<Box<dyn Future<Output = Result<Term, Raise>> + Send>> + Send + Sync;

/// A call of a function that takes terms.
#[derive(Debug)]
#[non_exhaustive]
pub struct RpcCall {
    /// The node that is called.
    pub node: Node,
    /// The process in which the function runs.
    pub process: Pid,
    /// The process that called.
    pub caller: Pid,
    /// As many as the function has; of a [variadic](RpcTable::variadic) one, any number.
    pub arguments: Vec<Term>,
}

/// How a function ends that gives no value; as Erlang's classes of exceptions.
#[derive(Debug, Clone, PartialEq)]
pub enum Raise {
    /// `throw/1`.
    Throw(Term),
    /// `exit/1`.
    Exit(Term),
    /// `error/1`; the caller sees the function on top of the stack.
    Error(Term),
    /// As if no clause of the function took these arguments.
    Clause,
}

impl Raise {
    /// An error whose reason is this atom: `badarg`, say.
    pub fn error(reason: &str) -> Self {
        Self::Error(Term::atom(reason))
    }
}

impl RpcTable {
    /// With `erlang:node/0`, `erlang:nodes/0` and `erlang:is_alive/0`.
    pub fn new() -> Self {
        Self::empty()
            .terms(
                "erlang",
                "node",
                0,
                |call| async move { Ok(Term::Atom(call.node.name().clone())) },
            )
            .terms("erlang", "nodes", 0, |call| async move {
                Ok(Term::List(call.node.nodes().into_iter().map(Term::Atom).collect()))
            })
            .terms("erlang", "is_alive", 0, |_| async { Ok(term!(true)) })
    }

    /// With nothing.
    pub fn empty() -> Self {
        Self { functions: HashMap::new(), limit: LIMIT }
    }

    /// Adds a function of typed parameters, a tuple with one element for each (eight at most). Arguments
    /// that are not of those types raise `function_clause`. Of two with the same name and number of
    /// parameters, the later counts.
    #[must_use]
    pub fn function<P, R, F>(
        self,
        module: &str,
        function: &str,
        run: impl Fn(P) -> F + Send + Sync + 'static,
    ) -> Self
    where
        P: Parameters,
        R: Serialize + Send + 'static,
        F: Future<Output = Result<R, Raise>> + Send + 'static,
    {
        let run = Arc::new(run);
        self.terms(module, function, P::ARITY, move |call| {
            let run = Arc::clone(&run);
            async move {
                let Ok(parameters) = P::of_terms(&call.arguments) else {
                    return Err(Raise::Clause);
                };
                drop(call);
                let value = run(parameters).await?;
                to_term(&value).map_err(|error| {
                    tracing::warn!(%error, "a function's value has no form in Erlang's terms");
                    Raise::error("badarg")
                })
            }
        })
    }

    /// Adds a function that takes and gives terms. Large binaries are not copied on their way.
    #[must_use]
    pub fn terms<F>(
        self,
        module: &str,
        function: &str,
        arity: u8,
        run: impl Fn(RpcCall) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Term, Raise>> + Send + 'static,
    {
        self.insert(module, function, Some(arity), run)
    }

    /// Adds a function of any number of parameters, 255 at most: it says by itself ([`Raise`]) which it
    /// does not take. One of the same name with a fixed number of them counts before it.
    #[must_use]
    pub fn variadic<F>(
        self,
        module: &str,
        function: &str,
        run: impl Fn(RpcCall) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Term, Raise>> + Send + 'static,
    {
        self.insert(module, function, None, run)
    }

    fn insert<F>(
        mut self,
        module: &str,
        function: &str,
        arity: Option<u8>,
        run: impl Fn(RpcCall) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Term, Raise>> + Send + 'static,
    {
        let run: Arc<Function> = Arc::new(move |call| Box::pin(run(call)));
        self.functions.insert((Atom::cut(module), Atom::cut(function), arity), run);
        self
    }

    /// How long a call may run, whatever its caller would wait; an hour if not said. One that takes
    /// longer is dropped, and fails with `timeout`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Whether there is such a function.
    pub fn has(&self, module: &str, function: &str, arity: u8) -> bool {
        self.get(&Atom::cut(module), &Atom::cut(function), usize::from(arity)).is_some()
    }

    pub(super) fn get(
        &self,
        module: &Atom,
        function: &Atom,
        arity: usize,
    ) -> Option<&Arc<Function>> {
        let arity = u8::try_from(arity).ok()?;
        let mut key = (module.clone(), function.clone(), Some(arity));
        self.functions.get(&key).or_else(|| {
            key.2 = None;
            self.functions.get(&key)
        })
    }
}

impl Default for RpcTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RpcTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variadic_function_has_every_arity_that_no_other_of_its_name_has() {
        let table = RpcTable::empty().variadic("m", "f", |_| async { Ok(term!(any)) }).terms(
            "m",
            "f",
            2,
            |_| async { Ok(term!(two)) },
        );
        for arity in [0, 1, 2, 255] {
            assert!(table.has("m", "f", arity), "{arity}");
        }
        assert!(!table.has("m", "g", 0) && !table.has("n", "f", 0));
        let get = |arity| table.get(&Atom::cut("m"), &Atom::cut("f"), arity);
        assert!(get(256).is_none());
        let (one, two, three) = (get(1), get(2), get(3));
        let same = |a: Option<&Arc<Function>>, b| a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        assert!(same(one, three) && !same(one, two));
    }
}
