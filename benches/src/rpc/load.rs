//! The load: so many callers at a time for a while, and what each call took. The peers' program
//! (`peers/rpc`) has this file as a module, too, so that everybody is asked in the same way.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tokio::task::JoinHandle;

/// Bytes of a small body.
pub(crate) const SMALL: usize = 32;
/// Bytes of a large one.
pub(crate) const LARGE: usize = 1 << 20;
/// Calls whose times are kept, of all callers together. Memory that is not used costs nothing.
pub(crate) const ROOM: usize = 16 << 20;
/// Between what is said and what is done, so that the reader can look at CPU times.
const PAUSE: Duration = Duration::from_millis(20);

/// An echo of some RPC.
pub(crate) trait Caller: Clone + Send + Sync + 'static {
    /// Sends `body` and gives the length of what came back.
    fn echo(&self, body: Bytes) -> impl Future<Output = Result<usize>> + Send;
}

/// What is asked, by how many at a time: as a word, `small:64`, `large:8`, `beside:8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) size: usize,
    pub(crate) at_once: usize,
    /// Only one more caller's small calls are timed, beside all these.
    pub(crate) beside: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) calls: usize,
    pub(crate) elapsed: Duration,
    /// Nanoseconds.
    pub(crate) times: Vec<u32>,
}

impl Cell {
    fn read(word: &str) -> Result<Self> {
        let (what, at_once) = word.split_once(':').context("a cell is `small:64`")?;
        let (size, beside) = match what {
            "small" => (SMALL, false),
            "large" => (LARGE, false),
            "beside" => (LARGE, true),
            other => bail!("`{other}` is no load"),
        };
        Ok(Self { size, at_once: at_once.parse()?, beside })
    }
}

/// Does the cells one after the other, each after a fifth of it to warm up, and says what came of them.
pub(crate) async fn run(
    millis: &str,
    cells: &[String],
    drive: impl AsyncFn(Cell, Duration) -> Result<Outcome>,
) -> Result<()> {
    let duration = Duration::from_millis(millis.parse()?);
    for word in cells {
        let cell = Cell::read(word)?;
        drive(cell, duration / 5).await?;
        tokio::time::sleep(PAUSE).await;
        say(&format!("begin {word}"))?;
        tokio::time::sleep(PAUSE).await;
        let Outcome { calls, elapsed, mut times } = drive(cell, duration).await?;
        say(&format!("end {calls} {}", elapsed.as_micros()))?;
        tokio::time::sleep(PAUSE).await;
        let [p50, p99, p999] = [500, 990, 999].map(|rank| percentile(&mut times, rank));
        say(&format!("times {p50} {p99} {p999}"))?;
    }
    say("done")
}

/// A line that whoever started this process reads.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Callers as tasks of the runtime: programs run theirs so.
pub(crate) async fn drive<C: Caller>(
    caller: &C,
    cell: Cell,
    duration: Duration,
) -> Result<Outcome> {
    let begun = Instant::now();
    let start = |size: usize| -> JoinHandle<Result<Outcome>> {
        let (caller, body) = (caller.clone(), Bytes::from(vec![1; size]));
        let room = (ROOM / cell.at_once).min(ROOM / 16);
        tokio::spawn(async move { call(&caller, body, begun + duration, room).await })
    };
    let callers: Vec<_> = (0..cell.at_once).map(|_| start(cell.size)).collect();
    let pings = cell.beside.then(|| start(SMALL));
    let mut all = Outcome::default();
    for caller in callers {
        let outcome = caller.await??;
        all.calls += outcome.calls;
        all.times.extend(outcome.times);
    }
    all.elapsed = begun.elapsed();
    if let Some(pings) = pings {
        all.times = pings.await??.times;
    }
    Ok(all)
}

/// One call after the other.
async fn call<C: Caller>(caller: &C, body: Bytes, until: Instant, room: usize) -> Result<Outcome> {
    let mut outcome = Outcome { times: Vec::with_capacity(room), ..Outcome::default() };
    let mut last = Instant::now();
    while last < until {
        let length = caller.echo(body.clone()).await?;
        ensure!(length == body.len(), "{length} bytes came back of {}", body.len());
        let now = Instant::now();
        if outcome.times.len() < room {
            outcome.times.push(nanoseconds(now - last));
        }
        outcome.calls += 1;
        last = now;
    }
    Ok(outcome)
}

pub(crate) fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

/// Of a thousand.
fn percentile(times: &mut [u32], rank: usize) -> u32 {
    let Some(last) = times.len().checked_sub(1) else { return 0 };
    *times.select_nth_unstable((times.len() * rank / 1000).min(last)).1
}
