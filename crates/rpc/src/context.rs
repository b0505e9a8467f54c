//! What a function knows about its call.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Who is at the other end of a connection, and what the connection is called at both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: String,
    /// Who it is, proven by the transport: its SPIFFE identity.
    pub identity: Option<String>,
    /// What it says of itself and of this connection.
    pub remote: Refs,
    /// What we say.
    pub local: Refs,
    /// The number of the handshake.
    pub hsk_ref: u64,
    /// Which protocol is spoken.
    pub protocol: Protocol,
}

/// The audit references of one side, as in `MeshxRpc`: free text that every event and log repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Of this connection; random, unless it was chosen.
    pub conn_ref: Vec<u8>,
    /// Of the node or host.
    pub node_ref: String,
    /// Of the service.
    pub svc_ref: String,
}

/// A version of the wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `MeshxRpc`'s, of the Elixir package.
    V1,
    /// The multiplexed successor (`docs/protocol/rpc.md`).
    V2,
    /// None of these: the distribution of Erlang nodes (`meshx-rpc-node`).
    Erlang,
}

/// Pairs of names and values that travel with a call, besides its argument.
pub type Metadata = Vec<(String, String)>;

/// What a function knows about its call.
///
/// While a function runs, calls that it makes itself inherit the deadline and the trace
/// ([`Context::current`]); in tasks that it spawns, [`Context::scope`] does the same.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    peer: Arc<Peer>,
    function: Arc<str>,
    req_ref: u64,
    deadline: Option<Instant>,
    metadata: Metadata,
    is_cancelled: AtomicBool,
    cancelled: Notify,
    /// If somebody wants to know.
    spent: Option<Spent>,
}

/// Nanoseconds, for events.
#[derive(Debug, Default)]
struct Spent {
    reading: AtomicU64,
    writing: AtomicU64,
}

impl Spent {
    /// Does something, and keeps how long that took, if that is wanted.
    fn of<T>(which: fn(&Self) -> &AtomicU64, work: impl FnOnce() -> T) -> T {
        let wanted = CURRENT.try_with(|current| current.0.spent.is_some()).unwrap_or(false);
        let begun = wanted.then(std::time::Instant::now);
        let done = work();
        if let Some(begun) = begun {
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let keep = |current: &Context| {
                current.0.spent.as_ref().map(|spent| which(spent).store(nanos, Ordering::Relaxed))
            };
            // There is one: it was asked.
            _ = CURRENT.try_with(keep);
        }
        done
    }
}

tokio::task_local! {
    static CURRENT: Context;
}

impl Context {
    /// Of a call that came. For programs that let callers in by a protocol of their own
    /// ([`Functions::call`](crate::Functions::call)).
    pub fn new(
        peer: Arc<Peer>,
        function: Arc<str>,
        req_ref: u64,
        deadline: Option<Instant>,
        metadata: Metadata,
    ) -> Self {
        let (is_cancelled, cancelled) = (AtomicBool::new(false), Notify::new());
        let spent = None;
        let inside =
            Inside { peer, function, req_ref, deadline, metadata, is_cancelled, cancelled, spent };
        Self(Arc::new(inside))
    }

    /// How long reading the argument and writing the result take is kept ([`Self::spent`]).
    #[must_use]
    pub(crate) fn timed(mut self) -> Self {
        if let Some(inside) = Arc::get_mut(&mut self.0) {
            inside.spent = Some(Spent::default());
        }
        self
    }

    /// How long its argument was read, and its result written, as far as that is kept.
    pub(crate) fn spent(&self) -> (Duration, Duration) {
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        let spent = self.0.spent.as_ref();
        spent.map(|it| (time(&it.reading), time(&it.writing))).unwrap_or_default()
    }

    /// Reads the argument of the call that this task works for.
    pub(crate) fn reading<T>(work: impl FnOnce() -> T) -> T {
        Spent::of(|spent| &spent.reading, work)
    }

    /// Writes its result.
    pub(crate) fn writing<T>(work: impl FnOnce() -> T) -> T {
        Spent::of(|spent| &spent.writing, work)
    }

    /// Nobody waits for the call any more.
    pub(crate) fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Release);
        self.0.cancelled.notify_waiters();
    }

    /// Runs a part of the call that does not wait.
    pub(crate) fn sync_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// That of the call that this task works for.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Runs something as a part of this call.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), work).await
    }

    /// Who calls.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Which function.
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// The number of the request on its connection.
    pub fn req_ref(&self) -> u64 {
        self.0.req_ref
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// How long the caller still waits; nothing is left after that.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// What travelled with the call.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.0.metadata
    }

    /// The first value of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether nobody waits any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Acquire)
    }

    /// Resolves when nobody waits any more: the caller has cancelled, gone, or its time is over. A
    /// function is dropped then by itself; what it has spawned can ask here.
    pub async fn cancelled(&self) {
        let cancelled = self.0.cancelled.notified();
        if !self.is_cancelled() {
            cancelled.await;
        }
    }
}
