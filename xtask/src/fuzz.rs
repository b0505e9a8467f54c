//! `fuzz`: runs every target of `fuzz/` for a while, on nightly with `cargo-fuzz`.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::step::{self, find_program, root, say, step};

pub(crate) fn run(seconds: u64) -> Result<()> {
    let targets = targets()?;
    if let Some(missing) = missing() {
        if step::is_ci() {
            bail!("{missing}");
        }
        say(&format!("skipped: {missing}"));
        return Ok(());
    }
    for target in targets {
        // New findings go to the corpus, which is not kept; the seeds are.
        let (corpus, seeds) = (format!("corpus/{target}"), format!("seeds/{target}"));
        fs::create_dir_all(root().join("fuzz").join(&corpus)).context("make the corpus folder")?;
        step(&format!("fuzz {target}"), || {
            step::run(
                Command::new("cargo")
                    .current_dir(root().join("fuzz"))
                    .args(["+nightly", "fuzz", "run", &target, &corpus, &seeds, "--"])
                    .arg(format!("-max_total_time={seconds}"))
                    .arg("-timeout=10"),
            )
        })?;
    }
    Ok(())
}

fn missing() -> Option<&'static str> {
    let nightly = Command::new("cargo")
        .args(["+nightly", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !nightly {
        return Some("no nightly toolchain; `rustup toolchain install nightly`");
    }
    if find_program("cargo-fuzz").is_none() {
        return Some("no cargo-fuzz; `cargo install cargo-fuzz`");
    }
    None
}

fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).context("there are no fuzz targets yet")?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            targets.push(stem.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}
