//! A supervisor: keeps one process running on another node, whatever happens to either.
//!
//! The process is `timer:sleep(infinity)`, started by `spawn_request`. In two terminals; the first
//! writes the cookie and starts the port mapper:
//!
//! ```console
//! $ erl -name me@127.0.0.1
//! $ cargo run -p meshx-node --example watch -- watch@127.0.0.1 ~/.erlang.cookie me@127.0.0.1
//! ```
//!
//! Then in the shell of Erlang, and see it come again; or end that shell, and start it again:
//!
//! ```console
//! 1> [exit(P, oops) || P <- processes(),
//!        process_info(P, current_function) =:= {current_function, {timer, sleep, 1}}].
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::etf::{Term, term};
use meshx_node::{Cookie, Mailbox, Node, Signal};

/// After a failure it waits, each time twice as long.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watch: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file, watched] = &arguments[..] else {
        return Err("usage: watch NAME COOKIE_FILE NODE".into());
    };
    let cookie = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let node = Node::builder(name)
        .cookie(Cookie::new(cookie.trim()))
        .carrier(Tcp::loopback(Epmd::local()?))
        .start()
        .await?;
    let mut supervisor = node.mailbox()?;
    tokio::select! {
        () = supervise(&mut supervisor, watched) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    node.stop().await;
    Ok(())
}

async fn supervise(supervisor: &mut Mailbox, node: &str) {
    let mut pause = SHORTEST;
    loop {
        let started = Instant::now();
        let end = one_life(supervisor, node).await;
        // Who lived for long enough is started again soon.
        pause = if started.elapsed() > LONGEST { SHORTEST } else { pause };
        println!("{end}; again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}

/// Starts the process, and gives how it ended.
async fn one_life(supervisor: &mut Mailbox, node: &str) -> String {
    let arguments = [term!(infinity)];
    // The answer to the request and the monitor are set up in one step: no end is missed between.
    let request = supervisor.spawn_request(node, ("timer", "sleep"), &arguments, false, true);
    let request = match request.await {
        Ok(request) => request,
        Err(error) => return format!("not started: {error}"),
    };
    while let Some(signal) = supervisor.receive().await {
        match signal {
            Signal::Spawned { reference, result } if reference == request => match result {
                Ok(pid) => println!("started {}", Term::Pid(pid)),
                Err(reason) => return format!("not started: {reason}"),
            },
            Signal::Down(down) if down.reference == request => {
                return format!("ended: {}", down.reason);
            }
            _ => {}
        }
    }
    "the supervisor was ended".to_owned()
}
