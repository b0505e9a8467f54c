//! `meshx agent`, or Consul in development mode.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::http;
use crate::program::Program;
use crate::stage::Stage;

/// How long one may take to answer.
const READY: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Meshx,
    Consul,
}

impl Kind {
    /// Those that are there.
    pub(crate) fn all(stage: &Stage) -> Vec<Self> {
        match stage.consul {
            Some(_) => vec![Self::Meshx, Self::Consul],
            None => vec![Self::Meshx],
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Meshx => "meshx agent",
            Self::Consul => "consul agent -dev",
        }
    }
}

/// A control plane of our own on a free port.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) address: String,
    pub(crate) program: Program,
    /// From the start of the program to the first answer that names a leader.
    pub(crate) took: Duration,
}

impl ControlPlane {
    pub(crate) fn start(stage: &Stage, kind: Kind) -> Result<Self> {
        let address = format!("127.0.0.1:{}", stage.free_port()?);
        let command = match kind {
            Kind::Meshx => {
                stage.meshx(&address, &["agent", "--dns-addr", "none", "--http-addr", &address])
            }
            Kind::Consul => {
                let consul = stage.consul.as_deref().context("no Consul")?;
                let mut command = stage.command(consul, &address);
                command.args(["agent", "-dev", "-node=bench"]);
                command.args(["-bind=127.0.0.1", "-client=127.0.0.1"]);
                command.args(["-dns-port=-1", "-grpc-port=-1", "-serf-wan-port=-1"]);
                command.args(["-hcl", "disable_update_check = true"]);
                let (_, port) = address.split_once(':').unwrap_or_default();
                command.arg(format!("-http-port={port}"));
                command.arg(format!("-server-port={}", stage.free_port()?));
                command.arg(format!("-serf-lan-port={}", stage.free_port()?));
                command
            }
        };
        let begun = Instant::now();
        let mut program = stage.start(kind.title(), command)?;
        let ready = stage.budget.until(
            "an answer of the control plane",
            READY,
            Duration::from_micros(500),
            || {
                if !program.is_running() {
                    return Some(None);
                }
                // Before an election the leader is an empty string.
                let leader = http::get(&address, "/v1/status/leader").ok()?;
                leader.as_str().filter(|leader| !leader.is_empty()).map(|_| Some(begun.elapsed()))
            },
        );
        let took = ready
            .and_then(|took| took.context("it ended"))
            .with_context(|| program.last_words())?;
        Ok(Self { address, program, took })
    }

    /// Waits until certificates are given out, which Consul does a moment after it has a leader.
    pub(crate) fn await_authority(&self, stage: &Stage) -> Result<()> {
        stage.budget.until("a certificate authority", READY, Duration::from_millis(20), || {
            let roots = http::get(&self.address, "/v1/connect/ca/roots").ok()?;
            roots["Roots"].as_array().filter(|roots| !roots.is_empty()).map(drop)
        })
    }
}
