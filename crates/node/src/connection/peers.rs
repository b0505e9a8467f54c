//! Which nodes are connected, which are being dialled, and who is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use meshx_dist::handshake::{Status, answer_to_simultaneous};
use meshx_etf::Atom;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{Connection, lock};
use crate::error::ConnectError;
use crate::node::NodeEvent;

/// So many events wait for who reads them slowly; then the oldest are lost to him.
const EVENTS: usize = 1024;

/// What came of an attempt to dial.
pub(crate) type Dialled = Result<Arc<Connection>, ConnectError>;

#[derive(Debug)]
pub(crate) struct Peers {
    known: Mutex<Known>,
    /// Connections that are up, or were and whose end is being told.
    numbered: Mutex<HashMap<u64, Arc<Connection>>>,
    /// Some node is connected now, or a handshake that it began is over.
    changed: Notify,
    events: broadcast::Sender<NodeEvent>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    peers: HashMap<Atom, Peer>,
    /// The node stops: there are no new connections.
    stopped: bool,
}

#[derive(Debug, Default)]
struct Peer {
    up: Option<Up>,
    dialling: Option<Dialling>,
    /// How many handshakes that it began are not over.
    answering: usize,
}

#[derive(Debug)]
struct Up {
    connection: Arc<Connection>,
    /// Whether we dialled.
    ours: bool,
    /// Resolves when all that depended on the connection was told of its end.
    gone: CancellationToken,
}

#[derive(Debug)]
struct Dialling {
    attempt: u64,
    /// Resolves when a handshake that the peer began counts in place of this attempt.
    superseded: CancellationToken,
    done: watch::Receiver<Option<Dialled>>,
}

/// What who wants a connection should do.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Nothing: it is there.
    Up(Arc<Connection>),
    /// Wait until the connection that was there is gone for all, and ask again.
    Gone(CancellationToken),
    /// Wait: somebody dials already. If nothing comes of it, ask again.
    Wait(watch::Receiver<Option<Dialled>>),
    /// Wait a moment: the peer is about to be connected by a handshake of its own.
    Incoming,
    /// Dial.
    Dial(Attempt),
    /// The node stops.
    Stopping,
}

/// The right to dial a node, until it is dropped.
#[derive(Debug)]
pub(crate) struct Attempt {
    peers: Arc<Peers>,
    node: Atom,
    number: u64,
    done: watch::Sender<Option<Dialled>>,
}

/// A handshake that a peer began, until this is dropped.
#[derive(Debug)]
pub(crate) struct Answering {
    peers: Arc<Peers>,
    node: Atom,
}

/// How it stands with a connection that the peer makes.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// It is there.
    Up(Arc<Connection>),
    /// There is a handshake.
    Underway,
    /// There is none.
    Nothing,
}

/// What is to be done with a finished handshake.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The connection is up.
    Up,
    /// First this one must be gone: close it, wait for the token, and ask again.
    Replace(Arc<Connection>, CancellationToken),
    /// Another connection was made meanwhile, and is the one to keep.
    Duplicate,
    /// The node stops.
    Stopping,
}

/// How a handshake came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Whether we dialled.
    pub(crate) ours: bool,
    /// Whether the initiator has said that a connection that the acceptor still had is dead.
    pub(crate) takes_over: bool,
}

