//! Connections that are made again when they are lost.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshx_core::Diagnostic as _;
use meshx_etf::Atom;
use meshx_rt::Backoff;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connection::dial;
use crate::error::ConnectError;
use crate::node::Inner;

/// The first pause after a loss or a failure: half of it at least, as of all of them.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(3);
/// A connection that held for so long was a success; after one that did not, the pauses go on growing.
const HELD: Duration = Duration::from_secs(5);

/// A connection that is made again when it is lost, until this is dropped. See [`Node::keep`].
///
/// Dropping it leaves the connection as it is.
///
/// [`Node::keep`]: crate::Node::keep
#[must_use = "dropped, it is kept no longer"]
pub struct Kept {
    node: Atom,
    state: watch::Receiver<Keeping>,
    _until: DropGuard,
}

/// How it stands with a node that is kept connected.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Keeping {
    /// The first attempt is not over.
    Begun,
    /// It is connected.
    Up,
    /// It is not, and is dialled again after a pause.
    Down {
        /// Why: it was lost, or could not be reached.
        reason: ConnectError,
        /// So many attempts have failed since it was connected last.
        failures: u32,
    },
}

impl Kept {
    /// Which node.
    pub fn node(&self) -> &Atom {
        &self.node
    }

    /// How it stands now.
    pub fn state(&self) -> Keeping {
        self.state.borrow().clone()
    }

    /// How it stands, now and from now on. Who is slow sees the last state.
    pub fn watch(&self) -> watch::Receiver<Keeping> {
        self.state.clone()
    }

    /// Waits until the node is connected. The caller limits the time; without end if this node stops.
    pub async fn up(&self) {
        let mut state = self.watch();
        if state.wait_for(|state| matches!(state, Keeping::Up)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps a node connected for as long as what is returned lives, or this node.
pub(crate) fn keep(node: &Arc<Inner>, to: Atom) -> Kept {
    let until = CancellationToken::new();
    let (told, state) = watch::channel(Keeping::Begun);
    if to == *node.id.name() {
        told.send_replace(Keeping::Up);
    } else {
        let (over, node, to) = (until.clone(), Arc::clone(node), to.clone());
        node.tasks.clone().spawn(async move {
            tokio::select! {
                () = over.cancelled() => return,
                () = node.stop.cancelled() => {}
                () = again_and_again(&node, &to, &told) => {}
            }
            told.send_replace(Keeping::Down { reason: ConnectError::Stopping, failures: 0 });
        });
    }
    Kept { node: to, state, _until: until.drop_guard() }
}

/// Until the node stops.
async fn again_and_again(node: &Arc<Inner>, to: &Atom, told: &watch::Sender<Keeping>) {
    let mut pause = Backoff::new(FIRST, LONGEST);
    let mut failures = 0_u32;
    loop {
        let reason = match dial(node, to).await {
            Ok(connection) => {
                if failures > 0 {
                    tracing::info!(node = %to, failures, "connected after failures");
                }
                failures = 0;
                told.send_replace(Keeping::Up);
                let begun = Instant::now();
                connection.closed().await;
                if begun.elapsed() >= HELD {
                    pause.reset();
                }
                ConnectError::Lost { node: to.clone(), reason: connection.why() }
            }
            Err(ConnectError::Stopping) => return,
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    let code = error.code();
                    tracing::warn!(%error, %code, "it is dialled again until it is there");
                } else {
                    tracing::debug!(%error, failures, "not there yet");
                }
                error
            }
        };
        told.send_replace(Keeping::Down { reason, failures });
        tokio::select! {
            () = tokio::time::sleep(pause.step()) => {}
            () = connected(node, to) => {}
        }
    }
}

/// Waits until the node is connected, by whomever.
async fn connected(node: &Inner, to: &Atom) {
    loop {
        let changed = node.peers.changed();
        if node.peers.up_to(to).is_some() {
            return;
        }
        changed.await;
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("node", &self.node)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
