//! The other side of a `gen_event`.

use std::time::Duration;

use meshx_dist::Payload;
use meshx_etf::Term;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::CallError;
use crate::error::SendError;
use crate::node::Node;
use crate::to::{To, Typed};

/// An event manager (OTP, `gen_event`) somewhere, to be notified and called.
///
/// Its handlers are modules over there; from here they can be installed, asked and removed.
///
/// ```no_run
/// # async fn example(node: meshx_node::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use meshx_node::etf::{Term, term};
/// let alarms = node.event_manager(("alarm_handler", "shop@10.0.0.9"));
/// alarms.notify(&term!({set_alarm, {queue_full, (17)}})).await?;
/// let handler = term!(alarm_handler);
/// let set: Term = alarms.call(&handler, &term!(get_alarms), Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EventManager {
    node: Node,
    to: To,
}

impl Node {
    /// The event manager that is there.
    pub fn event_manager(&self, at: impl Into<To>) -> EventManager {
        EventManager { node: self.clone(), to: at.into() }
    }
}

impl EventManager {
    /// Tells all handlers of an event, and does not wait (`gen_event:notify/2`).
    pub async fn notify<E: Serialize + Sync + ?Sized>(&self, event: &E) -> Result<(), SendError> {
        let inner = self.node.inner();
        let client = inner.client()?;
        let message = (meshx_etf::Atom::cut("notify"), event);
        inner.send(&client.pid, self.to.clone(), &Typed(&message)).await
    }

    /// Tells all handlers of an event, and waits until they have handled it
    /// (`gen_event:sync_notify/2`).
    pub async fn sync_notify<E: Serialize + Sync + ?Sized>(
        &self,
        event: &E,
        limit: Duration,
    ) -> Result<(), CallError> {
        let request = (meshx_etf::Atom::cut("sync_notify"), event);
        self.ask(&request, limit).await.map(drop)
    }

    /// Asks one handler: a module, or `{Module, Id}` (`gen_event:call/4`). If there is no such handler,
    /// the answer is `{error, bad_module}`.
    pub async fn call<Q, A>(
        &self,
        handler: &Term,
        query: &Q,
        limit: Duration,
    ) -> Result<A, CallError>
    where
        Q: Serialize + Sync + ?Sized,
        A: DeserializeOwned,
    {
        let request = (meshx_etf::Atom::cut("call"), handler, query);
        self.ask(&request, limit).await?.typed().map_err(CallError::Answer)
    }

    /// Installs a handler (`gen_event:add_handler/3`); the answer is `ok`, or what its `init` gave
    /// instead.
    pub async fn add_handler<Q: Serialize + Sync + ?Sized>(
        &self,
        handler: &Term,
        arguments: &Q,
        limit: Duration,
    ) -> Result<Term, CallError> {
        let request = (meshx_etf::Atom::cut("add_handler"), handler, arguments);
        self.term(&request, limit).await
    }

    /// Removes a handler (`gen_event:delete_handler/3`); the answer is what its `terminate` gave, or
    /// `{error, module_not_found}`.
    pub async fn delete_handler<Q: Serialize + Sync + ?Sized>(
        &self,
        handler: &Term,
        arguments: &Q,
        limit: Duration,
    ) -> Result<Term, CallError> {
        let request = (meshx_etf::Atom::cut("delete_handler"), handler, arguments);
        self.term(&request, limit).await
    }

    /// The handlers that are installed (`gen_event:which_handlers/1`).
    pub async fn which_handlers(&self, limit: Duration) -> Result<Vec<Term>, CallError> {
        let request = meshx_etf::Atom::cut("which_handlers");
        self.ask(&request, limit).await?.typed().map_err(CallError::Answer)
    }

    async fn term<Q: Serialize + Sync>(
        &self,
        request: &Q,
        limit: Duration,
    ) -> Result<Term, CallError> {
        self.ask(request, limit).await?.typed().map_err(CallError::Answer)
    }

    /// Its calls are labelled with the caller's pid.
    async fn ask<Q: Serialize + Sync>(
        &self,
        request: &Q,
        limit: Duration,
    ) -> Result<Payload, CallError> {
        let inner = self.node.inner();
        let client = inner.client()?;
        inner.call_labelled(&client, self.to.clone(), &client.pid, request, limit).await
    }
}
