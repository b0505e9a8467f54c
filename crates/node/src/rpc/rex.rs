//! The server through which calls came before `erpc`, and by which C nodes still make them.

use std::pin::Pin;
use std::sync::Arc;

use meshx_etf::{Atom, Pid, Term, term};
use tokio::sync::mpsc;

use super::execute::{Outcome, Place};
use crate::call::Caller;
use crate::envelope::Envelope;
use crate::node::{Inner, Node};
use crate::process::{Mailbox, Message, Signal};
use crate::to::To;

/// Takes what OTP's `rex` takes, and ignores what that ignores; other than that, it cannot be told to
/// stop. Block calls wait for each other, but nothing else waits for them.
pub(crate) async fn serve(node: Arc<Inner>, mut mailbox: Mailbox) {
    // As many as calls have a place.
    let (blocking, mut waiting) = mpsc::unbounded_channel::<Job>();
    node.tasks.spawn(async move {
        while let Some(job) = waiting.recv().await {
            job.await;
        }
    });
    while let Some(signal) = mailbox.receive().await {
        let Signal::Message(message) = signal else { continue };
        take(&node, &mailbox, message, &blocking);
    }
}

/// A call, to its end.
type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a call takes that is made.
#[derive(Debug)]
struct Room {
    caller: Pid,
    place: Place,
    /// Of the process in which it runs.
    mailbox: Mailbox,
}

/// Whom a call is answered, and how.
#[derive(Debug)]
enum Client {
    /// `{Tag, Reply}`, as of a `gen_server`.
    Server(Caller),
    /// `{rex, Reply}`.
    Plain(Pid),
    /// Not at all.
    Nobody,
}

/// What it is asked for. A function is `[Module, Function, Arguments]`.
#[derive(Debug)]
enum Request {
    Call(Vec<Term>),
    BlockCall(Vec<Term>),
    Cast(Vec<Term>),
    Broadcast(Atom, Term),
    Send(Atom, Term),
    Features,
}

fn take(
    node: &Arc<Inner>,
    mailbox: &Mailbox,
    message: Message,
    blocking: &mpsc::UnboundedSender<Job>,
) {
    let Ok(envelope) = Envelope::open(&message.body) else { return };
    match envelope {
        Envelope::Call(from, request) => {
            match Request::of(request) {
                Some(Request::Call(function)) => {
                    start(node, mailbox, message.from, Client::Server(from), function);
                }
                Some(Request::BlockCall(function)) => {
                    let client = Client::Server(from);
                    match Room::of(node, message.from) {
                        // It takes them until this process ends.
                        Some(room) => drop(blocking.send(Box::pin(job(room, client, function)))),
                        None => refuse(node, mailbox, client),
                    }
                }
                _ => {}
            }
        }
        Envelope::Cast(request) => {
            if let Some(Request::Cast(function)) = Request::of(request) {
                start(node, mailbox, message.from, Client::Nobody, function);
            }
        }
        // `{From, Request}`.
        Envelope::Other(Term::Tuple(pair)) => {
            let Ok([Term::Pid(from), request]) = <[Term; 2]>::try_from(pair) else { return };
            match Request::of(request) {
                Some(Request::Call(function)) => {
                    start(node, mailbox, message.from, Client::Plain(from), function);
                }
                Some(request) => plain(node, mailbox, from, request),
                None => {}
            }
        }
        Envelope::Other(_) => {}
    }
}

/// What is done at once.
fn plain(node: &Arc<Inner>, mailbox: &Mailbox, from: Pid, request: Request) {
    let own = || Term::Atom(node.id.name().clone());
    let post = |to: &To, message: &Term| node.post(mailbox.pid(), to, message);
    let unknown = |name: Atom| term!({rex, (own()), {nonexisting_name, (name)}});
    match request {
        Request::Features => post(&To::Pid(from), &term!({features_reply, (own()), [erpc]})),
        Request::Broadcast(name, message) => {
            let answer = if is_open(node, &name) {
                post(&To::Name(name), &message);
                term!({rex, (own()), (own())})
            } else {
                unknown(name)
            };
            post(&To::Pid(from), &answer);
        }
        // Who has the name answers.
        Request::Send(name, message) if is_open(node, &name) => {
            post(&To::Name(name), &term!({(from), (message)}));
        }
        Request::Send(name, _) => post(&To::Pid(from), &unknown(name)),
        Request::Call(_) | Request::BlockCall(_) | Request::Cast(_) => {}
    }
}

