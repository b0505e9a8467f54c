//! `bench`: runs the benches with a release build of the product.

use anyhow::Result;

use crate::provision::{self, Wish};
use crate::step::{self, cargo, step};
use crate::test;

pub(crate) fn run() -> Result<()> {
    let provided = step("provision", || provision::provide(Wish::Tests))?;
    let meshx = step("build meshx", || test::build_meshx(&["--release"]))?;
    step("bench", || {
        let mut command = cargo();
        command.args(["run", "--release", "--quiet", "--package=meshx-benches"]);
        command.env("MESHX_BIN", meshx);
        if let Some(consul) = provided.consul {
            command.env("MESHX_TEST_CONSUL", consul);
        }
        step::run(&mut command)
    })
}
