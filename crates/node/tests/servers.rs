//! `GenServer`s of two Rust nodes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use meshx_node::carrier::{Memory, Switchboard};
use meshx_node::etf::{Etf, Pid, Term, term};
use meshx_node::{
    Answer, CallError, Caller, Cookie, GenServer, Info, Mailbox, Next, Node, ServeError, Signal,
};
use tokio::sync::mpsc;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a call takes whose answer does not come.
const SHORT: Duration = Duration::from_millis(100);

/// Does what it is told, and tells what happens to it.
struct Subject {
    count: i64,
    idle: Option<Duration>,
    seen: mpsc::UnboundedSender<String>,
}

#[derive(Etf)]
enum Ask {
    Next,
    Add(i64),
    /// An answer from a task, after so many milliseconds.
    After(u64),
    Never,
    /// Waits for so many milliseconds in the handler.
    Block(u64),
    Watch(Pid),
    Trap,
    Refuse,
    Stop(Term),
    Die(Term),
    Panic,
    SyncNotify(i64),
    Call(Term, Term),
}

impl GenServer for Subject {
    type Call = Ask;
    type Reply = i64;
    type Cast = Ask;
    type Info = (String, i64);

    async fn init(&mut self, process: &Mailbox) -> Result<(), Term> {
        assert_ne!(self.count, i64::MIN, "no such count");
        if self.count < 0 {
            return Err(term!({negative, (self.count)}));
        }
        self.see(format!("init {}", process.name().map_or(String::new(), |it| it.to_string())));
        Ok(())
    }

    async fn handle_call(&mut self, ask: Ask, caller: Caller, process: &Mailbox) -> Answer<i64> {
        match ask {
            Ask::Next => self.count += 1,
            Ask::Add(n) | Ask::SyncNotify(n) => self.count += n,
            Ask::After(time) => {
                let (node, answer) = (process.node(), self.count);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(time)).await;
                    node.reply(&caller, &answer).await.unwrap();
                });
                return Answer::Later;
            }
            Ask::Never => return Answer::Later,
            Ask::Block(time) => tokio::time::sleep(Duration::from_millis(time)).await,
            Ask::Watch(pid) => drop(process.monitor(&pid).await),
            Ask::Trap => process.trap_exits(true),
            Ask::Refuse => return Answer::Refuse(term!(refused)),
            Ask::Stop(reason) => return Answer::Stop(reason, Some(self.count)),
            Ask::Die(reason) => return Answer::Stop(reason, None),
            Ask::Panic => panic!("told to"),
            Ask::Call(handler, query) => self.see(format!("{handler} {query}")),
        }
        Answer::Reply(self.count)
    }

    async fn handle_cast(&mut self, ask: Ask, _: &Mailbox) -> Next {
        match ask {
            Ask::Add(n) => self.count += n,
            Ask::Stop(reason) => return Next::Stop(reason),
            _ => {}
        }
        Next::Continue
    }

    async fn handle_info(&mut self, info: Info<(String, i64)>, _: &Mailbox) -> Next {
        match info {
            Info::Message((text, n)) => self.see(format!("{text} {n}")),
            Info::Down(down) => self.see(format!("down {}", down.reason)),
            Info::Exit { reason, .. } => self.see(format!("exit {reason}")),
            Info::Idle => {
                self.idle = None;
                self.see("idle".to_owned());
            }
            other => self.see(format!("{other:?}")),
        }
        Next::Continue
    }

    async fn terminate(&mut self, reason: &Term, _: &Mailbox) {
        self.see(format!("terminate {reason}"));
    }

    fn idle(&self) -> Option<Duration> {
        self.idle
    }

    fn state(&self) -> Option<Term> {
        Some(term!({count, (self.count)}))
    }
}

impl Subject {
    fn see(&self, what: String) {
        // A test may have seen enough.
        drop(self.seen.send(what));
    }
}

/// Two nodes that are not connected yet; on the second serves a subject that has the name `s`.
struct Pair {
    here: Node,
    there: Node,
    seen: mpsc::UnboundedReceiver<String>,
}

const S: (&str, &str) = ("s", "there@test");

impl Pair {
    async fn start() -> Self {
        Self::idle(None).await
    }

    async fn idle(idle: Option<Duration>) -> Self {
        let board = Switchboard::new();
        let here = node("here@test", &board).await;
        let there = node("there@test", &board).await;
        let (seen, mut reports) = mpsc::unbounded_channel();
        there.serve("s", Subject { count: 0, idle, seen }).await.unwrap();
        assert_eq!(reports.recv().await.unwrap(), "init s");
        Self { here, there, seen: reports }
    }

    async fn ask(&self, ask: Ask) -> Result<i64, CallError> {
        self.here.call(S, &ask, LIMIT).await
    }

