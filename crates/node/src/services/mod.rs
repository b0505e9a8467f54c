//! The processes that every node has.

mod leader;
mod net_kernel;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::node::{Inner, Node};
use crate::process::Mailbox;
use crate::rpc;

/// Under which name who prints on behalf of a call from here finds [`leader`].
pub(crate) const LEADER: &str = "user";

/// Starts them; before the node listens, so that no peer sees it without.
pub(crate) fn start(node: &Arc<Inner>) {
    rpc::offer(&Node::of(Arc::clone(node)));
    keep(node, "net_kernel", net_kernel::serve);
    keep(node, "rex", rpc::rex);
    keep(node, LEADER, leader::serve);
}

/// Runs a process under this name for as long as the node lives: one that is killed from outside, or
/// panics, has a successor at once. What waited in its mailbox is lost, as it is when OTP restarts one.
fn keep<F>(
    node: &Arc<Inner>,
    name: &'static str,
    serve: impl Fn(Arc<Inner>, Mailbox) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut next = named(node, name);
    let node = Arc::clone(node);
    node.tasks.clone().spawn(async move {
        while !node.stop.is_cancelled() {
            match next.take() {
                Some(mailbox) => {
                    let cell = Arc::clone(mailbox.cell());
                    let running = serve(Arc::clone(&node), mailbox);
                    let process = node.tasks.spawn(async move {
                        tokio::select! {
                            biased;
                            () = cell.ended.cancelled() => {}
                            () = running => {}
                        }
                    });
                    // A panic is told by its hook.
                    drop(process.await);
                    if !node.stop.is_cancelled() {
                        tracing::warn!(name, "a process of the node ended, and is started again");
                    }
                }
                // Somebody of this program has the name.
                None => tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = node.stop.cancelled() => return,
                },
            }
            next = named(&node, name);
        }
    });
}

/// A process of this name that only a `kill` ends.
fn named(node: &Arc<Inner>, name: &str) -> Option<Mailbox> {
    let mailbox = Node::of(Arc::clone(node)).mailbox().ok()?;
    mailbox.trap_exits(true);
    mailbox.register(name).ok()?;
    Some(mailbox)
}
