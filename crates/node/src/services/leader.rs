//! The group leader of what is called from here.

use std::sync::Arc;

use meshx_etf::{Pid, Term, term};

use crate::node::Inner;
use crate::process::{Mailbox, Signal};
use crate::to::To;

/// Takes what functions print that were called from here on other nodes, and drops it; there is nothing
/// to read (`stdlib`, "The Erlang I/O Protocol"). A function whose printing nobody took would wait
/// without end.
pub(super) async fn serve(node: Arc<Inner>, mut mailbox: Mailbox) {
    while let Some(signal) = mailbox.receive().await {
        let Signal::Message(message) = signal else { continue };
        let Ok(Term::Tuple(parts)) = message.body.term() else { continue };
        let Ok([kind, Term::Pid(from), tag, request]) = <[Term; 4]>::try_from(parts) else {
            continue;
        };
        if kind.is_atom("io_request") {
            let reply = Term::Tuple(vec![Term::atom("io_reply"), tag, answer(&request)]);
            node.post(mailbox.pid(), &To::Pid(from), &reply);
        }
    }
}

fn answer(request: &Term) -> Term {
    match request {
        Term::Atom(name) if *name == "getopts" => {
            term!([{binary, false}, {encoding, unicode}])
        }
        Term::Tuple(parts) => match &parts[..] {
            [Term::Atom(name), ..] => match name.as_str() {
                "put_chars" | "setopts" => term!(ok),
                "requests" => last(parts.get(1)),
                "get_line" | "get_chars" | "get_until" | "get_password" => term!(eof),
                "get_geometry" => term!({error, enotsup}),
                _ => term!({error, request}),
            },
            _ => term!({error, request}),
        },
        _ => term!({error, request}),
    }
}

/// Of several requests, the answer is that of the last, or of the first that fails.
fn last(requests: Option<&Term>) -> Term {
    let requests = requests.and_then(Term::as_list).unwrap_or_default();
    // Nesting is as deep as the sender makes it, and the decoder bounds it; one level is what there is.
    let is_output =
        |it: &Term| matches!(it.as_tuple(), Some([name, ..]) if name.is_atom("put_chars"));
    if requests.iter().all(is_output) { term!(ok) } else { term!({error, request}) }
}

impl Inner {
    /// Who takes what a function prints that `caller` calls elsewhere.
    pub(crate) fn leader(&self, caller: &Pid) -> Pid {
        let leader = self.processes.named(super::LEADER);
        leader.map_or_else(|| caller.clone(), |cell| cell.pid.clone())
    }
}