    async fn seen(&mut self) -> String {
        tokio::time::timeout(LIMIT, self.seen.recv()).await.unwrap().unwrap()
    }

    /// As `sys:Function/1`.
    async fn sys(&self, request: Term) -> Result<Term, CallError> {
        let mut mailbox = self.here.mailbox().unwrap();
        let tag = mailbox.monitor(S).await;
        let from = (mailbox.pid(), &tag);
        let system = ("system".parse::<meshx_node::etf::Atom>().unwrap(), from, request);
        mailbox.send(S, &system).await.unwrap();
        match mailbox.receive_within(LIMIT).await.unwrap() {
            Signal::Message(message) => {
                let (answered, answer): (Term, Term) = message.body.typed().unwrap();
                assert_eq!(answered, Term::from(tag));
                Ok(answer)
            }
            Signal::Down(down) => Err(CallError::Exit(down.reason)),
            other => panic!("{other:?}"),
        }
    }
}

async fn node(name: &str, board: &Switchboard) -> Node {
    let builder = Node::builder(name).cookie(Cookie::new("tests"));
    builder.carrier(Memory::new(board)).start().await.unwrap()
}

fn reason(result: Result<impl std::fmt::Debug, CallError>) -> Term {
    match result {
        Err(CallError::Exit(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_and_casts_in_order() {
    let pair = Pair::start().await;
    assert_eq!(pair.ask(Ask::Next).await.unwrap(), 1);
    assert_eq!(pair.ask(Ask::Add(10)).await.unwrap(), 11);
    let mailbox = pair.here.mailbox().unwrap();
    for _ in 0..100 {
        mailbox.cast(S, &Ask::Add(1)).await.unwrap();
    }
    // Of the same process, so behind them.
    assert_eq!(mailbox.call::<_, i64>(S, &Ask::Next, LIMIT).await.unwrap(), 112);
    // And without a connection.
    assert_eq!(pair.there.call::<_, i64>("s", &Ask::Next, LIMIT).await.unwrap(), 113);
    pair.there.cast("s", &Ask::Add(-3)).await.unwrap();
    assert_eq!(pair.there.call::<_, i64>("s", &Ask::Next, LIMIT).await.unwrap(), 111);
}

#[tokio::test]
async fn deferred_answers_do_not_hold_up_others() {
    let pair = Pair::start().await;
    let slow = tokio::spawn({
        let here = pair.here.clone();
        async move { here.call::<_, i64>(S, &Ask::After(300), LIMIT).await }
    });
    tokio::time::sleep(SHORT).await;
    assert_eq!(pair.ask(Ask::Next).await.unwrap(), 1);
    assert!(!slow.is_finished());
    assert_eq!(slow.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_call_without_an_answer_ends_in_time() {
    let pair = Pair::start().await;
    let never = pair.here.call::<_, i64>(S, &Ask::Never, SHORT).await;
    assert!(matches!(never, Err(CallError::Timeout(SHORT))), "{never:?}");
    // An answer to a call that is over is nobody's, whether the process reads or calls.
    let mut mailbox = pair.here.mailbox().unwrap();
    let late = mailbox.call::<_, i64>(S, &Ask::After(150), SHORT).await;
    assert!(matches!(late, Err(CallError::Timeout(SHORT))), "{late:?}");
    assert!(mailbox.receive_within(SHORT * 2).await.is_none());
    assert_eq!(mailbox.call::<_, i64>(S, &Ask::Next, LIMIT).await.unwrap(), 1);
}

#[tokio::test]
async fn a_late_answer_to_the_pid_is_dropped_too() {
    let pair = Pair::start().await;
    let mut old = pair.there.mailbox().unwrap();
    old.register("old").unwrap();
    let mut mailbox = pair.here.mailbox().unwrap();
    let late = mailbox.call::<_, Term>(("old", "there@test"), &term!(x), SHORT).await;
    assert!(matches!(late, Err(CallError::Timeout(SHORT))), "{late:?}");
    let Some(Signal::Message(call)) = old.receive_within(LIMIT).await else { panic!() };
    let (_, (pid, tag), _): (Term, (Pid, Term), Term) = call.body.typed().unwrap();
    // To the pid, as OTP 25's `net_kernel` answers.
    old.send(&pid, &(&tag, "late")).await.unwrap();
    old.send(&pid, "next").await.unwrap();
    let Some(Signal::Message(next)) = mailbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!(next.body.typed::<String>().unwrap(), "next");
    // An alias that is valid is no call's.
    let alias = Term::list_ending(vec![term!(alias)], mailbox.alias().into());
    old.send(&pid, &(alias, "own")).await.unwrap();
    let Some(Signal::Message(own)) = mailbox.receive_within(LIMIT).await else { panic!() };
    assert_eq!(own.body.typed::<(Term, String)>().unwrap().1, "own");
}

#[tokio::test]
async fn a_server_that_ends_ends_the_calls_to_it() {
    let mut pair = Pair::start().await;
    let waiting = tokio::spawn({
        let here = pair.here.clone();
        async move { here.call::<_, i64>(S, &Ask::Never, LIMIT).await }
    });
    tokio::time::sleep(SHORT).await;
    let mailbox = pair.here.mailbox().unwrap();
    assert_eq!(reason(pair.ask(Ask::Die(term!({over, 1}))).await), term!({over, 1}));
    assert_eq!(reason(waiting.await.unwrap()), term!({over, 1}));
    assert_eq!(pair.seen().await, "terminate {over,1}");
    let gone = mailbox.call::<_, i64>(S, &Ask::Next, LIMIT).await;
    assert!(matches!(gone, Err(CallError::NoProcess)), "{gone:?}");
    assert!(pair.there.whereis("s").is_none());
    pair.there.stop().await;
    let lost = mailbox.call::<_, i64>(S, &Ask::Next, LIMIT).await;
    assert!(matches!(lost, Err(CallError::NoConnection)), "{lost:?}");
}

#[tokio::test]
async fn the_last_answer_comes_before_the_end() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.ask(Ask::Add(5)).await.unwrap(), 5);
    assert_eq!(pair.ask(Ask::Stop(term!(normal))).await.unwrap(), 5);
    assert_eq!(pair.seen().await, "terminate normal");
}

#[tokio::test]
async fn a_panic_is_the_end_of_the_server_alone() {
    let pair = Pair::start().await;
    assert_eq!(reason(pair.ask(Ask::Panic).await), term!(panic));
    let (seen, _) = mpsc::unbounded_channel();
    pair.there.serve("s", Subject { count: 7, idle: None, seen }).await.unwrap();
    assert_eq!(pair.ask(Ask::Next).await.unwrap(), 8);
}

#[tokio::test]
async fn what_does_not_read_is_refused_at_once() {
    let pair = Pair::start().await;
    let asked = std::time::Instant::now();
    let wrong = pair.here.call::<_, i64>(S, &term!({add, three}), LIMIT).await;
    let wrong = reason(wrong);
    assert!(
        matches!(wrong.as_tuple(), Some([kind, Term::Binary(_)]) if kind.is_atom("bad_request"))
    );
    assert!(asked.elapsed() < LIMIT / 2);
    assert_eq!(reason(pair.ask(Ask::Refuse).await), term!(refused));
    let mailbox = pair.here.mailbox().unwrap();
    mailbox.cast(S, "no such cast").await.unwrap();
    mailbox.send(S, "no such message").await.unwrap();
    assert_eq!(mailbox.call::<_, i64>(S, &Ask::Next, LIMIT).await.unwrap(), 1);
    // Nor is an answer that the caller does not read.
    let text = mailbox.call::<_, String>(S, &Ask::Next, LIMIT).await;
    assert!(matches!(text, Err(CallError::Answer(_))), "{text:?}");
}

#[tokio::test]
async fn messages_monitors_and_exits_arrive_as_info() {
    let mut pair = Pair::start().await;
    let mailbox = pair.here.mailbox().unwrap();
    mailbox.send(S, &("hello", 3)).await.unwrap();
    assert_eq!(pair.seen().await, "hello 3");
    let victim = pair.here.mailbox().unwrap();
    pair.ask(Ask::Watch(victim.pid().clone())).await.unwrap();
    victim.end(term!(crashed));
    assert_eq!(pair.seen().await, "down crashed");
    pair.ask(Ask::Trap).await.unwrap();
    let server = pair.there.whereis("s").unwrap();
    mailbox.exit(&server, &term!(hup)).await.unwrap();
    assert_eq!(pair.seen().await, "exit hup");
    // Not even that is survived; and nothing is called for it.
    mailbox.exit(&server, &term!(kill)).await.unwrap();
    assert!(pair.seen.recv().await.is_none());
}

#[tokio::test]
async fn an_exit_signal_ends_a_handler_that_waits() {
    let pair = Pair::start().await;
    let blocked = tokio::spawn({
        let here = pair.here.clone();
        async move { here.call::<_, i64>(S, &Ask::Block(60_000), LIMIT).await }
    });
    tokio::time::sleep(SHORT).await;
    let mailbox = pair.here.mailbox().unwrap();
    let server = pair.there.whereis("s").unwrap();
    mailbox.exit(&server, &term!(shutdown)).await.unwrap();
    assert_eq!(reason(blocked.await.unwrap()), term!(shutdown));
}

#[tokio::test]
async fn silence_is_told_once_it_lasted() {
    let mut pair = Pair::idle(Some(SHORT)).await;
    assert_eq!(pair.seen().await, "idle");
    assert_eq!(pair.ask(Ask::Next).await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let pair = Pair::start().await;
    let subject = |count| Subject { count, idle: None, seen: mpsc::unbounded_channel().0 };
    let taken = pair.there.serve("s", subject(1)).await;
    assert!(matches!(taken, Err(ServeError::Name(_))), "{taken:?}");
    let refused = pair.there.serve("t", subject(-1)).await;
    assert_eq!(refused, Err(ServeError::Init(term!({negative, (-1)}))));
    let panics = pair.there.serve("t", subject(i64::MIN)).await;
    assert_eq!(panics, Err(ServeError::Init(term!(panic))));
    assert!(pair.there.whereis("t").is_none());
    let nameless = pair.there.serve_nameless(subject(1)).await.unwrap();
    assert_eq!(pair.here.call::<_, i64>(&nameless, &Ask::Next, LIMIT).await.unwrap(), 2);
}

#[tokio::test]
async fn system_messages_are_answered() {
    let mut pair = Pair::start().await;
    pair.ask(Ask::Add(4)).await.unwrap();
    assert_eq!(pair.sys(term!(get_state)).await.unwrap(), term!({count, 4}));
    let status = pair.sys(term!(get_status)).await.unwrap().to_string();
    for part in ["{status,", "Subject", "running", "Status for generic server s", "{count,4}"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert_eq!(pair.sys(term!(suspend)).await.unwrap(), term!(ok));
    let held = pair.here.call::<_, i64>(S, &Ask::Next, SHORT).await;
    assert!(matches!(held, Err(CallError::Timeout(_))), "{held:?}");
    assert!(pair.sys(term!(get_status)).await.unwrap().to_string().contains("suspended"));
    assert_eq!(pair.sys(term!(resume)).await.unwrap(), term!(ok));
    // That which came meanwhile was carried out.
    assert_eq!(pair.ask(Ask::Next).await.unwrap(), 6);
    assert_eq!(pair.sys(term!({debug, {trace, true}})).await.unwrap(), term!(unknown_debug));
    assert_eq!(pair.sys(term!({debug, no_debug})).await.unwrap(), term!(ok));
    assert_eq!(
        pair.sys(term!({replace_state, 1})).await.unwrap(),
        term!({error, {unknown_system_msg, {replace_state, 1}}})
    );
    assert_eq!(pair.sys(term!({terminate, bye})).await.unwrap(), term!(ok));
    assert_eq!(pair.seen().await, "terminate bye");
}

#[tokio::test]
async fn several_nodes_are_called_at_once() {
    let board = Switchboard::new();
    let caller = node("caller@test", &board).await;
    let mut nodes = Vec::new();
    for n in 1..=3 {
        let started = node(&format!("n{n}@test"), &board).await;
        let (seen, _) = mpsc::unbounded_channel();
        if n != 3 {
            started.serve("s", Subject { count: n * 10, idle: None, seen }).await.unwrap();
        }
        nodes.push(started);
    }
    let names = ["n1@test", "n2@test", "n3@test", "nobody@test"];
    let replies = caller.multi_call::<_, i64>(names, "s", &Ask::Next, LIMIT).await.unwrap();
    let answers: Vec<_> = replies.answers.iter().map(|(node, n)| (node.as_str(), *n)).collect();
    assert_eq!(answers, [("n1@test", 11), ("n2@test", 21)]);
    let failures: Vec<_> = replies.failures.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(failures, ["n3@test", "nobody@test"]);
    assert!(matches!(replies.failures[0].1, CallError::NoProcess));
    assert!(matches!(replies.failures[1].1, CallError::NoConnection));
    let unsent = caller.abcast(names, "s", &Ask::Add(100), LIMIT).await.unwrap();
    assert_eq!(unsent, ["nobody@test"]);
    let mailbox = caller.mailbox().unwrap();
    let replies = mailbox.multi_call::<_, i64>(&names[..2], "s", &Ask::Next, LIMIT).await.unwrap();
    // A cast of another process may come behind.
    assert_eq!(replies.answers.len(), 2);
}

#[tokio::test]
async fn callers_of_an_event_manager_are_served() {
    let mut pair = Pair::start().await;
    let manager = pair.here.event_manager(S);
    manager.sync_notify(&5, LIMIT).await.unwrap();
    assert_eq!(pair.ask(Ask::Next).await.unwrap(), 6);
    let n: i64 = manager.call(&term!(handler), &term!(query), LIMIT).await.unwrap();
    assert_eq!((n, pair.seen().await.as_str()), (6, "handler query"));
    // As `{notify, 9}`, here a message of text and number.
    manager.notify(&9).await.unwrap();
    assert_eq!(pair.seen().await, "notify 9");
    let refused = manager.which_handlers(LIMIT).await;
    assert!(matches!(refused, Err(CallError::Exit(_))), "{refused:?}");
}
