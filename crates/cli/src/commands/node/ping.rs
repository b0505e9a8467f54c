//! `meshx ping`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use meshx_core::NodeName;
use meshx_node::etf::{Atom, Term};
use meshx_node::{CallError, Flags};
use serde::Serialize;

use super::Asking;
use crate::args::Ping;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    node: String,
    hidden: bool,
    creation: u32,
    flags: Vec<String>,
    connect_milliseconds: f64,
    round_trip_milliseconds: Vec<f64>,
}

pub(crate) async fn run(arguments: Ping, output: Output) -> Result<u8, Failure> {
    let (target, count) = (arguments.node, arguments.count);
    let asking = Asking::start(&arguments.ask, &target, output).await?;
    let node = &asking.node;
    // Also of a series that was broken off.
    let times = RefCell::new(Vec::new());
    let asked = async {
        let begun = Instant::now();
        asking.connect(&target).await?;
        let connect_milliseconds = milliseconds(begun.elapsed());
        let peer = node.peers().into_iter().find(|peer| peer.name == target.as_str());
        let peer = peer.ok_or_else(|| lost(&target))?;
        let mut report = Report {
            schema: "meshx.ping/1",
            node: target.to_string(),
            hidden: !peer.offered.contains(Flags::PUBLISHED),
            creation: peer.creation,
            flags: peer.offered.to_string().split_whitespace().map(str::to_owned).collect(),
            connect_milliseconds,
            round_trip_milliseconds: Vec::new(),
        };
        if !output.json {
            output.story(&format!(
                "{target}: {}, creation {}, flags {:#x}, connected in {connect_milliseconds:.2} ms",
                if report.hidden { "hidden" } else { "visible" },
                peer.creation,
                peer.offered.bits(),
            ));
        }
        for number in 0..count {
            if number > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let took = milliseconds(ask(&asking, &target).await?);
            times.borrow_mut().push(took);
            if !output.json {
                output.story(&format!("pong in {took:.2} ms"));
            }
        }
        report.round_trip_milliseconds.clone_from(&times.borrow());
        Ok(report)
    };
    let report = asking.finish(asked).await;
    if let (false, Some(summary)) = (output.json, summary(&times.borrow())) {
        output.story(&summary);
    }
    let report = report?;
    if output.json {
        output.data(&report, |_| String::new());
    }
    Ok(exit::SUCCESS)
}

/// One round trip, as of `net_adm:ping/1`.
async fn ask(asking: &Asking, target: &NodeName) -> Result<Duration, Failure> {
    let (node, limit) = (&asking.node, asking.limit);
    let begun = Instant::now();
    let question = (Atom::cut("is_auth"), node.name());
    let answer = node.call(("net_kernel", target.as_str()), &question, limit).await;
    match answer {
        Ok(Term::Atom(yes)) if yes == "yes" => Ok(begun.elapsed()),
        Ok(other) => {
            let message = format!("{target} answered {other} where pong was expected");
            Err(Failure::new(214, exit::NEGATIVE, message))
        }
        Err(CallError::Timeout(_)) => Err(asking.too_late(target)),
        Err(CallError::NoConnection) => Err(lost(target)),
        Err(error) => Err(Failure::new(214, exit::NEGATIVE, format!("{target}: {error}"))),
    }
}

fn lost(target: &NodeName) -> Failure {
    Failure::new(213, exit::NEGATIVE, format!("the connection to {target} was lost"))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of more than one round trip.
fn summary(times: &[f64]) -> Option<String> {
    let count = u32::try_from(times.len()).ok().filter(|&count| count > 1)?;
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let most = times.iter().copied().fold(0.0, f64::max);
    let mean = times.iter().sum::<f64>() / f64::from(count);
    Some(format!("{count} round trips: least {least:.2}, mean {mean:.2}, most {most:.2} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_trip_needs_no_summary() {
        assert_eq!(summary(&[1.0]), None);
        let two = summary(&[1.0, 3.0]).unwrap();
        assert!(two.contains("least 1.00, mean 2.00, most 3.00"), "{two}");
    }
}
