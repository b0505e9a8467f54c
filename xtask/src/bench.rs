//! `bench`: runs the benches package.

use anyhow::{Result, bail};

use crate::step::{self, cargo, root, step};

pub(crate) fn run() -> Result<()> {
    if !root().join("benches/Cargo.toml").is_file() {
        bail!("there is no benches package yet");
    }
    step("bench", || step::run(cargo().args(["run", "--release", "--package", "meshx-benches"])))
}
