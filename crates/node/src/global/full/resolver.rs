//! Comparing the names of two partitions, and choosing between two processes of one name.

use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, Pid, Term, term};

use super::shared::Shared;
use super::state::News;
use crate::envelope::TERMS;
use crate::node::{Inner, Node};
use crate::process::Mailbox;
use crate::to::To;

/// So long may another node take to choose.
const LIMIT: Duration = Duration::from_secs(30);

/// What came of a choice.
enum Choice {
    Theirs,
    Ours,
    Neither,
    /// Who should choose could not.
    Failed,
}

/// Compares the names of `node` with ours. Only the node of the lesser name chooses.
pub(super) async fn resolve(
    node: Arc<Inner>,
    shared: Arc<Shared>,
    peer: Atom,
    tag: i64,
    names: Vec<Term>,
) -> News {
    let chooses = node.id.name().as_bytes() < peer.as_bytes();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for entry in names {
        let Some([name, Term::Pid(pid), _]) = entry.as_tuple() else { continue };
        let held = shared.names().get(name).cloned();
        let insert = |entry: Term| term!({insert, (entry)});
        match held {
            None => ours.push(insert(entry)),
            Some(held) if held.pid == *pid || !chooses => {}
            Some(held) => match choose(&node, name, pid, (&held.pid, &held.method)).await {
                Choice::Theirs | Choice::Failed => ours.push(insert(entry)),
                Choice::Ours => {
                    let entry = vec![name.clone(), Term::Pid(held.pid), held.method];
                    theirs.push(insert(Term::Tuple(entry)));
                }
                Choice::Neither => {
                    let delete = term!({delete, (name.clone())});
                    ours.push(delete.clone());
                    theirs.push(delete);
                }
            },
        }
    }
    News::Resolved { node: peer, tag, ours, theirs }
}

/// Two processes have a name: the function that ours was registered with chooses.
async fn choose(node: &Arc<Inner>, name: &Term, theirs: &Pid, ours: (&Pid, &Term)) -> Choice {
    let (ours, method) = ours;
    let Ok(mailbox) = Node::of(Arc::clone(node)).mailbox() else { return Choice::Failed };
    // The one on the node of the lesser name stays.
    let theirs_is_less = theirs.node.name().as_bytes() < ours.node.name().as_bytes();
    let loser = if theirs_is_less { ours } else { theirs };
    let winner = if theirs_is_less { Choice::Theirs } else { Choice::Ours };
    match known(method) {
        Some("random_exit_name") => {
            tracing::info!(%name, "two processes have the global name; one is killed");
            drop(mailbox.exit(loser, &term!(kill)).await);
            winner
        }
        Some("random_notify_name") => {
            let message = term!({global_name_conflict, (name.clone())});
            drop(mailbox.send_term(loser, &message).await);
            winner
        }
        Some("notify_all_name") => {
            for (to, other) in [(theirs, ours), (ours, theirs)] {
                let message = term!({global_name_conflict, (name.clone()), (other.clone())});
                drop(mailbox.send_term(to, &message).await);
            }
            Choice::Neither
        }
        _ => ask(node, &mailbox, name, theirs, (ours, method)).await,
    }
}

/// One of the functions that `global` has for this.
fn known(method: &Term) -> Option<&str> {
    let Term::Export(export) = method else { return None };
    (export.module == *"global" && export.arity == 3).then_some(export.function.as_str())
}

/// A fun is run where our process is, if that is a node that has code.
async fn ask(
    node: &Arc<Inner>,
    mailbox: &Mailbox,
    name: &Term,
    theirs: &Pid,
    (ours, method): (&Pid, &Term),
) -> Choice {
    let (pid, other, me) = (theirs.clone(), ours.clone(), mailbox.pid().clone());
    let arguments = Term::List(vec![method.clone(), name.clone(), pid.into(), other.into()]);
    let request = term!({call, global, resolve_it, (arguments), (me)});
    let rex = To::NameAt(Atom::cut("rex"), ours.node.name().clone());
    let answer = node.call(mailbox.cell(), rex, "$gen_call", &request, LIMIT).await;
    match answer.ok().and_then(|answer| answer.term_up_to(TERMS).ok()) {
        Some(Term::Pid(pid)) if pid == *theirs => Choice::Theirs,
        Some(Term::Pid(pid)) if pid == *ours => Choice::Ours,
        None => Choice::Failed,
        Some(Term::Tuple(bad)) if bad.first().is_some_and(|it| it.is_atom("badrpc")) => {
            Choice::Failed
        }
        Some(_) => Choice::Neither,
    }
}
