//! What is offered to other nodes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshx_etf::{Pid, Term};
use meshx_node::{Node, Raise, RpcTable};
use meshx_rpc::event::{Amount, Called, Event, Observe, Side, Times, Way};
use meshx_rpc::{Body, Context, Error, Executed, Functions, Kind, Peer, Policy, Protocol, Refs};
use tokio::time::Instant;

use crate::desk::Desk;
use crate::outcome::{argument, reason, tuple, value};

/// No call runs longer if nothing else is said ([`Offer::limit`]).
const LIMIT: Duration = Duration::from_hours(1);

/// Functions for the nodes that this one is connected with. Nothing but these becomes callable, and none
/// of those that take messages both ways.
///
/// The same functions in two ways, one of them or both:
///
/// * [`Offer::table`]: `:erpc.call(:rust@host, :shop, :add, [40, 2])` gives `42`. A failure is raised as
///   the error `{application, Reason}` with what the function failed with, or `{Kind, Text}` where
///   [`Kind`] has another word for it (`value`: it does not take these arguments; `deadline`, `panic`).
///   What is not offered is `undef`, as on any node.
/// * [`Offer::server`]: `GenServer.call({:shop, :rust@host}, {:add, [40, 2]})` gives `{:ok, 42}`, or
///   `{:error, Reason}` with the same reasons, `undef` included.
///
/// No argument is `()`, one is itself, several are a tuple. Where a function does not take the one, it
/// gets a tuple of one, as those of `#[meshx_rpc::service]` want it. Results are terms as serde makes
/// them ([`meshx_etf::typed`]); what a function gives as bytes is a binary.
///
/// # Who may call
///
/// Whoever is let in as a node: by the cookie, and over [`Mesh`](meshx_node::carrier::Mesh) by the
/// intentions, too. To functions these callers have **no identity**: within a cluster, nodes can speak in
/// the name of each other. So a policy lets them call what it allows to everyone ([`Offer::policy`]).
///
/// # Bounds
///
/// A node may have 4 096 calls that run or whose answers it has not taken, in each of the two ways; all
/// together 65 536. A call is dropped when its time is over ([`Offer::limit`]), or nobody waits for it:
/// the caller has ended, or its connection is lost. Casts run to their end.
///
/// ```
/// use std::time::Duration;
///
/// use meshx_node::carrier::{Memory, Switchboard};
/// use meshx_node::{Cookie, Node, RpcTable};
/// use meshx_rpc::Functions;
/// use meshx_rpc_node::Offer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let functions = Functions::new().add("add", async |(a, b): (i64, i64)| Ok::<_, String>(a + b));
/// let offer = Offer::new(functions);
///
/// let board = Switchboard::new();
/// let node = |name| Node::builder(name).cookie(Cookie::new("secret")).carrier(Memory::new(&board));
/// let rust = node("rust@host").rpc(offer.table("shop", RpcTable::new())).start().await?;
/// rust.serve("shop", offer.server("shop")).await?;
///
/// let other = node("other@host").start().await?; // or any stock one
/// let limit = Duration::from_secs(5);
/// let sum: i64 = other.rpc("rust@host", "shop", "add", (40, 2), limit).await?;
/// assert_eq!(sum, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Offer {
    functions: Functions,
    limit: Duration,
    observers: Vec<Arc<dyn Observe>>,
    /// How many calls there were.
    count: Arc<AtomicU64>,
}

/// A call of another node.
pub(crate) struct Asked<'a> {
    pub(crate) way: Way,
    pub(crate) function: &'a str,
    pub(crate) arguments: &'a [Term],
    /// What the functions are called together.
    pub(crate) service: &'a str,
    pub(crate) caller: &'a Pid,
    pub(crate) node: &'a Node,
}

impl Offer {
    /// Of these functions, but for exchanges.
    pub fn new(functions: Functions) -> Self {
        let functions = retain(functions, |functions, name| {
            functions.get(name).is_some_and(|function| !function.is_exchange())
        });
        Self { functions, limit: LIMIT, observers: Vec::new(), count: Arc::default() }
    }

    /// Only what this policy allows to everyone: callers without an identity do not learn that there is
    /// more, and get `undef`.
    #[must_use]
    pub fn policy(mut self, policy: &Policy) -> Self {
        self.functions = retain(self.functions, |_, name| {
            let allowed = policy.allows(None, name);
            if !allowed {
                tracing::debug!(function = name, "not for nodes: the policy asks for an identity");
            }
            allowed
        });
        self
    }

