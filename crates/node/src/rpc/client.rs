//! Calls of functions on other nodes.

use std::sync::Arc;
use std::time::Duration;

use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_etf::{Atom, Reference, Term, from_term, term};
use serde::de::DeserializeOwned;

use super::{Arguments, RpcError};
use crate::call::{CallError, Waiting};
use crate::error::{ConnectError, SendError};
use crate::node::{Inner, Node};
use crate::process::{Cell, Reply, sender};
use crate::to::To;

impl Node {
    /// Calls a function on a node, as `erpc:call/5`, and waits for its result; connects first if need
    /// be. A peer of old, without `SPAWN`, is asked through its `rex`, where throws cannot be told
    /// from values.
    ///
    /// The arguments are a tuple, or terms; `T` may be [`Term`]. What the function prints is dropped.
    /// When the limit is over, or the future is dropped, the peer is told that nobody waits any more; a
    /// stock node lets the function run on nevertheless.
    ///
    /// ```no_run
    /// # async fn example(node: meshx_node::Node) -> Result<(), meshx_node::RpcError> {
    /// use std::time::Duration;
    /// let limit = Duration::from_secs(5);
    /// let sum: u64 = node.rpc("shop@10.0.0.9", "lists", "sum", (vec![1, 2, 3],), limit).await?;
    /// assert_eq!(sum, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rpc<T: DeserializeOwned>(
        &self,
        node: &str,
        module: &str,
        function: &str,
        arguments: impl Arguments,
        limit: Duration,
    ) -> Result<T, RpcError> {
        let arguments = arguments.into_terms().map_err(unsent)?;
        let value = self.rpc_term(node, module, function, arguments, limit).await?;
        from_term(&value).map_err(RpcError::Answer)
    }

    /// As [`Node::rpc`], with terms both ways, which large binaries cross without being copied.
    pub async fn rpc_term(
        &self,
        node: &str,
        module: &str,
        function: &str,
        arguments: Vec<Term>,
        limit: Duration,
    ) -> Result<Term, RpcError> {
        let node = name(node)?;
        let call = Call { module: Atom::cut(module), function: Atom::cut(function), arguments };
        let inner = self.inner();
        let client = inner.client().map_err(|_| RpcError::Refused(Atom::cut("system_limit")))?;
        let result = inner.rpc(&client, &node, call, limit);
        tokio::time::timeout(limit, result).await.unwrap_or(Err(RpcError::Timeout(limit)))
    }

    /// Calls a function on a node and does not wait for what comes of it, as `erpc:cast/4`; `Ok` says
    /// that the request is on its way.
    pub async fn rpc_cast(
        &self,
        node: &str,
        module: &str,
        function: &str,
        arguments: impl Arguments,
    ) -> Result<(), RpcError> {
        let node = name(node)?;
        let arguments = arguments.into_terms().map_err(unsent)?;
        let call = Call { module: Atom::cut(module), function: Atom::cut(function), arguments };
        let inner = self.inner();
        let client = inner.client().map_err(|_| RpcError::Refused(Atom::cut("system_limit")))?;
        inner.rpc_cast(&client, &node, call).await
    }
}

/// What is to be called.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) module: Atom,
    pub(crate) function: Atom,
    pub(crate) arguments: Vec<Term>,
}

impl Call {
    /// Of `[Module, Function, Arguments]`; gives them back if they are not that.
    pub(super) fn of(parts: Vec<Term>) -> Result<Self, Vec<Term>> {
        match <[Term; 3]>::try_from(parts)? {
            [Term::Atom(module), Term::Atom(function), Term::List(arguments)] => {
                Ok(Self { module, function, arguments })
            }
            other => Err(other.into()),
        }
    }
}

impl Inner {
    async fn rpc(
        self: &Arc<Self>,
        client: &Arc<Cell>,
        node: &Atom,
        call: Call,
        limit: Duration,
    ) -> Result<Term, RpcError> {
        if node == self.id.name() {
            let place = self.place(node);
            let outcome = self.execute(place.as_ref(), call, &client.pid, &client.pid).await;
            return outcome.into_result(limit);
        }
        let connection = self.connect(node).await.map_err(RpcError::Connect)?;
        if !connection.flags.contains(Flags::SPAWN) {
            return self.rpc_by_rex(client, node, call, limit).await;
        }
        let reference = self.reference(&client.pid);
        let answer = client.expect_reply(reference.clone());
        let waiting = Waiting::new(self, client, reference);
        let result = self.reference(&client.pid);
        let arguments = [
            Term::Reference(Box::new(result.clone())),
            Term::Atom(call.module),
            Term::Atom(call.function),
            Term::List(call.arguments),
        ];
        let execute = ("erpc", "execute_call");
        let monitor = (false, true);
        self.spawn_request(client, node, execute, &arguments, monitor, &waiting.reference).await?;
        match answer.await {
            Ok(Reply::Down(reason)) => outcome(&result, reason),
            Ok(Reply::Refused(reason)) => Err(refused(reason)),
            // A message is no answer to this, and a process that is no more waits for none.
            Ok(Reply::Message(_)) | Err(_) => Err(RpcError::NoConnection),
        }
    }

