//! Calls functions of a stock node, and shows every way in which that can end.
//!
//! In two terminals; the first writes the cookie and starts the port mapper:
//!
//! ```console
//! $ erl -name me@127.0.0.1
//! $ cargo run -p meshx-node --example rpc -- rpc@127.0.0.1 ~/.erlang.cookie me@127.0.0.1
//! ```
//!
//! It prints what it found, and ends.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::etf::{Atom, Term, term};
use meshx_node::{Cookie, Node, RpcError};

/// For one call.
const LIMIT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file, peer] = &arguments[..] else {
        return Err("usage: rpc NAME COOKIE_FILE NODE".into());
    };
    let cookie = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let node = Node::builder(name)
        .cookie(Cookie::new(cookie.trim()))
        .carrier(Tcp::loopback(Epmd::local()?))
        .start()
        .await?;
    ask(&node, peer).await?;
    node.stop().await;
    Ok(())
}

async fn ask(node: &Node, peer: &str) -> Result<(), RpcError> {
    // Typed: the arguments are a tuple, the result is read as what it is assigned to.
    let there: String = node.rpc(peer, "erlang", "node", (), LIMIT).await?;
    println!("node: {there}");
    let sum: u64 = node.rpc(peer, "lists", "sum", (vec![1, 2, 3, 4],), LIMIT).await?;
    println!("sum: {sum}");
    // Terms, where the type is not known beforehand.
    let release = vec![term!(otp_release)];
    let release: Term = node.rpc(peer, "erlang", "system_info", release, LIMIT).await?;
    println!("release: {release}");

    // What fails over there says how.
    let failed = node.rpc::<Term>(peer, "erlang", "hd", (Vec::<u8>::new(),), LIMIT).await;
    println!("hd([]): {}", outcome(failed));
    let exited = node.rpc::<Term>(peer, "erlang", "exit", (Atom::cut("bye"),), LIMIT).await;
    println!("exit(bye): {}", outcome(exited));
    let unknown = node.rpc::<Term>(peer, "no_such", "function", (), LIMIT).await;
    println!("no_such:function(): {}", outcome(unknown));
    let limit = Duration::from_millis(100);
    let slow = node.rpc::<Term>(peer, "timer", "sleep", (60_000,), limit).await;
    println!("timer:sleep(60000): {}", outcome(slow));
    Ok(())
}

fn outcome(result: Result<Term, RpcError>) -> String {
    match result {
        Ok(value) => format!("gave {value}"),
        Err(error) => error.to_string(),
    }
}