/// Whether a process has the name, and takes more. Who sends through this one is not held back by a
/// mailbox that is full.
fn is_open(node: &Inner, name: &Atom) -> bool {
    node.processes.named(name).is_some_and(|cell| !cell.is_full())
}

impl Request {
    fn of(term: Term) -> Option<Self> {
        let parts = match term {
            Term::Atom(name) if name == "features_request" => return Some(Self::Features),
            Term::Tuple(parts) => parts,
            _ => return None,
        };
        match <[Term; 5]>::try_from(parts) {
            // The last is the group leader, to which nothing is written.
            Ok([kind, module, function, arguments, _]) => {
                let function = vec![module, function, arguments];
                match kind.as_atom()?.as_str() {
                    "call" => Some(Self::Call(function)),
                    "block_call" => Some(Self::BlockCall(function)),
                    "cast" => Some(Self::Cast(function)),
                    _ => None,
                }
            }
            Err(parts) => match <[Term; 3]>::try_from(parts).ok()? {
                [kind, Term::Atom(name), message] if kind.is_atom("sbcast") => {
                    Some(Self::Broadcast(name, message))
                }
                [kind, Term::Atom(name), message] if kind.is_atom("send") => {
                    Some(Self::Send(name, message))
                }
                _ => None,
            },
        }
    }
}

fn start(
    node: &Arc<Inner>,
    mailbox: &Mailbox,
    caller: Option<Pid>,
    client: Client,
    function: Vec<Term>,
) {
    match Room::of(node, caller) {
        Some(room) => drop(node.tasks.spawn(job(room, client, function))),
        None => refuse(node, mailbox, client),
    }
}

impl Room {
    /// For a call of a node that is there. What the message says of its sender does not count: whoever
    /// calls in the name of another has no room.
    fn of(node: &Arc<Inner>, caller: Option<Pid>) -> Option<Self> {
        let caller = caller?;
        let peer = caller.node.name();
        let is_there = peer == node.id.name() || node.peers.up_to(peer).is_some();
        let place = is_there.then(|| node.place(peer)).flatten()?;
        let mailbox = Node::of(Arc::clone(node)).mailbox().ok()?;
        Some(Self { caller, place, mailbox })
    }
}

/// At once, and without a process: many may be refused.
fn refuse(node: &Arc<Inner>, mailbox: &Mailbox, client: Client) {
    if let Some((to, answer)) = client.answer(Outcome::Refused("system_limit")) {
        node.post(mailbox.pid(), &to, &answer);
    }
}

impl Client {
    /// What it is told, and where.
    fn answer(self, outcome: Outcome) -> Option<(To, Term)> {
        match self {
            Self::Server(from) => Some(from.answer(outcome.into_reply())),
            Self::Plain(pid) => Some((To::Pid(pid), term!({rex, (outcome.into_reply())}))),
            Self::Nobody => None,
        }
    }
}

/// Runs a call in a process of its own, and answers. A client whose connection is lost waits no more;
/// that it ended on a node that lives is not noticed, as C nodes cannot be watched.
async fn job(room: Room, client: Client, function: Vec<Term>) {
    let Room { caller, place, mailbox } = room;
    let (node, cell) = (mailbox.inner(), mailbox.cell());
    let lost = async {
        match node.peers.up_to(caller.node.name()) {
            Some(connection) if !matches!(client, Client::Nobody) => connection.closed().await,
            _ => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        biased;
        // Somebody else ended it.
        () = cell.ended.cancelled() => Outcome::Exit(cell.ended_with().unwrap_or_else(Term::nil)),
        () = lost => return,
        outcome = node.apply(Some(&place), function, &caller, mailbox.pid()) => outcome,
    };
    let Some((to, answer)) = client.answer(outcome) else { return };
    if let Err(error) = node.send_back(mailbox.pid(), &to, &caller, &answer).await {
        tracing::debug!(%error, "the result of a call was lost");
    }
}
