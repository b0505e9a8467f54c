//! Serves functions on any number of listeners.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection::{self, Connection, Introduction, Limits, Service};
use crate::event::{Event, Observe, Side};
use crate::intercept::{Chain, Intercept};
use crate::policy::Policy;
use crate::proto::v2::{Algorithm, Key, PREFACE};
use crate::transport::{Listen, Stream};
use crate::{Error, Executed, Functions, Kind, listing, v1};

/// After an error the listener is asked again after this long.
const AGAIN: Duration = Duration::from_millis(50);
/// At once, if it was about one connection only; but not more often than that in a row.
pub(crate) const PATIENT: u32 = 64;

/// A server that is to be started.
///
/// ```
/// use meshx_rpc::{Client, Functions, Server, transport::Tcp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let functions = Functions::new().add("add", async |(a, b): (u32, u32)| Ok::<_, String>(a + b));
/// let listener = Tcp::listen("127.0.0.1:0".parse()?)?;
/// let address = listener.local_addr();
/// let server = Server::new(functions).listen(listener).start();
///
/// let client = Client::to(Tcp::to(address.to_string())).start();
/// assert_eq!(client.call::<_, u32>("add", &(2, 3)).await?, 5);
/// server.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it serves once it is started"]
pub struct Server {
    functions: Functions,
    policy: Option<Policy>,
    listing: bool,
    chain: Chain,
    listeners: Vec<Listener>,
    v1: Option<v1::ServerOptions>,
    own: Introduction,
    connections: usize,
    in_flight: usize,
    grace: Duration,
}

struct Listener(Box<dyn Listen>);

/// A server that runs. Dropping it stops it at once; [`Serving::stop`] lets calls end.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    /// Ends everything at once when it is dropped.
    _end: DropGuard,
    tasks: TaskTracker,
    grace: Duration,
}

impl Server {
    /// Of these functions, and no others.
    pub fn new(functions: Functions) -> Self {
        Self {
            functions,
            policy: None,
            listing: false,
            chain: Chain::default(),
            listeners: Vec::new(),
            v1: None,
            own: Introduction::default(),
            connections: 4096,
            in_flight: 65_536,
            grace: Duration::from_secs(20),
        }
    }

    /// Listens there, too.
    pub fn listen(mut self, listener: impl Listen) -> Self {
        self.listeners.push(Listener(Box::new(listener)));
        self
    }

    /// Who may call what. Without a policy everybody who can connect may call everything.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Tells callers which of the functions they may call, by two functions of its own
    /// ([`listing`]). By default nothing is told.
    pub fn listing(mut self, allowed: bool) -> Self {
        self.listing = allowed;
        self
    }

    /// Does something around every call that is let in ([`Intercept`]): the policy was asked before,
    /// and the function is there. Several nest in their order.
    pub fn intercept(mut self, interceptor: impl Intercept) -> Self {
        self.chain.add(interceptor);
        self
    }

    /// Serves Elixir programs with `meshx_rpc`, too, on the same listeners: who speaks version 1 is told
    /// by its first bytes. An error says which of the options contradict that protocol.
    pub fn also_v1(mut self, options: v1::ServerOptions) -> Result<Self, Error> {
        options.common.check()?;
        self.v1 = Some(options);
        Ok(self)
    }

    /// What the service and this node are called in events and logs, here and at clients.
    pub fn named(mut self, service: &str, node: &str) -> Self {
        service.clone_into(&mut self.own.svc_ref);
        node.clone_into(&mut self.own.node_ref);
        self
    }

    /// Clients must have this key: for use outside of a mesh.
    pub fn key(mut self, key: Key) -> Self {
        self.own.key = Some(key);
        self
    }

    /// The checksums that are accepted.
    pub fn checksums(mut self, algorithms: &[Algorithm]) -> Self {
        self.own.checksums = algorithms.to_vec();
        self
    }

    /// Compresses results, and takes compressed arguments.
    pub fn compress(mut self) -> Self {
        self.own.compress = true;
        self
    }

    /// What a connection may hold, and how long it waits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.own.limit(limits);
        self
    }

    /// So many connections at a time (4 096); more are closed.
    pub fn connections(mut self, limit: usize) -> Self {
        self.connections = limit;
        self
    }

    /// So many calls at a time (65 536), of all connections together; more are refused as
    /// [`Kind::Overloaded`].
    pub fn in_flight(mut self, limit: usize) -> Self {
        self.in_flight = limit;
        self
    }

    /// How long calls may take to end when the server stops (20 s).
    pub fn grace(mut self, grace: Duration) -> Self {
        // More than a GOAWAY can say is as good as for ever.
        self.grace = grace.min(Duration::from_millis(u32::MAX.into()));
        self
    }

    /// Is told what happens.
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.own.observers.add(Arc::new(observer));
        self
    }

    /// Serves, in tasks of the runtime.
    pub fn start(self) -> Serving {
        let Self { functions, policy, listing, listeners, v1, own, .. } = self;
        let (chain, connections, in_flight, grace) =
            (self.chain, self.connections, self.in_flight, self.grace);
        let functions = if listing { listing::with(functions, policy.clone()) } else { functions };
        let functions = functions.inside(&chain);
        let old = v1.and_then(|mut options| {
            if options.observers.is_empty() {
                options.observers = own.observers.clone();
            }
            let (functions, policy) = (functions.clone(), policy.clone());
            // The options were looked at when they were given.
            v1::Service::new(Arc::new(functions), policy.map(Arc::new), options).ok().map(Arc::new)
        });
        let places = Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS)));
        let service = Arc::new(Service { functions, policy, places });
        let seats = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let (stopped, ended) = (stop.clone(), end.clone());
        let house = House { service, old, own: Arc::new(own), seats, stopped, ended, grace };
        for Listener(listener) in listeners {
            tasks.spawn(house.clone().listen(listener, tasks.clone()));
        }
        tasks.close();
        Serving { stop, _end: end.drop_guard(), tasks, grace }
    }
}

