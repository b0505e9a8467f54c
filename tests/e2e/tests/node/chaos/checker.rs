//! What the history must look like.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use meshx_node::etf::{Pid, Reference, Term, term};

use super::actor::{Event, Line};

/// A connection that was disturbed may be lost so much later, as by a ticktime, and not be made
/// again for a while.
const AFTERMATH: Duration = Duration::from_millis(3500);

/// What all saw, and what was done to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) lines: Vec<Line>,
    pub(crate) died: Vec<Died>,
    pub(crate) disturbed: Vec<Disturbed>,
}

/// A process was ended, for a reason of its own or with its node.
#[derive(Clone, Debug)]
pub(crate) struct Died {
    pid: Pid,
    reason: Option<Term>,
    at: Instant,
}

/// Something happened to the connection of two nodes.
#[derive(Clone, Debug)]
pub(crate) struct Disturbed {
    pub(crate) nodes: [String; 2],
    pub(crate) at: Instant,
}

/// What was checked.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) links: usize,
    pub(crate) monitors: usize,
    pub(crate) shots: usize,
    pub(crate) noconnection: usize,
    pub(crate) wrong: Vec<String>,
}

impl Died {
    pub(crate) fn of(pid: Pid, reason: Option<Term>) -> Self {
        Self { pid, reason, at: Instant::now() }
    }
}

pub(crate) fn check(history: &History) -> Checked {
    let mut checker = Checker {
        died: history.died.iter().map(|died| (&died.pid, died)).collect(),
        disturbed: &history.disturbed,
        linkers: HashMap::new(),
        checked: Checked::default(),
    };
    let mut of_actor: HashMap<&Pid, Vec<&Line>> = HashMap::new();
    for line in &history.lines {
        of_actor.entry(&line.actor).or_default().push(line);
        if let Event::Links(to) = &line.event {
            // The other side of a link has it, too, from some moment after that on.
            *checker.linkers.entry((to.clone(), line.actor.clone())).or_default() += 1;
        }
    }
    for (actor, lines) in &of_actor {
        checker.actor(actor, lines);
    }
    checker.shots(history);
    checker.checked
}

/// A link, as who made it knows it. Whoever links again while the end of the first link waits in its
/// mailbox makes a second one, without noticing: then there may be as many exits as links.
struct Linked {
    since: Instant,
    links: usize,
    exits: usize,
}

struct Checker<'h> {
    died: HashMap<&'h Pid, &'h Died>,
    disturbed: &'h [Disturbed],
    /// How often the second linked to the first.
    linkers: HashMap<(Pid, Pid), usize>,
    checked: Checked,
}

