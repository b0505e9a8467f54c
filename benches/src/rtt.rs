//! The round trip that a pair of sidecars adds.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::peer::{self, Mode};
use crate::report::{Row, Sample, Section, Unit};
use crate::route::{DIRECT, Field, OURS, THEIRS};
use crate::stage::Stage;

/// Round trips of one repetition, over all its connections.
const ROUND_TRIPS: u32 = 20_000;

/// Round trips before those that count, over all connections.
const WARM_UP: u32 = 2_000;

/// A repetition that is slower than this ends before its last round trip.
const LIMIT: Duration = Duration::from_secs(15);

/// What is asked of the sorted round trips.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What our pair adds to the direct way, as a part of what Consul's adds.
const ADDED: &str = "(meshx - direct) / (consul - direct)";

pub(crate) fn measure(stage: &Stage, section: &mut Section) -> Result<()> {
    let field = Field::lay(stage, section)?;
    for connections in [1, 16] {
        // By route, by quantile, by repetition.
        let mut times = vec![vec![Sample::default(); QUANTILES.len()]; field.routes.len()];
        for run in 0..stage.runs {
            if stage.budget.is_spent()? {
                break;
            }
            for (at, route) in field.in_turn(run) {
                let sorted = ping(route.address, connections)
                    .with_context(|| format!("{}, {connections} connections", route.title))?;
                for ((_, quantile), sample) in QUANTILES.iter().zip(&mut times[at]) {
                    sample.push(at_quantile(&sorted, *quantile));
                }
            }
        }
        report(section, &field, connections, &times);
    }
    Ok(())
}

fn report(section: &mut Section, field: &Field, connections: u32, times: &[Vec<Sample>]) {
    let plural = if connections == 1 { "" } else { "s" };
    for (number, (quantile, _)) in QUANTILES.iter().enumerate() {
        let what = format!("100 B and back, {connections} connection{plural}, {quantile}");
        let of = |title| {
            let at = field.routes.iter().position(|route| route.title == title)?;
            Some(&times[at][number])
        };
        for title in [DIRECT, OURS, THEIRS] {
            if let Some(sample) = of(title) {
                section.row(Row::new(&what, title, Unit::Microseconds, sample.clone()));
            }
        }
        if let (Some(floor), Some(ours), Some(theirs)) = (of(DIRECT), of(OURS), of(THEIRS)) {
            // Of each repetition: what disturbed the machine meanwhile disturbed all three.
            let added = |pair: &Sample, run: usize| pair.values()[run] - floor.values()[run];
            let ratios = (0..floor.values().len()).map(|run| added(ours, run) / added(theirs, run));
            let row = Row::new(&what, ADDED, Unit::Ratio, ratios.collect());
            // The claim is about the median round trip.
            section.row(if number == 0 { row.at_most(1.0) } else { row });
        }
    }
}

/// Round trips in microseconds, sorted.
fn ping(to: SocketAddr, connections: u32) -> Result<Vec<f64>> {
    let together = Barrier::new(connections as usize);
    let outcomes: Vec<Result<Vec<f64>>> = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| client(to, connections, &together))).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    });
    let mut times = Vec::new();
    for outcome in outcomes {
        times.extend(outcome?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// One client's share.
fn client(to: SocketAddr, connections: u32, together: &Barrier) -> Result<Vec<f64>> {
    let warm = || -> Result<_> {
        let mut stream = peer::connect(to, Mode::Echo, None)?;
        for _ in 0..WARM_UP / connections {
            peer::round_trip(&mut stream, &mut [7; 100])?;
        }
        Ok(stream)
    };
    let warm = warm();
    // Whoever failed comes too, or the others would wait for ever.
    together.wait();
    let mut stream = warm?;
    let count = ROUND_TRIPS / connections;
    let mut times = Vec::with_capacity(count as usize);
    let begun = Instant::now();
    let mut message = [7; 100];
    for _ in 0..count {
        let start = Instant::now();
        peer::round_trip(&mut stream, &mut message)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        if begun.elapsed() > LIMIT {
            break;
        }
    }
    Ok(times)
}

/// The value that this part of the sorted values does not exceed (nearest rank).
fn at_quantile(sorted: &[f64], quantile: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far fewer values than 2^52")]
    let rank = (sorted.len() as f64 * quantile).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the length")]
    let index = (rank as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let at = |quantile| at_quantile(&values, quantile).to_string();
        assert_eq!([at(0.5), at(0.99), at(0.999), at(1.0)], ["500", "990", "999", "1000"]);
        assert_eq!(at_quantile(&[3.0], 0.5).to_string(), "3");
        assert!(at_quantile(&[], 0.5).is_nan());
    }
}
