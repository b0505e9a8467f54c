//! What a test needs beyond the product, and what happens where it is missing.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Release;

/// A program or right that a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `erl`.
    Erlang,
    /// `iex` and `mix`.
    Elixir,
    /// Consul 1.8.7, by `MESHX_TEST_CONSUL`.
    Consul,
    /// Another release of Erlang/OTP than the machine's own, in a folder for `chroot`.
    Otp(Release),
    /// `tcpdump`.
    Tcpdump,
    /// `ip`.
    Ip,
    /// User id 0.
    Root,
}

impl Need {
    fn missing(self) -> Option<&'static str> {
        let (present, missing) = match self {
            Self::Erlang => (find("erl").is_some(), "no erl"),
            Self::Elixir => (find("iex").and(find("mix")).is_some(), "no iex and mix"),
            Self::Consul => (consul().is_some(), "no Consul (MESHX_TEST_CONSUL)"),
            Self::Otp(release) => (release.folder().is_some(), release.missing()),
            Self::Tcpdump => (find("tcpdump").is_some(), "no tcpdump"),
            Self::Ip => (find("ip").is_some(), "no ip"),
            Self::Root => (rustix::process::geteuid().is_root(), "not root"),
        };
        if present { None } else { Some(missing) }
    }

    /// Other releases of Erlang/OTP come with `cargo xtask provision --otp` only.
    fn is_optional(self) -> bool {
        matches!(self, Self::Otp(_))
    }
}

/// Whether the test must be skipped, because something it needs is missing.
///
/// The reason is printed and noted in the file `MESHX_TEST_SKIPS`. Under `CI=true` a missing piece
/// is a failure.
pub fn skips(needs: &[Need]) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    for need in needs {
        let Some(reason) = need.missing() else { continue };
        let line = format!("{test}: {reason}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        assert!(need.is_optional() || !is_ci(), "CI=true allows no skipped test: {line}");
        if let Some(path) = std::env::var_os("MESHX_TEST_SKIPS") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.unwrap().write_all(line.as_bytes()).unwrap();
        }
        return true;
    }
    false
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// The `meshx` binary: `MESHX_BIN`, else the one beside the test in the target folder.
pub fn meshx() -> PathBuf {
    if let Some(path) = std::env::var_os("MESHX_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let path = folder.join("meshx");
    assert!(path.is_file(), "no {}: run `cargo build -p meshx-cli` first", path.display());
    path
}

/// An example of `meshx-node` or `meshx-rpc-node`: in the folder `MESHX_EXAMPLES`, else in the target folder of the test.
pub fn example(name: &str) -> PathBuf {
    let beside_the_test = || {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(Path::parent).unwrap().join("examples")
    };
    let folder = std::env::var_os("MESHX_EXAMPLES").map_or_else(beside_the_test, PathBuf::from);
    let path = folder.join(name);
    let build = "cargo build -p meshx-node -p meshx-rpc-node --examples";
    assert!(path.is_file(), "no {}: run `{build}` first", path.display());
    path
}

/// The `consul` binary: `MESHX_TEST_CONSUL`, else the one in the test cache.
pub fn consul() -> Option<PathBuf> {
    given_or_cached("MESHX_TEST_CONSUL", "consul-1.8.7/usr/bin/consul")
}

/// The path that a variable gives, else the one in the test cache; `None` if there is nothing.
pub(crate) fn given_or_cached(name: &str, cached: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || {
        let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(base.join("meshx-test"))
    };
    let path = match variable(name) {
        Some(path) => path,
        None => variable("MESHX_TEST_CACHE").or_else(cache)?.join(cached),
    };
    path.exists().then_some(path)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
