//! What a function knows about its call.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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

/// The audit references of one side, as in MeshxRpc: free text that every event and log repeats.
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
    /// MeshxRpc's, of the Elixir package.
    V1,
    /// The multiplexed successor (`docs/protocol/rpc.md`).
    V2,
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
    cancelled: CancellationToken,
}

tokio::task_local! {
    static CURRENT: RefCell<Option<Context>>;
}

impl Context {
    /// Of a call that came.
    pub(crate) fn new(
        peer: Arc<Peer>,
        function: Arc<str>,
        req_ref: u64,
        deadline: Option<Instant>,
        metadata: Metadata,
        cancelled: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inside { peer, function, req_ref, deadline, metadata, cancelled }))
    }

    /// That of the call that this task works for.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Runs something as a part of this call.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(RefCell::new(Some(self.clone())), work).await
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
        self.0.cancelled.is_cancelled()
    }

    /// Resolves when nobody waits any more: the caller has cancelled, gone, or its time is over. A
    /// function is dropped then by itself; what it has spawned can ask here.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }
}
