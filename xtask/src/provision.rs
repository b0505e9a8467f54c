//! `provision`: makes present what the tests need, and does nothing where it already is.
//!
//! Erlang, Elixir, tcpdump and iproute2 come from the machine's own Debian release. Consul 1.8.7 is
//! no longer in Debian; its package is taken from the release that had it and unpacked into a
//! cache, without being installed. So are other releases of Erlang/OTP, when they are asked for:
//! `test` asks for none, and uses those that are there. Whatever cannot be had is named, with the reason; the tests that
//! need it are then skipped, except under `CI=true`, where nothing may be missing.

mod apt;
mod archive;
mod programs;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use archive::{Archive, OPTIONAL};

use crate::step::{self, say};

/// Where the tests find what is not on `PATH`: a variable of theirs, and a path.
pub(crate) type Provided = Vec<(&'static str, PathBuf)>;

/// The chore; each flag asks for something more than every test run needs.
pub(crate) fn run(flags: &[&str]) -> Result<()> {
    let mut wanted = Vec::new();
    for flag in flags {
        let matching = OPTIONAL.iter().filter(|archive| *flag == "--otp" || archive.flag == *flag);
        let before = wanted.len();
        wanted.extend(matching);
        if wanted.len() == before {
            let known: Vec<&str> = OPTIONAL.iter().map(|archive| archive.flag).collect();
            bail!("`{flag}` is not one of --otp {}", known.join(" "));
        }
    }
    provide(&wanted).map(drop)
}

/// Makes present what every test run needs.
pub(crate) fn for_tests() -> Result<Provided> {
    provide(&[])
}

fn provide(wanted: &[&Archive]) -> Result<Provided> {
    let mut missing = Vec::new();
    if let Err(error) = programs::provide() {
        missing.push(format!("{error:#}"));
    }
    let cache = cache()?;
    let mut provided = Provided::new();
    for archive in [&archive::CONSUL].into_iter().chain(OPTIONAL) {
        let is_wanted = |wanted: &&Archive| wanted.variable == archive.variable;
        if let Some(path) = std::env::var_os(archive.variable) {
            provided.push((archive.variable, path.into()));
        // Not asked for, but there from an earlier day: let the tests have it.
        } else if archive.flag.is_empty()
            || wanted.iter().any(is_wanted)
            || archive.is_present(&cache)
        {
            match archive.provide(&cache) {
                Ok(path) => provided.push((archive.variable, path)),
                Err(error) => missing.push(format!("{}: {error:#}", archive.title)),
            }
        }
    }
    for reason in &missing {
        say(&format!("missing: {reason}"));
    }
    if !missing.is_empty() && step::is_ci() {
        bail!("{} thing(s) missing, and CI=true allows no skipped tests", missing.len());
    }
    Ok(provided)
}

/// `$MESHX_TEST_CACHE`, else `meshx-test` in the user's cache folder.
fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("MESHX_TEST_CACHE") {
        return Ok(folder.into());
    }
    let base = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => bail!("no HOME; set MESHX_TEST_CACHE to a folder"),
    };
    Ok(base.join("meshx-test"))
}

/// Whether this is Debian itself, and which release.
fn debian() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("not a known Linux")?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        (id, _) => bail!("only Debian is provisioned; this is {}", id.unwrap_or("unknown")),
    }
}
