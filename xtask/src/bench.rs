//! `bench`: measures a release build of the product, with the peers that are there.

use anyhow::Result;

use crate::provision;
use crate::step::{self, cargo, step};
use crate::test;

/// `arguments` are those of `meshx-benches`.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let provided = step("provision", provision::for_tests)?;
    let meshx = step("build meshx", || test::build_meshx(&["--release"]))?;
    step("bench", || {
        let mut command = cargo();
        command.args(["run", "--release", "--quiet", "--package=meshx-benches", "--"]);
        command.args(arguments).env("MESHX_BIN", meshx);
        command.envs(provided.iter().map(|(variable, path)| (variable, path)));
        step::run(&mut command)
    })
}
