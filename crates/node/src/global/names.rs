//! Global names, as the program sees them.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use meshx_etf::{Atom, Pid, Term};
use tokio::sync::{mpsc, oneshot};

use super::full::{Change, LIMIT, Shared, Transaction};
use crate::node::{Inner, Node};

/// The names that a node shares with all others it knows (`global(3)`). Cheap to clone. See
/// [`Node::global`].
#[derive(Debug, Clone)]
pub struct GlobalNames {
    pub(super) node: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) transactions: mpsc::Sender<Transaction>,
}

/// Why something with global names did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalError {
    /// The node knows no global names.
    #[error("{0} has no full part in global: start it with Visibility::Visible {{ global: Full }}")]
    NotPart(Atom),
    /// Other nodes held the lock of the names all the time.
    #[error("the lock of the global names could not be had of all nodes within {0:?}")]
    Locked(Duration),
    /// Some nodes have not said that they have the same names.
    #[error("not in sync with {nodes:?} within {limit:?}")]
    NotInSync {
        /// Which.
        nodes: Vec<Atom>,
        /// How long was waited.
        limit: Duration,
    },
    /// The node is stopping, or somebody ended the processes of its `global`: they begin anew, and
    /// [`Node::global`] finds them.
    #[error("the node is stopping, or its global begins anew")]
    Ended,
}

impl Node {
    /// The global names. An error if the node has no full part in `global`
    /// ([`Global::Full`](super::Global::Full)).
    ///
    /// ```no_run
    /// # async fn example(node: meshx_node::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use meshx_node::etf::Term;
    /// let names = node.global()?;
    /// let leader = node.mailbox()?;
    /// if !names.register(&Term::atom("leader"), leader.pid()).await? {
    ///     println!("the leader is {:?}", names.whereis(&Term::atom("leader")));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn global(&self) -> Result<GlobalNames, GlobalError> {
        let full = self.inner().global.0.read().unwrap_or_else(PoisonError::into_inner);
        let full = full.as_ref().ok_or_else(|| GlobalError::NotPart(self.name().clone()))?;
        Ok(GlobalNames {
            node: Arc::clone(self.inner()),
            shared: Arc::clone(&full.shared),
            transactions: full.transactions.clone(),
        })
    }
}

impl GlobalNames {
    /// The process that has a name, on whatever node.
    pub fn whereis(&self, name: &Term) -> Option<Pid> {
        let pid = self.shared.names().get(name)?.pid.clone();
        // One of ours may have ended a moment ago.
        let lives = pid.node != self.node.id || self.node.processes.get(&pid).is_some();
        lives.then_some(pid)
    }

    /// All names, in no order.
    pub fn names(&self) -> Vec<Term> {
        self.shared.names().keys().cloned().collect()
    }

    /// The nodes that have the same names; this one is not among them.
    pub fn nodes(&self) -> Vec<Atom> {
        self.shared.known().keys().cloned().collect()
    }

    /// Gives a process a name on all nodes; false if the name is taken, or the process has one. It
    /// loses the name when it ends. If two partitions of a cluster meet that both have the name, one
    /// of the two processes is killed, as `global:register_name/2` has it.
    ///
    /// Fails after 30 s if some other node holds the lock of the names all the time.
    pub async fn register(&self, name: &Term, pid: &Pid) -> Result<bool, GlobalError> {
        self.change(Change::Register(name.clone(), pid.clone())).await
    }

    /// As [`GlobalNames::register`], in the place of who has the name.
    pub async fn reregister(&self, name: &Term, pid: &Pid) -> Result<(), GlobalError> {
        self.change(Change::Reregister(name.clone(), pid.clone())).await.map(|_| ())
    }

    /// Takes a name away; false if nobody has it. Fails as [`GlobalNames::register`] does.
    pub async fn unregister(&self, name: &Term) -> Result<bool, GlobalError> {
        self.change(Change::Unregister(name.clone())).await
    }

    /// Waits until every visible node that is connected has the same names (`global:sync/0`).
    pub async fn sync(&self, limit: Duration) -> Result<(), GlobalError> {
        let node = Node::of(Arc::clone(&self.node));
        let missing = |synced: &HashSet<Atom>| -> Vec<Atom> {
            node.nodes().into_iter().filter(|node| !synced.contains(node)).collect()
        };
        let mut synced = self.shared.synced();
        let done = synced.wait_for(|synced| missing(synced).is_empty());
        match tokio::time::timeout(limit, done).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => return Err(GlobalError::Ended),
            Err(_) => {}
        }
        let nodes = missing(&synced.borrow());
        Err(GlobalError::NotInSync { nodes, limit })
    }

    async fn change(&self, change: Change) -> Result<bool, GlobalError> {
        let (done, made) = oneshot::channel();
        let transaction = Transaction { change, done };
        self.transactions.send(transaction).await.map_err(|_| GlobalError::Ended)?;
        match made.await {
            Ok(Some(made)) => Ok(made),
            Ok(None) => Err(GlobalError::Locked(LIMIT)),
            Err(_) => Err(GlobalError::Ended),
        }
    }
}
