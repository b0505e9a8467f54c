//! One process: its queue, its links, its monitors.
//!
//! All of it is under one lock, which is never held together with another process's: a method says
//! what is to be told to whom, and the caller tells it afterwards. Only what is said of a link is
//! put into the outbox of its connection under that lock, since its order is the link's state.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use meshx_dist::Payload;
use meshx_dist::control::Target;
use meshx_etf::{Atom, Pid, Reference, Term, term};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::signal::{Down, Message, Signal};

/// Others may link so many of their processes to one.
const LINKS: usize = 1 << 20;

/// A process with so many signals waiting is behind: from here on messages do not keep the buffers
/// that they were read into.
const LAGGING: usize = 1024;

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
    watchers: HashMap<Reference, Watcher>,
    spawning: HashMap<Reference, Spawning>,
    aliases: HashSet<Reference>,
    callers: HashMap<Reference, oneshot::Sender<Reply>>,
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

    // --- the queue ---

    /// Queues messages; answers to calls go to their callers instead. True if the queue is over its
    /// limit and who feeds it should wait. A process that waits for an answer is not waited for
    /// unless there is far too much: the answer may be behind.
    pub(crate) fn deliver(&self, messages: impl IntoIterator<Item = Message>) -> bool {
        let mut state = self.state();
        let before = state.queue.len();
        for message in messages {
            self.place(&mut state, message);
        }
        let arrived = state.queue.len() > before;
        let full = arrived && state.is_full(self.limit);
        drop(state);
        if arrived {
            self.arrived.notify_one();
        }
        full
    }

    pub(crate) fn deliver_message(&self, message: Message) -> bool {
        self.deliver([message])
    }

    fn place(&self, state: &mut State, mut message: Message) {
        if !state.callers.is_empty()
            && let Some((reference, reply)) = super::reply::of_call(&message.body)
            && let Some(caller) = state.callers.remove(&reference)
        {
            state.aliases.remove(&reference);
            // The monitor stays until the caller takes it back, but cannot fire any more.
            if let Some(watch) = state.watching.get_mut(&reference) {
                watch.silent = true;
            }
            // A caller that gave up meanwhile is none.
            drop(caller.send(Reply::Message(reply)));
        } else if !state.only_answers && !self.is_late(state, &message.body) {
            if state.queue.len() > LAGGING {
                message.body = message.body.compact();
            }
            state.push(Signal::Message(message), self.limit);
        }
    }

    /// Whether that is an answer through an alias of this process that is not valid any more, whichever
    /// way it came: some peers answer to the pid.
    fn is_late(&self, state: &State, body: &Payload) -> bool {
        super::reply::through_alias(body).is_some_and(|alias| {
            let ours = *alias.node() == self.pid.node && alias.words().get(2) == Some(&self.pid.id);
            ours && !state.aliases.contains(&alias)
        })
    }

    /// A message to an alias; to one that is not valid any more it is dropped.
    pub(crate) fn deliver_to_alias(&self, alias: &Reference, message: Message) -> bool {
        if !self.state().aliases.contains(alias) {
            return false;
        }
        self.deliver_message(message)
    }

    /// The next signal, if one is there. What waits is taken over at one go, so that who receives and
    /// who delivers seldom meet; a queue is as long as its limit twice, at most.
    pub(crate) fn take(&self) -> Option<Signal> {
        let mut taken = self.taken();
        if taken.is_empty() {
            self.take_over(&mut taken);
        }
        // An end drops what waited.
        if self.has_ended.load(Ordering::Acquire) {
            taken.clear();
        }
        taken.pop_front()
    }

    fn take_over(&self, taken: &mut VecDeque<Signal>) {
        let mut state = self.state();
        taken.append(&mut state.queue);
        let was_full = state.queued > self.limit;
        state.queued = 0;
        drop(state);
        if was_full {
            self.drained.notify_waiters();
        }
    }

    /// The first signal that `wanted` wants, out of its turn.
    pub(crate) fn take_if(&self, mut wanted: impl FnMut(&Signal) -> bool) -> Option<Signal> {
        let mut taken = self.taken();
        if self.has_ended.load(Ordering::Acquire) {
            return None;
        }
        if let Some(at) = taken.iter().position(&mut wanted) {
            return taken.remove(at);
        }
        // What is not wanted stays where it counts.
        let mut state = self.state();
        let at = state.queue.iter().position(wanted)?;
        let signal = state.queue.remove(at)?;
        let was_full = state.queued > self.limit;
        state.queued = state.queued.saturating_sub(signal.size());
        let drained = was_full && state.queued <= self.limit;
        drop(state);
        if drained {
            self.drained.notify_waiters();
        }
        Some(signal)
    }

    fn taken(&self) -> MutexGuard<'_, VecDeque<Signal>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.state().is_full(self.limit)
    }

    pub(crate) fn queue_len(&self) -> usize {
        let taken = self.taken().len();
        taken + self.state().queue.len()
    }

    pub(crate) fn ended_with(&self) -> Option<Term> {
        self.state().ended.clone()
    }

    pub(crate) fn trap_exits(&self, trap: bool) {
        self.state().trap_exits = trap;
    }

    /// From now on, messages that answer no call are dropped, and so are exit signals: the process has no
    /// mailbox, and calls of many who know nothing of each other.
    pub(crate) fn only_answers(&self) {
        self.state().only_answers = true;
    }

    /// False if it has a name already, or has ended.
    pub(crate) fn take_name(&self, name: &Atom) -> bool {
        let mut state = self.state();
        if state.name.is_some() || state.ended.is_some() {
            return false;
        }
        state.name = Some(name.clone());
        true
    }

    pub(crate) fn name(&self) -> Option<Atom> {
        self.state().name.clone()
    }

    pub(crate) fn drop_name(&self) {
        self.state().name = None;
    }

    // --- aliases and calls ---

    pub(crate) fn add_alias(&self, alias: Reference) {
        self.state().aliases.insert(alias);
    }

    pub(crate) fn drop_alias(&self, alias: &Reference) -> bool {
        self.state().aliases.remove(alias)
    }

    /// From now on the answer to `reference`, or the end of who should give it, goes to the receiver.
    pub(crate) fn expect_reply(&self, reference: Reference) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.ended.is_some() {
            return receiver;
        }
        state.aliases.insert(reference.clone());
        state.callers.insert(reference, sender);
        drop(state);
        // Who waits for a full queue may have the answer.
        self.drained.notify_waiters();
        receiver
    }

    /// The caller gives up: what comes later is dropped. Gives whom it watched for that.
    pub(crate) fn forget_reply(&self, reference: &Reference) -> Option<(Target, Atom, Via)> {
        let mut state = self.state();
        state.aliases.remove(reference);
        state.callers.remove(reference);
        if let Some(spawning) = state.spawning.get_mut(reference) {
            spawning.abandoned = true;
        }
        state.watching.remove(reference).map(|watch| (watch.target, watch.node, watch.via))
    }

    // --- links ---

    /// `link/1` here. If the other side is to be told, `tell` does so at once: what the peer says of
    /// the link is looked at before or after both, not between.
    pub(crate) fn link(
        &self,
        to: &Pid,
        via: Via,
        protocol: LinkProtocol,
        tell: impl FnOnce(),
    ) -> LinkStep {
        let mut state = self.state();
        if state.ended.is_some() {
            return LinkStep::Ended;
        }
        let link =
            state.links.entry(to.clone()).or_insert(Link { via, active: false, unlinking: None });
        if link.active && protocol == LinkProtocol::Answered {
            return LinkStep::Nothing;
        }
        *link = Link { via, active: true, unlinking: None };
        tell();
        LinkStep::Tell
    }

    /// The other side linked.
    pub(crate) fn linked_by(&self, from: &Pid, via: Via) -> LinkStep {
        let mut state = self.state();
        if state.ended.is_some() {
            return LinkStep::Ended;
        }
        if state.links.len() >= LINKS && !state.links.contains_key(from) {
            return LinkStep::TooMany;
        }
        state.links.entry(from.clone()).or_insert(Link { via, active: true, unlinking: None });
        LinkStep::Nothing
    }

    /// `unlink/1` here; if there was a link, `tell` says so to the other side, with this id, as
    /// [`Cell::link`] does.
    pub(crate) fn unlink(&self, to: &Pid, id: u64, tell: impl FnOnce(Via)) {
        let mut state = self.state();
        let Some(link) = state.links.get_mut(to).filter(|link| link.active) else { return };
        let via = link.via;
        if via.is_none() {
            state.links.remove(to);
            // The other side is a process with a lock of its own.
            drop(state);
            return tell(via);
        }
        link.active = false;
        link.unlinking = Some(id);
        tell(via);
    }

    /// `unlink/1` here, where the other side does not answer: it is told whether there was a link or not.
    pub(crate) fn unlink_unanswered(&self, to: &Pid, tell: impl FnOnce()) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.links.remove(to);
            tell();
        }
    }

    /// The other side unlinked, and `tell` says that this was seen, as [`Cell::link`] does.
    pub(crate) fn unlinked_by(&self, from: &Pid, tell: impl FnOnce()) {
        let mut state = self.state();
        if state.links.get(from).is_some_and(|link| link.active) {
            state.links.remove(from);
        }
        tell();
    }

    /// The other side has seen our unlink.
    pub(crate) fn unlink_seen(&self, from: &Pid, id: u64) {
        let mut state = self.state();
        if state.links.get(from).is_some_and(|link| !link.active && link.unlinking == Some(id)) {
            state.links.remove(from);
        }
    }

    /// The other side of a link ended.
    pub(crate) fn link_broke(&self, from: &Pid, reason: Term) -> Fate {
        let mut state = self.state();
        match state.links.remove(from) {
            Some(link) if link.active => self.exit(state, from, reason),
            _ => Fate::Lives,
        }
    }

    // --- monitors ---

    /// `monitor/2` here; false if this process has ended.
    pub(crate) fn watch(&self, reference: Reference, target: Target, node: Atom, via: Via) -> bool {
        let mut state = self.state();
        let lives = state.ended.is_none();
        if lives {
            state.watching.insert(reference, Watch { via, target, node, silent: false });
        }
        lives
    }

    /// `demonitor/1` here: whom to tell. A signal of it that is queued already is taken out.
    pub(crate) fn unwatch(&self, reference: &Reference) -> Option<(Target, Atom, Via)> {
        let fired =
            |signal: &Signal| matches!(signal, Signal::Down(down) if down.reference == *reference);
        let mut state = self.state();
        let watch = state.watching.remove(reference);
        drop(state);
        if watch.is_none() {
            drop(self.take_if(fired));
        }
        watch.map(|watch| (watch.target, watch.node, watch.via))
    }

    /// Whom we watch ended, as is said where he is: nobody else says so.
    pub(crate) fn watched_ended(&self, reference: &Reference, via: Via, reason: Term) {
        let mut state = self.state();
        if state.watching.get(reference).is_none_or(|watch| watch.via != via) {
            return;
        }
        let Some(watch) = state.watching.remove(reference).filter(|it| !it.silent) else { return };
        if let Some(caller) = state.callers.remove(reference) {
            state.aliases.remove(reference);
            drop(state);
            drop(caller.send(Reply::Down(reason)));
            return;
        }
        let reference = reference.clone();
        let (target, node) = (watch.target, watch.node);
        state.push(Signal::Down(Down { reference, target, node, reason }), self.limit);
        drop(state);
        self.arrived.notify_one();
    }

    /// Somebody watches us; false if there is nothing to watch any more.
    pub(crate) fn watched_by(&self, reference: Reference, watcher: Watcher) -> bool {
        let mut state = self.state();
        if state.ended.is_some() {
            return false;
        }
        state.watchers.insert(reference, watcher);
        true
    }

    pub(crate) fn unwatched_by(&self, reference: &Reference) {
        self.state().watchers.remove(reference);
    }

    /// Takes out the monitor that a process set up for its call: that of `reference`, or, if the call
    /// names none, the only one of that process.
    pub(crate) fn take_watcher(
        &self,
        pid: &Pid,
        reference: Option<&Reference>,
    ) -> Option<(Reference, Watcher)> {
        let mut state = self.state();
        let named = reference.filter(|it| state.watchers.get(it).is_some_and(|it| it.pid == *pid));
        let found = named.cloned().or_else(|| {
            let mut all = state.watchers.iter().filter(|(_, watcher)| watcher.pid == *pid);
            let first = all.next().map(|(reference, _)| reference.clone());
            first.filter(|_| all.next().is_none())
        })?;
        state.watchers.remove_entry(&found)
    }

    /// How many watch us.
    #[cfg(test)]
    pub(crate) fn watcher_count(&self) -> usize {
        self.state().watchers.len()
    }

    /// How many we watch, answers we wait for, aliases we have.
    #[cfg(test)]
    pub(crate) fn expecting(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.watching.len(), state.callers.len(), state.aliases.len())
    }

    /// How many requests to start a process are not answered.
    #[cfg(test)]
    pub(crate) fn spawning_count(&self) -> usize {
        self.state().spawning.len()
    }

    // --- processes that were asked for ---

    pub(crate) fn spawning(&self, reference: Reference, spawning: Spawning) {
        self.state().spawning.insert(reference, spawning);
    }

    /// The request was not sent.
    pub(crate) fn not_spawning(&self, reference: &Reference) {
        self.state().spawning.remove(reference);
    }

    /// The answer to a request, from where it was sent. Gives the process if it is watched, but not wanted
    /// any more.
    pub(crate) fn spawned(
        &self,
        reference: Reference,
        via: Via,
        result: Result<Pid, Atom>,
        linked: bool,
        monitored: bool,
    ) -> Option<Pid> {
        let mut state = self.state();
        state.spawning.get(&reference).filter(|spawning| spawning.via == via)?;
        let Spawning { node, abandoned, .. } = state.spawning.remove(&reference)?;
        if abandoned {
            return result.ok().filter(|_| monitored);
        }
        if let Ok(pid) = &result {
            if linked {
                let link = Link { via, active: true, unlinking: None };
                state.links.insert(pid.clone(), link);
            }
            if monitored {
                let target = Target::Pid(pid.clone());
                let watch = Watch { via, target, node, silent: false };
                state.watching.insert(reference.clone(), watch);
            }
        }
        match (result, state.callers.remove(&reference)) {
            (Err(reason), Some(caller)) => {
                state.aliases.remove(&reference);
                drop(state);
                drop(caller.send(Reply::Refused(reason)));
            }
            // Its end is what is waited for.
            (Ok(_), Some(caller)) => {
                state.callers.insert(reference, caller);
            }
            (result, None) => {
                state.push(Signal::Spawned { reference, result }, self.limit);
                drop(state);
                self.arrived.notify_one();
            }
        }
        None
    }

    // --- the end ---

    /// An exit signal that somebody sent (`exit/2`).
    pub(crate) fn exit_signal(&self, from: &Pid, reason: Term) -> Fate {
        let state = self.state();
        if state.only_answers {
            return Fate::Lives;
        }
        if reason == term!(kill) {
            return self.end(state, term!(killed));
        }
        if reason == term!(normal) && !state.trap_exits && *from != self.pid {
            return Fate::Lives;
        }
        self.exit(state, from, reason)
    }

    fn exit(&self, mut state: MutexGuard<'_, State>, from: &Pid, reason: Term) -> Fate {
        if state.only_answers {
            return Fate::Lives;
        }
        if state.trap_exits {
            state.push(Signal::Exit { from: from.clone(), reason }, self.limit);
            drop(state);
            self.arrived.notify_one();
            return Fate::Lives;
        }
        if reason == term!(normal) && *from != self.pid {
            return Fate::Lives;
        }
        self.end(state, reason)
    }

    /// The process ends of itself.
    pub(crate) fn finish(&self, reason: Term) -> Fate {
        self.end(self.state(), reason)
    }

    fn end(&self, mut state: MutexGuard<'_, State>, reason: Term) -> Fate {
        if state.ended.is_some() {
            return Fate::Lives;
        }
        state.ended = Some(reason.clone());
        let before = std::mem::take(&mut *state);
        state.ended = before.ended;
        self.has_ended.store(true, Ordering::Release);
        drop(state);
        self.ended.cancel();
        self.arrived.notify_one();
        self.drained.notify_waiters();
        let links = before.links.into_iter().filter(|(_, link)| link.active);
        let watched = before.watching.into_iter();
        Fate::Ends(Farewell {
            name: before.name,
            reason,
            links: links.map(|(pid, link)| (pid, link.via)).collect(),
            watchers: before.watchers.into_iter().collect(),
            watched: watched.map(|(of, watch)| (of, watch.target, watch.node, watch.via)).collect(),
        })
    }

    /// A connection is gone: everything over it ends, once.
    pub(crate) fn lost(&self, connection: u64) -> Vec<Farewell> {
        let via = Some(connection);
        let mut state = self.state();
        state.watchers.retain(|_, watcher| watcher.via != via);
        let links: Vec<(Pid, bool)> = state
            .links
            .extract_if(|_, link| link.via == via)
            .map(|(pid, link)| (pid, link.active))
            .collect();
        let watching = of_connection(&state.watching, |watch| watch.via == via);
        let spawning = of_connection(&state.spawning, |spawning| spawning.via == via);
        drop(state);
        for reference in watching {
            self.watched_ended(&reference, via, term!(noconnection));
        }
        for reference in spawning {
            self.spawned(reference, via, Err(Atom::cut("noconnection")), false, false);
        }
        let mut ends = Vec::new();
        for (pid, _) in links.into_iter().filter(|(_, active)| *active) {
            if let Fate::Ends(farewell) = self.exit(self.state(), &pid, term!(noconnection)) {
                ends.push(farewell);
            }
        }
        ends
    }
}

fn of_connection<T>(all: &HashMap<Reference, T>, lost: impl Fn(&T) -> bool) -> Vec<Reference> {
    let lost = all.iter().filter(|(_, entry)| lost(entry));
    lost.map(|(reference, _)| reference.clone()).collect()
}

impl State {
    fn is_full(&self, limit: usize) -> bool {
        self.queued > limit && (self.callers.is_empty() || self.queued / 16 > limit)
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
