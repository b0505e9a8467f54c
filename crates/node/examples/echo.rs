//! A node that sends back what it is sent.
//!
//! In two terminals; the first writes the cookie and starts the port mapper:
//!
//! ```console
//! $ erl -name me@127.0.0.1
//! $ cargo run -p meshx-node --example echo -- echo@127.0.0.1 ~/.erlang.cookie
//! ```
//!
//! Then in the shell of Erlang:
//!
//! ```console
//! 1> {echo, 'echo@127.0.0.1'} ! {self(), {hello, #{any => term}}}.
//! 2> flush().
//! Shell got {hello,#{any => term}}
//! 3> net_adm:ping('echo@127.0.0.1').
//! pong
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::etf::Term;
use meshx_node::{Cookie, Mailbox, Node, Signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file] = &arguments[..] else { return Err("usage: echo NAME COOKIE_FILE".into()) };
    let cookie = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let node = Node::builder(name)
        .cookie(Cookie::new(cookie.trim()))
        .carrier(Tcp::loopback(Epmd::local()?))
        .start()
        .await?;
    let mailbox = node.mailbox()?;
    mailbox.register("echo")?;
    println!("{name} echoes");
    tokio::select! {
        () = echo(mailbox) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    node.stop().await;
    Ok(())
}

/// Answers `{Pid, Message}` with the message, until somebody ends the process.
async fn echo(mut mailbox: Mailbox) {
    while let Some(signal) = mailbox.receive().await {
        // There is nothing else: nobody is monitored, and exits are not trapped.
        let Signal::Message(message) = signal else { continue };
        let Ok((from, message)) = message.body.typed::<(meshx_node::etf::Pid, Term)>() else {
            println!("not {{Pid, Message}}: {:?}", message.body);
            continue;
        };
        println!("{message}");
        if let Err(error) = mailbox.send_term(&from, &message).await {
            println!("not sent back: {error}");
        }
    }
}
