//! The program goes out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshx_core::{Endpoint, IntentionSet, ServiceName};
use meshx_identity::{Identity, Peer};
use meshx_rt::{Ended, net, relay};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsConnector, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connections::NewConnection;
use crate::greeting::{self, Answer};
use crate::tap::ConnectionTap;
use crate::{
    CONNECT_LIMIT, Connections, Direction, Event, FIND_LIMIT, Journal, Outcome, Protocol, Step,
};

/// An instance that refused is passed over for this long, unless there is no other.
const EJECTED: Duration = Duration::from_secs(5);

/// What the control plane last said of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointView {
    /// The passing instances. The last good answer stays when the control plane is away.
    pub endpoints: Vec<Endpoint>,
    /// True when the service has instances, passing or not.
    pub registered: bool,
}

impl EndpointView {
    /// A view of these passing endpoints.
    pub fn new(endpoints: Vec<Endpoint>, registered: bool) -> Self {
        Self { endpoints, registered }
    }
}

/// The local listener of one upstream.
pub(crate) struct Outbound {
    pub(crate) source: ServiceName,
    pub(crate) destination: ServiceName,
    pub(crate) protocol: Protocol,
    pub(crate) identity: Identity,
    pub(crate) policy: watch::Receiver<Arc<IntentionSet>>,
    pub(crate) endpoints: watch::Receiver<EndpointView>,
    pub(crate) connections: Connections,
    pub(crate) journal: Journal,
    pub(crate) turn: AtomicUsize,
    pub(crate) ejected: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Outbound {
    /// Accepts until `stop`. Connections under way go on in `tasks`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((mut stream, remote)) => {
                    let this = Arc::clone(&self);
                    tasks.spawn(async move {
                        let led = this.connections.run(this.lead(&mut stream, remote)).await;
                        // First the reason, then the end: who sees the end may ask for the reason.
                        if let Some(Err((step, detail))) = led {
                            this.refuse(remote, step, detail);
                        }
                        drop(stream);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Leads one connection of the program to an instance.
    async fn lead(
        &self,
        program: &mut TcpStream,
        remote: SocketAddr,
    ) -> Result<(), (Step, String)> {
        net::tune(program).map_err(|e| (Step::Program, e.to_string()))?;
        let verdict = self.policy.borrow().judge(&self.source, &self.destination);
        if !verdict.is_allowed() {
            return Err((Step::Policy, verdict.to_string()));
        }
        let (mut tls, endpoint) = self.find().await?;
        let ours = self.identity.id();
        let peer = Peer::of(tls.get_ref().1, ours.trust_domain())
            .map_err(|e| (Step::Identity, e.to_string()))?;
        let connection = self
            .connections
            .enter(NewConnection {
                direction: Direction::Outbound,
                source: self.source.clone(),
                destination: self.destination.clone(),
                peer,
                remote: endpoint.address.to_string(),
            })
            .ok_or_else(|| (Step::Overload, "too many connections".to_owned()))?;
        let verdict = self.policy.borrow().judge(&self.source, &self.destination);
        if !verdict.is_allowed() {
            return Err((Step::Policy, verdict.to_string()));
        }
        connection.opened();
        let wanted = self.destination.as_str();
        let mut tap = ConnectionTap::new(Arc::clone(&connection.progress), self.protocol, wanted);
        let ended = tokio::select! {
            () = connection.cut.cancelled() => return Ok(()),
            ended = relay(program, &mut tls, &mut tap) => ended,
        };
        if let Some(error) = &ended.error {
            tracing::debug!(%remote, destination = %self.destination, %error, "connection ended");
        }
        if let Some(alert) = alert(&ended)
            && connection.progress.received.load(Ordering::Relaxed) == 0
        {
            // In TLS 1.3 the one who dials is done before the other side has judged it.
            let (id, address, source) = (&endpoint.id, endpoint.address, &self.source);
            let detail = format!(
                "the sidecar of {id} at {address} refused the certificate of {source}: {alert}"
            );
            return Err((Step::Tls, detail));
        }
        tap.failure(&ended).map_or(Ok(()), Err)
    }

    /// Tries the instances in turn until one admits us, for up to [`FIND_LIMIT`].
    ///
    /// No byte of the program has been forwarded yet, so the next instance may always be tried.
    async fn find(&self) -> Result<(TlsStream<TcpStream>, Endpoint), (Step, String)> {
        let view = self.endpoints.borrow().clone();
        if view.endpoints.is_empty() {
            let name = &self.destination;
            return Err(if view.registered {
                (Step::Health, format!("{name} is registered, but no instance is passing"))
            } else {
                (Step::Name, format!("no service `{name}` is registered"))
            });
        }
        let deadline = Instant::now() + FIND_LIMIT;
        let mut last = (Step::Reach, format!("no instance answered within {FIND_LIMIT:?}"));
        let mut others = view.endpoints.len();
        for endpoint in self.in_turn(view.endpoints) {
            others -= 1;
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            // One that says nothing must leave time for the others.
            let until = if others == 0 { deadline } else { deadline.min(now + CONNECT_LIMIT) };
            match self.reach(&endpoint, until).await {
                Ok(stream) => return Ok((stream, endpoint)),
                // Every instance would say the same.
                Err(failure) if failure.0 == Step::Policy => return Err(failure),
                Err(failure) => {
                    tracing::debug!(address = %endpoint.address, reason = %failure.1, "ejected");
                    self.eject(endpoint.address);
                    last = failure;
                }
            }
        }
        Err(last)
    }

    /// The instances in the order in which they are tried: round robin, the ejected last.
    fn in_turn(&self, mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % endpoints.len();
        endpoints.rotate_left(turn);
        let mut ejected = self.ejected.lock().unwrap_or_else(PoisonError::into_inner);
        ejected.retain(|_, until| *until > Instant::now());
        endpoints.sort_by_key(|endpoint| ejected.contains_key(&endpoint.address));
        endpoints
    }

    fn eject(&self, address: SocketAddr) {
        let mut ejected = self.ejected.lock().unwrap_or_else(PoisonError::into_inner);
        ejected.insert(address, Instant::now() + EJECTED);
    }

    async fn reach(
        &self,
        endpoint: &Endpoint,
        until: Instant,
    ) -> Result<TlsStream<TcpStream>, (Step, String)> {
        let address = endpoint.address;
        let said =
            |e: &dyn std::fmt::Display| format!("the sidecar of {} at {address}: {e}", endpoint.id);
        let limit = until.saturating_duration_since(Instant::now());
        let stream = net::dial(address, limit.min(CONNECT_LIMIT))
            .await
            .map_err(|e| (Step::Reach, said(&e)))?;
        let config = self
            .identity
            .client_config(&self.destination, &endpoint.datacenter)
            .map_err(|e| (Step::Tls, e.to_string()))?;
        // Required by the library, not sent and not checked: certificates name services.
        let unused = ServerName::from(address.ip());
        let mut tls = timeout_at(until, TlsConnector::from(config).connect(unused, stream))
            .await
            .map_err(|_| (Step::Tls, said(&format!("no TLS handshake within {limit:.0?}"))))?
            .map_err(|e| {
                let (step, reason) = tls_failure(&e);
                (step, said(&reason))
            })?;
        if greeting::agreed(tls.get_ref().1) {
            let answer = timeout_at(until, greeting::read(&mut tls))
                .await
                .map_err(|_| (Step::Handshake, said(&format!("no word within {limit:.0?}"))))?;
            match answer {
                Ok(Answer::GoOn) => {}
                Ok(Answer::Refused(step, detail)) => return Err((step, said(&detail))),
                Err(error) => {
                    // In TLS 1.3 the one who dials is done before the other side has judged it.
                    let (step, reason) = tls_failure(&error);
                    let detail = format!("it refused the certificate of {}: {reason}", self.source);
                    return Err((step, said(&detail)));
                }
            }
        }
        Ok(tls)
    }

    fn refuse(&self, remote: SocketAddr, step: Step, detail: String) {
        self.journal.add(Event::now(
            Direction::Outbound,
            Some(self.source.to_string()),
            self.destination.to_string(),
            Some(remote.to_string()),
            Outcome::Refused { step, detail },
        ));
    }
}

/// The peer's own word for why it ended the connection, if it gave one.
fn alert(ended: &Ended) -> Option<String> {
    match rustls_error(ended.error.as_ref()?) {
        Some(rustls::Error::AlertReceived(alert)) => Some(format!("{alert:?}")),
        _ => None,
    }
}

fn rustls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A handshake that failed on the peer's name is about identity; the rest is about TLS.
fn tls_failure(error: &std::io::Error) -> (Step, String) {
    use rustls::{CertificateError, Error};
    match rustls_error(error) {
        Some(Error::InvalidCertificate(CertificateError::Other(reason))) => {
            (Step::Identity, reason.0.to_string())
        }
        _ => (Step::Tls, error.to_string()),
    }
}
