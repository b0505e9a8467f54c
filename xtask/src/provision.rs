//! `provision`: makes present what the tests need, and does nothing where it already is.
//!
//! Erlang, Elixir, tcpdump and iproute2 come from the machine's own Debian release. Consul 1.8.7 is
//! no longer in Debian; its package is taken from the release that had it and unpacked into a
//! cache, without being installed. Whatever cannot be had is named, with the reason; the tests that
//! need it are then skipped, except under `CI=true`, where nothing may be missing.

mod apt;
mod archive;
mod programs;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::step::{self, say};

/// What to make present.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Tests,
    TestsAndOtp27,
}

/// Where the tests find what is not on `PATH`.
#[derive(Debug, Default)]
pub(crate) struct Provided {
    /// The `consul` executable.
    pub(crate) consul: Option<PathBuf>,
    /// The top folder of an Erlang/OTP 27 to be entered with `chroot`.
    pub(crate) otp27: Option<PathBuf>,
}

pub(crate) fn run(wish: Wish) -> Result<()> {
    provide(wish).map(drop)
}

pub(crate) fn provide(wish: Wish) -> Result<Provided> {
    let mut missing = Vec::new();
    if let Err(error) = programs::provide() {
        missing.push(format!("{error:#}"));
    }
    let cache = cache()?;
    let mut take = |archive: &archive::Archive| match archive.provide(&cache) {
        Ok(path) => Some(path),
        Err(error) => {
            missing.push(format!("{}: {error:#}", archive.title));
            None
        }
    };
    let consul = match std::env::var_os("MESHX_TEST_CONSUL") {
        Some(path) => Some(PathBuf::from(path)),
        None => take(&archive::CONSUL),
    };
    // Not asked for, but there from an earlier day: let the tests have it.
    let otp27 = if wish == Wish::TestsAndOtp27 || archive::OTP_27.is_present(&cache) {
        take(&archive::OTP_27)
    } else {
        None
    };
    for reason in &missing {
        say(&format!("missing: {reason}"));
    }
    if !missing.is_empty() && step::is_ci() {
        bail!("{} thing(s) missing, and CI=true allows no skipped tests", missing.len());
    }
    Ok(Provided { consul, otp27 })
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
