//! A registration that comes back.

use std::time::Duration;

use meshx_dist::epmd::Alive;
use meshx_rt::Backoff;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Client, Lease, RETRY_LIMIT};

/// The first wait after a failed try.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// A name that is registered again whenever the daemon has lost it, until this is dropped.
///
/// A daemon that comes back has the name again within [`RETRY_LIMIT`] and the time of a
/// registration; a stock VM tries every 2 s. Live links of the node need no daemon. A name that
/// somebody else took meanwhile is tried for on and on, as the VM does.
#[derive(Debug)]
pub struct Kept {
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

/// How a [`Kept`] name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is registered.
    Registered {
        /// The creation of the latest registration. A node keeps the creation of its first one for
        /// life; a stock VM, too, ignores the later ones.
        creation: u32,
    },
    /// It is not, or not yet.
    Absent {
        /// Why the last try failed; `None` before the first has ended.
        because: Option<String>,
    },
}

impl Kept {
    pub(super) fn start(client: Client, alive: Alive, lease: Option<Lease>) -> Self {
        let first = lease.as_ref().map_or(Standing::Absent { because: None }, Standing::of);
        let (sender, standing) = watch::channel(first);
        Self { standing, task: tokio::spawn(run(client, alive, lease, sender)) }
    }

    /// How the name stands now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// To follow how it stands.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until the name is registered, and gives the creation. Without an end of its own: a
    /// caller who cannot wait sets a limit.
    pub async fn registered(&self) -> u32 {
        let mut standing = self.standing.clone();
        loop {
            if let Standing::Registered { creation } = *standing.borrow_and_update() {
                return creation;
            }
            if standing.changed().await.is_err() {
                // The task ends only with its owner, who is here.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Standing {
    fn of(lease: &Lease) -> Self {
        Self::Registered { creation: lease.creation() }
    }
}

async fn run(
    client: Client,
    alive: Alive,
    mut lease: Option<Lease>,
    standing: watch::Sender<Standing>,
) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
    loop {
        if let Some(held) = lease.take() {
            let since = Instant::now();
            standing.send_replace(Standing::of(&held));
            held.lost().await;
            let because = format!("the EPMD at {} has dropped the name", held.daemon());
            tracing::info!(name = alive.name, "{because}; registering again");
            standing.send_replace(Standing::Absent { because: Some(because) });
            // A daemon that grants and drops at once is not asked in a tight loop.
            if since.elapsed() >= RETRY_LIMIT {
                backoff.reset();
            }
            drop(held);
            tokio::time::sleep(backoff.step()).await;
        }
        match client.register(&alive).await {
            Ok(again) => {
                lease = Some(again);
                continue;
            }
            Err(error) => {
                tracing::debug!(name = alive.name, %error, "not registered yet");
                standing.send_replace(Standing::Absent { because: Some(error.to_string()) });
            }
        }
        tokio::time::sleep(backoff.step()).await;
    }
}
