//! The Rust node that asks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use meshx_node::etf::{Atom, Binary, Term};
use meshx_node::{Mailbox, Node, Signal, To};

use super::vm::{Field, full};
use super::{LARGE, Measured, Peer, SMALL, WORKLOADS, Workload, peer};

/// Bytes that pass while a ping is measured.
const CROWD: usize = 100 << 20;

#[derive(Clone)]
pub(super) struct Driver {
    node: Node,
    peer: String,
}

impl Driver {
    pub(super) async fn connect(field: &Field<'_>, peer: &Peer) -> Result<Self> {
        let name = full(&format!("d{}", meshx_rt::random::hex(6)));
        let node = peer::start(&name, field.epmd_port).await?;
        node.connect(&peer.name).await?;
        Ok(Self { node, peer: peer.name.clone() })
    }

    /// All workloads, one after the other.
    pub(super) async fn run(self, peer: &Peer, measured: &mut [Measured]) -> Result<()> {
        for (workload, measured) in WORKLOADS.iter().zip(measured) {
            let count = workload.counts.1;
            self.once(workload, count / 10).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (cpu, begun) = (peer.cpu_seconds()?, Instant::now());
            self.once(workload, count).await?;
            let seconds = begun.elapsed().as_secs_f64();
            tokio::time::sleep(Duration::from_millis(50)).await;
            measured.push(count, seconds, peer.cpu_seconds()? - cpu);
        }
        self.node.stop().await;
        Ok(())
    }

    async fn once(&self, workload: &Workload, count: u32) -> Result<()> {
        match workload.name {
            "oneway" => self.clone().stream(SMALL, count).await,
            "large" => self.clone().stream(LARGE, count).await,
            "rtt1" => self.ping_by(1, count).await,
            _ => self.ping_by(64, count).await,
        }
    }

    /// So many processes at a time, as tasks of the runtime: programs run theirs so.
    async fn ping_by(&self, processes: u32, count: u32) -> Result<()> {
        let tasks: Vec<_> = (0..processes)
            .map(|_| {
                let (mailbox, peer) = (self.node.mailbox(), self.peer.clone());
                tokio::spawn(async move { ping(&mut mailbox?, &peer, count / processes).await })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    async fn stream(self, size: usize, count: u32) -> Result<()> {
        tokio::spawn(async move { self.send_all(size, count).await }).await?
    }

    async fn send_all(&self, size: usize, count: u32) -> Result<()> {
        let mut mailbox = self.node.mailbox()?;
        let sink = To::from(("sink", self.peer.as_str()));
        let message = Term::Binary(Binary::from(vec![1; size]));
        for _ in 0..count {
            mailbox.send_term(&sink, &message).await?;
        }
        mailbox.send(&sink, &(Atom::cut("flush"), mailbox.pid())).await?;
        match mailbox.receive().await {
            Some(Signal::Message(_)) => Ok(()),
            other => bail!("not an answer: {other:?}"),
        }
    }

    /// The slowest of the round trips that are made while a large message passes, in milliseconds.
    pub(super) async fn ping_beside_large(self) -> Result<f64> {
        let node = self.node.clone();
        let slowest = tokio::spawn(async move { self.slowest_beside_large().await }).await??;
        node.stop().await;
        Ok(slowest.as_secs_f64() * 1e3)
    }

    async fn slowest_beside_large(&self) -> Result<Duration> {
        let mut mailbox = self.node.mailbox()?;
        ping(&mut mailbox, &self.peer, 1000).await?;
        let (crowd, peer) = (self.node.mailbox()?, self.peer.clone());
        let large = Term::Binary(Binary::from(vec![1; CROWD]));
        let passing = tokio::spawn(async move {
            let mut crowd = crowd;
            crowd.send_term(("sink", peer.as_str()), &large).await?;
            let flush = (Atom::cut("flush"), crowd.pid());
            crowd.send(("sink", peer.as_str()), &flush).await?;
            crowd.receive().await.context("no answer")?;
            Ok::<_, anyhow::Error>(())
        });
        let mut slowest = Duration::ZERO;
        while !passing.is_finished() {
            slowest = slowest.max(ping(&mut mailbox, &self.peer, 1).await?);
        }
        passing.await??;
        Ok(slowest)
    }
}

/// Round trips one after the other; gives the slowest.
async fn ping(mailbox: &mut Mailbox, peer: &str, count: u32) -> Result<Duration> {
    let binary = Binary::from(vec![1; SMALL]);
    let message = Term::Tuple(vec![mailbox.pid().clone().into(), Term::Binary(binary)]);
    let echo = To::from(("echo", peer));
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let begun = Instant::now();
        mailbox.send_term(&echo, &message).await?;
        match mailbox.receive().await {
            Some(Signal::Message(_)) => slowest = slowest.max(begun.elapsed()),
            other => bail!("not an answer: {other:?}"),
        }
    }
    Ok(slowest)
}
