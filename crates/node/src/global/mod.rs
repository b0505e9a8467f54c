//! What stock nodes expect of a visible node: a part in their `global`.
//!
//! A node that is visible and silent does harm: `global:set_lock/1`, `global:sync/0` and whatever
//! builds on them wait for it without end. There are two ways to be better than that, and a third,
//! to be hidden, which is the default (OTP 25 and 27, recorded; `global(3)`).

mod locks;
mod polite;

use std::sync::Arc;

use crate::builder::Visibility;
use crate::node::Inner;

/// The name of the process.
const NAME: &str = "global_name_server";
/// Of the protocol between name servers (OTP 25 and later).
const VERSION: i64 = 8;

/// Which part a visible node has in the `global` of stock nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Global {
    /// It keeps locks for whoever sets them, and tells everybody that there is nothing to wait for.
    /// It knows no global names, and no node counts it among those that do. What happens to its
    /// connections therefore concerns nobody else (`prevent_overlapping_partitions`).
    #[default]
    Polite,
}

/// What a node with a full part shares with who asks it for names.
#[derive(Debug, Default)]
pub(crate) struct Part;

/// Starts what the node's visibility asks for.
pub(crate) fn start(node: &Arc<Inner>) {
    let Visibility::Visible { global } = node.config.visibility else { return };
    match global {
        Global::Polite => {
            let Some(mailbox) = server(node) else { return };
            let inner = Arc::clone(node);
            node.run(mailbox, |mailbox| polite::serve(inner, mailbox));
        }
    }
}

/// The process; a node that starts has room for it.
fn server(node: &Arc<Inner>) -> Option<crate::Mailbox> {
    let mailbox = crate::Node::of(Arc::clone(node)).mailbox().ok()?;
    mailbox.trap_exits(true);
    mailbox.register(NAME).ok()?;
    Some(mailbox)
}
