//! The peers of a measurement, and the BEAM that drives.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Measured, Peer, READY, WORKLOADS};
use crate::program::Program;
use crate::report::Section;
use crate::stage::{Stage, find};

const MODULE: &str = include_str!("../../erlang/meshx_bench.erl");
const EI: &str = include_str!("../../peers/ei_node.c");

/// Where nodes find each other.
pub(super) struct Field<'s> {
    stage: &'s Stage,
    erl: PathBuf,
    pub(super) epmd_port: u16,
    /// A C node by OTP's library, if one could be built.
    ei: Option<PathBuf>,
    /// Lives as long as this.
    _epmd: Program,
}

impl<'s> Field<'s> {
    /// `None` if there is no Erlang.
    pub(super) fn lay(stage: &'s Stage, section: &mut Section) -> Result<Option<Self>> {
        let (Some(erl), Some(erlc), Some(epmd)) = (find("erl"), find("erlc"), find("epmd")) else {
            return Ok(None);
        };
        std::fs::write(stage.folder().join("meshx_bench.erl"), MODULE)?;
        let status = stage.command(&erlc, "").arg("meshx_bench.erl").status()?;
        if !status.success() {
            bail!("erlc ended with {status}");
        }
        let port = stage.free_port()?;
        let mut command = stage.command(&epmd, "");
        command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        let epmd = stage.start("epmd", command)?;
        let listens = || TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
        stage.budget.until("epmd", READY, Duration::from_millis(5), listens)?;
        let ei = match build_ei(stage) {
            Ok(program) => Some(program),
            Err(error) => {
                section.notice(format!("without the C node of OTP's `ei`: {error:#}"));
                None
            }
        };
        Ok(Some(Self { stage, erl, epmd_port: port, ei, _epmd: epmd }))
    }

    /// A C node that answers, if there is one.
    pub(super) fn ei_peer(&self, name: &str) -> Result<Option<Peer>> {
        let Some(program) = &self.ei else { return Ok(None) };
        let mut command = self.stage.command(program, "");
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.args([name, super::peer::COOKIE]);
        self.peer(name, command).map(Some)
    }

    /// A stock VM that answers.
    pub(super) fn beam_peer(&self, name: &str) -> Result<Peer> {
        self.peer(name, self.erl(name, "meshx_bench:peer()."))
    }

    /// A Rust node that does the same, in a process of its own.
    pub(super) fn rust_peer(&self, name: &str) -> Result<Peer> {
        let mut command = self.stage.command(&std::env::current_exe()?, "");
        command.args([super::peer::COMMAND, &full(name), &self.epmd_port.to_string()]);
        self.peer(name, command)
    }

    fn peer(&self, name: &str, command: Command) -> Result<Peer> {
        let mut program = self.stage.start_with_stdout(name, command)?;
        let mut line = String::new();
        let stdout = program.take_stdout().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("{name} said `{}`; {}", line.trim(), program.last_words());
        }
        Ok(Peer { name: full(name), program })
    }

    fn erl(&self, name: &str, expression: &str) -> Command {
        let mut command = self.stage.command(&self.erl, "");
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.args(["-name", &full(name), "-start_epmd", "false", "-noshell"]);
        command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]);
        command.args(["-eval", expression]);
        command
    }

    /// A stock VM does all workloads with a peer.
    pub(super) fn drive(&self, peer: &Peer, measured: &mut [Measured]) -> Result<()> {
        let counts: Vec<String> =
            WORKLOADS.iter().map(|it| format!("{{{},{}}}", it.name, it.counts.0)).collect();
        let drive = format!("meshx_bench:drive('{}', [{}]), halt().", peer.name, counts.join(","));
        let mut driver = self.stage.start_with_stdout("the driver", self.erl("driver", &drive))?;
        let stdout = driver.take_stdout().context("no stdout")?;
        let mut cpu = 0.0;
        let mut measured = measured.iter_mut();
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["begin", _] => cpu = peer.cpu_seconds()?,
                ["end", count, micros] => {
                    let seconds = micros.parse::<f64>()? / 1e6;
                    let measured = measured.next().context("too many lines")?;
                    measured.push(count.parse()?, seconds, peer.cpu_seconds()? - cpu);
                }
                ["done"] => return Ok(()),
                _ => {}
            }
        }
        bail!("the driver ended early; {}", driver.last_words())
    }
}

/// Needs a C compiler, and the library of Debian's `erlang-dev`.
fn build_ei(stage: &Stage) -> Result<PathBuf> {
    let compiler = find("cc").context("no `cc` on PATH")?;
    let source = stage.folder().join("ei_node.c");
    std::fs::write(&source, EI)?;
    let program = stage.folder().join("ei-node");
    let mut command = stage.command(&compiler, "");
    let output = command.arg("-O2").arg("-o").arg(&program).arg(&source).arg("-lei").output()?;
    if !output.status.success() {
        bail!("cc ended with {}: no `ei` (Debian: erlang-dev)?", output.status);
    }
    Ok(program)
}

/// A node of this machine.
pub(super) fn full(name: &str) -> String {
    format!("{name}@127.0.0.1")
}
