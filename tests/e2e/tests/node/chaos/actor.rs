//! A process that does what it is told, and notes all that happens to it in its order.

use std::time::Instant;

use meshx_node::etf::{Pid, Reference, Term, term};
use meshx_node::{Mailbox, Node, Signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What an actor is to do.
#[derive(Debug)]
pub(crate) enum Command {
    Link(Pid),
    Unlink(Pid),
    Monitor(Pid),
    /// The monitor made so many ago.
    Demonitor(usize),
    /// An exit signal with this number.
    Shoot(Pid, u64),
    End(u64),
}

impl Command {
    /// The same to another one.
    pub(crate) fn to(self, pid: Pid) -> Self {
        match self {
            Self::Link(_) => Self::Link(pid),
            Self::Unlink(_) => Self::Unlink(pid),
            Self::Monitor(_) => Self::Monitor(pid),
            Self::Shoot(_, number) => Self::Shoot(pid, number),
            other => other,
        }
    }
}

/// What happened to an actor, as it sees it.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Links(Pid),
    Unlinked(Pid),
    Monitors(Pid, Reference),
    Demonitored(Reference),
    Shoots(Pid, u64),
    Exit(Pid, Term),
    Down(Reference, Term),
    Ended,
}

impl Event {
    /// Whether it is the exit signal of somebody who shot.
    pub(crate) fn is_shot(&self) -> bool {
        let Self::Exit(_, Term::Tuple(pair)) = self else { return false };
        pair[0] == term!(shot)
    }
}

/// One line of the history.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) actor: Pid,
    pub(crate) event: Event,
}

/// Where all write.
pub(crate) type Log = UnboundedSender<Line>;

/// A handle of an actor.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) pid: Pid,
    pub(crate) commands: UnboundedSender<Command>,
}

/// Starts an actor; to be called within the runtime of its node.
pub(crate) fn start(node: &Node, log: Log) -> Actor {
    let mailbox = node.mailbox().unwrap();
    mailbox.trap_exits(true);
    let (sender, commands) = unbounded_channel();
    let pid = mailbox.pid().clone();
    let actor = Acting { log, pid: pid.clone(), made: Vec::new() };
    tokio::spawn(actor.run(mailbox, commands));
    Actor { pid, commands: sender }
}

struct Acting {
    log: Log,
    pid: Pid,
    made: Vec<Reference>,
}

impl Acting {
    async fn run(mut self, mut mailbox: Mailbox, mut commands: UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                signal = mailbox.receive() => match signal {
                    Some(signal) => self.see(signal),
                    None => return self.note(Event::Ended),
                },
                command = commands.recv() => match command {
                    Some(Command::End(number)) => {
                        self.drain(&mut mailbox);
                        mailbox.end(ended(number));
                        return self.note(Event::Ended);
                    }
                    Some(command) => self.act(command, &mut mailbox).await,
                    None => return,
                },
            }
        }
    }

    async fn act(&mut self, command: Command, mailbox: &mut Mailbox) {
        match command {
            Command::Link(pid) => {
                self.note(Event::Links(pid.clone()));
                mailbox.link(&pid).await;
            }
            Command::Unlink(pid) => {
                mailbox.unlink(&pid);
                // What is in the mailbox already came before.
                self.drain(mailbox);
                self.note(Event::Unlinked(pid));
            }
            Command::Monitor(pid) => {
                let reference = mailbox.monitor(&pid).await;
                // It is seen later only, as this is who receives.
                self.note(Event::Monitors(pid, reference.clone()));
                self.made.push(reference);
            }
            Command::Demonitor(which) => {
                if let Some(reference) = self.made.iter().rev().nth(which).cloned() {
                    mailbox.demonitor(&reference);
                    self.drain(mailbox);
                    self.note(Event::Demonitored(reference));
                }
            }
            Command::Shoot(pid, number) => {
                let sent = mailbox.exit(&pid, &shot(number)).await;
                if sent.is_ok() {
                    self.note(Event::Shoots(pid, number));
                }
            }
            Command::End(_) => {}
        }
    }

    fn drain(&mut self, mailbox: &mut Mailbox) {
        while let Some(signal) = mailbox.try_receive() {
            self.see(signal);
        }
    }

    fn see(&self, signal: Signal) {
        match signal {
            Signal::Exit { from, reason } => self.note(Event::Exit(from, reason)),
            Signal::Down(down) => self.note(Event::Down(down.reference, down.reason)),
            _ => {}
        }
    }

    fn note(&self, event: Event) {
        drop(self.log.send(Line { at: Instant::now(), actor: self.pid.clone(), event }));
    }
}

pub(crate) fn shot(number: u64) -> Term {
    term!({ shot, (number) })
}

pub(crate) fn ended(number: u64) -> Term {
    term!({ ended, (number) })
}
