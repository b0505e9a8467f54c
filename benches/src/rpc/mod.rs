//! Calls between two processes: ours, a hand-written echo as the limit, and peers.

pub(crate) mod ends;
mod load;
mod pair;
mod raw;
mod single;

use anyhow::Result;

use crate::report::{Row, Sample, Section, Unit};
use crate::stage::Stage;
use pair::{Company, Numbers, Whose};

/// Milliseconds of a cell.
const MILLIS: u32 = 500;

/// Cells, as `load::Cell` reads them.
const CELLS: [(&str, &str); 8] = [
    (ONE, "32 B, 1 at a time"),
    (EIGHT, "32 B, 8 at a time"),
    (MANY, "32 B, 64 in flight"),
    (CROWD, "32 B, 1024 in flight"),
    (MASS, "32 B, 10 000 in flight"),
    (LARGE, "1 MiB, 1 at a time"),
    (LARGES, "1 MiB, 8 at once"),
    (BESIDE, "32 B beside 8 x 1 MiB"),
];
const ONE: &str = "small:1";
const EIGHT: &str = "small:8";
const MANY: &str = "small:64";
const CROWD: &str = "small:1024";
const MASS: &str = "small:10000";
const LARGE: &str = "large:1";
const LARGES: &str = "large:8";
const BESIDE: &str = "beside:8";

/// Who is measured, in which cells.
struct Subject {
    whose: Whose,
    /// As its processes know it; at the end `-1` says that its runtime has one thread.
    name: &'static str,
    title: &'static str,
    cells: &'static [&'static str],
}

const RAW: usize = 0;
const OURS: usize = 2;
const PLAIN: usize = 3;
const TARPC: usize = 5;
const TARPC_TUNED: usize = 6;
const VOLO: usize = 7;
const TONIC: usize = 8;
const TONIC_TUNED: usize = 9;
const CAPNP: usize = 10;
const ERPC: usize = 11;

/// Third-party peers, and those of them whose runtime is the usual one; Cap'n Proto knows no other.
const PEERS: [usize; 6] = [TARPC, TARPC_TUNED, VOLO, TONIC, TONIC_TUNED, CAPNP];
const UNTUNED: [usize; 4] = [TARPC, VOLO, TONIC, CAPNP];

const SUBJECTS: [Subject; 13] = [
    Subject {
        whose: Whose::Ours,
        name: "raw",
        title: "raw echo",
        cells: &[ONE, MANY, CROWD, LARGE, LARGES],
    },
    Subject {
        whose: Whose::Ours,
        name: "raw-single",
        title: "raw echo, one task",
        cells: &[ONE, MANY, CROWD],
    },
    Subject {
        whose: Whose::Ours,
        name: "meshx",
        title: "meshx-rpc",
        cells: &[ONE, MANY, CROWD, MASS, LARGE, LARGES, BESIDE],
    },
    Subject {
        whose: Whose::Ours,
        name: "meshx-plain",
        title: "meshx-rpc, no checksum",
        cells: &[MANY, LARGE, LARGES],
    },
    Subject {
        whose: Whose::Ours,
        name: "meshx-1",
        title: "meshx-rpc, current-thread",
        cells: &[ONE, MANY, CROWD],
    },
    Subject {
        whose: Whose::Tarpc,
        name: "tarpc",
        title: "tarpc",
        cells: &[ONE, MANY, CROWD, LARGE, LARGES, BESIDE],
    },
    Subject {
        whose: Whose::Tarpc,
        name: "tarpc-1",
        title: "tarpc, current-thread",
        cells: &[ONE, MANY, CROWD, LARGE, LARGES],
    },
    Subject {
        whose: Whose::Volo,
        name: "volo",
        title: "Volo (Thrift), its pool",
        cells: &[ONE, MANY, LARGE, LARGES, BESIDE],
    },
    Subject {
        whose: Whose::Tonic,
        name: "tonic",
        title: "tonic",
        cells: &[ONE, MANY, CROWD, LARGE, LARGES, BESIDE],
    },
    Subject {
        whose: Whose::Tonic,
        name: "tonic-1",
        title: "tonic, current-thread",
        cells: &[ONE, MANY, CROWD, LARGE, LARGES],
    },
    Subject {
        whose: Whose::Capnp,
        name: "capnp",
        title: "Cap'n Proto, current-thread",
        cells: &[ONE, MANY, CROWD, LARGE, LARGES, BESIDE],
    },
    Subject {
        whose: Whose::Erlang,
        name: "erpc",
        title: ":erpc, two BEAMs",
        cells: &[ONE, EIGHT, MANY, CROWD, LARGE, LARGES, BESIDE],
    },
    Subject {
        whose: Whose::Ours,
        name: "v1",
        title: "MeshxRpc v1, 8 connections",
        cells: &[ONE, EIGHT, LARGE, LARGES],
    },
];

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let company = Company::gather(stage, section);
    let mut all = Measured::default();
    let mut failed = Ok(());
    for run in 0..stage.runs {
        // One repetition fits into what the budget keeps in reserve.
        if failed.is_err() || (stage.budget.is_spent()? && run > 0) {
            break;
        }
        // In turns, so that nobody is always the first.
        for step in 0..SUBJECTS.len() {
            let number = (step + run as usize) % SUBJECTS.len();
            let subject = &SUBJECTS[number];
            if company.has(subject.whose) {
                let key = (subject.whose, subject.name);
                match company.run(key, MILLIS, subject.cells) {
                    Ok(numbers) => all.push(number, &numbers),
                    // The others are measured all the same, and this is the last repetition.
                    Err(error) => failed = Err(error),
                }
            }
        }
    }
    report(section, &all);
    failed
}

