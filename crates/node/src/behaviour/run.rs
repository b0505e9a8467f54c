//! The life of a [`GenServer`].

use std::sync::Arc;

use meshx_dist::Payload;
use meshx_etf::{Atom, Pid, Term, TypedError, term};
use tokio::sync::oneshot;

use super::request::Request;
use super::system::{Step, Subject};
use super::{Answer, GenServer, Info, Next};
use crate::call::Caller;
use crate::error::NameError;
use crate::node::{Node, TooManyProcesses};
use crate::process::{Mailbox, Signal};

/// Why a server did not start.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No process for it.
    #[error(transparent)]
    Process(#[from] TooManyProcesses),
    /// No name for it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It ended before it was ready.
    #[error("the server did not start: {0}")]
    Init(Term),
}

impl Node {
    /// Starts a server under a name of this node; it serves when this returns. The process ends when
    /// a handler says so, or of an exit signal.
    pub async fn serve<S: GenServer>(&self, name: &str, server: S) -> Result<Pid, ServeError> {
        let mailbox = self.mailbox()?;
        mailbox.register(name)?;
        self.begin(mailbox, server).await
    }

    /// Starts a server that has a pid only.
    pub async fn serve_nameless<S: GenServer>(&self, server: S) -> Result<Pid, ServeError> {
        let mailbox = self.mailbox()?;
        self.begin(mailbox, server).await
    }

    async fn begin<S: GenServer>(&self, mailbox: Mailbox, server: S) -> Result<Pid, ServeError> {
        let (pid, cell) = (mailbox.pid().clone(), Arc::clone(mailbox.cell()));
        let (started, starting) = oneshot::channel();
        self.inner().run(mailbox, |mailbox| serve(mailbox, server, Some(started)));
        match starting.await {
            Ok(Ok(())) => Ok(pid),
            Ok(Err(reason)) => Err(ServeError::Init(reason)),
            // An exit signal, or a panic.
            Err(_) => {
                cell.ended.cancelled().await;
                Err(ServeError::Init(cell.ended_with().unwrap_or_else(|| term!(killed))))
            }
        }
    }
}

impl Mailbox {
    /// Makes this process a server, until it ends: for processes that are started in another way, such
    /// as by [`Node::offer`] or [`Node::spawn`].
    pub async fn serve<S: GenServer>(self, server: S) {
        serve(self, server, None).await;
    }

    /// Ends a call, and nothing else, with this reason: for the caller it is as if this process had
    /// ended. False if he does not monitor this process as callers do, and so cannot be told.
    pub fn refuse(&self, caller: &Caller, reason: &Term) -> bool {
        let monitor = self.cell().take_watcher(caller.pid(), caller.reference());
        let Some((reference, watcher)) = monitor else { return false };
        let (target, via, pid) = (watcher.target, watcher.via, watcher.pid);
        self.inner().tell_watcher(self.pid(), reference, target, via, &pid, reason);
        true
    }
}

/// Why a server ends.
enum End<R> {
    /// With this reason, after an answer to who made it end.
    Stop(Term, Option<(Caller, R)>),
    /// It has ended already.
    Ended,
}

struct Running<S> {
    server: S,
    mailbox: Mailbox,
    suspended: bool,
}

async fn serve<S: GenServer>(
    mailbox: Mailbox,
    mut server: S,
    started: Option<oneshot::Sender<Result<(), Term>>>,
) {
    let ready = server.init(&mailbox).await;
    if let Some(started) = started {
        // Who started it may be gone.
        drop(started.send(ready.clone()));
    }
    if let Err(reason) = ready {
        return mailbox.end(reason);
    }
    let mut running = Running { server, mailbox, suspended: false };
    loop {
        match running.step().await {
            None => {}
            Some(End::Ended) => return,
            Some(End::Stop(reason, answer)) => return running.stop(reason, answer).await,
        }
    }
}

impl<S: GenServer> Running<S> {
    /// One message. Gives how the process ends, if it does.
    async fn step(&mut self) -> Option<End<S::Reply>> {
        let signal = match self.receive().await {
            Received::Signal(signal) => signal,
            Received::Idle => return self.info(Info::Idle).await,
            Received::Ended => return Some(End::Ended),
        };
        match signal {
            Signal::Message(message) => match Request::of(message.body) {
                Request::Call(caller, request) => self.call(caller, &request).await,
                Request::Cast(request) => self.cast(&request).await,
                Request::System(caller, request) => self.system(&caller, &request).await,
                Request::Other(message) => match message.typed() {
                    Ok(message) => self.info(Info::Message(message)).await,
                    Err(error) => self.dropped("message", &error),
                },
            },
            Signal::Down(down) => self.info(Info::Down(down)).await,
            Signal::Exit { from, reason } => self.info(Info::Exit { from, reason }).await,
            Signal::Spawned { reference, result } => {
                self.info(Info::Spawned { reference, result }).await
            }
        }
    }

