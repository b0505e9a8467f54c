//! Peers' sidecars come in.

use std::net::SocketAddr;
use std::sync::Arc;

use meshx_core::{IntentionSet, ServiceName};
use meshx_identity::{ALPN, Identity, Peer};
use meshx_rt::{Tap as _, net, relay};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connections::NewConnection;
use crate::tap::ConnectionTap;
use crate::{
    CONNECT_LIMIT, Connections, Direction, Event, FIRST_BYTE_LIMIT, Journal, MAX_HANDSHAKES,
    MAX_SILENT, Outcome, Protocol, Step, TLS_LIMIT, erlang, greeting,
};

/// The step that refused, and why.
type Refusal = (Step, String);

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
        let silent = Arc::new(Semaphore::new(MAX_SILENT));
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
            let Ok(place) = Arc::clone(&silent).try_acquire_owned() else {
                let detail = format!("{MAX_SILENT} connections have not said a byte");
                this.refuse(remote, None, (Step::Overload, detail));
                continue;
            };
            let (this, handshakes) = (Arc::clone(&this), Arc::clone(&handshakes));
            tasks.spawn(async move {
                let source = &mut None;
                let admitted =
                    this.connections.run(this.admit(stream, remote, place, handshakes, source));
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
        place: OwnedSemaphorePermit,
        handshakes: Arc<Semaphore>,
        source: &mut Option<ServiceName>,
    ) -> Result<(), Refusal> {
        net::tune(&stream).map_err(|e| (Step::Tls, e.to_string()))?;
        // Health checks and port scans connect and hang up: no attempt, so no refusal.
        let first = tokio::time::timeout(FIRST_BYTE_LIMIT, stream.peek(&mut [0])).await;
        let silent = |_| (Step::Tls, format!("not a byte within {FIRST_BYTE_LIMIT:?}"));
        if matches!(first.map_err(silent)?, Ok(0) | Err(_)) {
            return Ok(());
        }
        drop(place);
        let permit = handshakes
            .try_acquire_owned()
            .map_err(|_| (Step::Overload, format!("{MAX_HANDSHAKES} handshakes are under way")))?;
        let mut tls = self.handshake(stream).await?;
        let ours = self.identity.id();
        let peer = Peer::of(tls.get_ref().1, ours.trust_domain())
            .map_err(|e| (Step::Identity, e.to_string()))?;
        *source = Some(peer.id.service().clone());
        let mut greets = greeting::agreed(tls.get_ref().1);
        let served = self.serve_peer(&mut tls, peer, remote, permit, &mut greets).await;
        if let Err((step, detail)) = &served
            && greets
        {
            greeting::refuse(&mut tls, *step, detail).await;
        }
        served
    }

    async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Refusal> {
        let shake = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let ours = {
                let client = hello.client_hello();
                client.alpn().is_some_and(|mut names| names.any(|name| name == ALPN))
            };
            hello.into_stream(self.identity.server_config(ours)).await
        };
        let done = tokio::time::timeout(TLS_LIMIT, shake).await;
        done.map_err(|_| (Step::Tls, format!("no TLS handshake within {TLS_LIMIT:?}")))?
            .map_err(|e| (Step::Tls, e.to_string()))
    }

    /// A peer that has proved who it is: judged, led to the program, and served to its end. `greets`
    /// while it waits for our first word.
    async fn serve_peer(
        &self,
        tls: &mut TlsStream<TcpStream>,
        peer: Peer,
        remote: SocketAddr,
        permit: OwnedSemaphorePermit,
        greets: &mut bool,
    ) -> Result<(), Refusal> {
        let from = peer.id.service().clone();
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
            if !*greets {
                shut(tls).await;
            }
            return Err((Step::Policy, verdict.to_string()));
        }
        let hello = match self.protocol {
            Protocol::Tcp => Vec::new(),
            Protocol::Erlang => {
                // The hello decides whether the VM may be dialled, so the word comes before it.
                self.go_on(tls, greets).await?;
                let hello =
                    connection.cut.run_until_cancelled(erlang::read_hello(tls, &from)).await;
                let Some(hello) = hello else { return Ok(()) };
                hello?
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
        if let Ok(address) = program.local_addr() {
            connection.comes_from(address);
        }
        self.go_on(tls, greets).await?;
        let progress = Arc::clone(&connection.progress);
        let mut tap = ConnectionTap::new(progress, self.protocol, self.service.as_str());
        if !hello.is_empty() {
            tap.seen(meshx_rt::Side::A, &hello);
            program.write_all(&hello).await.map_err(|e| (Step::Program, e.to_string()))?;
        }
        connection.opened();
        let ended = tokio::select! {
            () = connection.cut.cancelled() => return Ok(()),
            ended = relay(tls, &mut program, &mut tap) => ended,
        };
        if let Some(error) = &ended.error {
            tracing::debug!(source = %from, destination = %self.service, %error, "connection ended");
        }
        tap.failure(&ended).map_or(Ok(()), Err)
    }

    /// Says the first word to a peer that waits for it.
    async fn go_on(
        &self,
        tls: &mut TlsStream<TcpStream>,
        greets: &mut bool,
    ) -> Result<(), Refusal> {
        if std::mem::take(greets) {
            greeting::go_on(tls).await.map_err(|e| (Step::Tls, e.to_string()))?;
        }
        Ok(())
    }

    fn refuse(&self, remote: SocketAddr, source: Option<ServiceName>, refusal: Refusal) {
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