impl Peers {
    pub(crate) fn new() -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENTS);
        // No connection has number 0: that stands for one that never was.
        Arc::new(Self {
            known: Mutex::default(),
            numbered: Mutex::default(),
            changed: Notify::new(),
            events,
            next: AtomicU64::new(1),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.subscribe()
    }

    /// The connection to that node, unless it is about to end.
    pub(crate) fn up_to(&self, node: &str) -> Option<Arc<Connection>> {
        let known = lock(&self.known);
        let up = known.peers.get(node)?.up.as_ref();
        up.map(|up| Arc::clone(&up.connection)).filter(|it| !it.is_closing())
    }

    pub(crate) fn numbered(&self, id: u64) -> Option<Arc<Connection>> {
        lock(&self.numbered).get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.known).all()
    }

    /// From now on no connection comes up; gives those that are.
    pub(crate) fn stop(&self) -> Vec<Arc<Connection>> {
        let mut known = lock(&self.known);
        known.stopped = true;
        known.all()
    }

    /// What to do for a connection to that node. With `alone`, a handshake that the node began is not
    /// waited for.
    pub(crate) fn begin(self: &Arc<Self>, node: &Atom, alone: bool) -> Begin {
        let mut known = lock(&self.known);
        if known.stopped {
            return Begin::Stopping;
        }
        let peer = known.peers.entry(node.clone()).or_default();
        if let Some(up) = &peer.up {
            if up.connection.is_closing() {
                return Begin::Gone(up.gone.clone());
            }
            return Begin::Up(Arc::clone(&up.connection));
        }
        if let Some(dialling) = &peer.dialling {
            return Begin::Wait(dialling.done.clone());
        }
        if peer.answering > 0 && !alone {
            return Begin::Incoming;
        }
        let number = self.number();
        let (done, receiver) = watch::channel(None);
        let superseded = CancellationToken::new();
        peer.dialling = Some(Dialling { attempt: number, superseded, done: receiver });
        Begin::Dial(Attempt { peers: Arc::clone(self), node: node.clone(), number, done })
    }

    /// What a hello of `node` is to be answered (`erl_dist_protocol`, "Distribution Handshake", step
    /// 3): of two attempts that meet, that of the greater name goes on, and ours is told so.
    pub(crate) fn answer(self: &Arc<Self>, node: &Atom, own: &str) -> (Status, Answering) {
        let mut known = lock(&self.known);
        let peer = known.peers.entry(node.clone()).or_default();
        peer.answering = peer.answering.saturating_add(1);
        let status = match (&peer.up, &peer.dialling) {
            (Some(up), _) if !up.connection.is_closing() => Status::Alive,
            (None, Some(dialling)) => {
                let status = answer_to_simultaneous(own, node);
                if status == Status::OkSimultaneous {
                    dialling.superseded.cancel();
                }
                status
            }
            (Some(_) | None, _) => Status::Ok,
        };
        (status, Answering { peers: Arc::clone(self), node: node.clone() })
    }

    /// How it stands with a connection that the peer makes.
    pub(crate) fn awaited(&self, node: &Atom) -> Awaited {
        let known = lock(&self.known);
        match known.peers.get(node) {
            Some(Peer { up: Some(up), .. }) => Awaited::Up(Arc::clone(&up.connection)),
            Some(Peer { answering: 1.., .. }) => Awaited::Underway,
            _ => Awaited::Nothing,
        }
    }

    /// Resolves when some node was connected, or a handshake that it began is over. To be called
    /// before one looks at what may have changed.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// A handshake is finished; its connection becomes the one to that node, or does not.
    pub(crate) fn admit(
        &self,
        connection: &Arc<Connection>,
        origin: Origin,
        own: &str,
    ) -> Admission {
        let mut known = lock(&self.known);
        if known.stopped {
            return Admission::Stopping;
        }
        let peer = known.peers.entry(connection.name().clone()).or_default();
        if let Some(up) = &peer.up {
            // Two that were made at the same time: both sides keep the one of the greater name. The
            // newer one counts if that does not decide.
            let own_is_greater = own.as_bytes() > connection.name().as_bytes();
            let keep = up.ours != origin.ours && up.ours == own_is_greater;
            if keep && !origin.takes_over && !up.connection.is_closing() {
                return Admission::Duplicate;
            }
            return Admission::Replace(Arc::clone(&up.connection), up.gone.clone());
        }
        let gone = CancellationToken::new();
        lock(&self.numbered).insert(connection.id, Arc::clone(connection));
        peer.up = Some(Up { connection: Arc::clone(connection), ours: origin.ours, gone });
        if let Some(dialling) = peer.dialling.as_ref().filter(|_| !origin.ours) {
            dialling.superseded.cancel();
        }
        self.tell(NodeEvent::Up {
            node: connection.name().clone(),
            hidden: connection.is_hidden(),
            creation: connection.peer.creation(),
        });
        self.changed.notify_waiters();
        Admission::Up
    }

    /// Nobody may listen.
    fn tell(&self, event: NodeEvent) {
        drop(self.events.send(event));
    }

    /// A connection that was up is gone, and everyone was told.
    pub(crate) fn down(&self, connection: &Connection) {
        lock(&self.numbered).remove(&connection.id);
        let mut known = lock(&self.known);
        let Some(peer) = known.peers.get_mut(connection.name()) else { return };
        if peer.up.as_ref().is_none_or(|up| up.connection.id != connection.id) {
            return;
        }
        if let Some(up) = peer.up.take() {
            self.tell(NodeEvent::Down {
                node: connection.name().clone(),
                hidden: connection.is_hidden(),
                reason: connection.why(),
            });
            up.gone.cancel();
        }
        known.tidy(connection.name());
    }
}

impl Known {
    fn all(&self) -> Vec<Arc<Connection>> {
        let up = self.peers.values().filter_map(|peer| peer.up.as_ref());
        up.map(|up| Arc::clone(&up.connection)).collect()
    }

    /// Forgets a node with which there is nothing any more.
    fn tidy(&mut self, node: &Atom) {
        if let Some(Peer { up: None, dialling: None, answering: 0 }) = self.peers.get(node) {
            self.peers.remove(node);
        }
    }
}

impl Attempt {
    /// Resolves when a handshake that the peer began counts in place of this attempt.
    pub(crate) fn superseded(&self) -> CancellationToken {
        let known = lock(&self.peers.known);
        let dialling = known.peers.get(&self.node).and_then(|peer| peer.dialling.as_ref());
        dialling.map(|it| it.superseded.clone()).unwrap_or_default()
    }

    /// Nothing came of the peer's handshake: this attempt counts again.
    pub(crate) fn again(&self) {
        let mut known = lock(&self.peers.known);
        let peer = known.peers.get_mut(&self.node);
        if let Some(dialling) = peer.and_then(|peer| peer.dialling.as_mut()) {
            dialling.superseded = CancellationToken::new();
        }
    }

    /// The attempt is over; who waits for it is told.
    pub(crate) fn finish(self, dialled: &Dialled) {
        self.forget();
        // Nobody may wait.
        drop(self.done.send(Some(dialled.clone())));
    }

    fn forget(&self) {
        let mut known = lock(&self.peers.known);
        let Some(peer) = known.peers.get_mut(&self.node) else { return };
        if peer.dialling.as_ref().is_some_and(|it| it.attempt == self.number) {
            peer.dialling = None;
            known.tidy(&self.node);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut known = lock(&self.peers.known);
        if let Some(peer) = known.peers.get_mut(&self.node) {
            peer.answering = peer.answering.saturating_sub(1);
        }
        known.tidy(&self.node);
        drop(known);
        self.peers.changed.notify_waiters();
    }
}