    async fn receive(&mut self) -> Received {
        if self.suspended {
            // Everything else waits, and counts for the bound of the mailbox.
            let system = |signal: &Signal| match signal {
                Signal::Message(message) => Request::is_system(&message.body),
                _ => false,
            };
            return self.mailbox.receive_where(system).await.into();
        }
        match self.server.idle() {
            None => self.mailbox.receive().await.into(),
            Some(limit) => match tokio::time::timeout(limit, self.mailbox.receive()).await {
                Ok(signal) => signal.into(),
                Err(_) => Received::Idle,
            },
        }
    }

    async fn call(&mut self, caller: Caller, request: &Payload) -> Option<End<S::Reply>> {
        let read = match request.typed() {
            Ok(read) => read,
            Err(error) => {
                let reason = term!({bad_request, (error.to_string().as_str())});
                self.refuse(&caller, &reason);
                return None;
            }
        };
        match self.server.handle_call(read, caller.clone(), &self.mailbox).await {
            Answer::Reply(answer) => {
                reply(&self.mailbox, &caller, &answer).await;
                None
            }
            Answer::Later => None,
            Answer::Refuse(reason) => {
                self.refuse(&caller, &reason);
                None
            }
            Answer::Stop(reason, answer) => {
                Some(End::Stop(reason, answer.map(|answer| (caller, answer))))
            }
        }
    }

    async fn cast(&mut self, request: &Payload) -> Option<End<S::Reply>> {
        match request.typed() {
            Ok(read) => match self.server.handle_cast(read, &self.mailbox).await {
                Next::Continue => None,
                Next::Stop(reason) => Some(End::Stop(reason, None)),
            },
            Err(error) => self.dropped("cast", &error),
        }
    }

    async fn info(&mut self, info: Info<S::Info>) -> Option<End<S::Reply>> {
        match self.server.handle_info(info, &self.mailbox).await {
            Next::Continue => None,
            Next::Stop(reason) => Some(End::Stop(reason, None)),
        }
    }

    async fn system(&mut self, caller: &Caller, request: &Payload) -> Option<End<S::Reply>> {
        let Ok(request) = request.term() else { return None };
        let name = self.mailbox.name();
        let subject = Subject {
            pid: self.mailbox.pid(),
            name: name.as_ref(),
            module: Atom::cut(std::any::type_name::<S>()),
            suspended: self.suspended,
            state: self.server.state(),
        };
        let (answer, end) = match subject.take(request) {
            Step::Answer(answer) => (answer, None),
            Step::Suspend => {
                self.suspended = true;
                (term!(ok), None)
            }
            Step::Resume => {
                self.suspended = false;
                (term!(ok), None)
            }
            Step::Terminate(reason) => (term!(ok), Some(End::Stop(reason, None))),
        };
        reply(&self.mailbox, caller, &answer).await;
        end
    }

    fn refuse(&self, caller: &Caller, reason: &Term) {
        if !self.mailbox.refuse(caller, reason) {
            let (process, caller) = (self.mailbox.pid(), caller.pid());
            tracing::warn!(?process, ?caller, %reason, "a call was refused; its caller cannot be told");
        }
    }

    fn dropped(&self, what: &str, error: &TypedError) -> Option<End<S::Reply>> {
        let process = self.mailbox.pid();
        tracing::warn!(?process, %error, "a {what} that the server does not take was dropped");
        None
    }

    async fn stop(mut self, reason: Term, answer: Option<(Caller, S::Reply)>) {
        self.server.terminate(&reason, &self.mailbox).await;
        if let Some((caller, answer)) = answer {
            reply(&self.mailbox, &caller, &answer).await;
        }
        self.mailbox.end(reason);
    }
}

enum Received {
    Signal(Signal),
    Idle,
    Ended,
}

impl From<Option<Signal>> for Received {
    fn from(signal: Option<Signal>) -> Self {
        signal.map_or(Self::Ended, Self::Signal)
    }
}

/// A caller that is gone is told nothing.
async fn reply<R: serde::Serialize + Sync>(mailbox: &Mailbox, caller: &Caller, answer: &R) {
    if let Err(error) = caller.reply(mailbox, answer).await {
        let (process, caller) = (mailbox.pid(), caller.pid());
        tracing::debug!(?process, ?caller, %error, "an answer was not sent");
    }
}
