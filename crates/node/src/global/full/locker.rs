//! The locker: agrees with that of a new node on who locks both partitions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use meshx_etf::{Atom, Pid, Term, compare, term};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::NAME;
use super::ask::{Asker, boss};
use super::shared::Shared;
use super::state::News;
use super::turns::Turn;
use crate::envelope::{TERMS, cast};
use crate::node::Inner;
use crate::process::{Mailbox, Message, Signal};
use crate::to::To;

/// So long may the other side take until it goes on. Stock nodes wait without end, but for the end of
/// the connection; here both sides begin anew.
const STUCK: Duration = Duration::from_mins(1);

/// What the server tells the locker.
#[derive(Debug)]
pub(super) enum Order {
    /// There is a locker to agree with.
    Meet(Him),
    /// It is not to be waited for any more. First this is to be said to others.
    Cancel { node: Atom, tag: i64, announce: Vec<(Atom, Term)> },
    /// It has locked its partition, or has not.
    LockSet { locker: Pid, set: bool, tag: Option<i64> },
}

/// An order and its place among those of its node, which it keeps while it waits.
pub(super) type Waiting = (Order, Turn);

/// The locker of another node.
#[derive(Debug, Clone)]
pub(super) struct Him {
    pub(super) node: Atom,
    pub(super) locker: Pid,
    pub(super) version: i64,
    pub(super) my_tag: i64,
    pub(super) his_tag: Term,
}

pub(super) struct Locker {
    node: Arc<Inner>,
    asker: Asker,
    pid: Pid,
    shared: Arc<Shared>,
    news: mpsc::Sender<News>,
    others: Vec<Him>,
    /// What came while something else was waited for.
    later: VecDeque<Waiting>,
    just_synced: bool,
}

