//! A server and a client of one subject, each in a process of its own, and what the client says.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ends;
use crate::machine;
use crate::program::Program;
use crate::report::{Section, note};
use crate::stage::{Stage, find};

const MODULE: &str = include_str!("../../erlang/meshx_bench_rpc.erl");
/// The server of two BEAMs, as the other knows it.
const BEAM: &str = "rpcserver@127.0.0.1";

/// The programs that could be found or built.
pub(super) struct Company<'s> {
    stage: &'s Stage,
    /// The programs of third-party peers.
    peers: Vec<(Whose, PathBuf)>,
    erlang: Option<Erlang>,
}

struct Erlang {
    erl: PathBuf,
    epmd_port: u16,
    _epmd: Program,
}

/// Peers: what they are called, their folder and their program.
const PEERS: [(Whose, &str, &str, &str); 4] = [
    (Whose::Tarpc, "tarpc", "rpc", "rpc-peers"),
    (Whose::Volo, "Volo", "volo", "volo-peer"),
    (Whose::Tonic, "tonic", "tonic", "tonic-peer"),
    (Whose::Capnp, "Cap'n Proto", "capnp", "capnp-peer"),
];

/// Whose processes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Tarpc,
    Volo,
    Tonic,
    Capnp,
    Erlang,
}

/// What a cell gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) calls_per_second: f64,
    /// Of both processes, for each call.
    pub(super) cpu_micros: f64,
    /// p50, p99 and p99.9.
    pub(super) micros: [f64; 3],
}

impl<'s> Company<'s> {
    /// What is not there is left out, with a notice.
    pub(super) fn gather(stage: &'s Stage, section: &mut Section) -> Self {
        let mut peers = Vec::new();
        for (whose, name, folder, program) in PEERS {
            if let Some(path) = there(name, build(folder, program), section) {
                peers.push((whose, path));
            }
        }
        let erlang = there("`:erpc`", Erlang::start(stage), section);
        Self { stage, peers, erlang }
    }

    pub(super) fn has(&self, whose: Whose) -> bool {
        match whose {
            Whose::Ours => true,
            Whose::Erlang => self.erlang.is_some(),
            _ => self.peers.iter().any(|(peer, _)| *peer == whose),
        }
    }