    /// How long a call may run (an hour), whatever its caller would wait: that does not travel. It is the
    /// function's [`Context::deadline`].
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Is told of every call that is over; one that nobody waited for any more is not. The peer's address
    /// is the process that called, its `node_ref` the node.
    #[must_use]
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Adds them to what a node offers by `erpc` and `rpc`, as functions of this module: `shop`, or
    /// `Elixir.Shop` for `:erpc.call(node, Shop, :add, [40, 2])`.
    #[must_use]
    pub fn table(&self, module: &str, mut table: RpcTable) -> RpcTable {
        let offer = Arc::new(self.clone());
        let service: Arc<str> = module.into();
        for name in self.functions.names() {
            let (offer, service, name) =
                (Arc::clone(&offer), Arc::clone(&service), name.to_owned());
            table = table.variadic(module, &name.clone(), move |call| {
                let (offer, service) = (Arc::clone(&offer), Arc::clone(&service));
                let name = name.clone();
                async move {
                    let asked = Asked {
                        way: Way::Call,
                        function: &name,
                        arguments: &call.arguments,
                        service: &service,
                        caller: &call.caller,
                        node: &call.node,
                    };
                    offer.answer(asked).await.map_err(|error| Raise::Error(reason(&error)))
                }
            });
        }
        table
    }

    /// A server that takes `{Function, Arguments}`, for [`Node::serve`] under the name by which it is to be
    /// called; the name here is the one in events. As any server it can be stopped by other nodes, and nothing
    /// starts it again.
    pub fn server(&self, service: &str) -> Desk {
        Desk::new(self.clone(), service)
    }

    pub(crate) fn has(&self, function: &str) -> bool {
        self.functions.get(function).is_some()
    }

    /// A cast that was for nothing.
    pub(crate) fn lost(&self, function: &str, error: &Error) {
        tracing::debug!(function, %error, "a cast failed");
        self.tell(&Event::CastLost { function, error });
    }

    fn tell(&self, event: &Event<'_>) {
        self.observers.iter().for_each(|observer| observer.event(event));
    }

    /// Calls a function, and tells of it.
    pub(crate) async fn answer(&self, asked: Asked<'_>) -> Result<Term, Error> {
        let begun = Instant::now();
        let peer = Arc::new(asked.peer());
        let req_ref = self.count.fetch_add(1, Ordering::Relaxed);
        let deadline = begun.checked_add(self.limit);
        let (mut sent, mut received) = (Amount::default(), Amount::default());
        let call = async |argument: Body| {
            let function = Arc::from(asked.function);
            let context = Context::new(Arc::clone(&peer), function, req_ref, deadline, Vec::new());
            self.functions.call(context, argument).await
        };
        let result = async {
            let first = argument(asked.arguments)?;
            received = amount(&first);
            let refused = match call(first).await {
                Err(error) if is_refused(&error) && asked.arguments.len() == 1 => error,
                result => return result,
            };
            // The function has not seen it; if it does not read this either, the first reason tells.
            match call(tuple(asked.arguments)?).await {
                Err(error) if is_refused(&error) => Err(refused),
                result => result,
            }
        };
        let result = result.await.and_then(|body| {
            sent = amount(&body);
            value(&body)
        });
        if !self.observers.is_empty() {
            self.tell(&Event::Called(&Called {
                side: Side::Server,
                way: asked.way,
                function: asked.function,
                peer: Some(&peer),
                req_ref,
                trace: None,
                result: result.as_ref().map(|_| ()),
                attempt: 1,
                times: Times { exec: begun.elapsed(), ..Times::default() },
                sent,
                received,
            }));
        }
        result
    }
}

impl Asked<'_> {
    /// Who calls, as far as that is known.
    fn peer(&self) -> Peer {
        let refs = |node: &str, service: &str| Refs {
            conn_ref: Vec::new(),
            node_ref: node.to_owned(),
            svc_ref: service.to_owned(),
        };
        Peer {
            address: self.caller.to_string(),
            identity: None,
            remote: refs(self.caller.node.name().as_str(), ""),
            local: refs(self.node.name().as_str(), self.service),
            hsk_ref: 0,
            protocol: Protocol::Erlang,
        }
    }
}

/// Whether the function surely did not see its argument, which is not of its type.
fn is_refused(error: &Error) -> bool {
    error.kind() == Kind::Value && error.executed() == Executed::Never
}

fn amount(body: &Body) -> Amount {
    Amount { bytes: u64::try_from(body.bytes.len()).unwrap_or(u64::MAX), blocks: 1 }
}

fn retain(functions: Functions, keep: impl Fn(&Functions, &str) -> bool) -> Functions {
    let all = functions.clone();
    let names: Vec<&str> = all.names().filter(|name| keep(&all, name)).collect();
    functions.only(&names)
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Offer");
        debug.field("functions", &self.functions).field("limit", &self.limit);
        debug.finish_non_exhaustive()
    }
}
