//! Measurements and the lines that report them.

use std::time::Duration;

/// One line of the report.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Durations of the same thing, done many times.
#[derive(Debug, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// The duration below which `percent` of them lie.
    pub(crate) fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        let at = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0[at]
    }

    /// Reports the median and the 99th percentile; of less than a hundred that is the worst.
    pub(crate) fn report(mut self, what: &str, peer: &str, aim: &str) {
        let (half, most) = (show(self.percentile(50)), show(self.percentile(99)));
        say(&format!("| {what} | {peer} | {half} | {most} | {aim} |"));
    }
}

fn show(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ ..10_000 => format!("{micros} µs"),
        micros => format!("{} ms", micros / 1000),
    }
}
