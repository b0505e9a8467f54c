//! Calls to several nodes at once.

use std::sync::Arc;
use std::time::Duration;

use meshx_dist::Payload;
use meshx_etf::{Atom, Term, TypedError, to_term};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::call::CallError;
use crate::error::SendError;
use crate::node::{Inner, Node};
use crate::process::{Cell, Mailbox};
use crate::to::To;

/// What came of a call to several nodes, in the order in which the nodes were named.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replies<A> {
    /// Who answered what.
    pub answers: Vec<(Atom, A)>,
    /// Who did not, and why.
    pub failures: Vec<(Atom, CallError)>,
}

impl Node {
    /// Calls the servers of this name on several nodes at the same time, as
    /// `gen_server:multi_call/4`; all of it takes no longer than `limit`. An error only if the
    /// request cannot be sent at all; which node failed why is in [`Replies::failures`].
    pub async fn multi_call<Q, A>(
        &self,
        nodes: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
        request: &Q,
        limit: Duration,
    ) -> Result<Replies<A>, CallError>
    where
        Q: Serialize + Sync + ?Sized,
        A: DeserializeOwned,
    {
        let client = self.inner().client()?;
        let request = to_term(request).map_err(SendError::Encode)?;
        Ok(self.inner().multi_call(&client, names(nodes), name, request, limit).await)
    }

    /// Sends a cast to the servers of this name on several nodes, as `gen_server:abcast/3`; not
    /// longer than `limit`. Which nodes it could not be sent to is the answer; whether it arrived at
    /// the others is not known.
    pub async fn abcast<Q: Serialize + Sync + ?Sized>(
        &self,
        nodes: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
        request: &Q,
        limit: Duration,
    ) -> Result<Vec<Atom>, CallError> {
        let client = self.inner().client()?;
        let request = to_term(request).map_err(SendError::Encode)?;
        let message = Arc::new(Term::Tuple(vec![Term::atom("$gen_cast"), request]));
        let nodes = names(nodes);
        let mut tasks = JoinSet::new();
        for (at, node) in nodes.iter().enumerate() {
            let (inner, client) = (Arc::clone(self.inner()), Arc::clone(&client));
            let message = Arc::clone(&message);
            let to = To::NameAt(Atom::cut(name), node.clone());
            tasks.spawn(async move {
                let send = inner.send(&client.pid, to, &*message);
                (at, matches!(tokio::time::timeout(limit, send).await, Ok(Ok(()))))
            });
        }
        let mut sent = vec![false; nodes.len()];
        while let Some(done) = tasks.join_next().await {
            if let Ok((at, true)) = done
                && let Some(sent) = sent.get_mut(at)
            {
                *sent = true;
            }
        }
        let failed = nodes.into_iter().zip(sent).filter(|(_, sent)| !sent);
        Ok(failed.map(|(node, _)| node).collect())
    }
}

impl Mailbox {
    /// As [`Node::multi_call`], on behalf of this process.
    pub async fn multi_call<Q, A>(
        &self,
        nodes: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
        request: &Q,
        limit: Duration,
    ) -> Result<Replies<A>, CallError>
    where
        Q: Serialize + Sync + ?Sized,
        A: DeserializeOwned,
    {
        let request = to_term(request).map_err(SendError::Encode)?;
        Ok(self.inner().multi_call(self.cell(), names(nodes), name, request, limit).await)
    }
}

impl Inner {
    async fn multi_call<A: DeserializeOwned>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        nodes: Vec<Atom>,
        name: &str,
        request: Term,
        limit: Duration,
    ) -> Replies<A> {
        let request = Arc::new(request);
        // Ended with this future, and so are their monitors.
        let mut tasks = JoinSet::new();
        for (at, node) in nodes.iter().enumerate() {
            let (inner, cell) = (Arc::clone(self), Arc::clone(cell));
            let request = Arc::clone(&request);
            let to = To::NameAt(Atom::cut(name), node.clone());
            tasks.spawn(
                async move { (at, inner.call(&cell, to, "$gen_call", &*request, limit).await) },
            );
        }
        let mut results: Vec<_> = nodes.iter().map(|_| Err(CallError::NoProcess)).collect();
        while let Some(done) = tasks.join_next().await {
            if let Ok((at, result)) = done
                && let Some(place) = results.get_mut(at)
            {
                *place = result;
            }
        }
        let mut replies = Replies { answers: Vec::new(), failures: Vec::new() };
        for (node, result) in nodes.into_iter().zip(results) {
            match result.and_then(|answer| read(&answer)) {
                Ok(answer) => replies.answers.push((node, answer)),
                Err(error) => replies.failures.push((node, error)),
            }
        }
        replies
    }
}

fn read<A: DeserializeOwned>(answer: &Payload) -> Result<A, CallError> {
    let typed: Result<A, TypedError> = answer.typed();
    typed.map_err(CallError::Answer)
}

fn names(nodes: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Atom> {
    nodes.into_iter().map(|node| Atom::cut(node.as_ref())).collect()
}
