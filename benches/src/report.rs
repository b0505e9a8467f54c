//! Rows, sections, and the two forms they are printed in.

use serde_json::{Value, json};

use crate::machine::{Machine, Noise};

/// Version of the JSON document.
const SCHEMA: &str = "meshx.benches/1";

/// Values of the same thing, measured several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// In the order in which they were measured.
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    /// Each value divided by the other's of the same repetition.
    pub(crate) fn over(&self, other: &Self) -> Self {
        self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// Smallest, median and largest; of none, nothing.
    fn spread(&self) -> Option<[f64; 3]> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ((sorted.len().checked_sub(1)?) / 2, sorted.len() / 2);
        let median = f64::midpoint(sorted[low], sorted[high]);
        Some([sorted[0], median, sorted[sorted.len() - 1]])
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    ConnectionsPerSecond,
    CpuMicroseconds,
    CpuMilliseconds,
    CpuSecondsPerGigabyte,
    GigabitsPerSecond,
    Megabytes,
    MegabytesPerSecond,
    Microseconds,
    Milliseconds,
    Nanoseconds,
    Ratio,
    /// Of messages or calls a second.
    Thousands,
}

impl Unit {
    /// Its name, and the decimals worth showing.
    fn form(self) -> (&'static str, usize) {
        match self {
            Self::ConnectionsPerSecond => ("conn/s", 0),
            Self::CpuMicroseconds => ("µs CPU", 2),
            Self::CpuMilliseconds => ("ms CPU", 2),
            Self::CpuSecondsPerGigabyte => ("CPU s/GB", 2),
            Self::GigabitsPerSecond => ("Gb/s", 1),
            Self::Megabytes => ("MB", 1),
            Self::MegabytesPerSecond => ("MB/s", 0),
            Self::Microseconds => ("µs", 0),
            Self::Milliseconds => ("ms", 1),
            Self::Nanoseconds => ("ns", 0),
            Self::Ratio => ("", 2),
            Self::Thousands => ("k/s", 1),
        }
    }
}

/// One measured thing of one subject.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    subject: String,
    unit: Unit,
    sample: Sample,
    aim: Option<Aim>,
}

/// What the median is meant to be.
#[derive(Clone, Copy, Debug)]
enum Aim {
    AtMost(f64),
    AtLeast(f64),
}

impl Aim {
    fn is_met(self, median: f64) -> bool {
        match self {
            Self::AtMost(aim) => median <= aim,
            Self::AtLeast(aim) => median >= aim,
        }
    }

    /// As a reader is told.
    fn text(self, median: f64) -> String {
        let (sign, aim) = match self {
            Self::AtMost(aim) => ("<=", aim),
            Self::AtLeast(aim) => (">=", aim),
        };
        let verdict = if self.is_met(median) { "met" } else { "MISSED" };
        // No more digits than it has.
        let aim = (aim * 100.0).round() / 100.0;
        format!("{sign} {aim}: {verdict}")
    }

    fn json(self, at_most: bool) -> Option<f64> {
        match self {
            Self::AtMost(aim) if at_most => Some(aim),
            Self::AtLeast(aim) if !at_most => Some(aim),
            _ => None,
        }
    }
}

impl Row {
    pub(crate) fn new(what: &str, subject: &str, unit: Unit, sample: Sample) -> Self {
        Self { what: what.to_owned(), subject: subject.to_owned(), unit, sample, aim: None }
    }

    /// The median is meant to be no more than this.
    #[must_use]
    pub(crate) fn at_most(mut self, aim: f64) -> Self {
        self.aim = Some(Aim::AtMost(aim));
        self
    }

    /// The median is meant to be no less than this.
    #[must_use]
    pub(crate) fn at_least(mut self, aim: f64) -> Self {
        self.aim = Some(Aim::AtLeast(aim));
        self
    }

    fn cells(&self) -> [String; 6] {
        let (unit, decimals) = self.unit.form();
        let number = |value: f64| format!("{value:.decimals$}");
        let (median, range, aim) = match self.sample.spread() {
            None => ("not measured".to_owned(), String::new(), String::new()),
            Some([low, median, high]) => {
                let range = if self.sample.0.len() > 1 {
                    format!("{}..{}", number(low), number(high))
                } else {
                    String::new()
                };
                let aim = self.aim.map_or_else(String::new, |aim| aim.text(median));
                (format!("{} {unit}", number(median)).trim_end().to_owned(), range, aim)
            }
        };
        let count = self.sample.0.len().to_string();
        [self.what.clone(), self.subject.clone(), median, range, count, aim]
    }

