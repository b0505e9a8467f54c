//! Setting up a node.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshx_dist::handshake::{Cookie, Flags};
use meshx_dist::link::{Limits, Ticktime};
use meshx_etf::{Atom, Node as NodeId};
use meshx_rt::Seldom;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use crate::carrier::{Carrier, Listen, Myself};
use crate::connection::{accept, ask_name, begin_with};
use crate::error::StartError;
use crate::global::{self, Global};
use crate::keep::{Kept, keep};
use crate::node::{Inner, Node, NodeEvent, fresh_creation};
use crate::rpc::{Rpc, RpcTable};
use crate::services;

/// So many peers may be in the midst of a handshake with this node; one more, and the oldest of them
/// is given up.
const HANDSHAKES: usize = 512;

/// So often operators are told of the same matter, if strangers bring it about.
const WARNINGS: u32 = 10;
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Whether others see the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Visibility {
    /// Not in anybody's `nodes()`, and no part of `global`: the default, and right for most.
    #[default]
    Hidden,
    /// In everybody's `nodes()`. Stock nodes expect of such a node that it answers their `global`.
    Visible {
        /// Which part it has in `global`.
        global: Global,
    },
}

impl Visibility {
    /// In everybody's `nodes()`, and polite to `global`: as visible as a node can be that does no
    /// harm to any other when its connections come and go.
    pub const VISIBLE: Self = Self::Visible { global: Global::Polite };
}

/// A node to be set up. See [`Node::builder`].
pub struct Builder {
    /// Only the host if another node gives the name.
    name: String,
    name_from: Option<String>,
    cookie: Option<Cookie>,
    keep: Vec<String>,
    config: Config,
}

pub(crate) struct Config {
    pub(crate) carriers: Vec<Arc<dyn Carrier>>,
    pub(crate) cookies: Cookies,
    pub(crate) visibility: Visibility,
    pub(crate) ticktime: Ticktime,
    pub(crate) limits: Limits,
    pub(crate) setup_time: Duration,
    pub(crate) mailbox_limit: usize,
    /// Whether who sends to a node connects to it.
    pub(crate) auto_connect: bool,
    pub(crate) rpc: Rpc,
    /// How often operators are told that somebody was not let in.
    pub(crate) refusals: Seldom,
    /// Where the carriers listen, once the node is started.
    pub(crate) addresses: Vec<String>,
    allow: Option<Allow>,
    flags: Flags,
}

/// Who may connect.
type Allow = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The secret shared with all others, and those shared with some.
#[derive(Debug, Clone)]
pub(crate) struct Cookies {
    common: Cookie,
    of: HashMap<String, Cookie>,
}

impl Builder {
    pub(crate) fn new(name: String) -> Self {
        let config = Config {
            carriers: Vec::new(),
            cookies: Cookies { common: Cookie::new(""), of: HashMap::new() },
            visibility: Visibility::default(),
            ticktime: Ticktime::default(),
            limits: Limits::default(),
            setup_time: Duration::from_secs(7),
            mailbox_limit: 64 << 20,
            auto_connect: true,
            rpc: Rpc::default(),
            refusals: Seldom::new(WARNINGS, WARN_EVERY),
            addresses: Vec::new(),
            allow: None,
            flags: Flags::NODE,
        };
        Self { name, name_from: None, cookie: None, keep: Vec::new(), config }
    }

    pub(crate) fn named_by(host: String, from: String) -> Self {
        Self { name_from: Some(from), ..Self::new(host) }
    }

    /// The secret that all nodes share. There must be one, and it may not be empty: then everybody would
    /// have it.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// The secret shared with one node, as `erlang:set_cookie/2`. It may not be empty, either.
    #[must_use]
    pub fn cookie_for(mut self, node: impl Into<String>, cookie: Cookie) -> Self {
        self.config.cookies.of.insert(node.into(), cookie);
        self
    }

    /// Whether others see the node; hidden if not said.
    #[must_use]
    pub fn visibility(mut self, visibility: Visibility) -> Self {
        self.config.visibility = visibility;
        self
    }

    /// A way to other nodes. Several may be given; the first that gets to a node is used.
    #[must_use]
    pub fn carrier(mut self, carrier: impl Carrier) -> Self {
        self.config.carriers.push(Arc::new(carrier));
        self
    }

