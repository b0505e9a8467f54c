//! Calls, as `gen_server:call/3` makes them.

use std::sync::Arc;
use std::time::Duration;

use meshx_dist::Payload;
use meshx_etf::{Atom, Pid, Reference, Term, TypedError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::SendError;
use crate::node::{Inner, Node, TooManyProcesses};
use crate::process::{Cell, Mailbox, Reply};
use crate::to::{To, Typed};

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no such process.
    #[error("there is no such process")]
    NoProcess,
    /// The node cannot be reached, or was lost before it answered. Whether the request was carried
    /// out is not known.
    #[error("the connection was lost before the answer came")]
    NoConnection,
    /// No answer in time. Whether the request was carried out is not known; an answer that comes
    /// later is dropped.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The process ended before it answered.
    #[error("the process ended before it answered: {0}")]
    Exit(Term),
    /// The request was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer is not of the type that was wanted.
    #[error("the answer is not what was expected: {0}")]
    Answer(#[source] TypedError),
}

impl Mailbox {
    /// Calls a `gen_server`, or anything that answers as one, and waits for its answer; whatever else
    /// arrives meanwhile stays in the mailbox.
    ///
    /// The call goes through an alias and a monitor, as OTP's own do since 24: an answer that is too
    /// late is lost, and a server that is not there is noticed at once.
    ///
    /// ```no_run
    /// # async fn example(mailbox: meshx_node::Mailbox) -> Result<(), meshx_node::CallError> {
    /// use meshx_node::etf::term;
    /// use std::time::Duration;
    /// let next: u64 = mailbox
    ///     .call(("counter", "shop@10.0.0.9"), &term!(next), Duration::from_secs(5))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<Q, A>(
        &self,
        server: impl Into<To>,
        request: &Q,
        limit: Duration,
    ) -> Result<A, CallError>
    where
        Q: Serialize + Sync + ?Sized,
        A: DeserializeOwned,
    {
        let answer = self.inner().call(self.cell(), server.into(), "$gen_call", request, limit);
        answer.await?.typed().map_err(CallError::Answer)
    }

    /// Sends a `gen_server` something that it does not answer.
    pub async fn cast<Q: Serialize + Sync + ?Sized>(
        &self,
        server: impl Into<To>,
        request: &Q,
    ) -> Result<(), SendError> {
        self.send(server, &(Atom::cut("$gen_cast"), request)).await
    }
}

impl Node {
    /// As [`Mailbox::call`], on behalf of no process in particular.
    pub async fn call<Q, A>(
        &self,
        server: impl Into<To>,
        request: &Q,
        limit: Duration,
    ) -> Result<A, CallError>
    where
        Q: Serialize + Sync + ?Sized,
        A: DeserializeOwned,
    {
        let client = self.inner().client()?;
        let answer = self.inner().call(&client, server.into(), "$gen_call", request, limit);
        answer.await?.typed().map_err(CallError::Answer)
    }

    /// As [`Mailbox::cast`], on behalf of no process in particular.
    pub async fn cast<Q: Serialize + Sync + ?Sized>(
        &self,
        server: impl Into<To>,
        request: &Q,
    ) -> Result<(), SendError> {
        let client = self.inner().client()?;
        let message = (Atom::cut("$gen_cast"), request);
        self.inner().send(&client.pid, server.into(), &Typed(&message)).await
    }

    /// As [`Caller::reply`], from anywhere: for answers that a task gives which a server has started.
    pub async fn reply<A: Serialize + Sync + ?Sized>(
        &self,
        to: &Caller,
        answer: &A,
    ) -> Result<(), SendError> {
        let client = self.inner().client()?;
        let message = (&to.tag, answer);
        self.inner().send_back(&client.pid, &to.to(), &to.pid, &Typed(&message)).await
    }
}

impl From<TooManyProcesses> for CallError {
    fn from(full: TooManyProcesses) -> Self {
        Self::Send(full.into())
    }
}

/// While it lives, the answer to a call is waited for.
pub(crate) struct Waiting<'c> {
    node: &'c Arc<Inner>,
    cell: &'c Arc<Cell>,
    pub(crate) reference: Reference,
}

impl<'c> Waiting<'c> {
    pub(crate) fn new(node: &'c Arc<Inner>, cell: &'c Arc<Cell>, reference: Reference) -> Self {
        Self { node, cell, reference }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((target, _, via)) = self.cell.forget_reply(&self.reference) {
            self.node.demonitor(&self.cell.pid, self.reference.clone(), target, via);
        }
    }
}

