//! Peers' sidecars come in.

use std::net::SocketAddr;
use std::sync::Arc;

use meshx_core::{IntentionSet, ServiceName};
use meshx_identity::{Identity, Peer};
use meshx_rt::{Tap as _, net, relay};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connections::NewConnection;
use crate::tap::ConnectionTap;
use crate::{
    CONNECT_LIMIT, Connections, Direction, Event, Journal, MAX_HANDSHAKES, Outcome, Protocol, Step,
    TLS_LIMIT, erlang,
};

/// The public listener of one service.
pub(crate) struct Inbound {
    pub(crate) service: ServiceName,
    pub(crate) protocol: Protocol,
    pub(crate) identity: Identity,
    pub(crate) policy: watch::Receiver<Arc<IntentionSet>>,
    /// Where the program listens; `None` while it does not.
    pub(crate) target: watch::Receiver<Option<SocketAddr>>,
    pub(crate) connections: Connections,
    pub(crate) journal: Journal,
}

impl Inbound {
    /// Accepts until `stop`. Connections under way go on in `tasks`.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let this = Arc::new(self);
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely. Those who wait are served when some are free.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
                let detail = format!("{MAX_HANDSHAKES} handshakes are under way");
                this.refuse(remote, None, (Step::Overload, detail));
                continue;
            };
            let this = Arc::clone(&this);
            tasks.spawn(async move {
                let source = &mut None;
                let admitted = this.connections.run(this.admit(stream, remote, permit, source));
                if let Some(Err(refusal)) = admitted.await {
                    this.refuse(remote, source.take(), refusal);
                }
            });
        }
    }

    /// One connection, from its first byte to its last. `source` is filled when it is proved.
    async fn admit(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        permit: tokio::sync::OwnedSemaphorePermit,
        source: &mut Option<ServiceName>,
    ) -> Result<(), (Step, String)> {
        let ours = self.identity.id();
        net::tune(&stream).map_err(|e| (Step::Tls, e.to_string()))?;
        let deadline = Instant::now() + TLS_LIMIT;
        let late = |_| (Step::Tls, format!("no TLS handshake within {TLS_LIMIT:?}"));
        // Health checks and port scans connect and hang up: no attempt, so no refusal.
        let peeked = timeout_at(deadline, stream.peek(&mut [0])).await.map_err(late)?;
        if matches!(peeked, Ok(0) | Err(_)) {
            return Ok(());
        }
        let acceptor = TlsAcceptor::from(self.identity.server_config());
        let mut tls = timeout_at(deadline, acceptor.accept(stream))
            .await
            .map_err(late)?
            .map_err(|e| (Step::Tls, e.to_string()))?;
        let peer = Peer::of(tls.get_ref().1, ours.trust_domain())
            .map_err(|e| (Step::Identity, e.to_string()))?;
        let from = peer.id.service().clone();
        *source = Some(from.clone());

        let connection = self
            .connections
            .enter(NewConnection {
                direction: Direction::Inbound,
                source: from.clone(),
                destination: self.service.clone(),
                peer,
                remote: remote.to_string(),
            })
            .ok_or_else(|| (Step::Overload, "too many connections".to_owned()))?;
        let verdict = self.policy.borrow().judge(&from, &self.service);
        if !verdict.is_allowed() {
            shut(&mut tls).await;
            return Err((Step::Policy, verdict.to_string()));
        }

        let mut tap = ConnectionTap::new(
            Arc::clone(&connection.progress),
            self.protocol,
            self.service.as_str(),
        );
        let hello = match self.protocol {
            Protocol::Tcp => Vec::new(),
            Protocol::Erlang => {
                let cut = connection.cut.clone();
                tokio::select! {
                    () = cut.cancelled() => return Ok(()),
                    hello = erlang::read_hello(&mut tls, &from) => hello?,
                }
            }
        };
        drop(permit);

        let target = *self.target.borrow();
        let target = target.ok_or_else(|| {
            (Step::Program, format!("the program of {} does not listen yet", self.service))
        })?;
        let dialled = connection.cut.run_until_cancelled(net::dial(target, CONNECT_LIMIT));
        let Some(dialled) = dialled.await else { return Ok(()) };
        let mut program = dialled
            .map_err(|e| (Step::Program, format!("the program at {target} refused: {e}")))?;
        if !hello.is_empty() {
            tap.seen(meshx_rt::Side::A, &hello);
            program.write_all(&hello).await.map_err(|e| (Step::Program, e.to_string()))?;
        }
        connection.opened();
        let ended = tokio::select! {
            () = connection.cut.cancelled() => return Ok(()),
            ended = relay(&mut tls, &mut program, &mut tap) => ended,
        };
        if let Some(error) = &ended.error {
            tracing::debug!(source = %from, destination = %self.service, %error, "connection ended");
        }
        tap.failure(&ended).map_or(Ok(()), Err)
    }

    fn refuse(&self, remote: SocketAddr, source: Option<ServiceName>, refusal: (Step, String)) {
        let (step, detail) = refusal;
        self.journal.add(Event::now(
            Direction::Inbound,
            source.map(String::from),
            self.service.to_string(),
            Some(remote.to_string()),
            Outcome::Refused { step, detail },
        ));
    }
}

/// Closes in order, so that a peer that is refused reads an end and not a reset.
async fn shut(tls: &mut (impl AsyncWriteExt + Unpin)) {
    if let Err(error) = tls.shutdown().await {
        tracing::trace!(%error, "the refused peer was gone already");
    }
}
