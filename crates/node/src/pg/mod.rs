//! Process groups: OTP's `pg`, in a Rust node.
//!
//! A scope is a set of groups that its nodes tell each other of; the name of the scope is that of
//! the process that does so on each node. Here as in OTP, membership is eventually the same
//! everywhere, a process that ends leaves its groups, and a node that is lost takes its processes
//! out of them (`pg(3)`; the protocol is that of OTP 23 and later, recorded with 23, 25 and 27).
//!
//! Among visible nodes, stock scopes find ours by themselves. A hidden node is not looked for, but
//! welcome: its scopes introduce themselves to every node that is connected, and again every five
//! seconds where no scope has answered yet.

mod groups;
mod scope;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use meshx_etf::{Atom, Pid, Term};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::node::Node;
use groups::Groups;
use scope::Command;

/// So many joins and leaves may wait for their turn; whoever comes then waits, too.
const COMMANDS: usize = 1024;
/// So many events wait for who reads them slowly; then the oldest are lost to him.
const EVENTS: usize = 1024;

/// A scope of process groups on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scope {
    name: Atom,
    pid: Pid,
    groups: Arc<RwLock<Groups>>,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
}

/// Some processes joined a group, or left it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which group.
    pub group: Term,
    /// Which processes, of this node or others.
    pub pids: Vec<Pid>,
}

/// What happened to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The processes are members now.
    Join,
    /// The processes are not members any more, or fewer times.
    Leave,
}

/// For people: who joined or left what.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pid) in self.pids.iter().enumerate() {
            write!(f, "{}{pid}", if number == 0 { "" } else { ", " })?;
        }
        let did = match self.kind {
            EventKind::Join => "joined",
            EventKind::Leave => "left",
        };
        write!(f, " {did} {}", self.group)
    }
}

/// Why something with process groups did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// The name of the scope is taken by a process, or is none.
    #[error("there can be no scope {0}: the name is taken by another process, or is none")]
    Name(String),
    /// The process is one of another node; each joins at its own.
    #[error("a process of {0} can join groups only there")]
    NotLocal(Atom),
    /// The scope has ended, with its node or by an exit signal.
    #[error("the scope {0} has ended")]
    Ended(Atom),
}

/// The scopes of a node.
#[derive(Debug, Default)]
pub(crate) struct Scopes(Mutex<HashMap<Atom, Scope>>);

impl Node {
    /// A scope of process groups; it is started when it is first asked for, and lives as long as the
    /// node. OTP's default scope is `pg`, that of `Phoenix.PubSub` is `Elixir.Phoenix.PubSub`.
    ///
    /// ```no_run
    /// # async fn example(node: meshx_node::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use meshx_node::etf::Term;
    /// let worker = node.mailbox()?;
    /// let scope = node.pg("pg")?;
    /// scope.join(&Term::atom("workers"), worker.pid()).await?;
    /// for member in scope.members(&Term::atom("workers")) {
    ///     worker.send(member, "hello").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pg(&self, scope: &str) -> Result<Scope, PgError> {
        let name = || PgError::Name(scope.to_owned());
        let atom = Atom::new(scope).map_err(|_| name())?;
        let mut scopes = self.inner().scopes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = scopes.get(&atom).filter(|scope| !scope.commands.is_closed()) {
            return Ok(scope.clone());
        }
        let mailbox = self.mailbox().map_err(|_| name())?;
        mailbox.trap_exits(true);
        mailbox.register(scope).map_err(|_| name())?;
        let (commands, waiting) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let (groups, pid) = (Arc::default(), mailbox.pid().clone());
        let scope = Scope { name: atom.clone(), pid, groups, commands, events };
        let server = scope::Server::new(Arc::clone(self.inner()), &scope);
        self.inner().run(mailbox, |mailbox| server.run(mailbox, waiting));
        scopes.insert(atom, scope.clone());
        Ok(scope)
    }
}

impl Scope {
    /// Its name.
    pub fn name(&self) -> &Atom {
        &self.name
    }

    /// The process of this node that keeps it.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Puts a process of this node into a group, once more if it is in it already. It is a member
    /// here when this returns, elsewhere soon after; it leaves when it ends.
    pub async fn join(&self, group: &Term, pid: &Pid) -> Result<(), PgError> {
        let (done, over) = oneshot::channel();
        self.command(Command::Join(group.clone(), self.ours(pid)?, done)).await?;
        over.await.map_err(|_| self.ended())
    }

    /// Takes a process of this node out of a group, once; false if it is not a member.
    pub async fn leave(&self, group: &Term, pid: &Pid) -> Result<bool, PgError> {
        let (done, over) = oneshot::channel();
        self.command(Command::Leave(group.clone(), self.ours(pid)?, done)).await?;
        over.await.map_err(|_| self.ended())
    }

    /// The members of a group on all nodes, in no order. A process that joined twice is there twice.
    pub fn members(&self, group: &Term) -> Vec<Pid> {
        self.read(|groups| groups.members(group))
    }

    /// The members of a group on this node, in no order.
    pub fn local_members(&self, group: &Term) -> Vec<Pid> {
        self.read(|groups| groups.local_members(group))
    }

    /// The groups that have members anywhere, in no order.
    pub fn which_groups(&self) -> Vec<Term> {
        self.read(Groups::names)
    }

    /// All groups as they are, and every change from then on (`pg:monitor_scope/1`). Who falls 1024
    /// events behind loses the oldest, and is told how many.
    pub fn monitor(&self) -> (Vec<(Term, Vec<Pid>)>, broadcast::Receiver<Event>) {
        // Groups change, and events are told, under the lock.
        self.read(|groups| (groups.all(), self.events.subscribe()))
    }

    fn read<T>(&self, read: impl FnOnce(&Groups) -> T) -> T {
        read(&self.groups.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn ours(&self, pid: &Pid) -> Result<Pid, PgError> {
        if pid.node == self.pid.node {
            Ok(pid.clone())
        } else {
            Err(PgError::NotLocal(pid.node.name().clone()))
        }
    }

    async fn command(&self, command: Command) -> Result<(), PgError> {
        self.commands.send(command).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> PgError {
        PgError::Ended(self.name.clone())
    }
}

#[cfg(test)]
mod tests;