impl Inner {
    /// One call; `kind` is `$gen_call` or another that is answered in the same way.
    pub(crate) async fn call<Q: Serialize + Sync + ?Sized>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        server: To,
        kind: &str,
        request: &Q,
        limit: Duration,
    ) -> Result<Payload, CallError> {
        self.call_labelled(cell, server, &Atom::cut(kind), request, limit).await
    }

    /// One call with a label of any kind in front.
    pub(crate) async fn call_labelled<L: Serialize + Sync, Q: Serialize + Sync + ?Sized>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        server: To,
        label: &L,
        request: &Q,
        limit: Duration,
    ) -> Result<Payload, CallError> {
        let reference = self.reference(&cell.pid);
        let mut answer = cell.expect_reply(reference.clone());
        let waiting = Waiting::new(self, cell, reference);
        let exchange = async {
            self.monitor(cell, server.clone(), waiting.reference.clone()).await;
            // It may have found nobody: then there is nothing to be sent, and nobody to be looked for again.
            if let Ok(reply) = answer.try_recv() {
                return CallError::or_answer(reply);
            }
            let tag = tag(&waiting.reference);
            let message = (label, (&cell.pid, tag), request);
            match self.send(&cell.pid, server, &Typed(&message)).await {
                // The monitor has it, too, and says what it is.
                Ok(()) | Err(SendError::Connect(_)) => {}
                Err(error) => return Err(error.into()),
            }
            match answer.await {
                Ok(reply) => CallError::or_answer(reply),
                // The caller has ended: this node stops.
                Err(_) => Err(CallError::NoConnection),
            }
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(CallError::Timeout(limit)))
    }
}

/// `[alias | Reference]`: answers go to the alias (`gen`, OTP 24 and later).
fn tag(reference: &Reference) -> Term {
    Term::list_ending(vec![Term::atom("alias")], reference.clone().into())
}

impl CallError {
    fn or_answer(reply: Reply) -> Result<Payload, Self> {
        match reply {
            Reply::Message(answer) => Ok(answer),
            Reply::Down(reason) => Err(Self::of(reason)),
            Reply::Refused(reason) => Err(Self::of(Term::Atom(reason))),
        }
    }

    /// Of the reason that a monitor gave.
    pub(crate) fn of(reason: Term) -> Self {
        match &reason {
            Term::Atom(atom) if *atom == "noproc" => Self::NoProcess,
            Term::Atom(atom) if *atom == "noconnection" => Self::NoConnection,
            _ => Self::Exit(reason),
        }
    }
}

/// Who called, and how he wants to be answered: the `From` of a `gen_server`.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    pid: Pid,
    tag: Term,
}

impl Caller {
    /// Reads `{Pid, Tag}`.
    pub fn of(from: &Term) -> Option<Self> {
        match from {
            Term::Tuple(pair) => match &pair[..] {
                [Term::Pid(pid), tag] => Some(Self { pid: pid.clone(), tag: tag.clone() }),
                _ => None,
            },
            _ => None,
        }
    }

    /// The process that called.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Answers, with `{Tag, Answer}`: to the alias if the tag has one. An error if the connection over
    /// which he called is gone: it is not made again for this, as a caller is told of its loss.
    pub async fn reply<A: Serialize + Sync + ?Sized>(
        &self,
        from: &Mailbox,
        answer: &A,
    ) -> Result<(), SendError> {
        let message = (&self.tag, answer);
        from.inner().send_back(from.pid(), &self.to(), &self.pid, &Typed(&message)).await
    }

    /// The reference of the call, with which callers monitor who they call: in `R`, `[alias | R]`,
    /// `[[alias | R] | R2]` and `{R, Node}`.
    pub(crate) fn reference(&self) -> Option<&Reference> {
        let mut tag = &self.tag;
        loop {
            tag = match tag {
                Term::Reference(reference) => return Some(reference),
                Term::Improper(list) => match (list.elements(), list.tail()) {
                    ([inner @ Term::Improper(_)], _) => inner,
                    (_, tail) => tail,
                },
                Term::Tuple(pair) => pair.first()?,
                _ => return None,
            };
        }
    }

    /// The message that is the answer, and where it goes.
    pub(crate) fn answer(self, answer: Term) -> (To, Term) {
        (self.to(), Term::Tuple(vec![self.tag, answer]))
    }

    /// Where the answer goes.
    fn to(&self) -> To {
        // `[alias | R]`, or `[[alias | R] | R2]` of `multi_call`.
        let mut tag = &self.tag;
        while let Term::Improper(list) = tag {
            tag = match (list.elements(), list.tail()) {
                ([Term::Atom(name)], Term::Reference(alias)) if *name == "alias" => {
                    return To::Alias(Reference::clone(alias));
                }
                ([inner], _) => inner,
                _ => break,
            };
        }
        To::Pid(self.pid.clone())
    }
}
