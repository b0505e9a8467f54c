//! Programs of the machine's own release.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::step::{self, find_program, say};

/// A program, the package that has it, and the tests that need it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("erl", "erlang-base", "every test with a virtual machine"),
    ("erlc", "erlang-base", "the check of the compiled epmd module"),
    ("iex", "elixir", "remote shells"),
    ("mix", "elixir", "releases"),
    ("tcpdump", "tcpdump", "the packet capture"),
    ("ip", "iproute2", "two network namespaces"),
];

pub(super) fn provide() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(program, ..)| *program).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    packages.dedup();
    install(&packages).with_context(|| {
        let uses: Vec<String> =
            missing.iter().map(|(program, _, uses)| format!("{program} ({uses})")).collect();
        format!("{} not found and not installed", uses.join(", "))
    })?;
    if self::missing().is_empty() {
        return Ok(());
    }
    bail!("{} not found, although {} is installed", names.join(", "), packages.join(", "))
}

fn missing() -> Vec<(&'static str, &'static str, &'static str)> {
    PROGRAMS.iter().copied().filter(|(program, ..)| find_program(program).is_none()).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    debian()?;
    if step::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("only root can install; run `apt-get install {}`", packages.join(" "));
    }
    say(&format!("installing {}", packages.join(" ")));
    step::run(Command::new("apt-get").args(["-q", "update"]))?;
    step::run(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}
