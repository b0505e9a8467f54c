//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

use super::histogram::Histogram;

/// A text in that format.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a family; its samples follow at once, as the format demands.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.labelled(name, labels, None, value);
    }

    /// All samples of a histogram; none if nothing was counted.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let snapshot = histogram.snapshot();
        if snapshot.count == 0 {
            return;
        }
        let bucket = format!("{name}_bucket");
        for (bound, count) in snapshot.cumulative {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), seconds);
            self.labelled(&bucket, labels, Some(&bound), count);
        }
        self.labelled(&format!("{name}_sum"), labels, None, seconds(snapshot.nanos));
        self.labelled(&format!("{name}_count"), labels, None, snapshot.count);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn labelled(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) {
        self.0.push_str(name);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut before = '{';
        for (label, text) in all {
            self.0.push(before);
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.escaped(text);
            self.0.push('"');
            before = ',';
        }
        self.line(format_args!("{} {value}", if before == ',' { "}" } else { "" }));
    }

    /// A label's value: `\`, `"` and the end of a line are escaped, other characters stay.
    fn escaped(&mut self, text: &str) {
        for char in text.chars() {
            match char {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                char => self.0.push(char),
            }
        }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// Seconds, exactly.
fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.sample("m", &[("a", "x\\y\"z\nü,{}"), ("b", "")], 7);
        page.sample("n", &[], 8);
        assert_eq!(page.into_text(), "m{a=\"x\\\\y\\\"z\\nü,{}\",b=\"\"} 7\nn 8\n");
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds(1 << 10), "0.000001024");
        assert_eq!(seconds(1 << 36), "68.719476736");
    }
}
