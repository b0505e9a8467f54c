//! The state of the server, apart from any process: what it is told goes in, what is to be done
//! comes out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use meshx_etf::{Atom, Pid, Reference, Term, term};

use super::super::VERSION;
use super::super::locks::{Attempt, Locks};
use super::locker::Order;
use super::shared::Shared;
use crate::call::Caller;
use crate::node::Inner;

/// What is to be done. In this order.
#[derive(Debug)]
pub(super) enum Act {
    /// Send to the name server of a node, if it is connected.
    Tell(Atom, Term),
    Reply(Caller, Term),
    /// Watch a process, by this reference.
    Watch(Pid, Reference),
    Unwatch(Reference),
    Locker(Order),
    /// Connect to a node, and say that we are in sync.
    Introduce(Atom),
    /// Compare the names of a node with ours, and say so with this tag.
    Resolve(Atom, i64, Vec<Term>),
    Disconnect(Atom),
    /// After a while, see whether the loss of a node must be told.
    ReportLater(Atom),
}

/// What the other processes of `global` on this node tell the server.
#[derive(Debug)]
pub(super) enum News {
    /// The lock for the exchange with a node is set, on both sides.
    LockIsSet { node: Atom, tag: i64, lock: Term },
    /// The names of a node and ours were compared: what is to be done here, and there.
    Resolved { node: Atom, tag: i64, ours: Vec<Term>, theirs: Vec<Term> },
    /// A node that we should know cannot be reached.
    Unreachable(Atom),
    /// The other side did not go on.
    Stuck { node: Atom, tag: i64 },
    /// A node has been lost for a while.
    StillLost(Atom),
}

/// How far we are with a node that is connected.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Tells this session from earlier ones, with them and with us.
    pub(super) my_tag: Option<i64>,
    pub(super) his_tag: Option<Term>,
    pub(super) version: i64,
    /// He introduced himself before we noticed that he is connected.
    pub(super) early: Option<Term>,
    pub(super) exchange: Exchange,
    pub(super) lock: Option<Term>,
    pub(super) operations: Operations,
}

/// Names are compared when the lock is set and theirs are here, whichever comes first.
#[derive(Debug, Default)]
pub(super) enum Exchange {
    #[default]
    Nothing,
    LockIsSet,
    Names(Vec<Term>),
}

/// The two partitions are one when both sides have decided.
#[derive(Debug, Default)]
pub(super) enum Operations {
    #[default]
    None,
    Ours(Vec<Term>),
    /// Theirs, and whom they know.
    Theirs(Vec<Term>, Vec<Term>),
}

pub(super) struct State {
    pub(super) me: Atom,
    pub(super) locker: Pid,
    pub(super) shared: Arc<Shared>,
    references: Box<dyn FnMut() -> Reference + Send>,
    pub(super) locks: Locks,
    /// The last holder of the lock of the names ended without giving it back: what it had begun is
    /// not to be finished.
    pub(super) lock_lost: bool,
    /// Of which name a monitor is.
    pub(super) watched: HashMap<Reference, Term>,
    pub(super) connected: HashSet<Atom>,
    pub(super) sessions: HashMap<Atom, Session>,
    /// Nodes that may become known soon, and their versions.
    pub(super) pending: HashMap<Atom, i64>,
    /// Nodes whose end is no news to anybody.
    pub(super) removing: HashSet<Atom>,
    /// Lost nodes whose loss is not told yet.
    pub(super) lost: HashSet<Atom>,
    /// Losses that others told, and the last report of each.
    pub(super) told: HashMap<(Atom, Atom), (Term, Term)>,
    pub(super) reports: i64,
    pub(super) creation: i64,
    tag: i64,
    acts: Vec<Act>,
}

impl State {
    pub(super) fn new(node: &Arc<Inner>, server: &Pid, locker: &Pid, shared: Arc<Shared>) -> Self {
        let (inner, pid) = (Arc::downgrade(node), server.clone());
        let own = server.node.clone();
        let references = move || {
            let reference = inner.upgrade().map(|node| node.reference(&pid));
            // A node that is gone watches nobody.
            let none = || Reference::new(own.clone(), &[0, 0, 0]);
            reference.or_else(none).unwrap_or_else(|| unreachable!("three words are few"))
        };
        Self::with(locker.clone(), shared, Box::new(references))
    }

