//! From two fresh Erlang VMs to a connected pair.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::control_plane::{ControlPlane, Kind};
use crate::program::Program;
use crate::report::{Row, Sample, Section, Unit, note};
use crate::route::without_consul;
use crate::stage::{Stage, find};

const WHAT: &str = "two fresh VMs, from the first one's start to connect_node = true";

/// How long they may take; a VM ends by itself after that.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let Some(erl) = find("erl") else {
        const WHY: &str = "not measured: no `erl` on PATH";
        section.notice(WHY.to_owned());
        note(WHY);
        return Ok(());
    };
    let planes: Vec<(Kind, ControlPlane)> = Kind::all(stage)
        .into_iter()
        .map(|kind| {
            let plane = ControlPlane::start(stage, kind)?;
            plane.await_authority(stage)?;
            Ok((kind, plane))
        })
        .collect::<Result<_>>()?;
    if stage.consul.is_none() {
        without_consul(section);
    }
    let epmd = find("epmd");
    let mut meshed = vec![Sample::default(); planes.len()];
    let (mut plain, mut alone) = (Sample::default(), Sample::default());
    for _ in 0..stage.runs {
        if stage.budget.is_spent()? {
            break;
        }
        for ((_, plane), sample) in planes.iter().zip(&mut meshed) {
            sample.push(in_the_mesh(stage, plane, &erl)?);
        }
        if let Some(epmd) = &epmd {
            plain.push(with_epmd(stage, &erl, epmd)?);
        }
        alone.push(boot(stage, &erl)?);
    }
    for ((kind, _), sample) in planes.iter().zip(meshed) {
        let subject = format!("meshx exec, {}", kind.title());
        section.row(Row::new(WHAT, &subject, Unit::Milliseconds, sample).at_most(3000.0));
    }
    if epmd.is_some() {
        section.row(Row::new(WHAT, "plain erl -sname, epmd", Unit::Milliseconds, plain));
    } else {
        section.notice("plain VMs not measured: no `epmd` on PATH".to_owned());
    }
    section.row(Row::new("one VM, from start to halt()", "plain erl", Unit::Milliseconds, alone));
    Ok(())
}

/// Two stock VMs under `meshx exec`.
fn in_the_mesh(stage: &Stage, plane: &ControlPlane, erl: &Path) -> Result<f64> {
    let exec = |name: &str, expression: &str| {
        let mut command = stage.meshx(&plane.address, &["exec", "--name", name, "--"]);
        command.arg(erl).args(["-noshell", "-eval", expression]);
        command
    };
    pair(
        stage,
        || stage.start("meshx exec", exec("n1@bench", "ok.")),
        || exec("n2@bench", &connect("n1@bench")),
    )
}

/// The same two without meshx, with an EPMD of their own.
fn with_epmd(stage: &Stage, erl: &Path, epmd: &Path) -> Result<f64> {
    let port = stage.free_port()?;
    let mut command = stage.command(epmd, "");
    command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
    let _epmd = stage.start("epmd", command)?;
    let listens = || TcpStream::connect(("127.0.0.1", port)).ok().map(drop);
    stage.budget.until("epmd", LIMIT, Duration::from_millis(5), listens)?;
    let erl = |name: &str, expression: &str| {
        let mut command = stage.command(erl, "");
        command.env("ERL_EPMD_PORT", port.to_string());
        command.args(["-sname", name, "-start_epmd", "false", "-noshell", "-eval", expression]);
        command
    };
    pair(
        stage,
        || stage.start("erl", erl("n1@localhost", "ok.")),
        || erl("n2@localhost", &connect("n1@localhost")),
    )
}

/// From the start of the first to the line that the second prints, in milliseconds.
fn pair(
    stage: &Stage,
    first: impl FnOnce() -> Result<Program>,
    second: impl FnOnce() -> Command,
) -> Result<f64> {
    let begun = Instant::now();
    let first = first()?;
    let mut second = stage.start_with_stdout("the second VM", second())?;
    let mut line = String::new();
    let stdout = second.take_stdout().context("no stdout")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let took = begun.elapsed();
    if line.trim() != "connected" {
        bail!(
            "the second VM said `{}`; {}; {}",
            line.trim(),
            second.last_words(),
            first.last_words()
        );
    }
    Ok(took.as_secs_f64() * 1e3)
}

/// What the second VM evaluates: it tries until the first one is there.
fn connect(node: &str) -> String {
    format!(
        "spawn(fun() -> \
           Connect = fun Connect(0) -> io:format(\"never~n\"), halt(1); \
             Connect(Left) -> case net_kernel:connect_node('{node}') of \
               true -> io:format(\"connected~n\"); \
               _ -> timer:sleep(10), Connect(Left - 1) end end, \
           timer:apply_after({limit}, erlang, halt, [1]), \
           Connect(3000) end).",
        limit = LIMIT.as_millis()
    )
}

/// One VM that does nothing, in milliseconds.
fn boot(stage: &Stage, erl: &Path) -> Result<f64> {
    let mut command = stage.command(erl, "");
    command.args(["-noshell", "-eval", "halt()."]);
    let begun = Instant::now();
    let status = command.status().context("cannot start erl")?;
    let took = begun.elapsed();
    if !status.success() {
        bail!("erl ended with {status}");
    }
    Ok(took.as_secs_f64() * 1e3)
}
