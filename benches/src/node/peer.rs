//! The Rust node that answers, in a process of its own.

use std::io::Write;

use anyhow::{Context, Result, bail};
use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::etf::{Atom, Binary, Pid, TermRef};
use meshx_node::{Cookie, Mailbox, Message, Node, SendError, Signal};
use tokio::runtime::Runtime;

/// The first argument of that process.
pub(crate) const COMMAND: &str = "node-peer";

/// As in the stage's cookie file.
pub(super) const COOKIE: &str = "MESHXBENCHES";

/// Runs the peer until it is ended.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [name, port] = arguments else { bail!("a name and a port, please") };
    let port: u16 = port.parse()?;
    Runtime::new()?.block_on(async {
        let node = start(name, port).await?;
        let (sink, echo) = (node.mailbox()?, node.mailbox()?);
        sink.register("sink")?;
        echo.register("echo")?;
        let mut out = std::io::stdout();
        writeln!(out, "ready")?;
        out.flush()?;
        tokio::spawn(drain(sink));
        // Not on this thread, which is none of the runtime's: each message would cross over to it.
        tokio::spawn(answer(echo)).await?
    })
}

pub(super) async fn start(name: &str, epmd_port: u16) -> Result<Node> {
    Node::builder(name)
        .cookie(Cookie::new(COOKIE))
        .carrier(Tcp::loopback(Epmd::at_port(epmd_port)))
        .start()
        .await
        .context("the node did not start")
}

/// Counts nothing, but says when it got there.
async fn drain(mut sink: Mailbox) {
    while let Some(signal) = sink.receive().await {
        let Signal::Message(Message { body, .. }) = signal else { continue };
        if let Ok(TermRef::Binary(_)) = body.term_ref() {
            continue;
        }
        if let Ok((_, from)) = body.typed::<(Atom, Pid)>() {
            drop(sink.send(&from, &Atom::cut("flushed")).await);
        }
    }
}

async fn answer(mut echo: Mailbox) -> Result<()> {
    while let Some(signal) = echo.receive().await {
        let Signal::Message(Message { body, .. }) = signal else { continue };
        let (from, binary) = body.typed::<(Pid, Binary)>()?;
        match echo.try_send(&from, &binary) {
            Err(SendError::Busy(_)) => echo.send(&from, &binary).await?,
            sent => sent?,
        }
    }
    Ok(())
}