/// The numbers of one subject in one cell.
#[derive(Clone, Default)]
struct Series {
    /// Calls a second.
    rate: Sample,
    cpu: Sample,
    /// p50, p99 and p99.9 in microseconds.
    micros: [Sample; 3],
}

/// By subject and cell.
#[derive(Default)]
struct Measured([[Series; CELLS.len()]; SUBJECTS.len()]);

impl Measured {
    fn push(&mut self, subject: usize, numbers: &[Numbers]) {
        for (cell, numbers) in SUBJECTS[subject].cells.iter().zip(numbers) {
            let series = &mut self.0[subject][place(cell)];
            series.rate.push(numbers.calls_per_second);
            series.cpu.push(numbers.cpu_micros);
            for (sample, value) in series.micros.iter_mut().zip(numbers.micros) {
                sample.push(value);
            }
        }
    }

    fn of(&self, subject: usize, cell: &str) -> &Series {
        &self.0[subject][place(cell)]
    }

    fn rate(&self, subject: usize, cell: &str) -> &Sample {
        &self.of(subject, cell).rate
    }

    /// The best of these peers in each repetition, of those that are there.
    fn best(peers: &[usize], of: impl Fn(usize) -> Sample, better: fn(f64, f64) -> f64) -> Sample {
        let samples = peers.iter().map(|peer| of(*peer));
        let there = samples.filter(|sample| !sample.values().is_empty());
        let best = there.reduce(|one, other| {
            one.values().iter().zip(other.values()).map(|(a, b)| better(*a, *b)).collect()
        });
        best.unwrap_or_default()
    }
}

fn place(cell: &str) -> usize {
    CELLS.iter().position(|(name, _)| *name == cell).unwrap_or_default()
}

fn report(section: &mut Section, all: &Measured) {
    for (cell, title) in CELLS {
        for (number, subject) in SUBJECTS.iter().enumerate() {
            if subject.cells.contains(&cell) {
                rows(section, (cell, title), number, all.of(number, cell));
            }
        }
        ratios(section, (cell, title), all);
    }
    section.notice(
        "one connection, but for Volo and MeshxRpc v1, which take one call at a time on each; CPU time is that of \
         client and server together; MB/s is payload one way"
            .to_owned(),
    );
}

