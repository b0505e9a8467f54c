//! Bytes and connections through a pair of sidecars, and the CPU time they take.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine;
use crate::peer::{self, CHUNK, Mode};
use crate::report::{Row, Sample, Section, Unit};
use crate::route::{DIRECT, Field, OURS, Route, THEIRS};
use crate::stage::Stage;

/// How long one repetition sends.
const SENDING: Duration = Duration::from_millis(1500);

/// How long one repetition connects.
const CONNECTING: Duration = Duration::from_millis(1500);

/// Chunks on the way that are not acknowledged yet: the pipe never runs dry.
const WINDOW: u32 = 4;

/// Clients that connect at the same time.
const CLIENTS: u8 = 16;

const SHARE: &str = "meshx / consul";

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let field = Field::lay(stage, section)?;
    for streams in [1, 8] {
        let plural = if streams == 1 { "" } else { "s" };
        let what = format!("1 MiB chunks, {streams} stream{plural}");
        let rows = [
            (what.clone(), Unit::GigabitsPerSecond),
            (format!("{what}, CPU time of both sidecars"), Unit::CpuSecondsPerGigabyte),
        ];
        repeat(stage, section, &field, rows, |route| send(route, streams))?;
    }
    let rows = [
        (format!("connect, 1 byte, close; {CLIENTS} clients"), Unit::ConnectionsPerSecond),
        ("a connection, CPU time of both sidecars and the agent".to_owned(), Unit::CpuMilliseconds),
    ];
    repeat(stage, section, &field, rows, |route| reconnect(&field, route))?;
    for route in &field.routes {
        if route.title != DIRECT {
            let sample = [route.resident()?].into_iter().collect();
            let what = "resident memory of both sidecars, after all this";
            section.row(Row::new(what, route.title, Unit::Megabytes, sample));
        }
    }
    Ok(())
}

/// Measures a rate and its cost on every route, in turn, and reports both with their ratios.
fn repeat(
    stage: &Stage,
    section: &mut Section,
    field: &Field,
    [rate, cost]: [(String, Unit); 2],
    measure: impl Fn(&Route) -> Result<(f64, f64)>,
) -> Result<()> {
    let mut samples = vec![(Sample::default(), Sample::default()); field.routes.len()];
    for run in 0..stage.runs {
        if stage.budget.is_spent()? {
            break;
        }
        for (at, route) in field.in_turn(run) {
            let (rate, cost) =
                measure(route).with_context(|| format!("{}, {}", rate.0, route.title))?;
            samples[at].0.push(rate);
            samples[at].1.push(cost);
        }
    }
    let of = |title| field.routes.iter().position(|r| r.title == title).map(|at| &samples[at]);
    for title in [DIRECT, OURS, THEIRS] {
        if let Some((sample, _)) = of(title) {
            section.row(Row::new(&rate.0, title, rate.1, sample.clone()));
        }
    }
    if let (Some(ours), Some(theirs)) = (of(OURS), of(THEIRS)) {
        section.row(Row::new(&rate.0, SHARE, Unit::Ratio, ours.0.over(&theirs.0)));
    }
    for title in [OURS, THEIRS] {
        if let Some((_, sample)) = of(title) {
            section.row(Row::new(&cost.0, title, cost.1, sample.clone()));
        }
    }
    if let (Some(ours), Some(theirs)) = (of(OURS), of(THEIRS)) {
        section.row(Row::new(&cost.0, SHARE, Unit::Ratio, ours.1.over(&theirs.1)));
    }
    Ok(())
}

/// Gb/s, and CPU seconds of the sidecars for each GB (10^9 bytes that arrived).
fn send(route: &Route, streams: u32) -> Result<(f64, f64)> {
    let cpu = route.cpu_seconds()?;
    let begun = Instant::now();
    let chunks = at_once(streams, |_| stream(route.address))?;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far fewer bytes than 2^52")]
    let gigabytes = f64::from(chunks) * CHUNK as f64 / 1e9;
    Ok((gigabytes * 8.0 / seconds, (route.cpu_seconds()? - cpu) / gigabytes))
}

/// Chunks that one client got acknowledged.
fn stream(to: SocketAddr) -> Result<u32> {
    let mut stream = peer::connect(to, Mode::Count, None)?;
    let chunk = vec![7; CHUNK];
    let (mut sent, mut acknowledged) = (0, 0);
    let end = Instant::now() + SENDING;
    while Instant::now() < end {
        stream.write_all(&chunk)?;
        sent += 1;
        if sent - acknowledged >= WINDOW {
            stream.read_exact(&mut [0])?;
            acknowledged += 1;
        }
    }
    while acknowledged < sent {
        stream.read_exact(&mut [0])?;
        acknowledged += 1;
    }
    Ok(acknowledged)
}

/// Connections per second, and CPU milliseconds for each: of the sidecars and of the control plane,
/// which Consul's sidecars ask about every connection.
fn reconnect(field: &Field, route: &Route) -> Result<(f64, f64)> {
    let agent = field.plane.program.pid();
    let cpu = || Ok::<_, anyhow::Error>(route.cpu_seconds()? + machine::cpu_seconds(agent)?);
    let before = cpu()?;
    let begun = Instant::now();
    let connections = at_once(u32::from(CLIENTS), |client| {
        let source = u8::try_from(client + 1).ok();
        let end = Instant::now() + CONNECTING;
        let mut count = 0;
        while Instant::now() < end {
            let mut stream = peer::connect(route.address, Mode::Once, source)?;
            stream.read_exact(&mut [0]).context("no answer")?;
            count += 1;
        }
        Ok(count)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let connections = f64::from(connections);
    Ok((connections / seconds, (cpu()? - before) * 1e3 / connections))
}

/// The sum of what so many clients did at the same time.
fn at_once(clients: u32, client: impl Fn(u32) -> Result<u32> + Sync) -> Result<u32> {
    let counts: Vec<Result<u32>> = thread::scope(|scope| {
        let client = &client;
        let running: Vec<_> =
            (0..clients).map(|number| scope.spawn(move || client(number))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    });
    counts.into_iter().sum()
}