    fn json(&self) -> Value {
        let spread = self.sample.spread();
        json!({
            "what": self.what,
            "subject": self.subject,
            "unit": self.unit.form().0,
            "median": spread.map(|[_, median, _]| median),
            "min": spread.map(|[low, ..]| low),
            "max": spread.map(|[.., high]| high),
            "values": self.sample.0,
            "at_most": self.aim.and_then(|aim| aim.json(true)),
            "at_least": self.aim.and_then(|aim| aim.json(false)),
            "met": self.aim.zip(spread).map(|(aim, [_, median, _])| aim.is_met(median)),
        })
    }
}

/// What one bench measured.
#[derive(Debug)]
pub(crate) struct Section {
    name: &'static str,
    rows: Vec<Row>,
    notices: Vec<String>,
    pub(crate) noise: Option<Noise>,
}

impl Section {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new(), notices: Vec::new(), noise: None }
    }

    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A sentence for the reader, such as what was left out.
    pub(crate) fn notice(&mut self, text: String) {
        self.notices.push(text);
    }

    fn text(&self) -> String {
        const HEADING: [&str; 6] = ["what", "subject", "median", "min..max", "n", "aim"];
        let mut cells = vec![HEADING.map(str::to_owned)];
        cells.extend(self.rows.iter().map(Row::cells));
        let width =
            |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3, 4, 5].map(width);
        let mut lines = vec![format!("## {}", self.name), String::new()];
        for (number, row) in cells.iter().enumerate() {
            let padded = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                let space = " ".repeat(width - cell.chars().count());
                // Numbers to the right.
                if (2..5).contains(&column) { space + cell } else { cell.clone() + &space }
            });
            lines.push(format!("| {} |", padded.collect::<Vec<_>>().join(" | ")));
            if number == 0 {
                let rules = widths.iter().enumerate().map(|(column, width)| {
                    let end = if (2..5).contains(&column) { ":" } else { "-" };
                    "-".repeat(width + 1) + end
                });
                lines.push(format!("|{}|", rules.collect::<Vec<_>>().join("|")));
            }
        }
        lines.push(String::new());
        lines.extend(self.notices.iter().map(|notice| format!("* {notice}")));
        if let Some(Noise { others, stolen, seconds }) = self.noise {
            let (others, stolen) = (others * 100.0, stolen * 100.0);
            lines.push(format!(
                "* took {seconds:.0} s; meanwhile other programs used {others:.1} % of the \
                 machine's CPU time, the hypervisor withheld {stolen:.1} %"
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "notices": self.notices,
            "noise": self.noise.map(|noise| json!({
                "others": noise.others, "stolen": noise.stolen, "seconds": noise.seconds,
            })),
        })
    }
}

/// All of a run.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    runs: u32,
    pub(crate) sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(machine: Machine, runs: u32) -> Self {
        Self { machine, runs, sections: Vec::new() }
    }

    pub(crate) fn finish(&mut self) {
        self.machine.finish();
    }

    #[expect(clippy::print_stdout, reason = "the report is what the program is for")]
    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{:#}", self.json());
            return;
        }
        println!("{}\n", self.machine.text());
        for section in &self.sections {
            println!("{}", section.text());
        }
    }

    fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "runs": self.runs,
            "machine": self.machine.json(),
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
        })
    }
}

/// Talk while it goes on.
#[expect(clippy::print_stderr, reason = "talk goes to stderr, the report to stdout")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: &[f64]) -> Sample {
        values.iter().copied().collect()
    }

    #[test]
    fn a_spread_is_smallest_median_largest() {
        assert_eq!(sample(&[]).spread(), None);
        assert_eq!(sample(&[2.0]).spread(), Some([2.0, 2.0, 2.0]));
        assert_eq!(sample(&[9.0, 1.0, 2.0]).spread(), Some([1.0, 2.0, 9.0]));
        assert_eq!(sample(&[4.0, 1.0, 9.0, 2.0]).spread(), Some([1.0, 3.0, 9.0]));
    }

    #[test]
    fn ratios_are_of_the_same_repetition() {
        let ratios = sample(&[1.0, 9.0]).over(&sample(&[2.0, 3.0]));
        assert_eq!(ratios.values(), [0.5, 3.0]);
    }

    #[test]
    fn an_aim_is_judged_by_the_median() {
        let row = |values| Row::new("x", "y", Unit::Milliseconds, sample(values)).at_most(2.0);
        assert_eq!(row(&[1.0, 2.0, 30.0]).cells()[5], "<= 2: met");
        assert_eq!(row(&[1.0, 2.1, 3.0]).cells()[5], "<= 2: MISSED");
        assert_eq!(row(&[]).json()["met"], Value::Null);
        assert_eq!(row(&[]).cells()[2], "not measured");
    }
}