impl Locker {
    pub(super) fn new(
        node: Arc<Inner>,
        mailbox: &Mailbox,
        shared: Arc<Shared>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            asker: Asker::new(&node, mailbox),
            pid: mailbox.pid().clone(),
            node,
            shared,
            news,
            others: Vec::new(),
            later: VecDeque::new(),
            just_synced: false,
        }
    }

    pub(super) async fn run(mut self, mut mailbox: Mailbox, mut orders: mpsc::Receiver<Waiting>) {
        mailbox.trap_exits(true);
        let (node, shared) = (Arc::clone(&self.node), Arc::clone(&self.shared));
        let (mailbox, orders) = (&mut mailbox, &mut orders);
        let mut incoming = Incoming { mailbox, orders, node, shared };
        loop {
            let order = match (self.later.pop_front(), self.patience()) {
                (Some(order), _) => Some(order),
                (None, None) => Some(incoming.next().await),
                (None, Some(patience)) => timeout(patience, incoming.next()).await.ok(),
            };
            match order {
                Some((order, turn)) => {
                    drop(turn);
                    self.take(order, &mut incoming).await;
                }
                // While somebody else changes names, nobody is asked.
                None if self.shared.is_locked() => self.just_synced = false,
                None => {
                    self.just_synced = false;
                    self.ask_somebody(&mut incoming).await;
                }
            }
        }
    }

    /// How long to wait for others to begin. Whoever is alone begins first.
    fn patience(&self) -> Option<Duration> {
        let known = u64::try_from(self.shared.known().len()).unwrap_or(u64::MAX);
        match known {
            _ if self.others.is_empty() => None,
            _ if self.just_synced => Some(Duration::ZERO),
            0 => Some(Duration::from_millis(200)),
            known => Some(Duration::from_millis((1000 + known.saturating_mul(100)).min(3000))),
        }
    }

    async fn take(&mut self, order: Order, incoming: &mut Incoming<'_>) {
        match order {
            Order::Meet(him) => self.others.push(him),
            Order::Cancel { node, tag, announce } => {
                self.announce(announce);
                self.forget(&node, tag);
            }
            Order::LockSet { set: false, .. } => {}
            Order::LockSet { locker, set: true, tag } => {
                let him = self.others.iter().find(|him| {
                    him.node == *locker.node.name() && tag.is_none_or(|tag| him.my_tag == tag)
                });
                match him.cloned() {
                    Some(him) => self.follow(him, incoming).await,
                    // Whoever that is, he is not to wait.
                    None => self.refuse(&locker),
                }
            }
        }
    }

    /// He has locked his partition and both of us; we do the same, and say so.
    async fn follow(&mut self, him: Him, incoming: &mut Incoming<'_>) {
        let id = self.lock_id(&him);
        let Some(locked) = self.lock(&id, None).await else {
            self.just_synced = false;
            return self.say(&him, false);
        };
        self.say(&him, true);
        self.exchange(&him, &id, &locked, incoming).await;
    }

    /// We lock our partition and both of us, and ask somebody to do the same.
    async fn ask_somebody(&mut self, incoming: &mut Incoming<'_>) {
        let known = self.shared.known_nodes();
        self.others.retain(|him| !known.contains(&him.node));
        if self.others.is_empty() {
            return;
        }
        let him = self.others[meshx_rt::random::below(self.others.len())].clone();
        let id = self.lock_id(&him);
        let Some(locked) = self.lock(&id, Some(&him.node)).await else { return };
        self.say(&him, true);
        let end = Instant::now() + STUCK;
        loop {
            match timeout_at(end, incoming.next()).await {
                Ok((Order::LockSet { locker, set, tag }, _)) if *locker.node.name() == him.node => {
                    if tag.is_some_and(|tag| tag != him.my_tag) {
                        continue;
                    }
                    if set {
                        return self.exchange(&him, &id, &locked, incoming).await;
                    }
                    break;
                }
                Ok((Order::Cancel { node, tag, announce }, _))
                    if node == him.node && tag == him.my_tag =>
                {
                    self.announce(announce);
                    self.forget(&node, tag);
                    break;
                }
                Ok(order) => self.later.push_back(order),
                Err(_) => {
                    self.stuck(&him).await;
                    break;
                }
            }
        }
        self.asker.release(&id, &locked).await;
    }

    /// Both sides have locked. The servers exchange names now; when they are done, the session is
    /// cancelled, and the locks are given back.
    async fn exchange(
        &mut self,
        him: &Him,
        id: &Term,
        locked: &[Atom],
        incoming: &mut Incoming<'_>,
    ) {
        let news = News::LockIsSet { node: him.node.clone(), tag: him.my_tag, lock: id.clone() };
        self.report(news).await;
        let end = Instant::now() + STUCK;
        loop {
            match timeout_at(end, incoming.next()).await {
                Ok((Order::Cancel { node, tag, announce }, _))
                    if node == him.node && tag == him.my_tag =>
                {
                    self.announce(announce);
                    break;
                }
                Ok(order) => self.later.push_back(order),
                Err(_) => {
                    self.stuck(him).await;
                    break;
                }
            }
        }
        self.asker.release(id, locked).await;
        self.just_synced = true;
        self.forget(&him.node, him.my_tag);
    }

    /// Locks the boss, this node and `extra`, then all known ones. Gives the nodes if all are.
    async fn lock(&self, id: &Term, extra: Option<&Atom>) -> Option<Vec<Atom>> {
        let me = self.pid.node.name().clone();
        let mut locked: Vec<Atom> = Vec::new();
        let mut all = self.shared.known_nodes();
        all.push(me.clone());
        let first: Vec<Atom> = boss(&all).into_iter().collect();
        for step in 0..3 {
            let next: Vec<Atom> = match step {
                0 => first.clone(),
                1 => [Some(&me), extra].into_iter().flatten().cloned().collect(),
                _ => self.shared.known_nodes(),
            };
            let next: Vec<Atom> = next.into_iter().filter(|node| !locked.contains(node)).collect();
            if !self.asker.set_lock(id, &next).await {
                self.asker.del_lock(id, &locked).await;
                return None;
            }
            locked.extend(next);
        }
        Some(locked)
    }

    /// Both sides must name the lock alike.
    fn lock_id(&self, him: &Him) -> Term {
        let mut lockers = [Term::Pid(self.pid.clone()), Term::Pid(him.locker.clone())];
        lockers.sort_by(compare);
        Term::Tuple(vec![Term::atom("global"), Term::List(lockers.to_vec())])
    }

    fn say(&self, him: &Him, set: bool) {
        let known = self.shared.known_nodes().into_iter().map(Term::Atom).collect();
        let (me, known) = (self.pid.clone(), Term::List(known));
        match him.version {
            8.. => {
                let his_tag = him.his_tag.clone();
                let message = term!({lock_set, (me), (set), (known), (his_tag)});
                self.tell(&him.node, &cast(message));
            }
            6..=7 => self.tell(&him.node, &cast(term!({lock_set, (me), (set), (known)}))),
            _ => {
                let message = term!({lock_set, (me), (set), (known)});
                self.node.post(&self.pid, &To::from(&him.locker), &message);
            }
        }
    }

    fn refuse(&self, locker: &Pid) {
        let me = self.pid.clone();
        self.node.post(&self.pid, &To::from(locker), &term!({lock_set, (me), false, []}));
    }

    /// From this process, which gives the locks back afterwards: so it arrives before.
    fn announce(&self, announce: Vec<(Atom, Term)>) {
        for (node, message) in announce {
            self.tell(&node, &message);
        }
    }

    fn tell(&self, node: &Atom, message: &Term) {
        self.node.post(&self.pid, &To::NameAt(Atom::cut(NAME), node.clone()), message);
    }

    fn forget(&mut self, node: &Atom, tag: i64) {
        self.others.retain(|him| him.node != *node || him.my_tag != tag);
    }

    async fn stuck(&mut self, him: &Him) {
        tracing::warn!(node = %him.node, "global: it does not go on; both begin anew");
        self.report(News::Stuck { node: him.node.clone(), tag: him.my_tag }).await;
        self.forget(&him.node, him.my_tag);
    }

    /// The server takes news before anything else, and waits for nobody.
    async fn report(&self, news: News) {
        drop(self.news.send(news).await);
    }
}