    /// How long a silence is too long (`net_ticktime`); 60 s if not said.
    #[must_use]
    pub fn ticktime(mut self, ticktime: Ticktime) -> Self {
        self.config.ticktime = ticktime;
        self
    }

    /// What peers may demand.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How long a handshake may take (`net_setuptime`); 7 s if not said.
    #[must_use]
    pub fn setup_time(mut self, limit: Duration) -> Self {
        self.config.setup_time = limit;
        self
    }

    /// How many bytes may wait in each mailbox before the peers that send to it are held back; 64 MiB
    /// if not said. Processes of this node are not: what they send each other is the program's own.
    #[must_use]
    pub fn mailbox_limit(mut self, bytes: usize) -> Self {
        self.config.mailbox_limit = bytes;
        self
    }

    /// Whether this node connects to another whenever something is sent there (`dist_auto_connect`); true
    /// if not said. If false (`never`), that is lost or fails at once with [`NotConnected`], unless the
    /// node is connected already: by [`Node::connect`], [`Node::keep`], or from there.
    ///
    /// [`NotConnected`]: crate::ConnectError::NotConnected
    #[must_use]
    pub fn auto_connect(mut self, auto_connect: bool) -> Self {
        self.config.auto_connect = auto_connect;
        self
    }

    /// Nodes to which there is to be a connection always, as by [`Node::keep`]. They are dialled once the
    /// node is started, and none needs to be there then.
    #[must_use]
    pub fn keep_connected<N: Into<String>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.keep.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Who may connect, by name (`net_kernel:allow/1`); all who have the cookie if not said. Others are
    /// told `not_allowed`. Of a node that has no name and asks for one, this is asked with the name that
    /// it would get, of which only the host is its own.
    #[must_use]
    pub fn allow(mut self, allow: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.config.allow = Some(Arc::new(allow));
        self
    }

    /// The functions that other nodes may call; [`RpcTable::new`] if not said.
    #[must_use]
    pub fn rpc(mut self, table: RpcTable) -> Self {
        self.config.rpc = Rpc::of(table);
        self
    }

    /// Capabilities not to be offered, to meet peers of old or to test.
    #[must_use]
    pub fn without(mut self, flags: Flags) -> Self {
        self.config.flags = self.config.flags.without(flags);
        self
    }

    /// Starts the node: it listens, and is known, when this returns.
    pub async fn start(mut self) -> Result<Node, StartError> {
        self.check_names()?;
        self.check_cookies()?;
        let mut listeners = Vec::new();
        let from = self.name_from.clone().unwrap_or_default();
        let unnamed = |reason| StartError::Unnamed { from: from.clone(), reason };
        let (id, named) = match &self.name_from {
            Some(from) => {
                self.config.visibility = Visibility::Hidden;
                let named = ask_name(&self.config, &self.name, &Atom::cut(from)).await;
                let named = named.map_err(unnamed)?;
                (named.id.clone(), Some(named))
            }
            None => (self.listen(&mut listeners).await?, None),
        };
        let inner = Arc::new(Inner::new(id, self.config));
        services::start(&inner);
        global::start(&inner);
        let handshakes = Arc::new(Handshakes::default());
        for (carrier, listener) in listeners {
            let serve = serve(Arc::clone(&inner), carrier, listener, Arc::clone(&handshakes));
            inner.tasks.spawn(serve);
        }
        if let Some(named) = named {
            let events = inner.peers.events();
            if let Err(reason) = begin_with(&inner, named).await {
                inner.shut_down().await;
                return Err(unnamed(reason));
            }
            // Not one of the tasks whose end it waits for.
            tokio::spawn(stop_when_alone(Arc::clone(&inner), events));
        }
        for other in self.keep {
            let kept = keep(&inner, Atom::cut(&other));
            inner.tasks.spawn(hold(Arc::clone(&inner), kept));
        }
        Ok(Node::of(inner))
    }

    fn check_names(&self) -> Result<(), StartError> {
        let wrong = |name: &String, reason| StartError::Name { name: name.clone(), reason };
        let own = match &self.name_from {
            Some(_) => meshx_dist::name::host_part(&self.name).map(drop),
            None => meshx_dist::name::split(&self.name).map(drop),
        };
        own.map_err(|reason| wrong(&self.name, reason))?;
        for name in self.name_from.iter().chain(&self.keep) {
            meshx_dist::name::split(name).map_err(|reason| wrong(name, reason))?;
        }
        Ok(())
    }

