//! Processes in the shape of OTP's behaviours, and calls to such.

mod event;
mod many;
mod request;
mod run;
mod system;
#[cfg(test)]
mod tests;

use std::future::{Future, ready};
use std::time::Duration;

use meshx_etf::{Atom, Pid, Reference, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use event::EventManager;
pub use many::Replies;
pub use run::ServeError;

use crate::call::Caller;
use crate::process::{Down, Mailbox};

/// A process that answers as a `gen_server` does (OTP, `gen_server`; Elixir, `GenServer`): callers on
/// stock nodes see no difference.
///
/// The value is the state, and has one owner: one message is handled after the other, each to its
/// end. A handler that waits makes all others wait; what takes long is done in a task, which answers
/// by [`crate::Node::reply`] after the handler said [`Answer::Later`].
///
/// What the process is asked is typed: with `#[derive(meshx_etf::Etf)]` an enum reads `next` and
/// `{add, 3}`; a type may be [`Term`], which reads everything. A call that does not read as
/// [`GenServer::Call`] ends the caller's call at once, with the reason `{bad_request, Text}`, and
/// does nothing to the server, where a server in Erlang would crash of it. Casts and messages that
/// do not read are logged and dropped.
///
/// The same serves callers of a `gen_statem`, whose calls and casts have the form of a
/// `gen_server`'s, and of a `gen_event`: `sync_notify` arrives as the call `{sync_notify, Event}`,
/// `call/3` as `{call, Handler, Query}`, `notify` as the message `{notify, Event}`.
///
/// What `sys` sends is answered as far as there is an answer: `get_state` (if
/// [`GenServer::state`] gives one), `get_status`, `suspend`, `resume`, `terminate` and with it
/// `GenServer.stop/1`. Tracing, `replace_state` and `change_code` are refused as a process refuses
/// what it does not know.
///
/// ```
/// use meshx_node::carrier::{Memory, Switchboard};
/// use meshx_node::etf::{Etf, Term};
/// use meshx_node::{Answer, Caller, Cookie, GenServer, Mailbox, Next, Node};
///
/// struct Counter(i64);
///
/// #[derive(Etf)]
/// enum Ask {
///     Next,
///     Add(i64),
/// }
///
/// impl GenServer for Counter {
///     type Call = Ask;
///     type Reply = i64;
///     type Cast = Ask;
///     type Info = Term;
///
///     async fn handle_call(&mut self, ask: Ask, _: Caller, _: &Mailbox) -> Answer<i64> {
///         self.0 += if let Ask::Add(n) = ask { n } else { 1 };
///         Answer::Reply(self.0)
///     }
///
///     async fn handle_cast(&mut self, ask: Ask, _: &Mailbox) -> Next {
///         self.0 += if let Ask::Add(n) = ask { n } else { 1 };
///         Next::Continue
///     }
/// }
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let carrier = Memory::new(&Switchboard::new());
/// let node = Node::builder("rust@host").cookie(Cookie::new("secret")).carrier(carrier);
/// let node = node.start().await?;
/// node.serve("counter", Counter(0)).await?;
/// // iex> GenServer.call({:counter, :rust@host}, {:add, 3})
/// let sum: i64 = node.call("counter", &Ask::Add(3), std::time::Duration::from_secs(5)).await?;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait GenServer: Send + Sized + 'static {
    /// What it is called with (`GenServer.call/3`).
    type Call: DeserializeOwned + Send;
    /// What it answers.
    type Reply: Serialize + Send + Sync;
    /// What it is told without an answer (`GenServer.cast/2`).
    type Cast: DeserializeOwned + Send;
    /// Other messages (`send/2`).
    type Info: DeserializeOwned + Send;

    /// Called first, in the process itself, which has its name already: the place to trap exits, to
    /// monitor and to link. An error is the reason with which the process ends.
    fn init(&mut self, process: &Mailbox) -> impl Future<Output = Result<(), Term>> + Send {
        let _ = process;
        ready(Ok(()))
    }

    /// Answers a call.
    fn handle_call(
        &mut self,
        request: Self::Call,
        caller: Caller,
        process: &Mailbox,
    ) -> impl Future<Output = Answer<Self::Reply>> + Send;

    /// Takes a cast. If not written, casts are dropped.
    fn handle_cast(
        &mut self,
        request: Self::Cast,
        process: &Mailbox,
    ) -> impl Future<Output = Next> + Send {
        drop((request, process));
        ready(Next::Continue)
    }

    /// Takes everything else. If not written, that is dropped.
    fn handle_info(
        &mut self,
        info: Info<Self::Info>,
        process: &Mailbox,
    ) -> impl Future<Output = Next> + Send {
        drop((info, process));
        ready(Next::Continue)
    }

    /// Called last, when a handler or `sys:terminate/2` ends the process. Not when an exit signal does,
    /// nor when the node stops: then the value is dropped where it is, in the midst of a handler that
    /// waits, too. With [`Mailbox::trap_exits`] exit signals are [`Info::Exit`] instead.
    fn terminate(&mut self, reason: &Term, process: &Mailbox) -> impl Future<Output = ()> + Send {
        let _ = (reason, process);
        ready(())
    }

    /// After how long without any message [`Info::Idle`] comes; asked before each wait.
    fn idle(&self) -> Option<Duration> {
        None
    }

    /// The state as `sys:get_state/1` and `sys:get_status/1` show it; `None`, if not written, to show
    /// none.
    fn state(&self) -> Option<Term> {
        None
    }
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer<R> {
    /// This is the answer.
    Reply(R),
    /// The answer comes by [`Caller::reply`] or [`crate::Node::reply`].
    Later,
    /// No answer: the call, and nothing else, ends with this reason, as if the process had.
    Refuse(Term),
    /// The process ends with this reason, after it answered if there is an answer.
    Stop(Term, Option<R>),
}

/// What comes of anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// The next message.
    Continue,
    /// The process ends with this reason.
    Stop(Term),
}

/// What is neither call nor cast.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Info<I> {
    /// A message.
    Message(I),
    /// A monitor fired.
    Down(Down),
    /// A linked process ended, or somebody sent an exit signal, and exits are trapped.
    Exit {
        /// Who.
        from: Pid,
        /// Why.
        reason: Term,
    },
    /// The answer to [`Mailbox::spawn_request`].
    Spawned {
        /// Of which request.
        reference: Reference,
        /// The process, or why there is none.
        result: Result<Pid, Atom>,
    },
    /// Nothing came for as long as [`GenServer::idle`] said.
    Idle,
}
