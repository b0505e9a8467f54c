//! Other codecs, each in a program that is built when it is measured: `ei` of OTP (C), and Rust
//! crates. They are no part of the workspace, so they have no part in how the product is built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::report::{Row, Sample, Section, Unit, note};
use crate::stage::{Stage, find};

use super::{DECODE, ENCODE};

const EI: &str = include_str!("../../peers/ei.c");

/// The programs that could be built, and what they measured so far.
pub(super) struct Peers {
    programs: Vec<PathBuf>,
    /// By subject and codec: encode and decode, where the codec has them.
    samples: BTreeMap<(String, String), [Sample; 2]>,
}

impl Peers {
    /// Builds them; what cannot be built is left out, with a notice.
    pub(super) fn build(stage: &Stage, section: &mut Section) -> Self {
        let built =
            [("ei, OTP's codec in C", ei(stage)), ("codecs of other Rust crates", crates())];
        let mut programs = Vec::new();
        for (what, program) in built {
            match program {
                Ok(program) => programs.push(program),
                Err(error) => {
                    let why = format!("{what}: not measured: {error:#}");
                    section.notice(why.clone());
                    note(&why);
                }
            }
        }
        Self { programs, samples: BTreeMap::new() }
    }

    /// One repetition with these terms: name, operations, bytes.
    pub(super) fn run(&mut self, stage: &Stage, subjects: &[(&str, u32, &[u8])]) -> Result<()> {
        let mut words = Vec::new();
        for (name, times, bytes) in subjects {
            std::fs::write(stage.folder().join(name), bytes)?;
            words.extend([times.to_string(), (*name).to_owned()]);
        }
        for program in &self.programs {
            let output = stage.command(program, "").args(&words).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() {
                let errors = String::from_utf8_lossy(&output.stderr);
                bail!("{} ended with {}: {}", program.display(), output.status, errors.trim());
            }
            for line in text.lines() {
                let parts: Vec<&str> = line.split('\t').collect();
                let [codec, subject, encode, decode] = parts.as_slice() else {
                    bail!("{} said `{line}`", program.display());
                };
                let key = ((*subject).to_owned(), (*codec).to_owned());
                let samples = self.samples.entry(key).or_default();
                for (sample, value) in samples.iter_mut().zip([encode, decode]) {
                    if *value != "-" {
                        sample.push(value.parse().context("a peer's number")?);
                    }
                }
            }
        }
        Ok(())
    }

    /// The fastest of them in each repetition, encoding or decoding this subject.
    pub(super) fn fastest(&self, subject: &str, operation: &str) -> Option<Sample> {
        let mut fastest: Option<Vec<f64>> = None;
        for (_, sample) in self.of(subject, operation) {
            let values = sample.values();
            fastest = Some(match fastest {
                None => values.to_vec(),
                Some(best) => best.iter().zip(values).map(|(a, b)| a.min(*b)).collect(),
            });
        }
        fastest.map(|values| values.into_iter().collect())
    }

    /// A row for each codec and operation.
    pub(super) fn rows(&self, subject: &str, title: &str, section: &mut Section) {
        for operation in [ENCODE, DECODE] {
            for (codec, sample) in self.of(subject, operation) {
                let what = format!("{title}: {operation}");
                section.row(Row::new(&what, codec, Unit::Nanoseconds, sample.clone()));
            }
        }
    }

    fn of<'a>(
        &'a self,
        subject: &'a str,
        operation: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Sample)> {
        self.samples
            .iter()
            .filter(move |((of, _), _)| of == subject)
            .map(move |((_, codec), samples)| {
                (codec.as_str(), &samples[usize::from(operation == DECODE)])
            })
            .filter(|(_, sample)| !sample.values().is_empty())
    }
}

/// Needs a C compiler, and the library of Debian's `erlang-dev`.
fn ei(stage: &Stage) -> Result<PathBuf> {
    let compiler = find("cc").context("no `cc` on PATH")?;
    let source = stage.folder().join("ei.c");
    std::fs::write(&source, EI)?;
    let program = stage.folder().join("codec-ei");
    let mut command = stage.command(&compiler, "");
    run(command.arg("-O2").arg("-o").arg(&program).arg(&source).arg("-lei"))?;
    Ok(program)
}

/// Needs cargo, and the crates in its cache or a registry.
fn crates() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("../target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "--locked", "--manifest-path"]);
    run(command.arg(here.join("peers/Cargo.toml")).arg("--target-dir").arg(&target))?;
    Ok(target.join("release/codec-peers"))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first = errors.lines().find(|line| line.contains("error")).unwrap_or_default();
        bail!("{program} ended with {}: {first}", output.status);
    }
    Ok(())
}
