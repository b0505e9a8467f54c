//! What the measurements have in common: the programs, a folder, the environment, the budget.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

use crate::budget::Budget;
use crate::program::Program;

/// The programs are started in a folder of their own, with an environment of their own.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: PathBuf,
    /// The product.
    pub(crate) meshx: PathBuf,
    /// The peer of control plane and sidecars, where it is.
    pub(crate) consul: Option<PathBuf>,
    /// The time that is left.
    pub(crate) budget: Budget,
    /// Repetitions.
    pub(crate) runs: u32,
    logs: AtomicU16,
    ports: AtomicU16,
}

impl Stage {
    pub(crate) fn set(runs: u32) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("meshx-bench-{}", std::process::id()));
        let stage = Self {
            meshx: meshx()?,
            consul: consul()?,
            budget: Budget::of(runs)?,
            runs,
            logs: AtomicU16::new(0),
            ports: AtomicU16::new(0),
            folder,
        };
        let folder = &stage.folder;
        DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        // Two VMs that start at once would both make one.
        let cookie = folder.join(".erlang.cookie");
        let mut cookie =
            OpenOptions::new().write(true).create_new(true).mode(0o400).open(cookie)?;
        cookie.write_all(b"MESHXBENCHES")?;
        Ok(stage)
    }

    /// Where programs run; gone with the stage.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program with nothing of the caller's environment but `PATH`.
    pub(crate) fn command(&self, program: &Path, control_plane: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.folder);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .env("HOME", &self.folder)
            .env("XDG_RUNTIME_DIR", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("CONSUL_HTTP_ADDR", control_plane)
            .env("CHECKPOINT_DISABLE", "1");
        command
    }

    /// `meshx ARGUMENTS`.
    pub(crate) fn meshx(&self, control_plane: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.meshx, control_plane);
        command.args(arguments);
        command
    }

    /// Starts a program that lives until it is dropped.
    pub(crate) fn start(&self, name: &str, mut command: Command) -> Result<Program> {
        Program::start(name, &mut command, self.log())
    }

    /// The same, with a stdout that is read.
    pub(crate) fn start_with_stdout(&self, name: &str, mut command: Command) -> Result<Program> {
        Program::start_with_stdout(name, &mut command, self.log())
    }

    /// A loopback port that was free a moment ago, below those of sidecars and outgoing connections.
    pub(crate) fn free_port(&self) -> Result<u16> {
        const FIRST: u16 = 12_000;
        const COUNT: u16 = 7_000;
        for _ in 0..COUNT {
            let step = self.ports.fetch_add(1, Ordering::Relaxed);
            let seed = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
            let port = FIRST + seed.wrapping_mul(31).wrapping_add(step) % COUNT;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("no free port")
    }

    fn log(&self) -> PathBuf {
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{number}.log"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// `MESHX_BIN`, else the one beside this program in the target folder.
fn meshx() -> Result<PathBuf> {
    let path = match std::env::var_os("MESHX_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("meshx"),
    };
    if !path.is_file() {
        bail!("no {}: `cargo build --release -p meshx-cli` makes it", path.display());
    }
    Ok(fs::canonicalize(path)?)
}

/// `MESHX_TEST_CONSUL`, else the one that `cargo xtask provision` unpacked, if any.
fn consul() -> Result<Option<PathBuf>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = variable("MESHX_TEST_CONSUL") {
        let path = PathBuf::from(path);
        return match fs::canonicalize(&path) {
            Ok(path) => Ok(Some(path)),
            Err(error) => bail!("MESHX_TEST_CONSUL is {}: {error}", path.display()),
        };
    }
    let cache = match (variable("MESHX_TEST_CACHE"), variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _, _) => PathBuf::from(cache),
        (None, Some(cache), _) => PathBuf::from(cache).join("meshx-test"),
        (None, None, Some(home)) => PathBuf::from(home).join(".cache/meshx-test"),
        (None, None, None) => return Ok(None),
    };
    Ok(Some(cache.join("consul-1.8.7/usr/bin/consul")).filter(|path| path.is_file()))
}

/// A program on `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
