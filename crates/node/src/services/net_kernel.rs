//! The process by which nodes ask each other whether they are there.

use std::sync::Arc;

use meshx_etf::{Term, term};

use crate::envelope::Envelope;
use crate::node::Inner;
use crate::process::{Mailbox, Signal};

/// Answers what stock nodes ask (`net_adm:ping/1` above all), and what people ask by hand.
///
/// A peer changes nothing here: where OTP's would obey (connect, disconnect, allow, a new tick time),
/// the answer is the one that says that nothing was done. What OTP's ignores is ignored.
pub(super) async fn serve(node: Arc<Inner>, mut mailbox: Mailbox) {
    while let Some(signal) = mailbox.receive().await {
        let Signal::Message(message) = signal else { continue };
        let Ok(Envelope::Call(from, request)) = Envelope::open_small(&message.body) else {
            continue;
        };
        if let Some(answer) = answer(&node, &request) {
            let (to, answer) = from.answer(answer);
            node.post(mailbox.pid(), &to, &answer);
        }
    }
}

fn answer(node: &Inner, request: &Term) -> Option<Term> {
    if let Some(name) = request.as_atom() {
        return Some(match name.as_str() {
            "nodename" => Term::Atom(node.id.name().clone()),
            "longnames" => Term::from(is_long(node)),
            "ticktime" => ticktime(node),
            "allowed" => term!({ok, []}),
            "get_state" => state(node),
            _ => return None,
        });
    }
    let request = request.as_tuple()?;
    let [Term::Atom(name), arguments @ ..] = request else { return None };
    Some(match (name.as_str(), arguments) {
        ("is_auth", [_]) => term!(yes),
        ("passive_cnct", [to]) | ("connect", [_, to]) => {
            Term::from(to.is_atom(node.id.name().as_str()))
        }
        ("disconnect", [_]) => term!(false),
        ("allow", [_]) => term!(error),
        ("verbose", [_]) => term!(0),
        ("new_ticktime", [_, _]) => term!(unchanged),
        ("setopts" | "getopts", [_, _]) => term!({error, enotsup}),
        // How processes were started before there was a request for that in the protocol. `erlang`
        // raises this at the caller.
        ("spawn" | "spawn_link", [_, _, _, _]) | ("spawn_opt", [_, _, _, _, _, _]) => {
            term!({atom "EXIT", {notsup, []}})
        }
        _ => return None,
    })
}

fn is_long(node: &Inner) -> bool {
    node.id.name().as_str().split_once('@').is_some_and(|(_, host)| host.contains(['.', ':']))
}

fn ticktime(node: &Inner) -> Term {
    let milliseconds = node.config.ticktime.time.as_millis();
    Term::from(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}

/// As `net_kernel:get_state/0`.
fn state(node: &Inner) -> Term {
    let domain = Term::atom(if is_long(node) { "longnames" } else { "shortnames" });
    term!(#{
        started => static,
        name_type => static,
        name => (Term::Atom(node.id.name().clone())),
        name_domain => (domain)
    })
}
