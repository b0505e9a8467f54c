//! Calls that come as requests to start a process (`erpc`).

use std::sync::Arc;

use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_etf::{Pid, Reference, Term, term};

use super::execute::Outcome;
use crate::connection::Connection;
use crate::node::{Inner, Node};
use crate::process::{Mailbox, sender};
use crate::spawned::Started;

/// Lets peers start the functions by which `erpc` calls.
pub(crate) fn offer(node: &Node) {
    let inner = Arc::clone(node.inner());
    node.offer_started("erpc", "execute_call", 4, move |started| call(Arc::clone(&inner), started));
    for (function, arity) in [("execute_cast", 3), ("execute_call", 3)] {
        let inner = Arc::clone(node.inner());
        node.offer_started("erpc", function, arity, move |started| {
            cast(Arc::clone(&inner), started)
        });
    }
}

/// `execute_call/4`: the process ends with what came of the call.
async fn call(node: Arc<Inner>, started: Started) {
    let Started { mailbox, mut arguments, request, from, connection, abandoned } = started;
    let function = arguments.split_off(arguments.len().min(1));
    let Some(result) = arguments.pop() else { return };
    let lane = sender(mailbox.pid());
    let place = node.place(connection.name());
    let finished = async {
        let outcome = node.apply(place.as_ref(), function, &from, mailbox.pid()).await;
        // Results may be large: as messages do, and other than exit signals do, they wait for room. Those
        // that are refused are not, and many.
        if place.is_some() {
            connection.room(lane, true).await;
        }
        outcome
    };
    let outcome = tokio::select! {
        outcome = finished => outcome,
        // Nobody waits any more.
        () = abandoned.cancelled() => return,
        () = connection.closed() => return,
    };
    let reason = outcome.into_reason(result.clone());
    if place.is_none() || !connection.flags.contains(Flags::EXIT_PAYLOAD) {
        return mailbox.end(reason);
    }
    tell(&connection, &mailbox, &from, &request, &reason, result);
    mailbox.end(term!(normal));
}

/// `execute_cast/3`: nobody is told.
async fn cast(node: Arc<Inner>, started: Started) {
    let Started { mailbox, arguments, from, connection, .. } = started;
    let place = node.place(connection.name());
    drop(connection);
    let outcome = node.apply(place.as_ref(), arguments, &from, mailbox.pid()).await;
    if !matches!(outcome, Outcome::Return(_)) {
        tracing::debug!(?outcome, "a cast of {} failed", from.node.name());
    }
}

/// The monitor that came with the request fires, with the result as its reason.
fn tell(
    connection: &Connection,
    mailbox: &Mailbox,
    from: &Pid,
    request: &Reference,
    reason: &Term,
    result: Term,
) {
    let Some((reference, watcher)) = mailbox.cell().take_watcher(from, Some(request)) else {
        return;
    };
    connection.demonitored(&reference);
    let lane = sender(mailbox.pid());
    let down = Control::Down { from: watcher.target, to: watcher.pid, reference };
    let sent = connection.send(lane, &down, |draft| Ok(draft.payload(reason)?));
    if let Err(crate::connection::Unsent::Encode(error)) = sent {
        tracing::warn!(%error, "a result could not be encoded");
        let reason = Outcome::Refused("badarg").into_reason(result);
        connection.signal_reason(lane, &down, &reason);
    }
}
