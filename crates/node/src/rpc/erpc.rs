//! Calls that come as requests to start a process (`erpc`).

use std::sync::Arc;

use meshx_dist::control::Control;
use meshx_dist::handshake::Flags;
use meshx_etf::dist::Draft;
use meshx_etf::{Pid, Reference, Term, term};

use super::execute::Outcome;
use crate::connection::Connection;
use crate::error::SendError;
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
        let reason = outcome.into_reason(result.clone());
        // Results may be large: as messages do, and other than exit signals do, they wait for room. Those
        // that are refused are not, and many.
        if place.is_none() {
            return Answer::End(reason);
        }
        let answer = Answer::of(&connection, &mailbox, (&from, &request), reason, result);
        let large = matches!(&answer, Answer::Down(draft) if connection.is_large(draft));
        connection.room(lane, large).await;
        answer
    };
    let answer = tokio::select! {
        answer = finished => answer,
        // Nobody waits any more.
        () = abandoned.cancelled() => return,
        () = connection.closed() => return,
    };
    match answer {
        Answer::End(reason) => mailbox.end(reason),
        Answer::Down(draft) => {
            if let Some((reference, _)) = mailbox.cell().take_watcher(&from, Some(&request)) {
                connection.demonitored(&reference);
                // A connection that is gone has told that.
                drop(connection.send(lane, draft));
            }
            mailbox.end(term!(normal));
        }
        Answer::Nobody => mailbox.end(term!(normal)),
    }
}

/// How who called is told.
enum Answer {
    /// The process ends with this reason.
    End(Term),
    /// The monitor that came with the request fires, with the result as its reason.
    Down(Draft),
    /// He watches nothing.
    Nobody,
}

impl Answer {
    fn of(
        connection: &Connection,
        mailbox: &Mailbox,
        (from, request): (&Pid, &Reference),
        reason: Term,
        result: Term,
    ) -> Self {
        if !connection.flags.contains(Flags::EXIT_PAYLOAD) {
            return Self::End(reason);
        }
        let Some((reference, target)) = mailbox.cell().watcher(from, Some(request)) else {
            return Self::Nobody;
        };
        let down = Control::Down { from: target, to: from.clone(), reference };
        match connection.draft(&down, &reason) {
            Ok(draft) => Self::Down(draft),
            Err(error) => {
                let error = SendError::from(error);
                tracing::warn!(peer = %connection.name(), %error, "a result could not be encoded");
                Self::End(Outcome::Refused("badarg").into_reason(result))
            }
        }
    }
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
