//! Chores of the workspace, one file each: `cargo xtask <chore>`.

mod bench;
mod check;
mod floors;
mod fuzz;
mod provision;
mod step;
mod tally;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <chore>

  check                  fmt, clippy, floors, unit tests: for daily work
  test [--quick]         everything that must hold before a change is merged;
                         --quick leaves the end-to-end tests out
  floors                 no crate imports one that is not below it
  provision [--otp]      make the programs that the tests need present; --otp the
                         other releases of Erlang/OTP too (or --otp23 --otp27 --otp29)
  fuzz [--seconds N]     run every fuzz target for N seconds (default 60)
  bench [ARGUMENTS]      measure with a release build; see benches/README.md
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<step::Said>() {
                step::say(&format!("error: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (chore, flags) = match arguments {
        [] => bail!("no chore given\n\n{USAGE}"),
        [chore, flags @ ..] => (chore.as_str(), flags),
    };
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    match (chore, flags.as_slice()) {
        ("check", []) => check::run(),
        ("test", []) => test::run(test::Extent::Full),
        ("test", ["--quick"]) => test::run(test::Extent::Quick),
        ("floors", []) => floors::run(),
        ("provision", flags) => provision::run(flags),
        ("fuzz", []) => fuzz::run(60),
        ("fuzz", ["--seconds", seconds]) => match seconds.parse() {
            Ok(seconds) => fuzz::run(seconds),
            Err(_) => bail!("`{seconds}` is not a number of seconds"),
        },
        ("bench", arguments) => bench::run(arguments),
        ("help" | "--help" | "-h", _) => {
            step::say(USAGE);
            Ok(())
        }
        _ => bail!("`{}` is not a chore\n\n{USAGE}", arguments.join(" ")),
    }
}
