//! `check`: what a developer runs between two thoughts.

use anyhow::Result;

use crate::floors;
use crate::step::{self, cargo, step};
use crate::test::FEATURES;

pub(crate) fn run() -> Result<()> {
    style()?;
    step("unit tests", || step::run(cargo().args(["test", "--workspace", "--lib", "--bins"])))
}

/// Formatting, floors and lints.
pub(crate) fn style() -> Result<()> {
    step("fmt", || step::run(cargo().args(["fmt", "--all", "--check"])))?;
    step("floors", floors::run)?;
    step("clippy", || {
        step::run(
            cargo()
                .args(["clippy", "--workspace", "--all-targets", "--quiet", FEATURES])
                .args(["--", "-D", "warnings"]),
        )
    })
}
