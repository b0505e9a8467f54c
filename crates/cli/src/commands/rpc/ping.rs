//! `meshx rpc ping`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use meshx_rpc::{Client, Retries};
use serde::Serialize;

use super::asking::{Asking, told};
use crate::args::rpc::Ping;
use crate::failure::{Failure, exit};
use crate::output::Output;

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    address: String,
    service: String,
    node: String,
    protocol: &'static str,
    connect_milliseconds: f64,
    round_trip_milliseconds: Vec<f64>,
}

pub(super) async fn run(arguments: &Ping, output: Output) -> Result<u8, Failure> {
    let address = arguments.address.to_string();
    let asking = Asking::start_with(&arguments.address, &arguments.reach, output, |builder| {
        told(builder.connections(1).retries(Retries::NONE))
    })
    .await?;
    // Also of a series that was broken off.
    let times = RefCell::new(Vec::new());
    let dialled = asking.dialled.clone();
    let asked = async |client: Client| {
        let begun = Instant::now();
        // Of which the time is not told: it brings up the connection.
        client.ping().await?;
        let Some((peer, up)) = dialled.borrow().first.clone() else { return Ok(None) };
        let connect_milliseconds = milliseconds(up.saturating_duration_since(begun));
        let mut report = Report {
            schema: "meshx.rpc.ping/1",
            address: address.clone(),
            service: peer.remote.svc_ref,
            node: peer.remote.node_ref,
            protocol: peer.protocol.name(),
            connect_milliseconds,
            round_trip_milliseconds: Vec::new(),
        };
        if !output.json {
            output.story(&heading(&report));
        }
        for number in 0..arguments.count {
            if number > 0 {
                tokio::time::sleep(arguments.interval).await;
            }
            let took = milliseconds(client.ping().await?);
            times.borrow_mut().push(took);
            if !output.json {
                output.story(&format!("pong in {took:.2} ms"));
            }
        }
        report.round_trip_milliseconds.clone_from(&times.borrow());
        Ok(Some(report))
    };
    let report = asking.finish(asked).await;
    if let (false, Some(summary)) = (output.json, summary(&times.borrow())) {
        output.story(&summary);
    }
    let report = report.map_err(|failure| match failure.exit {
        // No reply is an answer to this question.
        exit::UNREACHABLE => Failure { exit: exit::NEGATIVE, ..failure },
        _ => failure,
    })?;
    if output.json {
        output.data(&report, |_| String::new());
    }
    Ok(exit::SUCCESS)
}

fn heading(report: &Report) -> String {
    let who = match (&*report.service, &*report.node) {
        ("", "") => String::new(),
        (service, "") => format!("{service}, "),
        ("", node) => format!("{node}, "),
        (service, node) => format!("{service} at {node}, "),
    };
    let Report { address, protocol, connect_milliseconds, .. } = report;
    format!("{address}: {who}{protocol}, connected in {connect_milliseconds:.2} ms")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of more than one round trip.
fn summary(times: &[f64]) -> Option<String> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let (least, most) = (times.first()?, times.last()?);
    let median = times.get(times.len() / 2)?;
    (times.len() > 1).then(|| {
        let count = times.len();
        format!("{count} round trips: min {least:.2}, p50 {median:.2}, max {most:.2} ms")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_trip_needs_no_summary() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[1.0]), None);
        let three = summary(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(three, "3 round trips: min 1.00, p50 2.00, max 3.00 ms");
    }
}
