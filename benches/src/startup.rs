//! How long starting takes, and what an idle process holds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::control_plane::{ControlPlane, Kind};
use crate::http;
use crate::machine;
use crate::peer;
use crate::program::Program;
use crate::report::{Row, Sample, Section, Unit};
use crate::route::without_consul;
use crate::stage::Stage;

/// How long an idle program is left alone before its memory is read.
const SETTLED: Duration = Duration::from_secs(2);

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    if stage.consul.is_none() {
        without_consul(section);
    }
    control_planes(stage, section)?;
    for kind in Kind::all(stage) {
        let plane = ControlPlane::start(stage, kind)?;
        plane.await_authority(stage)?;
        exec_true(stage, section, kind, &plane)?;
    }
    nothing(stage, section)?;
    memory(stage, section)
}

/// Spawn to first answer, in turn.
fn control_planes(stage: &Stage, section: &mut Section) -> Result<()> {
    let kinds = Kind::all(stage);
    let mut samples = vec![Sample::default(); kinds.len()];
    for _ in 0..stage.runs * 2 {
        if stage.budget.is_spent()? {
            break;
        }
        for (kind, sample) in kinds.iter().zip(&mut samples) {
            let plane = ControlPlane::start(stage, *kind)?;
            sample.push(milliseconds(plane.took));
        }
    }
    for (kind, sample) in kinds.iter().zip(samples) {
        let what = "control plane, from start to the first answer";
        let row = Row::new(what, kind.title(), Unit::Milliseconds, sample);
        section.row(if *kind == Kind::Meshx { row.at_most(200.0) } else { row });
    }
    Ok(())
}

fn exec_true(stage: &Stage, section: &mut Section, kind: Kind, plane: &ControlPlane) -> Result<()> {
    let sample =
        timed(stage, || stage.meshx(&plane.address, &["exec", "--name", "t", "--", "true"]))?;
    let subject = format!("meshx exec, {}", kind.title());
    let what = "`exec --name t -- true`, start to end";
    section.row(Row::new(what, &subject, Unit::Milliseconds, sample).at_most(150.0));
    Ok(())
}

fn nothing(stage: &Stage, section: &mut Section) -> Result<()> {
    let sample = timed(stage, || stage.command(Path::new("true"), ""))?;
    section.row(Row::new("`true`, start to end", "alone", Unit::Milliseconds, sample));
    Ok(())
}

/// The duration of a command that must succeed.
fn timed(stage: &Stage, command: impl Fn() -> Command) -> Result<Sample> {
    let mut sample = Sample::default();
    for _ in 0..stage.runs * 4 {
        if stage.budget.is_spent()? {
            break;
        }
        let mut command = command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let begun = Instant::now();
        let output = command.output().context("cannot start it")?;
        sample.push(milliseconds(begun.elapsed()));
        if !output.status.success() {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(sample)
}

/// Each of these alone with its control plane, doing nothing.
fn memory(stage: &Stage, section: &mut Section) -> Result<()> {
    let server = peer::serve()?.to_string();
    let idle = [
        (
            "idle `meshx proxy --service x --port P`",
            vec!["proxy", "--service", "x", "--port", &server],
        ),
        (
            "idle `meshx exec -- sleep`, without its child",
            vec!["exec", "--name", "y", "--", "sleep", "60"],
        ),
    ];
    let meshx = ControlPlane::start(stage, Kind::Meshx)?;
    meshx.await_authority(stage)?;
    for (what, arguments) in idle {
        let program = stage.start("meshx", stage.meshx(&meshx.address, &arguments))?;
        hold(section, what, program, Some(15.0))?;
    }
    let Some(consul) = stage.consul.as_deref() else {
        return hold(section, "`meshx agent`", meshx.program, None);
    };
    let plane = ControlPlane::start(stage, Kind::Consul)?;
    plane.await_authority(stage)?;
    let service = json!({"Name": "x", "Port": server.parse::<u16>()?, "Connect": {
        "SidecarService": {"Address": "127.0.0.1", "Port": stage.free_port()?}}});
    http::put(&plane.address, "/v1/agent/service/register", &service)?;
    let mut command = stage.command(consul, &plane.address);
    command.args(["connect", "proxy", "-sidecar-for", "x"]);
    let program = stage.start("consul connect proxy", command)?;
    hold(section, "idle `consul connect proxy -sidecar-for x`", program, None)?;
    hold(section, "`meshx agent`", meshx.program, None)?;
    hold(section, "`consul agent -dev`", plane.program, None)
}

/// Reports what a program holds, and the most that it held, and ends it.
fn hold(section: &mut Section, what: &str, mut program: Program, aim: Option<f64>) -> Result<()> {
    thread::sleep(SETTLED);
    if !program.is_running() {
        bail!("{what} ended; {}", program.last_words());
    }
    let memory = machine::memory(program.pid())?;
    for (subject, megabytes) in [("VmRSS", memory.resident), ("VmHWM", memory.most)] {
        let row = Row::new(what, subject, Unit::Megabytes, [megabytes].into_iter().collect());
        section.row(match aim {
            Some(aim) if subject == "VmRSS" => row.at_most(aim),
            _ => row,
        });
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
