//! One process: its queue, its links, its monitors.
//!
//! All of it is under one lock, which is never held together with another process's: a method says
//! what is to be told to whom, and the caller tells it afterwards. Only what is said of a link is
//! put into the outbox of its connection under that lock, since its order is the link's state.

mod calls;
mod end;
mod queue;
mod relations;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use meshx_dist::Payload;
use meshx_dist::control::Target;
use meshx_etf::{Atom, Pid, Reference, Term};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::signal::Signal;

/// Which connection a relation goes over; `None`: both processes are of this node.
pub(crate) type Via = Option<u64>;

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) pid: Pid,
    limit: usize,
    state: Mutex<State>,
    /// What its owner has taken over from the queue; locked before the state, and by the owner only.
    taken: Mutex<VecDeque<Signal>>,
    has_ended: AtomicBool,
    /// Something was put into the queue, or the process ended.
    pub(crate) arrived: Notify,
    /// The queue has become shorter than its limit.
    pub(crate) drained: Notify,
    /// The process ended.
    pub(crate) ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Signal>,
    queued: usize,
    trap_exits: bool,
    /// Nobody reads the queue: what is no answer to a call is dropped, exit signals, too.
    only_answers: bool,
    ended: Option<Term>,
    name: Option<Atom>,
    links: HashMap<Pid, Link>,
    watching: HashMap<Reference, Watch>,
    /// By where they come from: a peer chooses its references itself, and may choose those of others.
    watchers: HashMap<Via, HashMap<Reference, Watcher>>,
    spawning: HashMap<Reference, Spawning>,
    aliases: HashSet<Reference>,
    callers: HashMap<Reference, oneshot::Sender<Reply>>,
    /// How many of its sends wait for room.
    sending: usize,
}

/// `erl_dist_protocol`, "Link Protocol".
#[derive(Debug)]
struct Link {
    via: Via,
    active: bool,
    /// The id of an unlink that is not answered yet.
    unlinking: Option<u64>,
}

/// Somebody we watch.
#[derive(Debug)]
struct Watch {
    via: Via,
    target: Target,
    node: Atom,
    /// Its end is of no interest any more.
    silent: bool,
}

/// Somebody who watches us.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) pid: Pid,
    pub(crate) via: Via,
    /// What it called us.
    pub(crate) target: Target,
    /// Tells whom it may concern when nobody watches any more.
    #[expect(dead_code, reason = "it acts when it is dropped")]
    pub(crate) guard: Option<DropGuard>,
}

/// A process that we asked for.
#[derive(Debug)]
pub(crate) struct Spawning {
    pub(crate) via: Via,
    pub(crate) node: Atom,
    /// Who asked does not want the process any more.
    pub(crate) abandoned: bool,
}

/// What a caller waits for.
#[derive(Debug)]
pub(crate) enum Reply {
    Message(Payload),
    Down(Term),
    /// The process that should answer was not started.
    Refused(Atom),
}

/// What is to be told after a process ended.
#[derive(Debug)]
pub(crate) struct Farewell {
    pub(crate) name: Option<Atom>,
    pub(crate) reason: Term,
    pub(crate) links: Vec<(Pid, Via)>,
    pub(crate) watchers: Vec<(Reference, Watcher)>,
    /// Whom it watched, so that they forget it.
    pub(crate) watched: Vec<(Reference, Target, Atom, Via)>,
}

/// What came of an exit signal.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It was queued, or did not matter.
    Lives,
    /// The process ended of it.
    Ends(Farewell),
}

/// Which protocol is spoken of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkProtocol {
    /// The other side says that it has seen an unlink.
    Answered,
    /// It does not (before OTP 23.3), so the two sides may come to differ: each is told again what
    /// may be so already.
    Unanswered,
}

/// What is to be said to the other side of a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkStep {
    Nothing,
    Tell,
    /// This process has ended: the other one is to get an exit signal.
    Ended,
    /// This process has [`LINKS`] already.
    TooMany,
}

/// What is to be said of a process that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpawnStep {
    Nothing,
    /// It is watched, but not wanted any more.
    Unwanted(Pid),
    /// Who asked has ended: if the process is linked, it is to get an exit signal.
    Ended,
}

impl Cell {
    pub(crate) fn new(pid: Pid, limit: usize) -> Self {
        Self {
            pid,
            limit,
            state: Mutex::default(),
            taken: Mutex::default(),
            has_ended: AtomicBool::new(false),
            arrived: Notify::new(),
            drained: Notify::new(),
            ended: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self, limit: usize) -> bool {
        let waits = self.sending > 0 || !self.callers.is_empty();
        self.queued > limit && (!waits || self.queued / 16 > limit)
    }

    /// Puts a signal to the end, unless nobody would ever take it; true if it is full then.
    fn push(&mut self, signal: Signal, limit: usize) -> bool {
        if self.ended.is_some() || self.only_answers {
            return false;
        }
        self.queued = self.queued.saturating_add(signal.size());
        self.queue.push_back(signal);
        self.is_full(limit)
    }
}