    /// Through the server that was there before `erpc`.
    async fn rpc_by_rex(
        self: &Arc<Self>,
        client: &Arc<Cell>,
        node: &Atom,
        call: Call,
        limit: Duration,
    ) -> Result<Term, RpcError> {
        let rex = To::NameAt(Atom::cut("rex"), node.clone());
        let Call { module, function, arguments } = call;
        let request = (Atom::cut("call"), module, function, arguments, Atom::cut("user"));
        let answer = self.call(client, rex, "$gen_call", &request, limit).await;
        let answer = answer.map_err(|error| match error {
            CallError::NoProcess => RpcError::NotSupported,
            CallError::NoConnection => RpcError::NoConnection,
            CallError::Timeout(limit) => RpcError::Timeout(limit),
            CallError::Exit(reason) => RpcError::Signal(reason),
            CallError::Send(error) => error.into(),
            CallError::Answer(error) => RpcError::Answer(error),
        })?;
        match answer.term().map_err(|error| RpcError::Answer(error.into()))? {
            Term::Tuple(parts) => match <[Term; 2]>::try_from(parts) {
                Ok([tag, reason]) if tag.is_atom("badrpc") => {
                    Err(RpcError::of_badrpc(reason, limit))
                }
                Ok(pair) => Ok(Term::Tuple(pair.into())),
                Err(parts) => Ok(Term::Tuple(parts)),
            },
            value => Ok(value),
        }
    }

    async fn rpc_cast(
        self: &Arc<Self>,
        client: &Arc<Cell>,
        node: &Atom,
        call: Call,
    ) -> Result<(), RpcError> {
        if node == self.id.name() {
            let (inner, pid, place) = (Arc::clone(self), client.pid.clone(), self.place(node));
            self.tasks.spawn(async move {
                tokio::select! {
                    _ = inner.execute(place.as_ref(), call, &pid, &pid) => {}
                    () = inner.stop.cancelled() => {}
                }
            });
            return Ok(());
        }
        let connection = self.connect(node).await.map_err(RpcError::Connect)?;
        let Call { module, function, arguments } = call;
        if !connection.flags.contains(Flags::SPAWN) {
            let rex = To::NameAt(Atom::cut("rex"), node.clone());
            let leader = Term::atom("user");
            let cast = term!({cast, (module), (function), (Term::List(arguments)), (leader)});
            let message = crate::envelope::cast(cast);
            return Ok(self.send(&client.pid, rex, &message).await?);
        }
        let spawn = Control::Spawn {
            reference: self.reference(&client.pid),
            from: client.pid.clone(),
            leader: self.leader(&client.pid),
            module: Atom::cut("erpc"),
            function: Atom::cut("execute_cast"),
            arity: 3,
            options: Term::nil(),
        };
        let arguments =
            Term::List(vec![Term::Atom(module), Term::Atom(function), Term::List(arguments)]);
        let lane = sender(&client.pid);
        let draft = connection.draft(&spawn, &arguments).map_err(SendError::from)?;
        connection.room(lane, connection.is_large(&draft)).await;
        // The reply is of no interest, and finds nobody who waits for it.
        Ok(connection.send(lane, draft).map_err(SendError::from)?)
    }
}

/// What the reason says with which the function's process ended.
fn outcome(of: &Reference, reason: Term) -> Result<Term, RpcError> {
    let parts = match reason {
        Term::Tuple(parts) => parts,
        Term::Atom(reason) if reason == "noconnection" => return Err(RpcError::NoConnection),
        other => return Err(RpcError::Signal(other)),
    };
    let is_ours = matches!(parts.first(), Some(Term::Reference(it)) if **it == *of);
    if !is_ours {
        return Err(RpcError::Signal(Term::Tuple(parts)));
    }
    let mut parts = parts.into_iter().skip(1);
    let class = parts.next();
    let class = class.as_ref().and_then(Term::as_atom).map(Atom::as_str);
    Err(match (class, parts.next(), parts.next()) {
        (Some("return"), Some(value), None) => return Ok(value),
        (Some("throw"), Some(value), None) => RpcError::Throw(value),
        (Some("exit"), Some(reason), None) => RpcError::Exit(reason),
        (Some("error"), Some(reason), Some(stack)) => RpcError::Error { reason, stack },
        // `{erpc, Reason}`.
        (Some("error"), Some(reason), None) => match reason.as_tuple() {
            Some([_, Term::Atom(reason)]) => refused(reason.clone()),
            _ => RpcError::Signal(reason),
        },
        (_, reason, _) => RpcError::Signal(reason.unwrap_or_else(Term::nil)),
    })
}

fn refused(reason: Atom) -> RpcError {
    match reason.as_str() {
        "noconnection" => RpcError::NoConnection,
        "notsup" => RpcError::NotSupported,
        _ => RpcError::Refused(reason),
    }
}

fn name(node: &str) -> Result<Atom, RpcError> {
    Atom::new(node).map_err(|_| RpcError::Connect(ConnectError::Name(node.to_owned())))
}

fn unsent(error: meshx_etf::TypedError) -> RpcError {
    RpcError::Send(SendError::Encode(error))
}
