//! Two outputs: data goes to stdout, everything else to stderr. Nothing depends on colour.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use meshx_workload::{Notice, Notify};
use serde::Serialize;

use crate::environment::variable;
use crate::failure::Failure;

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// `--json`.
    pub(crate) json: bool,
    /// `--quiet`.
    pub(crate) quiet: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Data: a document in JSON, or text made from it. A reader that went away is no failure.
    pub(crate) fn data<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) {
        let mut out = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_default()
        } else {
            clean(&text(value))
        };
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        drop(std::io::stdout().lock().write_all(out.as_bytes()));
    }

    /// A line of data that is told as it happens.
    #[expect(clippy::unused_self, reason = "whatever is written goes through the value")]
    pub(crate) fn story(self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        drop(stdout.write_all(format!("{}\n", clean(text)).as_bytes()));
        drop(stdout.flush());
    }

    /// Talk: one line on stderr, always.
    #[expect(clippy::unused_self, reason = "whatever is written goes through the value")]
    pub(crate) fn line(self, text: &str) {
        // A program in the same terminal may have switched it to raw mode, where a line feed alone
        // does not go back to the first column.
        let end = if std::io::stderr().is_terminal() { "\r\n" } else { "\n" };
        let text = clean(text).replace('\n', end);
        drop(std::io::stderr().lock().write_all(format!("{text}{end}").as_bytes()));
    }

    /// Talk that `--quiet` turns off.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// Shows a failure and gives the status to exit with.
    pub(crate) fn fail(self, failure: &Failure) -> ExitCode {
        if self.json {
            let mut value = serde_json::json!({ "error": {
                "code": failure.code.to_string(),
                "message": failure.message,
                "hint": failure.hint,
                "exit": failure.exit,
            }});
            if let Some(raised) = &failure.raised {
                value["error"]["raised"] = raised.clone();
            }
            if let Some(rpc) = &failure.rpc {
                value["error"]["rpc"] = rpc.clone();
            }
            self.line(&value.to_string());
        } else {
            self.line(&format!("error[{}]: {}", failure.code, failure.message));
            if let Some(hint) = &failure.hint {
                self.line(&format!("\nhint: {hint}"));
            }
        }
        failure.exit.into()
    }

    /// Where the notices of a workload go: lines with the product's name before them. The banner is
    /// for people, so it needs a terminal; failures are always shown.
    pub(crate) fn notices(self) -> Notify {
        let output = self;
        let banner = !self.quiet && std::io::stderr().is_terminal();
        Arc::new(move |notice| {
            let is_banner = matches!(notice, Notice::Joined { .. } | Notice::Upstream { .. });
            if !is_banner || banner {
                output.line(&format!("meshx: {notice}"));
            }
        })
    }
}

/// What others said (the control plane, a peer, a program's check) may hold anything; a terminal obeys
/// control characters, and text that runs backwards lies to its reader. Line breaks and tabs are ours.
fn clean(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// Columns padded to their widest cell, two spaces apart. The first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Starts the log on stderr: warnings, or more with `-v`, or what `MESHX_LOG` says.
pub(crate) fn start_logging(verbose: u8) {
    let level = match verbose {
        // `meshx node` tells by itself what becomes of the nodes that it keeps.
        0 => "warn,meshx_node::keep=error",
        1 => "info,hyper=warn,meshx_node::keep=error",
        _ => "debug,hyper=info",
    };
    let filter = variable("MESHX_LOG").or_else(|| variable("RUST_LOG"));
    let filter = filter.unwrap_or_else(|| level.to_owned());
    let ansi = std::io::stderr().is_terminal() && variable("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded_by_others() {
        assert_eq!(clean("a\x1b[2J\tb\r\n\u{202e}c é"), "a\u{fffd}[2J\tb\u{fffd}\n\u{fffd}c é");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
