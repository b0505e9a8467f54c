//! A `GenServer` in Rust: it counts.
//!
//! In two terminals; the first writes the cookie and starts the port mapper:
//!
//! ```console
//! $ iex --name me@127.0.0.1
//! $ cargo run -p meshx-node --example counter -- rust@127.0.0.1 ~/.erlang.cookie
//! ```
//!
//! Then in the shell of Elixir:
//!
//! ```console
//! iex> GenServer.call({:counter, :"rust@127.0.0.1"}, :next)
//! 1
//! iex> GenServer.cast({:counter, :"rust@127.0.0.1"}, {:add, 10})
//! :ok
//! iex> GenServer.call({:counter, :"rust@127.0.0.1"}, {:add, 3})
//! 14
//! iex> :sys.get_state({:counter, :"rust@127.0.0.1"})
//! %{count: 14}
//! ```
//!
//! With `erl -name me@127.0.0.1` it is `gen_server:call({counter, 'rust@127.0.0.1'}, next).`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::etf::{Etf, Term, term};
use meshx_node::{Answer, Caller, Cookie, GenServer, Mailbox, Next, Node};

struct Counter(i64);

/// `next`, `{add, N}`, `{slowly, Milliseconds}`.
#[derive(Etf)]
enum Request {
    Next,
    Add(i64),
    Slowly(u64),
}

impl GenServer for Counter {
    type Call = Request;
    type Reply = i64;
    type Cast = Request;
    type Info = Term;

    async fn handle_call(
        &mut self,
        request: Request,
        caller: Caller,
        process: &Mailbox,
    ) -> Answer<i64> {
        if let Request::Slowly(milliseconds) = request {
            // In a task, so that others are answered meanwhile.
            let (node, count) = (process.node(), self.count(&request));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                // A caller that is gone needs no answer.
                drop(node.reply(&caller, &count).await);
            });
            return Answer::Later;
        }
        Answer::Reply(self.count(&request))
    }

    async fn handle_cast(&mut self, request: Request, _: &Mailbox) -> Next {
        self.count(&request);
        Next::Continue
    }

    fn state(&self) -> Option<Term> {
        Some(term!(#{count => (self.0)}))
    }
}

impl Counter {
    fn count(&mut self, request: &Request) -> i64 {
        self.0 += if let Request::Add(n) = request { *n } else { 1 };
        self.0
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counter: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file] = &arguments[..] else { return Err("usage: counter NAME COOKIE_FILE".into()) };
    let cookie = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let node = Node::builder(name)
        .cookie(Cookie::new(cookie.trim()))
        .carrier(Tcp::loopback(Epmd::local()?))
        .start()
        .await?;
    node.serve("counter", Counter(0)).await?;
    println!("{name} counts");
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}