impl Serving {
    /// Takes no more connections and calls, lets those that run end, and returns when that is so, or
    /// the time for it is over.
    pub async fn stop(self) {
        self.stop.cancel();
        drop(tokio::time::timeout(self.grace + AGAIN, self.tasks.wait()).await);
    }
}

/// Who has connected.
enum Greeted {
    V2(Arc<Connection>),
    /// What it said already belongs to it.
    V1(Arc<v1::Service>, Stream, BytesMut),
}

/// What every connection of a server shares.
#[derive(Debug, Clone)]
struct House {
    service: Arc<Service>,
    old: Option<Arc<v1::Service>>,
    own: Arc<Introduction>,
    seats: Arc<Semaphore>,
    stopped: CancellationToken,
    ended: CancellationToken,
    grace: Duration,
}

impl House {
    async fn listen(self, mut listener: Box<dyn Listen>, tasks: TaskTracker) {
        let mut in_a_row = 0_u32;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopped.cancelled() => return,
                () = self.ended.cancelled() => return,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(address = listener.address(), %error, "accepting failed");
                    in_a_row = in_a_row.saturating_add(1);
                    if !is_about_one(&error) || in_a_row > PATIENT {
                        tokio::time::sleep(AGAIN).await;
                    }
                    continue;
                }
            };
            in_a_row = 0;
            let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
                let reason = "the server has too many connections";
                let error = Error::new(Kind::Overloaded, Executed::Never, reason);
                let address = &stream.address;
                let side = Side::Server;
                self.own.observers.tell(&Event::HandshakeFailed { side, address, error: &error });
                continue;
            };
            let house = self.clone();
            tasks.spawn(async move {
                let _seat = seat;
                house.serve(stream).await;
            });
        }
    }

    async fn serve(self, stream: Stream) {
        let connection = tokio::select! {
            greeted = self.greet(stream) => greeted,
            () = self.stopped.cancelled() => return,
            () = self.ended.cancelled() => return,
        };
        let connection = match connection {
            Ok(Greeted::V2(connection)) => connection,
            Ok(Greeted::V1(old, stream, first)) => {
                let served = old.serve(stream, first, self.stopped.clone());
                tokio::select! {
                    () = served => {}
                    () = self.ended.cancelled() => {}
                }
                return;
            }
            // The event has told what went wrong.
            Err(_) => return,
        };
        let drained = async {
            self.stopped.cancelled().await;
            connection.drain(self.grace).await;
        };
        tokio::select! {
            () = connection.closed() => {}
            () = drained => {}
            () = self.ended.cancelled() => {
                let reason = "the server ended";
                connection.close(Error::new(Kind::Draining, Executed::Maybe, reason));
            }
        }
    }

    /// §1: by the first bytes.
    async fn greet(&self, mut stream: Stream) -> Result<Greeted, Error> {
        let mut buffer = BytesMut::with_capacity(1024);
        let limit = self.own.limits.handshake;
        let first = async {
            while self.is_short(&buffer) {
                if stream.read.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            }
            Some(())
        };
        let begun = tokio::time::timeout(limit, first).await.ok().flatten();
        if let (Some(old), [0..=3, _, 0xD2, ..]) = (&self.old, &buffer[..]) {
            return Ok(Greeted::V1(Arc::clone(old), stream, buffer));
        }
        if begun.is_none() || !buffer.starts_with(&PREFACE) {
            let reason = match begun {
                None => "it said nothing".to_owned(),
                Some(()) => format!("it is no client: it began with {}", shown(&buffer)),
            };
            let error = Error::new(Kind::Protocol, Executed::Never, reason).at(&stream.address);
            let (side, address) = (Side::Server, &*stream.address);
            self.own.observers.tell(&Event::HandshakeFailed { side, address, error: &error });
            return Err(error);
        }
        let rest = buffer.split_off(PREFACE.len());
        let service = Arc::clone(&self.service);
        connection::accept(stream, rest, &self.own, service).await.map(Greeted::V2)
    }

    /// Whether it cannot be told yet what is spoken.
    fn is_short(&self, first: &[u8]) -> bool {
        match first {
            [0..=3] | [0..=3, _] => self.old.is_some(),
            first => first.len() < PREFACE.len() && PREFACE.starts_with(first),
        }
    }
}

/// Whether others can be accepted nevertheless: a client that went away before its turn must not hold
/// up those behind it.
pub(crate) fn is_about_one(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::InvalidInput
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::Interrupted
    )
}

/// What else dials a port.
fn shown(bytes: &[u8]) -> String {
    match bytes {
        [0x16, 3, ..] => "a TLS handshake".to_owned(),
        [b'G', b'E', b'T', b' ', ..] | [b'P', b'R', b'I', b' ', ..] => "HTTP".to_owned(),
        [0..=3, _, 0xD2, ..] => "MeshxRpc's version 1, which is not served here".to_owned(),
        other => format!("{:02x?}", other.get(..other.len().min(4)).unwrap_or_default()),
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.0.address()).finish()
    }
}
