//! What stock nodes expect of a visible node: a part in their `global`.
//!
//! A node that is visible and silent does harm: `global:set_lock/1`, `global:sync/0` and whatever
//! builds on them wait for it without end. There are two ways to be better than that, and a third,
//! to be hidden, which is the default (`global(3)`; recorded with OTP 25 and 27).
//!
//! | | hidden | [`Global::Polite`] | [`Global::Full`] |
//! |---|---|---|---|
//! | in `nodes()` of others | no | yes | yes |
//! | `global:set_lock/1`, `trans/2`, `sync/0` of others | do not ask it | answered | answered |
//! | `global:register_name/2` of others | does not ask it | does not ask it | asks it, as every node |
//! | `global:whereis_name/1` of others finds its processes | no | no | yes |
//! | finds global names of others | no | no | yes ([`GlobalNames`]) |
//! | when its link to one node breaks | nothing | nothing | **it** leaves the cluster |
//! | when it hangs without being dead | nothing | `set_lock/1` of others waits | and names cannot be registered, anywhere |
//!
//! Nodes that know each other by `global` form no two partitions that overlap (OTP 25 and later,
//! `prevent_overlapping_partitions`). When one of them reports that it lost another, all others leave
//! that other one; a stock node reports at once. So when a node with a full part loses its link to
//! one stock node, it loses all of them, and comes back when somebody connects it again, to each.
//! It does not do the same to the stock node: it reports a loss only after five seconds, and not if
//! the other side has done so.

mod full;
mod locks;
mod names;
mod polite;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use meshx_etf::term;
use meshx_rt::{Backoff, Seldom};
use tokio::task::JoinSet;

pub use names::{GlobalError, GlobalNames};

use crate::builder::Visibility;
use crate::node::{Inner, Node};
use crate::process::{Cell, Mailbox};

/// The name of the process.
const NAME: &str = "global_name_server";
/// Of the protocol between name servers (OTP 25 and later).
const VERSION: i64 = 8;

/// When processes that were ended begin anew; and if they cannot, in pauses of at most so long.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_AT_LAST: Duration = Duration::from_secs(5);

/// Which part a visible node has in the `global` of stock nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Global {
    /// It keeps locks for whoever sets them, and tells everybody that there is nothing to wait for.
    /// It knows no global names, and no node counts it among those that do. What happens to its
    /// connections therefore concerns nobody else.
    #[default]
    Polite,
    /// It has the same names as all others, and is asked whenever they change. It connects to every
    /// node that the others know, and they connect to it: it must be reachable for all.
    Full,
}

/// What a node with a full part has of it.
#[derive(Debug, Default)]
pub(crate) struct Part(RwLock<Option<full::Full>>);

/// Starts what the node's visibility asks for.
pub(crate) fn start(node: &Arc<Inner>) {
    let Visibility::Visible { global } = node.config.visibility else { return };
    let processes = begin(node, global);
    let inner = Arc::clone(node);
    node.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => {}
            () = keep(&inner, global, processes) => {}
        }
    });
}

/// Whoever knows the pid of a process can end it. One that others rely on begins anew.
async fn keep(node: &Arc<Inner>, global: Global, mut processes: Vec<Arc<Cell>>) {
    let mut pause = Backoff::new(AGAIN, AGAIN_AT_LAST);
    let failures = Seldom::new(1, Duration::from_mins(1));
    loop {
        if processes.is_empty() {
            if failures.occurs().is_some() {
                let node = node.id.name();
                tracing::error!(
                    %node, "global cannot begin: is {NAME} registered by the program, or no room \
                    for a process left? It is tried again"
                );
            }
        } else {
            end_of_one(node, global, &processes).await;
        }
        tokio::time::sleep(pause.step()).await;
        processes = begin(node, global);
        if !processes.is_empty() {
            pause.reset();
        }
    }
}

/// Waits for the end of one, and ends the others.
async fn end_of_one(node: &Arc<Inner>, global: Global, processes: &[Arc<Cell>]) {
    let mut ends = JoinSet::new();
    for process in processes {
        let ended = process.ended.clone();
        ends.spawn(async move { ended.cancelled().await });
    }
    ends.join_next().await;
    tracing::error!(node = %node.id.name(), "a process of global was ended; it begins anew");
    for process in processes {
        node.finish(process, term!(shutdown));
    }
    // Those who know us would go on with what is lost here.
    for connection in node.peers.all() {
        if global == Global::Full && !connection.is_hidden() {
            connection.close("global begins anew");
        }
    }
}

/// Gives the processes; none if the node has no room for them.
fn begin(node: &Arc<Inner>, global: Global) -> Vec<Arc<Cell>> {
    match global {
        Global::Polite => {
            let Some(mailbox) = server(node) else { return Vec::new() };
            let (inner, process) = (Arc::clone(node), Arc::clone(mailbox.cell()));
            node.run(mailbox, |mailbox| polite::serve(inner, mailbox));
            vec![process]
        }
        Global::Full => {
            let Some((full, processes)) = full::start(node) else { return Vec::new() };
            *node.global.0.write().unwrap_or_else(PoisonError::into_inner) = Some(full);
            processes
        }
    }
}

/// The process; a node that starts has room for it.
fn server(node: &Arc<Inner>) -> Option<Mailbox> {
    let mailbox = Node::of(Arc::clone(node)).mailbox().ok()?;
    mailbox.trap_exits(true);
    mailbox.register(NAME).ok()?;
    Some(mailbox)
}

#[cfg(test)]
mod tests {
    use meshx_dist::handshake::Cookie;

    use super::*;
    use crate::carrier::{Memory, Switchboard};

    /// A program that has the name itself loses its connections once, not ten times a second.
    #[tokio::test(start_paused = true)]
    async fn who_cannot_begin_anew_stays_connected() {
        let board = Switchboard::new();
        let node = |name: &str, global| {
            let builder = Node::builder(name).cookie(Cookie::new("secret"));
            builder.visibility(Visibility::Visible { global }).carrier(Memory::new(&board)).start()
        };
        let a = node("a@h", Global::Full).await.unwrap();
        let b = node("b@h", Global::Polite).await.unwrap();
        b.connect(a.name()).await.unwrap();
        let first = a.whereis(NAME).unwrap();
        let server = a.inner().processes.named(NAME).unwrap();
        a.inner().finish(&server, term!(kill));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let program = a.mailbox().unwrap();
        program.register(NAME).unwrap();
        assert!(a.peers().is_empty(), "what was known is lost");
        b.connect(a.name()).await.unwrap();
        let since = a.peers()[0].since;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(a.peers().first().map(|peer| peer.since), Some(since));
        drop(program);
        tokio::time::sleep(AGAIN_AT_LAST).await;
        assert!(a.whereis(NAME).is_some_and(|again| again != first));
        assert_eq!(a.peers()[0].since, since);
    }
}
