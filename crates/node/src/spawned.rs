//! Processes that other nodes start here.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use meshx_dist::control::{Control, Spawned, Target};
use meshx_etf::{Atom, Pid, Reference, Term};
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::node::{Inner, Node};
use crate::process::{Mailbox, Watcher, sender};

type Start = dyn Fn(Started) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What may be started from elsewhere, by module, function and number of arguments.
#[derive(Default)]
pub(crate) struct Functions(RwLock<HashMap<(Atom, Atom, u8), Arc<Start>>>);

/// A request to start a process (`erl_dist_protocol`, `SPAWN_REQUEST`).
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) reference: Reference,
    pub(crate) from: Pid,
    pub(crate) module: Atom,
    pub(crate) function: Atom,
    pub(crate) arity: u8,
    pub(crate) options: Term,
    pub(crate) arguments: Term,
}

/// A process that was started for a peer.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) mailbox: Mailbox,
    pub(crate) arguments: Vec<Term>,
    pub(crate) request: Reference,
    pub(crate) from: Pid,
    pub(crate) connection: Arc<Connection>,
    /// Resolves when who asked watched the process, and does not any more.
    pub(crate) abandoned: CancellationToken,
}

/// What a request asks for beside the process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Options {
    link: bool,
    monitor: bool,
}

impl Node {
    /// Lets other nodes start processes of this function, with `erlang:spawn/4` and its kin. The
    /// process ends when the future does; to say why, it ends its mailbox ([`Mailbox::end`]).
    ///
    /// What is not offered so is refused with `notsup`.
    pub fn offer<F>(
        &self,
        module: &str,
        function: &str,
        arity: u8,
        start: impl Fn(Mailbox, Vec<Term>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.offer_started(module, function, arity, move |started| {
            start(started.mailbox, started.arguments)
        });
    }

    /// As [`Node::offer`], for functions that concern themselves with who asked.
    pub(crate) fn offer_started<F>(
        &self,
        module: &str,
        function: &str,
        arity: u8,
        start: impl Fn(Started) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let key = (Atom::cut(module), Atom::cut(function), arity);
        let start: Arc<Start> = Arc::new(move |started| Box::pin(start(started)));
        let mut functions =
            self.inner().functions.0.write().unwrap_or_else(PoisonError::into_inner);
        functions.insert(key, start);
    }
}

impl Functions {
    fn get(&self, module: &Atom, function: &Atom, arity: u8) -> Option<Arc<Start>> {
        let functions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&(module.clone(), function.clone(), arity)).cloned()
    }
}

impl Inner {
    /// Starts a process for a peer, and tells it.
    pub(crate) fn spawn_for(self: &Arc<Self>, connection: &Arc<Connection>, request: Request) {
        let Request { reference, from, module, function, arity, options, arguments } = request;
        let refuse = |reason: &str| {
            let result = Spawned::Error(Atom::cut(reason));
            let (reference, to) = (reference.clone(), from.clone());
            let reply =
                Control::SpawnReply { reference, to, linked: false, monitored: false, result };
            connection.signal(0, &reply);
        };
        let Some(options) = Options::of(&options) else { return refuse("badopt") };
        let arguments = match arguments {
            Term::List(arguments) if arguments.len() == usize::from(arity) => arguments,
            _ => return refuse("badarg"),
        };
        let Some(start) = self.functions.get(&module, &function, arity) else {
            return refuse("notsup");
        };
        let Some(cell) = self.process() else { return refuse("system_limit") };
        let via = Some(connection.id);
        let mailbox = Mailbox::new(Arc::clone(self), Arc::clone(&cell));
        if !connection.reads(&cell.pid) {
            return refuse("system_limit");
        }
        if options.link {
            cell.linked_by(&from, via);
            connection.relate(cell.pid.id, &self.processes);
        }
        let abandoned = CancellationToken::new();
        if options.monitor {
            let (pid, target) = (from.clone(), Target::Pid(cell.pid.clone()));
            let guard = Some(abandoned.clone().drop_guard());
            let watcher = Watcher { pid, via, target, guard };
            if connection.monitored(reference.clone(), cell.pid.id, &self.processes) {
                cell.watched_by(reference.clone(), watcher);
            }
        }
        let reply = Control::SpawnReply {
            reference: reference.clone(),
            to: from.clone(),
            linked: options.link,
            monitored: options.monitor,
            result: Spawned::Pid(cell.pid.clone()),
        };
        // As the new process: what it sends comes behind.
        connection.signal(sender(&cell.pid), &reply);
        // Not on the reader's task: what is offered may panic.
        let (request, connection) = (reference, Arc::clone(connection));
        self.run(mailbox, |mailbox| async move {
            start(Started { mailbox, arguments, request, from, connection, abandoned }).await;
        });
    }
}

impl Options {
    /// `None` if there is one that is not known (`erlang:spawn_opt/5`).
    fn of(options: &Term) -> Option<Self> {
        const TUNING: [&str; 8] = [
            "priority",
            "fullsweep_after",
            "min_heap_size",
            "min_bin_vheap_size",
            "max_heap_size",
            "message_queue_data",
            "async_dist",
            "scheduler",
        ];
        let Term::List(options) = options else { return None };
        let mut found = Self::default();
        for option in options {
            match option {
                Term::Atom(name) if *name == "link" => found.link = true,
                Term::Atom(name) if *name == "monitor" => found.monitor = true,
                Term::Tuple(pair) => match &pair[..] {
                    [Term::Atom(name), _] if *name == "monitor" => found.monitor = true,
                    [Term::Atom(name), _] if TUNING.iter().any(|known| name == known) => {}
                    _ => return None,
                },
                _ => return None,
            }
        }
        Some(found)
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(functions.keys()).finish()
    }
}
