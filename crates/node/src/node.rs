//! The node.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use meshx_dist::handshake::{Flags, Local, Status};
use meshx_etf::{Atom, Node as NodeId, Pid, Reference, Term, term};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::{Builder, Config};
use crate::connection::{Answering, Connection, Peers, dial};
use crate::error::ConnectError;
use crate::keep::{Kept, keep};
use crate::process::{Cell, Mailbox, Table, Via};
use crate::spawned::Functions;
use crate::to::To;

/// An Erlang node in this program. Cheap to clone; clones are the same node.
///
/// It lives until [`Node::stop`], or until the runtime ends; dropping the last clone does not end it,
/// as its processes and connections hold it, too.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// What happens to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A node is connected.
    Up {
        /// Its name.
        node: Atom,
        /// Whether the connection is a hidden one.
        hidden: bool,
        /// Which run of that node it is.
        creation: u32,
    },
    /// A node is not connected any more.
    Down {
        /// Its name.
        node: Atom,
        /// Whether the connection was a hidden one.
        hidden: bool,
        /// Why, for people.
        reason: String,
    },
}

/// A connected node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its name.
    pub name: Atom,
    /// Which run of it.
    pub creation: u32,
    /// Whether the connection is a hidden one.
    pub hidden: bool,
    /// What both sides can do.
    pub flags: Flags,
    /// What it says that it can do; with `PUBLISHED` it is a visible node, whatever the connection is.
    pub offered: Flags,
    /// Since when.
    pub since: Instant,
    /// Bytes that came from it.
    pub read: u64,
    /// Bytes that went to it.
    pub written: u64,
}

pub(crate) struct Inner {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) processes: Table,
    pub(crate) peers: Arc<Peers>,
    pub(crate) functions: Functions,
    pub(crate) scopes: crate::pg::Scopes,
    pub(crate) global: crate::global::Part,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    counter: AtomicU64,
    linking: Mutex<()>,
    /// On whose behalf calls are made that no process makes.
    client: Mutex<Option<Arc<Cell>>>,
}

