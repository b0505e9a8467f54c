//! Serves functions to clients that speak version 1.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use meshx_rt::Backoff;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::FAR;
use super::options::ServerOptions;
use crate::context::Refs;
use crate::error::Error;
use crate::event::{Event, Observers};
use crate::functions::Functions;
use crate::policy::Policy;
use crate::server::{PATIENT, is_about_one};
use crate::transport::{Listen, Stream};

/// Serves an allow-list of functions to Elixir programs with `meshx_rpc`, and to
/// [`Client`](super::Client)s.
///
/// A connection carries one request at a time, and ends with the first error, as the protocol wants
/// it. A function gets a [`Body`](crate::Body) of [`Codec::Raw`](crate::Codec::Raw) when an Elixir
/// program passed a binary, and of [`Codec::Etf`](crate::Codec::Etf) otherwise; it may take a tuple or
/// `()` where the program passes a list or `[]`.
#[derive(Debug, Clone)]
pub struct Server {
    service: Arc<Service>,
}

/// What the connections of a server have in common.
pub(crate) struct Service {
    pub(super) options: ServerOptions,
    pub(super) functions: Arc<Functions>,
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) local: Refs,
    /// Room for casts.
    pub(super) casts: Arc<Semaphore>,
    pub(super) lost: AtomicU64,
    /// Casts that run.
    pub(super) tasks: TaskTracker,
    /// Calls and casts end now.
    pub(super) killed: CancellationToken,
}

impl Server {
    /// A server of these functions. Fails if the options contradict the protocol.
    pub fn new(
        functions: impl Into<Arc<Functions>>,
        options: ServerOptions,
    ) -> Result<Self, Error> {
        let service = Service::new(functions.into(), None, options)?;
        Ok(Self { service: Arc::new(service) })
    }

    /// The same, where not everybody may call everything.
    pub fn with_policy(
        functions: impl Into<Arc<Functions>>,
        policy: impl Into<Arc<Policy>>,
        options: ServerOptions,
    ) -> Result<Self, Error> {
        let service = Service::new(functions.into(), Some(policy.into()), options)?;
        Ok(Self { service: Arc::new(service) })
    }

    /// Serves until `stop`: then no more connections and requests are taken, and what runs has
    /// [`ServerOptions::drain`] to end.
    pub async fn run(&self, mut listener: impl Listen, stop: CancellationToken) {
        let service = &self.service;
        let places = Arc::new(Semaphore::new(service.options.connections.clamp(1, MOST)));
        let connections = TaskTracker::new();
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
        let mut in_a_row = 0_u32;
        loop {
            let next = async {
                // It is never closed.
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok(stream) => {
                    backoff.reset();
                    in_a_row = 0;
                    let (service, stop) = (Arc::clone(service), stop.clone());
                    connections.spawn(async move {
                        service.serve(stream, BytesMut::new(), stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, at = %listener.address(), "cannot accept");
                    in_a_row = in_a_row.saturating_add(1);
                    if is_about_one(&error) && in_a_row <= PATIENT {
                        continue;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.step()) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        drop(listener);
        connections.close();
        let until = Instant::now() + service.options.drain.min(FAR);
        if timeout_at(until, connections.wait()).await.is_err() {
            service.killed.cancel();
        }
        connections.wait().await;
        service.drain(until.saturating_duration_since(Instant::now())).await;
    }

    /// How many casts failed, which their callers do not learn.
    pub fn casts_lost(&self) -> u64 {
        self.service.lost.load(Ordering::Relaxed)
    }
}

/// What a semaphore can count, and more than anybody has.
const MOST: usize = 1 << 24;

impl Service {
    pub(crate) fn new(
        functions: Arc<Functions>,
        policy: Option<Arc<Policy>>,
        options: ServerOptions,
    ) -> Result<Self, Error> {
        options.common.check()?;
        let mut local = options.common.refs.clone();
        // One for all connections, as in Elixir.
        local.conn_ref = options.common.conn_ref();
        let casts = Arc::new(Semaphore::new(options.casts.clamp(1, MOST)));
        Ok(Self {
            options,
            functions,
            policy,
            local,
            casts,
            lost: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            killed: CancellationToken::new(),
        })
    }

    /// Serves one connection, of which these bytes are read already, until it ends; after `stop`, not
    /// beyond the request that is under way. Casts go on: see [`Service::drain`].
    pub(crate) async fn serve(
        self: &Arc<Self>,
        stream: Stream,
        first: BytesMut,
        stop: CancellationToken,
    ) {
        super::serving::serve(self, stream, first, stop).await;
    }

    /// Waits for the casts that run, and ends those that take longer.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.tasks.close();
        if timeout(limit, self.tasks.wait()).await.is_err() {
            self.killed.cancel();
            self.tasks.wait().await;
        }
    }

    pub(super) fn observers(&self) -> &Observers {
        &self.options.observers
    }

    /// A cast failed after it was acknowledged.
    pub(super) fn cast_lost(&self, function: &str, error: &Error) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.observers().tell(&Event::CastLost { function, error });
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("options", &self.options)
            .field("functions", &self.functions)
            .finish_non_exhaustive()
    }
}