impl<'h> Checker<'h> {
    /// What one actor saw, in its order.
    fn actor(&mut self, actor: &Pid, lines: &[&'h Line]) {
        let mut linked: HashMap<&Pid, Linked> = HashMap::new();
        let mut passive: HashMap<&Pid, usize> = HashMap::new();
        let mut monitors: HashMap<&Reference, (&Pid, Instant)> = HashMap::new();
        let mut over: HashSet<&Reference> = HashSet::new();
        let mut ended = None;
        for line in lines {
            match &line.event {
                Event::Links(to) => {
                    let new = Linked { since: line.at, links: 0, exits: 0 };
                    linked.entry(to).or_insert(new).links += 1;
                    self.checked.links += 1;
                }
                Event::Unlinked(to) => {
                    linked.remove(to);
                }
                Event::Monitors(of, reference) => {
                    monitors.insert(reference, (of, line.at));
                    self.checked.monitors += 1;
                }
                Event::Demonitored(reference) => {
                    monitors.remove(reference);
                    over.insert(reference);
                }
                Event::Shoots(..) => {}
                event if event.is_shot() => {}
                Event::Exit(from, reason) => {
                    let since = linked.get_mut(from).map(|linked| {
                        linked.exits += 1;
                        linked.since
                    });
                    linked.retain(|_, linked| linked.exits < linked.links);
                    if since.is_none() {
                        // Then the other side linked, as often as this at least.
                        let exits = passive.entry(from).or_default();
                        *exits += 1;
                        let links = self.linkers.get(&(actor.clone(), from.clone()));
                        if links.is_none_or(|links| exits > &mut links.clone()) {
                            self.wrong(line, "an exit without a link");
                        }
                    }
                    self.reason(line, from, reason, since);
                }
                Event::Down(reference, reason) => match monitors.remove(reference) {
                    Some((of, since)) => {
                        over.insert(reference);
                        self.reason(line, of, reason, Some(since));
                    }
                    None if over.contains(reference) => self.wrong(line, "fired again"),
                    // Noted once made, and it fires no sooner than that.
                    None => self.wrong(line, "no such monitor"),
                },
                Event::Ended => ended = Some(line.at),
            }
        }
        let waited = lines.last().map(|line| line.at);
        let until = match self.died.get(actor) {
            Some(Died { reason: None, at, .. }) => Some(*at),
            _ => ended.or(waited),
        };
        for (other, Linked { since, exits, .. }) in linked {
            if exits == 0 {
                self.outstanding(actor, other, since, until, "a link did not end");
            }
        }
        for (other, since) in monitors.into_values() {
            self.outstanding(actor, other, since, until, "a monitor did not fire");
        }
    }

    /// A relation with a process that died was still there when its owner ended: wrong, unless there
    /// was no time for the news.
    fn outstanding(
        &mut self,
        actor: &Pid,
        other: &Pid,
        since: Instant,
        until: Option<Instant>,
        what: &str,
    ) {
        let Some(died) = self.died.get(other) else { return };
        let known = died.at.max(since) + AFTERMATH;
        // In the end, when all is quiet, it takes less.
        let quiet = self.disturbed.last().is_none_or(|last| last.at + AFTERMATH < died.at);
        let known = if quiet { died.at.max(since) + Duration::from_millis(250) } else { known };
        if until.is_some_and(|until| until > known) {
            self.checked.wrong.push(format!(
                "{what}: {actor:?} with {other:?}, which died {:?} before it ended",
                until.unwrap().duration_since(died.at)
            ));
        }
    }

    fn reason(&mut self, line: &Line, of: &Pid, reason: &Term, since: Option<Instant>) {
        let died = self.died.get(of).filter(|died| died.at <= line.at);
        let fits = if *reason == term!(noconnection) {
            self.checked.noconnection += 1;
            self.was_disturbed(&line.actor, of, since.unwrap_or(line.at), line.at)
        } else if *reason == term!(noproc) {
            died.is_some()
        } else {
            // What a killed node still gets out is that its processes were dropped.
            let dropped = term!(normal);
            died.is_some_and(|died| died.reason.as_ref().unwrap_or(&dropped) == reason)
        };
        if !fits {
            self.wrong(line, "for no reason");
        }
    }

    fn was_disturbed(&self, one: &Pid, other: &Pid, since: Instant, until: Instant) -> bool {
        let (one, other) = (one.node.name().as_str(), other.node.name().as_str());
        self.disturbed.iter().any(|it| {
            let nodes = [it.nodes[0].as_str(), it.nodes[1].as_str()];
            (nodes == [one, other] || nodes == [other, one])
                && it.at <= until
                && it.at + AFTERMATH >= since.min(until)
        })
    }

    /// Each exit signal arrives once, if nothing was in its way, and never twice.
    fn shots(&mut self, history: &'h History) {
        let mut hits: HashMap<String, usize> = HashMap::new();
        for line in &history.lines {
            if let Event::Exit(_, reason) = &line.event
                && line.event.is_shot()
            {
                *hits.entry(reason.to_string()).or_default() += 1;
            }
        }
        for line in &history.lines {
            let Event::Shoots(to, number) = &line.event else { continue };
            self.checked.shots += 1;
            let hit =
                hits.get(&super::actor::shot(*number).to_string()).copied().unwrap_or_default();
            if hit > 1 {
                self.wrong(line, "an exit signal was doubled");
            }
            let until = line.at + Duration::from_secs(1);
            let lived = self.died.get(to).is_none_or(|died| died.at > until);
            let noted = to.node.name() != "vm@127.0.0.1";
            if hit == 0 && lived && noted && !self.was_disturbed(&line.actor, to, line.at, until) {
                self.wrong(line, "an exit signal was lost");
            }
        }
    }

    fn wrong(&mut self, line: &Line, what: &str) {
        let Line { actor, event, .. } = line;
        self.checked.wrong.push(format!("{what}: {actor:?} {event:?}"));
    }
}