impl Node {
    /// A node of this name, `name@host`, to be set up.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    /// A node that has no name yet, to be set up: the node `from` gives it one at `host`, which is of the
    /// form of that node's own (`-name undefined`; `erl_dist_protocol`, `NAME_ME`).
    ///
    /// Starting it connects to that node first, and fails if that is not there. It is hidden, whatever is
    /// said, and does not listen: nobody finds it, and others reach it where it has connected. It connects
    /// to whomever it likes, and has its name for as long as it is connected to anybody: a stock VM gives
    /// it to the next who asks when this one is gone. When the last connection is lost the node stops, as
    /// by [`Node::stop`], where a VM becomes `nonode@nohost`; another one may be started.
    ///
    /// A [`Mesh`] cannot carry it: there, nodes have certificates of their names before they speak.
    ///
    /// [`Mesh`]: crate::carrier::Mesh
    pub fn dynamic(host: impl Into<String>, from: impl Into<String>) -> Builder {
        Builder::named_by(host.into(), from.into())
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Its name.
    pub fn name(&self) -> &Atom {
        self.inner.id.name()
    }

    /// Which run of the node this is: another one after each start.
    pub fn creation(&self) -> u32 {
        self.inner.id.creation()
    }

    /// Where it listens, for people: one address for each carrier, in their order.
    pub fn addresses(&self) -> &[String] {
        &self.inner.config.addresses
    }

    /// Connects to a node; at once if it is connected already.
    pub async fn connect(&self, node: &str) -> Result<(), ConnectError> {
        let name = Atom::new(node).map_err(|_| ConnectError::Name(node.to_owned()))?;
        if name == *self.name() {
            return Ok(());
        }
        dial(&self.inner, &name).await.map(|_| ())
    }

    /// Connects to a node, and again whenever the connection is lost, this node's own
    /// [`Node::disconnect`] included, until what is returned is dropped or this node stops.
    ///
    /// The first attempt begins at once; after a loss or a failure the next one follows within 0.2 s,
    /// then later and later, at most 3 s, each at random between half of that and all. An error only if
    /// that is no node name.
    pub fn keep(&self, node: &str) -> Result<Kept, ConnectError> {
        let name = || ConnectError::Name(node.to_owned());
        meshx_dist::name::split(node).map_err(|_| name())?;
        Ok(keep(&self.inner, Atom::new(node).map_err(|_| name())?))
    }

    /// Ends the connection to a node; false if there is none.
    pub fn disconnect(&self, node: &str) -> bool {
        let connection = self.inner.peers.up_to(node);
        connection.inspect(|it| it.close("this node disconnected")).is_some()
    }

    /// The visible nodes that are connected, as `nodes/0`.
    pub fn nodes(&self) -> Vec<Atom> {
        let visible = self.peers().into_iter().filter(|peer| !peer.hidden);
        visible.map(|peer| peer.name).collect()
    }

    /// All connected nodes, hidden ones, too.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let info = |it: Arc<Connection>| {
            let (read, written) = it.traffic();
            PeerInfo {
                name: it.name().clone(),
                creation: it.peer.creation(),
                hidden: it.is_hidden(),
                flags: it.flags,
                offered: it.offered,
                since: it.since,
                read,
                written,
            }
        };
        self.inner.peers.all().into_iter().map(info).collect()
    }

    /// Whether that node is connected, or is this one.
    pub fn is_connected(&self, node: &str) -> bool {
        *self.name() == node || self.inner.peers.up_to(node).is_some()
    }

    /// What happens to other nodes from now on, as `net_kernel:monitor_nodes/2` for all types. Who
    /// falls 1024 events behind loses the oldest, and is told how many.
    pub fn monitor_nodes(&self) -> broadcast::Receiver<NodeEvent> {
        self.inner.peers.events()
    }

    /// A new process that this program is itself. An error only if there are a million already; of a
    /// node that stops, it has ended.
    pub fn mailbox(&self) -> Result<Mailbox, TooManyProcesses> {
        let cell = self.inner.process().ok_or(TooManyProcesses)?;
        Ok(Mailbox::new(Arc::clone(&self.inner), cell))
    }

    /// Starts a process. It ends with the reason `normal` when the future does, with `panic` if
    /// that panics; an exit signal that ends the process drops the future where it is.
    pub fn spawn<F>(&self, run: impl FnOnce(Mailbox) -> F) -> Result<Pid, TooManyProcesses>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mailbox = self.mailbox()?;
        let pid = mailbox.pid().clone();
        self.inner.run(mailbox, run);
        Ok(pid)
    }

    /// The process that has this name.
    pub fn whereis(&self, name: &str) -> Option<Pid> {
        self.inner.processes.named(name).map(|cell| cell.pid.clone())
    }

    /// All registered names.
    pub fn registered(&self) -> Vec<Atom> {
        self.inner.processes.names()
    }

    /// How many processes there are.
    pub fn process_count(&self) -> usize {
        self.inner.processes.len()
    }

    /// Stops the node: no more connections, every process ends with `shutdown`, what was sent is
    /// written out for at most five seconds, and the connections are closed.
    pub async fn stop(&self) {
        self.inner.shut_down().await;
    }
}

/// As many processes as a node can have are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has as many processes as it can have")]
pub struct TooManyProcesses;

impl Inner {
    pub(crate) fn new(id: NodeId, config: Config) -> Self {
        Self {
            processes: Table::new(id.clone(), config.mailbox_limit),
            id,
            config,
            peers: Peers::new(),
            functions: Functions::default(),
            scopes: crate::pg::Scopes::default(),
            global: crate::global::Part::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            counter: AtomicU64::new(u64::from(meshx_rt::random::u32())),
            linking: Mutex::default(),
            client: Mutex::default(),
        }
    }

