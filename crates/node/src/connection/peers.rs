//! Which nodes are connected, which are being dialled, and who is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use meshx_dist::handshake::Status;
use meshx_etf::Atom;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{Connection, lock};
use crate::node::NodeEvent;

/// So many events wait for who reads them slowly; then the oldest are lost to him.
const EVENTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Peers {
    known: Mutex<HashMap<Atom, Peer>>,
    /// Connections that are up, or were and whose end is being told.
    numbered: Mutex<HashMap<u64, Arc<Connection>>>,
    events: broadcast::Sender<NodeEvent>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Peer {
    up: Option<Up>,
    dialling: Option<Dialling>,
}

#[derive(Debug)]
struct Up {
    connection: Arc<Connection>,
    /// Whether we dialled.
    ours: bool,
    /// Resolves when all that depended on the connection was told of its end.
    gone: CancellationToken,
}

#[derive(Debug, Clone)]
struct Dialling {
    attempt: u64,
    /// Resolves when the attempt is over, whatever came of it.
    over: CancellationToken,
}

/// What who wants a connection should do.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Nothing: it is there.
    Up(Arc<Connection>),
    /// Wait, and ask again: somebody dials already.
    Wait(CancellationToken),
    /// Dial.
    Dial(Attempt),
}

/// The right to dial a node, until it is dropped.
#[derive(Debug)]
pub(crate) struct Attempt {
    peers: Arc<Peers>,
    node: Atom,
    number: u64,
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

    pub(crate) fn up_to(&self, node: &str) -> Option<Arc<Connection>> {
        let known = lock(&self.known);
        known.get(node)?.up.as_ref().map(|up| Arc::clone(&up.connection))
    }

    pub(crate) fn numbered(&self, id: u64) -> Option<Arc<Connection>> {
        lock(&self.numbered).get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        let known = lock(&self.known);
        let up = known.values().filter_map(|peer| peer.up.as_ref());
        up.map(|up| Arc::clone(&up.connection)).collect()
    }

    pub(crate) fn begin(self: &Arc<Self>, node: &Atom) -> Begin {
        let mut known = lock(&self.known);
        let peer = known.entry(node.clone()).or_default();
        if let Some(up) = &peer.up {
            return Begin::Up(Arc::clone(&up.connection));
        }
        if let Some(dialling) = &peer.dialling {
            return Begin::Wait(dialling.over.clone());
        }
        let number = self.number();
        peer.dialling = Some(Dialling { attempt: number, over: CancellationToken::new() });
        Begin::Dial(Attempt { peers: Arc::clone(self), node: node.clone(), number })
    }

    /// What a hello of `node` is to be answered (`erl_dist_protocol`, "Distribution Handshake", step
    /// 3): of two attempts that meet, that of the greater name goes on.
    pub(crate) fn status(&self, node: &Atom, own: &str) -> Status {
        let known = lock(&self.known);
        match known.get(node) {
            Some(Peer { up: Some(_), .. }) => Status::Alive,
            Some(Peer { dialling: Some(_), .. }) if own.as_bytes() > node.as_bytes() => Status::Nok,
            Some(Peer { dialling: Some(_), .. }) => Status::OkSimultaneous,
            _ => Status::Ok,
        }
    }

    /// A handshake is finished; its connection becomes the one to that node, or does not.
    pub(crate) fn admit(
        &self,
        connection: &Arc<Connection>,
        origin: Origin,
        own: &str,
    ) -> Admission {
        let mut known = lock(&self.known);
        let peer = known.entry(connection.name().clone()).or_default();
        if let Some(up) = &peer.up {
            // Two that were made at the same time: both sides keep the one of the greater name. The
            // newer one counts if that does not decide.
            let own_is_greater = own.as_bytes() > connection.name().as_bytes();
            let keep = up.ours != origin.ours && up.ours == own_is_greater;
            if keep && !origin.takes_over {
                return Admission::Duplicate;
            }
            return Admission::Replace(Arc::clone(&up.connection), up.gone.clone());
        }
        let gone = CancellationToken::new();
        lock(&self.numbered).insert(connection.id, Arc::clone(connection));
        peer.up = Some(Up { connection: Arc::clone(connection), ours: origin.ours, gone });
        if let Some(dialling) = peer.dialling.take() {
            dialling.over.cancel();
        }
        self.tell(NodeEvent::Up {
            node: connection.name().clone(),
            hidden: connection.is_hidden(),
            creation: connection.peer.creation(),
        });
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
        let Some(peer) = known.get_mut(connection.name()) else { return };
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
        if peer.dialling.is_none() {
            known.remove(connection.name());
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut known = lock(&self.peers.known);
        let Some(peer) = known.get_mut(&self.node) else { return };
        if peer.dialling.as_ref().is_some_and(|it| it.attempt == self.number)
            && let Some(dialling) = peer.dialling.take()
        {
            dialling.over.cancel();
        }
        if peer.up.is_none() && peer.dialling.is_none() {
            known.remove(&self.node);
        }
    }
}