    pub(super) fn with(
        locker: Pid,
        shared: Arc<Shared>,
        references: Box<dyn FnMut() -> Reference + Send>,
    ) -> Self {
        let random = i64::from(meshx_rt::random::u32() >> 1);
        Self {
            me: locker.node.name().clone(),
            creation: random << 32 | i64::from(locker.node.creation()),
            locker,
            shared,
            references,
            locks: Locks::default(),
            lock_lost: false,
            watched: HashMap::new(),
            connected: HashSet::new(),
            sessions: HashMap::new(),
            pending: HashMap::new(),
            removing: HashSet::new(),
            lost: HashSet::new(),
            told: HashMap::new(),
            reports: 0,
            // Not those of an earlier life of this node.
            tag: random << 20,
            acts: Vec::new(),
        }
    }

    /// What is to be done now.
    pub(super) fn acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    pub(super) fn act(&mut self, act: Act) {
        self.acts.push(act);
    }

    pub(super) fn tell(&mut self, node: &Atom, message: Term) {
        self.act(Act::Tell(node.clone(), message));
    }

    pub(super) fn next_tag(&mut self) -> i64 {
        self.tag += 1;
        self.tag
    }

    pub(super) fn watch(&mut self, pid: &Pid) -> Reference {
        let reference = (self.references)();
        self.act(Act::Watch(pid.clone(), reference.clone()));
        reference
    }

    /// Of a node that is known, or may be so soon; 0 if it is neither.
    pub(super) fn version_of(&self, node: &Atom) -> i64 {
        if *node == self.me {
            return VERSION;
        }
        let known = self.shared.known().get(node).copied();
        known.or_else(|| self.pending.get(node).copied()).unwrap_or(0)
    }

    /// Known nodes as they are told to others.
    pub(super) fn known_list(&self, version: i64) -> Term {
        let known = self.shared.known();
        let entry = |(node, known): (&Atom, &i64)| match version {
            7.. => term!({(node.clone()), (*known)}),
            _ => Term::Atom(node.clone()),
        };
        Term::List(known.iter().map(entry).collect())
    }

    /// A call.
    pub(super) fn call(&mut self, from: Caller, request: &Term) {
        let answer = match request {
            Term::Atom(request) => match request.as_str() {
                "get_protocol_version" => VERSION.into(),
                "get_known" => self.known_list(0),
                "get_synced" => {
                    let synced = self.shared.synced();
                    let nodes = synced.borrow().iter().cloned().map(Term::Atom).collect();
                    Term::List(nodes)
                }
                "get_names_ext" => Term::nil(),
                _ => return,
            },
            Term::Tuple(request) => match &request[..] {
                [Term::Atom(set), id] if *set == "set_lock" => self.set_lock(id, from.pid()).into(),
                [Term::Atom(del), id] if *del == "del_lock" => {
                    self.del_lock(id, from.pid());
                    true.into()
                }
                [Term::Atom(register), name, Term::Pid(pid), method] if *register == "register" => {
                    let holds = self.holds_the_lock(from.pid());
                    self.insert(name, pid, method, holds);
                    term!(yes)
                }
                // A process that is no Erlang one; who registered it watches it, too.
                [Term::Atom(register), name, Term::Pid(pid), method, _]
                    if *register == "register_ext" =>
                {
                    let holds = self.holds_the_lock(from.pid());
                    self.insert(name, pid, method, holds);
                    term!(yes)
                }
                [Term::Atom(unregister), name] if *unregister == "unregister" => {
                    self.delete(name);
                    term!(ok)
                }
                [Term::Atom(sync), Term::List(_)] if *sync == "sync" => term!(ok),
                _ => return,
            },
            _ => return,
        };
        self.act(Act::Reply(from, answer));
    }

    fn set_lock(&mut self, id: &Term, pid: &Pid) -> bool {
        match self.locks.attempt(id, pid) {
            Attempt::Refused => false,
            Attempt::Held => true,
            Attempt::Free => {
                let monitor = self.watch(pid);
                self.locks.hold(id, pid.clone(), monitor);
                self.lock_changed();
                true
            }
        }
    }

    fn del_lock(&mut self, id: &Term, pid: &Pid) {
        if let Some(monitor) = self.locks.release(id, pid) {
            self.act(Act::Unwatch(monitor));
            if self.lock_changed() {
                self.lock_lost = false;
            }
        }
    }

    /// A process that was watched is not there any more.
    pub(super) fn ended(&mut self, monitor: &Reference) {
        if let Some(resource) = self.locks.ended(monitor)
            && resource.is_atom("global")
        {
            self.lock_lost = true;
        }
        self.lock_changed();
        if let Some(name) = self.watched.remove(monitor) {
            let mut names = self.shared.names_mut();
            if names.get(&name).is_some_and(|entry| entry.monitor == *monitor) {
                names.remove(&name);
            }
        }
    }

    /// Whether the lock of the names is free.
    fn lock_changed(&mut self) -> bool {
        let free = self.locks.holders(&Term::atom("global")).is_none();
        self.shared.set_locked(!free);
        free
    }
}