    /// The connection over which something is to be sent.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        node: &Atom,
    ) -> Result<Arc<Connection>, ConnectError> {
        match self.peers.up_to(node) {
            Some(connection) => Ok(connection),
            None if self.config.auto_connect => dial(self, node).await,
            None => Err(ConnectError::NotConnected(node.clone())),
        }
    }

    /// A new process; `None` if there are too many. It ends with the node, if that stops at this moment,
    /// too.
    pub(crate) fn process(&self) -> Option<Arc<Cell>> {
        let cell = self.processes.insert()?;
        if self.stop.is_cancelled() {
            self.finish(&cell, term!(shutdown));
        }
        Some(cell)
    }

    /// Runs a process until it ends, one way or the other.
    pub(crate) fn run<F>(self: &Arc<Self>, mailbox: Mailbox, run: impl FnOnce(Mailbox) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cell = Arc::clone(mailbox.cell());
        let running = run(mailbox);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = cell.ended.cancelled() => {}
                () = running => {}
            }
        });
    }

    /// Who calls where no process does.
    pub(crate) fn client(&self) -> Result<Arc<Cell>, TooManyProcesses> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody ends it before the node stops.
        if let Some(client) = client.as_ref().filter(|it| !it.ended.is_cancelled()) {
            return Ok(Arc::clone(client));
        }
        let new = self.process().ok_or(TooManyProcesses)?;
        new.only_answers();
        Ok(Arc::clone(client.insert(new)))
    }

    /// What we say of ourselves to `peer`.
    pub(crate) fn local(&self, peer: &str) -> Local {
        Local {
            name: self.id.name().as_str().to_owned(),
            flags: self.config.flags(),
            creation: self.id.creation(),
            cookie: self.config.cookies.of(peer),
        }
    }

    /// The answer to a hello with this name, from who is surely `identity` if that is known.
    pub(crate) fn admits(&self, name: &str, identity: Option<&str>) -> (Status, Option<Answering>) {
        let Ok(atom) = Atom::new(name) else { return (Status::NotAllowed, None) };
        let refused = meshx_dist::name::split(name).is_err()
            || *self.id.name() == name
            || identity.is_some_and(|identity| identity != name)
            || self.stop.is_cancelled()
            || !self.config.allows(name);
        if refused {
            return (Status::NotAllowed, None);
        }
        let (status, answering) = self.peers.answer(&atom, self.id.name());
        (status, Some(answering))
    }

    /// A name for a node of that host which has none; not for who is surely `identity`, as that is one.
    pub(crate) fn name_for(&self, host: &str, identity: Option<&str>) -> Status {
        let name = format!("{}@{host}", meshx_rt::random::hex(16).to_uppercase());
        let refused = meshx_dist::name::split(&name).is_err()
            || identity.is_some()
            || self.stop.is_cancelled()
            || !self.config.allows(&name);
        if refused {
            return Status::NotAllowed;
        }
        Status::Named { name, creation: fresh_creation() }
    }

    /// Both sides of a link between processes here must agree: one link is made, or taken back, at a
    /// time.
    pub(crate) fn linking(&self) -> MutexGuard<'_, ()> {
        self.linking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reference that is not used again, and tells whose it is.
    pub(crate) fn reference(&self, of: &Pid) -> Reference {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        // The first word has 18 bits for every VM.
        let high = u32::try_from((count >> 18) & 0xffff_ffff).unwrap_or_default();
        let words = [u32::try_from(count & 0x3_ffff).unwrap_or_default(), high, of.id];
        Reference::new(self.id.clone(), &words).unwrap_or_else(|| unreachable!("three are few"))
    }

    /// Who made that reference, as an alias say, if it lives.
    pub(crate) fn holder(&self, reference: &Reference) -> Option<Arc<Cell>> {
        let ours = *reference.node() == self.id;
        let &[_, _, id] = reference.words() else { return None };
        self.processes.numbered(id).filter(|_| ours)
    }

    pub(crate) fn unlink_id(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed).max(1)
    }

    /// The node where that is, if it is another one.
    pub(crate) fn elsewhere(&self, to: &To) -> Option<Atom> {
        to.node().filter(|node| *node != self.id.name()).cloned()
    }

    /// Does something with a connection, if it is still there.
    pub(crate) fn over(&self, via: Via, act: impl FnOnce(&Connection)) {
        if let Some(connection) = via.and_then(|id| self.peers.numbered(id)) {
            act(&connection);
        }
    }

    pub(crate) async fn shut_down(self: &Arc<Self>) {
        self.stop.cancel();
        for cell in self.processes.all() {
            self.finish(&cell, term!(shutdown));
        }
        let connections = self.peers.stop();
        let flush = async {
            for connection in &connections {
                connection.flushed().await;
            }
        };
        _ = tokio::time::timeout(std::time::Duration::from_secs(5), flush).await;
        for connection in connections {
            connection.close("this node stopped");
        }
        self.tasks.close();
        _ = tokio::time::timeout(std::time::Duration::from_secs(5), self.tasks.wait()).await;
        for carrier in &self.config.carriers {
            if let Err(error) = carrier.stop().await {
                tracing::warn!(carrier = carrier.name(), %error, "not all is undone");
            }
        }
    }

    /// Ends a process from within.
    pub(crate) fn finish(&self, cell: &Arc<Cell>, reason: Term) {
        self.after(cell, cell.finish(reason));
    }
}

/// A number for a run of a node; VMs keep 0 to 3 to themselves.
pub(crate) fn fresh_creation() -> u32 {
    meshx_rt::random::u32().max(4)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.name())
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inner({})", self.id.name())
    }
}