    fn check_cookies(&mut self) -> Result<(), StartError> {
        let Some(common) = self.cookie.take().filter(|cookie| !cookie.is_empty()) else {
            return Err(StartError::Cookie(self.name.clone()));
        };
        self.config.cookies.common = common;
        match self.config.cookies.of.iter().find(|(_, cookie)| cookie.is_empty()) {
            Some((node, _)) => Err(StartError::Cookie(node.clone())),
            None => Ok(()),
        }
    }

    /// Listens by every carrier, as this node.
    async fn listen(&mut self, listeners: &mut Vec<Listener>) -> Result<NodeId, StartError> {
        let hidden = self.config.visibility == Visibility::Hidden;
        let me = Myself { name: self.name.clone(), hidden };
        let mut creation = None;
        for carrier in &self.config.carriers {
            let listener = carrier.listen(&me).await.map_err(|reason| StartError::Listen {
                name: self.name.clone(),
                carrier: carrier.name().to_owned(),
                reason,
            })?;
            creation = creation.or(listener.creation());
            self.config.addresses.push(listener.address());
            listeners.push((Arc::clone(carrier), listener));
        }
        let creation = creation.filter(|&creation| creation > 3).unwrap_or_else(fresh_creation);
        Ok(NodeId::new(Atom::cut(&self.name), creation))
    }
}

type Listener = (Arc<dyn Carrier>, Box<dyn Listen>);

/// Stops a node when its last connection is lost.
async fn stop_when_alone(node: Arc<Inner>, mut events: broadcast::Receiver<NodeEvent>) {
    while !node.stop.is_cancelled() {
        let event = tokio::select! {
            event = events.recv() => event,
            () = node.stop.cancelled() => return,
        };
        let up = matches!(event, Ok(NodeEvent::Up { .. }));
        if !up && node.peers.all().is_empty() {
            tracing::warn!(node = %node.id.name(), "it stops: who gave its name may give it to another");
            return node.shut_down().await;
        }
    }
}

/// Until the node stops.
async fn hold(node: Arc<Inner>, kept: Kept) {
    node.stop.cancelled().await;
    drop(kept);
}

/// Takes streams until the node stops.
async fn serve(
    node: Arc<Inner>,
    carrier: Arc<dyn Carrier>,
    mut listener: Box<dyn Listen>,
    handshakes: Arc<Handshakes>,
) {
    let failures = Seldom::new(WARNINGS, WARN_EVERY);
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            () = node.stop.cancelled() => return,
        };
        match stream {
            Ok(stream) => {
                let handshake = accept(Arc::clone(&node), Arc::clone(&carrier), stream);
                handshakes.begun(tokio::spawn(handshake).abort_handle());
            }
            Err(error) => {
                if let Some(unsaid) = failures.occurs() {
                    tracing::warn!(carrier = carrier.name(), %error, unsaid, "accepting failed");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The handshakes that others began, the oldest first.
#[derive(Debug)]
struct Handshakes {
    begun: Mutex<VecDeque<AbortHandle>>,
    given_up: Seldom,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { begun: Mutex::default(), given_up: Seldom::new(1, WARN_EVERY) }
    }
}

impl Handshakes {
    /// A right one takes milliseconds; so whoever is silent, however often, keeps out nobody.
    fn begun(&self, handshake: AbortHandle) {
        let mut all = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= HANDSHAKES {
            all.retain(|handshake| !handshake.is_finished());
        }
        if all.len() >= HANDSHAKES
            && let Some(oldest) = all.pop_front()
        {
            if let Some(unsaid) = self.given_up.occurs() {
                tracing::warn!(unsaid, "more than {HANDSHAKES} handshakes: the oldest is given up");
            }
            oldest.abort();
        }
        all.push_back(handshake);
    }
}

impl Config {
    pub(crate) fn flags(&self) -> Flags {
        match self.visibility {
            Visibility::Hidden => self.flags,
            Visibility::Visible { .. } => self.flags | Flags::PUBLISHED,
        }
    }

    pub(crate) fn allows(&self, name: &str) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow(name))
    }
}

impl Cookies {
    pub(crate) fn of(&self, node: &str) -> Cookie {
        self.of.get(node).unwrap_or(&self.common).clone()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}