    /// Runs these cells, each for so many milliseconds.
    pub(super) fn run(
        &self,
        (whose, subject): (Whose, &str),
        millis: u32,
        cells: &[&str],
    ) -> Result<Vec<Numbers>> {
        let server = self.server(whose, subject)?;
        let (server, mut said) = self.start(&format!("the server of {subject}"), server)?;
        let mut line = String::new();
        said.read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("ready ") else {
            bail!("the server of {subject} said `{}`; {}", line.trim(), server.last_words());
        };
        let client = self.client(whose, subject, address, millis, cells)?;
        let (client, said) = self.start(&format!("the client of {subject}"), client)?;
        let cpu = || Ok::<_, anyhow::Error>(seconds(&server)? + seconds(&client)?);
        let (mut before, mut all) = (0.0, Vec::new());
        for line in said.lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["begin", _] => before = cpu()?,
                ["end", calls, micros] => {
                    let cpu = cpu()? - before;
                    let (calls, micros): (f64, f64) = (calls.parse()?, micros.parse()?);
                    all.push(Numbers {
                        calls_per_second: calls / micros * 1e6,
                        cpu_micros: cpu / calls * 1e6,
                        micros: [f64::NAN; 3],
                    });
                }
                ["times", p50, p99, p999] => {
                    let numbers = all.last_mut().context("times of nothing")?;
                    for (micros, word) in numbers.micros.iter_mut().zip([p50, p99, p999]) {
                        *micros = word.parse::<f64>()? / 1e3;
                    }
                }
                ["done"] => return Ok(all),
                _ => {}
            }
        }
        bail!("the client of {subject} ended early; {}", client.last_words())
    }

    fn start(&self, name: &str, command: Command) -> Result<(Program, BufReader<ChildStdout>)> {
        let mut program = self.stage.start_with_stdout(name, command)?;
        let stdout = program.take_stdout().context("no stdout")?;
        Ok((program, BufReader::new(stdout)))
    }

    fn server(&self, whose: Whose, subject: &str) -> Result<Command> {
        if let (Whose::Erlang, Some(erlang)) = (whose, &self.erlang) {
            return Ok(erlang.vm(self.stage, BEAM, "meshx_bench_rpc:serve()."));
        }
        let mut command = self.stage.command(&self.program(whose)?, "");
        command.args([ends::SERVE, subject]);
        Ok(command)
    }

    fn client(
        &self,
        whose: Whose,
        subject: &str,
        address: &str,
        millis: u32,
        cells: &[&str],
    ) -> Result<Command> {
        if let (Whose::Erlang, Some(erlang)) = (whose, &self.erlang) {
            let cells: Vec<String> =
                cells.iter().map(|cell| format!("{{{}}}", cell.replace(':', ","))).collect();
            let cells = cells.join(",");
            let drive = format!("meshx_bench_rpc:drive('{address}',{millis},[{cells}]), halt().");
            return Ok(erlang.vm(self.stage, "rpcclient@127.0.0.1", &drive));
        }
        let mut command = self.stage.command(&self.program(whose)?, "");
        command.args([ends::DRIVE, subject, address, &millis.to_string()]).args(cells);
        Ok(command)
    }

    fn program(&self, whose: Whose) -> Result<PathBuf> {
        if whose == Whose::Ours {
            return Ok(std::env::current_exe()?);
        }
        let path = self.peers.iter().find(|(peer, _)| *peer == whose).map(|(_, path)| path.clone());
        path.context("it could not be built")
    }
}

/// Says why it is not.
fn there<T>(what: &str, it: Result<T>, section: &mut Section) -> Option<T> {
    let error = match it {
        Ok(it) => return Some(it),
        Err(error) => error,
    };
    let why = format!("without {what}: {error:#}");
    note(&why);
    section.notice(why);
    None
}

fn seconds(program: &Program) -> Result<f64> {
    machine::cpu_seconds(program.pid())
}

impl Erlang {
    fn start(stage: &Stage) -> Result<Self> {
        let (Some(erl), Some(erlc), Some(epmd)) = (find("erl"), find("erlc"), find("epmd")) else {
            bail!("no `erl`, `erlc` and `epmd` on PATH");
        };
        std::fs::write(stage.folder().join("meshx_bench_rpc.erl"), MODULE)?;
        let status = stage.command(&erlc, "").arg("meshx_bench_rpc.erl").status()?;
        if !status.success() {
            bail!("erlc ended with {status}");
        }
        let epmd_port = stage.free_port()?;
        let mut command = stage.command(&epmd, "");
        command.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let epmd = stage.start("epmd", command)?;
        let listens = || TcpStream::connect(("127.0.0.1", epmd_port)).ok().map(drop);
        let (within, pause) = (Duration::from_secs(20), Duration::from_millis(5));
        stage.budget.until("epmd", within, pause, listens)?;
        Ok(Self { erl, epmd_port, _epmd: epmd })
    }

    fn vm(&self, stage: &Stage, name: &str, expression: &str) -> Command {
        let mut command = stage.command(&self.erl, "");
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.args(["-name", name, "-start_epmd", "false", "-noshell"]);
        command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]);
        command.args(["-eval", expression]);
        command
    }
}

/// Needs cargo, and the crates in its cache or a registry.
fn build(folder: &str, program: &str) -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("../target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "--locked", "--manifest-path"]);
    command
        .arg(here.join("peers").join(folder).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first = errors.lines().find(|line| line.contains("error")).unwrap_or_default();
        bail!("cargo ended with {}: {first}", output.status);
    }
    Ok(target.join("release").join(program))
}
