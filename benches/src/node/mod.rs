//! Messages between nodes: Rust and BEAM, each way, with a pair of BEAMs beside.

mod drive;
pub(crate) mod peer;
mod vm;

use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::machine;
use crate::program::Program;
use crate::report::{Row, Sample, Section, Unit, note};
use crate::stage::Stage;
use drive::Driver;
use vm::Field;

/// Bytes of a small message.
const SMALL: usize = 100;
/// Bytes of a large one.
const LARGE: usize = 1 << 20;
/// How long a pair may take to find each other.
const READY: Duration = Duration::from_secs(20);

/// What is done with a peer, by the name that driver and peer know.
#[derive(Clone, Copy, Debug)]
struct Workload {
    name: &'static str,
    what: &'static str,
    /// Messages of one repetition, where a BEAM drives, and where Rust does.
    counts: (u32, u32),
    /// CPU µs of the Rust peer for each that are meant to be enough.
    cpu: Option<f64>,
    /// Thousands of messages a second from Rust to Rust that are meant to be reached.
    rate: Option<f64>,
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "oneway",
        what: "100 B, one way",
        counts: (400_000, 2_000_000),
        cpu: Some(0.8),
        rate: Some(5000.0),
    },
    Workload {
        name: "rtt1",
        what: "100 B and back, 1 at a time",
        counts: (20_000, 20_000),
        cpu: None,
        rate: None,
    },
    Workload {
        name: "rtt64",
        what: "100 B and back, 64 at a time",
        counts: (128_000, 640_000),
        cpu: Some(3.0),
        rate: Some(1000.0),
    },
    Workload {
        name: "large",
        what: "1 MiB, one way",
        counts: (1000, 2000),
        cpu: Some(130.0),
        // 4 GB/s.
        rate: Some(4e9 / 1048.576 / 1024.0 / 1000.0),
    },
];

/// Messages a second, and CPU microseconds of the peer for each.
#[derive(Clone, Debug, Default)]
struct Measured {
    rate: Sample,
    cpu: Sample,
}

impl Measured {
    fn push(&mut self, count: u32, seconds: f64, cpu_seconds: f64) {
        self.rate.push(f64::from(count) / seconds / 1e3);
        self.cpu.push(cpu_seconds * 1e6 / f64::from(count));
    }
}

/// Who sends to whom; the last one only where C programs can be built.
const PAIRS: [&str; 5] =
    ["BEAM -> BEAM", "BEAM -> Rust", "Rust -> BEAM", "Rust -> Rust", "BEAM -> C (ei)"];

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let runtime = Runtime::new()?;
    let Some(field) = Field::lay(stage, section)? else {
        const WHY: &str = "not measured: no `erl`, `erlc` and `epmd` on PATH";
        section.notice(WHY.to_owned());
        note(WHY);
        return Ok(());
    };
    // By pair, by workload.
    let mut all = vec![vec![Measured::default(); WORKLOADS.len()]; PAIRS.len()];
    let mut beside = Sample::default();
    for run in 0..stage.runs {
        if stage.budget.is_spent()? {
            break;
        }
        let beam = field.beam_peer("b")?;
        let rust = field.rust_peer("r")?;
        let ei = field.ei_peer("c")?;
        // In turns, so that nobody is always the first.
        for step in 0..PAIRS.len() {
            let pair = (step + run as usize) % PAIRS.len();
            let peer = match pair {
                0 | 2 => &beam,
                1 | 3 => &rust,
                _ => match &ei {
                    Some(ei) => ei,
                    None => continue,
                },
            };
            let measured = &mut all[pair];
            if matches!(pair, 0 | 1 | 4) {
                field.drive(peer, measured)?;
            } else {
                runtime.block_on(async {
                    let driver = Driver::connect(&field, peer).await?;
                    driver.run(peer, measured).await
                })?;
            }
        }
        let driver = runtime.block_on(Driver::connect(&field, &rust))?;
        beside.push(runtime.block_on(driver.ping_beside_large())?);
    }
    report(section, &all, beside);
    Ok(())
}

fn report(section: &mut Section, all: &[Vec<Measured>], beside: Sample) {
    for (number, workload) in WORKLOADS.iter().enumerate() {
        let of = |pair: usize| &all[pair][number];
        for (pair, title) in PAIRS.iter().enumerate() {
            let row = Row::new(workload.what, title, Unit::Thousands, of(pair).rate.clone());
            let row = match (pair, workload.rate) {
                (3, Some(rate)) => row.at_least(rate),
                _ => row,
            };
            section.row(row);
        }
        for (pair, title) in
            [(1, "BEAM -> Rust, of BEAM -> BEAM"), (2, "Rust -> BEAM, of BEAM -> BEAM")]
        {
            let ratio = of(pair).rate.over(&of(0).rate);
            let aim = if pair == 2 && workload.name == "oneway" { 1.5 } else { 1.0 };
            section.row(Row::new(workload.what, title, Unit::Ratio, ratio).at_least(aim));
        }
        let what = format!("{}, CPU time of the receiver", workload.what);
        for (pair, title) in [
            (0, "a BEAM, from a BEAM"),
            (4, "C (ei), from a BEAM"),
            (1, "Rust, from a BEAM"),
            (3, "Rust, from Rust"),
        ] {
            let row = Row::new(&what, title, Unit::CpuMicroseconds, of(pair).cpu.clone());
            let row = match workload.cpu {
                Some(cpu) if pair == 1 => row.at_most(cpu),
                _ => row,
            };
            section.row(row);
        }
    }
    let what = "round trip while 100 MiB pass, the slowest";
    section.row(Row::new(what, "Rust -> Rust", Unit::Milliseconds, beside).at_most(5.0));
    section.notice(
        "a BEAM that sends one way is the slower side: its rate is the sender's, and depends on how \
         its writes fall together"
            .to_owned(),
    );
}

/// A peer process.
#[derive(Debug)]
struct Peer {
    /// Its node.
    name: String,
    program: Program,
}

impl Peer {
    fn cpu_seconds(&self) -> Result<f64> {
        machine::cpu_seconds(self.program.pid())
    }
}
