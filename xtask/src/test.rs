//! `test`: everything that must hold before a change is merged.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::check;
use crate::provision::{self, Provided};
use crate::step::{self, cargo, root, say, step};
use crate::tally::Tally;

/// How much of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Without the end-to-end tests.
    Quick,
    Full,
}

/// Runs it all. The last line, on stdout, is the summary, whatever happened; a step that fails
/// before any test counts as one failure.
pub(crate) fn run(extent: Extent) -> Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let outcome = steps(extent, &mut tally);
    say(&format!("    all: {:.1} s", start.elapsed().as_secs_f64()));
    if let Err(error) = &outcome {
        say(&format!("error: {error:#}"));
        tally.failed = tally.failed.max(1);
    }
    summary(&tally);
    outcome.map_err(|_| step::Said.into())
}

/// What the tests start besides what they bring with them.
struct Built {
    meshx: PathBuf,
    /// The folder of the examples of `meshx-node` and `meshx-rpc-node`.
    examples: PathBuf,
}

fn steps(extent: Extent, tally: &mut Tally) -> Result<()> {
    check::style()?;
    let provided = step("provision", provision::for_tests)?;
    let meshx = step("build meshx", || build_meshx(&[]))?;
    let examples = step("build examples", build_examples)?;
    step("compiled epmd module", check_beam)?;
    let built = Built { meshx, examples };
    step("tests", || run_tests(extent, &provided, &built, tally))
}

/// Builds the product and says where it is.
pub(crate) fn build_meshx(profile: &[&str]) -> Result<PathBuf> {
    let messages = step::output(
        cargo()
            .stderr(Stdio::inherit())
            .args(["build", "--package=meshx-cli", "--bin=meshx"])
            .args(["--message-format=json", "--quiet"])
            .args(profile),
    )?;
    executable(&messages, "meshx").context("cargo did not say where it put `meshx`")
}

/// Builds the examples that tests start, and says in which folder they are.
fn build_examples() -> Result<PathBuf> {
    let messages = step::output(
        cargo()
            .stderr(Stdio::inherit())
            .args(["build", "--package=meshx-node", "--package=meshx-rpc-node", "--examples"])
            .args(["--message-format=json", "--quiet"]),
    )?;
    let one = executable(&messages, "counter").context("cargo did not say where examples are")?;
    one.parent().map(Path::to_owned).context("an example is in no folder")
}

/// The executable of this name in cargo's messages, one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The epmd module's compiled file is in the repository; it must be what its source makes.
fn check_beam() -> Result<()> {
    /// The script's status when the compiler is of another release than the file was made with.
    const OTHER_RELEASE: i32 = 2;
    if step::find_program("erlc").is_none() {
        say("    skipped: no erlc");
        return Ok(());
    }
    let script = root().join("crates/workload/erlang/build.sh");
    let status = Command::new("sh").arg(&script).arg("--check").status()?;
    match status.code() {
        Some(0) => Ok(()),
        Some(OTHER_RELEASE) => {
            say("    skipped: the file is compared with its own OTP release only");
            Ok(())
        }
        _ => bail!("{} --check ended with {status}", script.display()),
    }
}

/// What no crate of the workspace turns on by itself.
pub(crate) const FEATURES: &str = "--features=meshx-rpc/tower";

/// Runs `cargo test`, passes its output through and counts.
fn run_tests(extent: Extent, provided: &Provided, built: &Built, tally: &mut Tally) -> Result<()> {
    let skips = std::env::temp_dir().join(format!("meshx-skips-{}", std::process::id()));
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast", FEATURES]);
    if extent == Extent::Quick {
        command.args(["--exclude", "meshx-e2e"]);
    }
    command.env("MESHX_BIN", &built.meshx).env("MESHX_EXAMPLES", &built.examples);
    command.env("MESHX_TEST_SKIPS", &skips);
    command.envs(provided.iter().map(|(variable, path)| (variable, path)));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start `cargo test`")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut screen = std::io::stdout();
    for line in BufReader::new(output).lines() {
        // A test may print anything; what is not UTF-8 is no result line.
        let Ok(line) = line else { continue };
        tally.read(&line);
        writeln!(screen, "{line}")?;
    }
    let status = child.wait()?;
    let skipped = take_skips(&skips);
    for reason in &skipped {
        say(&format!("    skipped: {reason}"));
    }
    tally.reclassify_skipped(skipped.len() as u64);
    if !status.success() {
        bail!("`cargo test` ended with {status}");
    }
    Ok(())
}

/// One line for each test that found what it needs missing.
fn take_skips(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let _ignored = fs::remove_file(path); // absent when nothing was skipped
    text.lines().map(str::to_owned).collect()
}

#[expect(clippy::print_stdout, reason = "the one result of the chore")]
fn summary(tally: &Tally) {
    println!("{tally}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_executable_among_cargo_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"meshx_core\"},\"executable\":null}\n",
            "not json\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"meshx\"},\"executable\":\"/t/debug/meshx\"}\n",
        );
        assert_eq!(executable(messages, "meshx"), Some(PathBuf::from("/t/debug/meshx")));
        assert_eq!(executable(messages, "counter"), None);
        assert_eq!(executable("{}", "meshx"), None);
    }
}
