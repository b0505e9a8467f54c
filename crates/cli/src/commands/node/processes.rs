//! What runs on `meshx node`, to be tried.

use meshx_node::etf::{Etf, Term};
use meshx_node::{
    Answer, Builder, Caller, GenServer, Info, Mailbox, Next, Node, Raise, RpcTable, SendError,
};

use crate::failure::Failure;

/// What other nodes may call, besides what every node answers.
pub(super) fn functions(builder: Builder) -> Builder {
    let table = RpcTable::new()
        .terms("echo", "echo", 1, |call| async move {
            call.arguments.into_iter().next().ok_or(Raise::Clause)
        })
        .function("math", "add", |(a, b): (i64, i64)| async move {
            a.checked_add(b).ok_or(Raise::error("badarith"))
        })
        .function("meshx", "version", |()| async { Ok(crate::args::version()) });
    builder.rpc(table)
}

/// Starts the registered processes.
pub(super) async fn start(node: &Node) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::internal("start a process", error);
    node.serve("echo", Echo).await.map_err(|e| failed(&e))?;
    node.serve("counter", Counter::default()).await.map_err(|e| failed(&e))?;
    Ok(())
}

/// `{From, Message}` is answered with `{self(), Message}`; a call with what it asks.
struct Echo;

impl GenServer for Echo {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;
    type Info = Term;

    async fn handle_call(&mut self, request: Term, _: Caller, _: &Mailbox) -> Answer<Term> {
        Answer::Reply(request)
    }

    async fn handle_info(&mut self, info: Info<Term>, process: &Mailbox) -> Next {
        let Info::Message(Term::Tuple(pair)) = info else { return Next::Continue };
        if let Ok([Term::Pid(from), message]) = <[Term; 2]>::try_from(pair) {
            let answer = Term::Tuple(vec![Term::Pid(process.pid().clone()), message]);
            // Who went away meanwhile wants no answer, and who never was there is not dialled for one.
            if let Err(SendError::Busy(_)) = process.try_send_term(from.clone(), &answer) {
                drop(process.send_term(from, &answer).await);
            }
        }
        Next::Continue
    }
}

/// `GenServer.call({:counter, node}, :next)`.
#[derive(Default)]
struct Counter(i64);

/// What a counter is asked; an atom alone, or `{add, N}`.
#[derive(Debug, Etf)]
enum Count {
    Next,
    Get,
    Reset,
    Add(i64),
}

impl GenServer for Counter {
    type Call = Count;
    type Reply = i64;
    type Cast = Count;
    type Info = Term;

    async fn handle_call(&mut self, count: Count, _: Caller, _: &Mailbox) -> Answer<i64> {
        self.count(&count);
        Answer::Reply(self.0)
    }

    async fn handle_cast(&mut self, count: Count, _: &Mailbox) -> Next {
        self.count(&count);
        Next::Continue
    }

    fn state(&self) -> Option<Term> {
        Some(Term::from(self.0))
    }
}

impl Counter {
    fn count(&mut self, count: &Count) {
        self.0 = match count {
            Count::Next => self.0.wrapping_add(1),
            Count::Get => self.0,
            Count::Reset => 0,
            Count::Add(number) => self.0.wrapping_add(*number),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meshx_node::carrier::{Static, Tcp};
    use meshx_node::etf::{Atom, Node as NodeId, Pid, term};
    use meshx_node::{Cookie, Signal};

    use super::*;

    /// A message names whomever it likes; nobody waits until that node does not answer.
    #[tokio::test]
    async fn echo_dials_nobody() {
        let silent = meshx_rt::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let known = Static::default();
        known.insert("silent@127.0.0.1", silent.local_addr().unwrap());
        let builder = Node::builder("a@127.0.0.1").cookie(Cookie::new("secret"));
        let node = builder.carrier(Tcp::loopback(known)).start().await.unwrap();
        start(&node).await.unwrap();
        let mut mailbox = node.mailbox().unwrap();
        let stranger = NodeId::new(Atom::cut("silent@127.0.0.1"), 7);
        let stranger = Pid { node: stranger, id: 1, serial: 0 };
        for from in [stranger, mailbox.pid().clone()] {
            mailbox.send_term("echo", &term!({ (from), hello })).await.unwrap();
        }
        let answer = mailbox.receive_within(Duration::from_secs(3)).await;
        assert!(matches!(answer, Some(Signal::Message(_))), "{answer:?}");
    }
}