/// What was measured of one subject in one cell.
fn rows(section: &mut Section, (cell, title): (&str, &str), number: usize, series: &Series) {
    let subject = SUBJECTS[number].title;
    let ours = number == OURS;
    let micros = |rank: usize, name: &str| {
        let what = format!("{title}: {name}");
        Row::new(&what, subject, Unit::Microseconds, series.micros[rank].clone())
    };
    if cell == BESIDE {
        let p99 = micros(1, "p99");
        section.row(if ours { p99.at_most(2000.0) } else { p99 });
        return;
    }
    if cell.starts_with("large") {
        let bytes = scaled(&series.rate, 1.048_576);
        section.row(Row::new(title, subject, Unit::MegabytesPerSecond, bytes));
    } else {
        section.row(Row::new(title, subject, Unit::Thousands, scaled(&series.rate, 1e-3)));
    }
    section.row(micros(0, "p50"));
    let p99 = micros(1, "p99");
    section.row(if ours && cell == CROWD { p99.at_most(1000.0) } else { p99 });
    if !cell.starts_with("large") {
        section.row(micros(2, "p99.9"));
    }
    let what = format!("{title}: CPU time");
    let cpu = Row::new(&what, subject, Unit::CpuMicroseconds, series.cpu.clone());
    section.row(if ours && [MANY, CROWD].contains(&cell) { cpu.at_most(2.0) } else { cpu });
}

/// What is promised of ours beside the others.
fn ratios(section: &mut Section, (cell, title): (&str, &str), all: &Measured) {
    let row = |what: &str, of: &str, sample: Sample| {
        Row::new(&format!("{title}{what}"), of, Unit::Ratio, sample)
    };
    let ours = all.rate(OURS, cell);
    let best = |peers: &[usize]| {
        let best = Measured::best(peers, |peer| all.rate(peer, cell).clone(), f64::max);
        ours.over(&best)
    };
    let rows = match cell {
        ONE => {
            let of = |rank: usize| {
                let ours = &all.of(OURS, cell).micros[rank];
                let raw = ours.over(&all.of(RAW, cell).micros[rank]);
                let peer = |peer| all.of(peer, cell).micros[rank].clone();
                (raw, ours.over(&Measured::best(&PEERS, peer, f64::min)))
            };
            let ((p50, p50_best), (p99, p99_best)) = (of(0), of(1));
            vec![
                row(": p50", "meshx-rpc, of raw", p50).at_most(1.2),
                row(": p50", "meshx-rpc, of the best peer", p50_best).at_most(1.0),
                row(": p99", "meshx-rpc, of raw", p99).at_most(1.2),
                row(": p99", "meshx-rpc, of the best peer", p99_best).at_most(1.0),
            ]
        }
        MANY => vec![
            row("", "meshx-rpc, of raw", ours.over(all.rate(RAW, cell))).at_least(0.6),
            row("", "meshx-rpc, of the best peer as it comes", best(&UNTUNED)).at_least(5.0),
            row("", "meshx-rpc, of the best peer", best(&PEERS)).at_least(2.5),
            row("", "meshx-rpc, of :erpc", ours.over(all.rate(ERPC, cell))).at_least(20.0),
        ],
        CROWD => {
            vec![row("", "meshx-rpc, of the best peer as it comes", best(&UNTUNED)).at_least(10.0)]
        }
        LARGE | LARGES => {
            let aim = if cell == LARGE { 1.3 } else { 1.0 };
            let plain = ours.over(all.rate(PLAIN, cell));
            vec![
                row("", "meshx-rpc, of the best peer", best(&PEERS)).at_least(aim),
                row("", "meshx-rpc, CRC-32C of no checksum", plain).at_least(0.8),
            ]
        }
        _ => Vec::new(),
    };
    for row in rows {
        section.row(row);
    }
}

fn scaled(sample: &Sample, factor: f64) -> Sample {
    sample.values().iter().map(|value| value * factor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_subjects() {
        let names = [RAW, OURS, PLAIN, ERPC].map(|number| SUBJECTS[number].name);
        assert_eq!(names, ["raw", "meshx", "meshx-plain", "erpc"]);
        for (number, subject) in SUBJECTS.iter().enumerate() {
            let peer = ![Whose::Ours, Whose::Erlang].contains(&subject.whose);
            let tuned = subject.name.ends_with("-1");
            assert_eq!(PEERS.contains(&number), peer, "{}", subject.name);
            assert_eq!(UNTUNED.contains(&number), peer && !tuned, "{}", subject.name);
        }
    }
}
