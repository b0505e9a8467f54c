//! A `global_name_server` that answers, and is part of nothing.

use std::sync::Arc;

use meshx_etf::{Atom, Term, term};

use super::locks::{Attempt, Locks};
use crate::call::Caller;
use crate::envelope::{Envelope, cast};
use crate::node::Inner;
use crate::process::{Mailbox, Signal};
use crate::to::To;

/// Serves until the process ends.
///
/// Locks that somebody sets here (`global:set_lock/1` does, at every visible node) are kept, and
/// given back by the end of their holder. Whoever wants to introduce himself is told that he is in
/// sync already: he does not wait for us, in `global:sync/0` say, and never counts us among the
/// nodes that know the names. So he does not tell others when we are lost, either.
pub(super) async fn serve(node: Arc<Inner>, mut mailbox: Mailbox) {
    let mut locks = Locks::default();
    while let Some(signal) = mailbox.receive().await {
        match signal {
            Signal::Message(message) => match Envelope::open_small(&message.body) {
                Ok(Envelope::Call(from, request)) => {
                    if let Some(answer) = answer(&node, &mailbox, &mut locks, &from, &request).await
                    {
                        let (to, answer) = from.answer(answer);
                        node.post(mailbox.pid(), &to, &answer);
                    }
                }
                Ok(Envelope::Cast(request)) => introduced(&node, &mailbox, &request),
                Ok(Envelope::Other(_)) => {}
                Err(error) => tracing::debug!(%error, "nonsense for global_name_server"),
            },
            Signal::Down(down) => drop(locks.ended(&down.reference)),
            _ => {}
        }
    }
}

/// `None`: there is no answer, as OTP has none.
async fn answer(
    node: &Arc<Inner>,
    mailbox: &Mailbox,
    locks: &mut Locks,
    from: &Caller,
    request: &Term,
) -> Option<Term> {
    match request {
        Term::Atom(request) if *request == "get_protocol_version" => Some(super::VERSION.into()),
        Term::Atom(request) if *request == "get_known" => Some(Term::nil()),
        Term::Atom(request) if *request == "get_synced" => Some(Term::nil()),
        Term::Atom(request) if *request == "get_names_ext" => Some(Term::nil()),
        Term::Tuple(request) => match &request[..] {
            [Term::Atom(set), id] if *set == "set_lock" => {
                Some(set_lock(node, mailbox, locks, id, from).await.into())
            }
            [Term::Atom(del), id] if *del == "del_lock" => {
                if let Some(monitor) = locks.release(id, from.pid()) {
                    mailbox.demonitor(&monitor);
                }
                Some(true.into())
            }
            [Term::Atom(sync), Term::List(_)] if *sync == "sync" => Some(term!(ok)),
            // Nobody asks this of a node that he does not know; if he does, it is his name, not ours.
            [Term::Atom(register), _, Term::Pid(_), _] if *register == "register" => {
                Some(term!(yes))
            }
            [Term::Atom(unregister), _] if *unregister == "unregister" => Some(term!(ok)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the lock is the caller's now.
pub(super) async fn set_lock(
    node: &Arc<Inner>,
    mailbox: &Mailbox,
    locks: &mut Locks,
    id: &Term,
    from: &Caller,
) -> bool {
    match locks.attempt(id, from.pid()) {
        Attempt::Refused => false,
        Attempt::Held => true,
        Attempt::Free => {
            let monitor = node.watch(mailbox, from.pid()).await;
            locks.hold(id, from.pid().clone(), monitor);
            true
        }
    }
}

/// `{init_connect, Version, Node, Locker}`.
fn introduced(node: &Arc<Inner>, mailbox: &Mailbox, request: &Term) {
    let Some([Term::Atom(kind), _, Term::Atom(peer), _]) = request.as_tuple() else { return };
    if *kind != "init_connect" {
        return;
    }
    let to = To::NameAt(Atom::cut(super::NAME), peer.clone());
    let me = node.id.name().clone();
    node.post(mailbox.pid(), &to, &cast(term!({in_sync, (me), true})));
}