/// What a locker is told: by its server, or by a locker of an old version.
struct Incoming<'l> {
    mailbox: &'l mut Mailbox,
    orders: &'l mut mpsc::Receiver<Waiting>,
    node: Arc<Inner>,
    shared: Arc<Shared>,
}

impl Incoming<'_> {
    async fn next(&mut self) -> Waiting {
        loop {
            tokio::select! {
                Some(order) = self.orders.recv() => return order,
                signal = self.mailbox.receive() => match signal {
                    Some(Signal::Message(message)) => {
                        if let Some(waiting) = self.told(&message) {
                            return waiting;
                        }
                    }
                    Some(_) => {}
                    // The process has ended, and this task with it.
                    None => std::future::pending().await,
                },
            }
        }
    }
}

impl Incoming<'_> {
    /// Each locker speaks for itself.
    fn told(&self, message: &Message) -> Option<Waiting> {
        let sender = message.from.as_ref()?;
        let (locker, order) = of_old(&message.body.term_up_to(TERMS).ok()?)?;
        if locker.node.name() != sender.node.name() {
            return None;
        }
        let turn = self.shared.turns.enter(sender.node.name());
        if turn.is_none() {
            self.node.too_much(sender.node.name());
        }
        Some((order, turn?))
    }
}

impl Order {
    /// Of whom it is.
    pub(super) fn node(&self) -> &Atom {
        match self {
            Self::Meet(him) => &him.node,
            Self::Cancel { node, .. } => node,
            Self::LockSet { locker, .. } => locker.node.name(),
        }
    }
}

impl Inner {
    /// The locker takes orders whenever it waits; that it has hundreds of one node is the doing of
    /// that node.
    pub(super) fn too_much(&self, of: &Atom) {
        if let Some(connection) = self.peers.up_to(of) {
            connection.close("it sends more to global than can be done");
        }
    }
}

/// `{lock_set, Locker, Set, Known}`.
fn of_old(message: &Term) -> Option<(Pid, Order)> {
    match message.as_tuple()? {
        [kind, Term::Pid(locker), set, _] if kind.is_atom("lock_set") => {
            let set = set.is_atom("true");
            Some((locker.clone(), Order::LockSet { locker: locker.clone(), set, tag: None }))
        }
        _ => None,
    }
}
