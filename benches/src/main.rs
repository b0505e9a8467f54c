//! Measures what the product claims, its peers beside it in the same run, and shows the noise.
//!
//! Real processes only: the release `meshx` binary, Consul 1.8.7 with its built-in proxy, stock
//! Erlang. What is not there is left out, with a notice. Repetitions of the subjects alternate, so
//! that whatever else the machine does falls on all of them; every row is a median with the
//! smallest and largest value beside it.

mod budget;
mod codec;
mod control_plane;
mod deny;
mod http;
mod machine;
mod node;
mod peer;
mod program;
mod report;
mod route;
mod rpc;
mod rtt;
mod stage;
mod startup;
mod throughput;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::machine::{Machine, Meter};
use crate::report::{Report, Section, note};
use crate::stage::Stage;

/// Measures what meshx claims, its peers in the same run.
#[derive(Debug, Parser)]
#[command(name = "meshx-benches")]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value_t = Bench::All)]
    bench: Bench,
    /// One JSON document on stdout in place of tables
    #[arg(long)]
    json: bool,
    /// Repetitions of everything that is repeated; what is short is repeated four times as often
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Everything
    All,
    /// How long starting takes, and what an idle process holds
    Startup,
    /// The round trip that a pair of sidecars adds
    Rtt,
    /// Bytes and connections through a pair of sidecars, and the CPU time they take
    Throughput,
    /// From a deny to the end of a live connection
    Deny,
    /// From two fresh Erlang VMs to a connected pair
    Vm,
    /// Erlang's term format, encoded and decoded
    Codec,
    /// Messages between Rust nodes and stock ones
    Node,
    /// Calls between two processes
    Rpc,
}

type Measure = fn(&Stage, &mut Section) -> Result<()>;

const BENCHES: [(Bench, &str, Measure); 8] = [
    (Bench::Codec, "codec", codec::measure),
    (Bench::Node, "node", node::measure),
    (Bench::Startup, "startup", startup::measure),
    (Bench::Vm, "vm", vm::measure),
    (Bench::Deny, "deny", deny::measure),
    (Bench::Rtt, "rtt", rtt::measure),
    (Bench::Throughput, "throughput", throughput::measure),
    (Bench::Rpc, "rpc", rpc::measure),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // One of the processes that the benches start.
    let process = match words.first().map(String::as_str) {
        Some(node::peer::COMMAND) => Some(node::peer::run(&words[1..])),
        Some(rpc::ends::SERVE | rpc::ends::DRIVE) => Some(rpc::ends::run(&words)),
        _ => None,
    };
    if let Some(ended) = process {
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                note(&format!("error: {error:#}"));
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// True when all that was asked for could be measured.
fn run(arguments: &Arguments) -> Result<bool> {
    let stage = Stage::set(arguments.runs)?;
    let mut report = Report::new(Machine::look(), arguments.runs);
    let mut complete = true;
    for (bench, name, measure) in BENCHES {
        if arguments.bench != Bench::All && arguments.bench != bench {
            continue;
        }
        note(&format!("measuring {name} ..."));
        let mut section = Section::new(name);
        let meter = Meter::start();
        if let Err(error) = measure(&stage, &mut section) {
            note(&format!("error: {name}: {error:#}"));
            section.notice(format!("NOT COMPLETE: {error:#}"));
            complete = false;
        }
        section.noise = Some(meter.stop());
        report.sections.push(section);
        if stage.budget.is_interrupted() {
            break;
        }
    }
    report.finish();
    report.print(arguments.json);
    Ok(complete)
}
