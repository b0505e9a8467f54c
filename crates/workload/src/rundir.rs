//! A private folder for the time of one run: the sockets, and the epmd module's file.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::WorkloadError;

/// The module that the VM loads (`erlang/meshx_epmd.erl`, compiled reproducibly and checked in).
const EPMD_MODULE: &[u8] = include_bytes!("../erlang/meshx_epmd.beam");

/// A folder that only its user can enter, removed on drop. What a killed run left behind is removed
/// by the next run of the same user.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the folder, under `$XDG_RUNTIME_DIR` or `/tmp`.
    pub(crate) fn create(runtime_dir: Option<&Path>) -> Result<Self, WorkloadError> {
        let uid = rustix::process::getuid().as_raw();
        // A folder of somebody else is worth nothing, however it came into our environment; and the
        // path goes into a socket address and onto a command line.
        let base = match runtime_dir.filter(|dir| is_ours(dir) && is_plain(dir)) {
            Some(dir) => dir.join("meshx"),
            None => PathBuf::from(format!("/tmp/meshx-{uid}")),
        };
        let name = format!("{}-{}", std::process::id(), meshx_rt::random::hex(6));
        // Another run that ends now may take the empty base away between the two steps.
        for _ in 0..100 {
            let path = base.join(&name);
            match private(&base).and_then(|()| private(&path)) {
                Ok(()) => {
                    reap(&base);
                    return Ok(Self { path });
                }
                Err(_) if !base.exists() => {}
                Err(error) => return Err(error),
            }
        }
        let gone = std::io::Error::other("it is taken away again and again");
        Err(WorkloadError::io(format!("cannot use {}", base.display()))(gone))
    }

    /// Where the VM asks.
    pub(crate) fn epmd_socket(&self) -> PathBuf {
        self.path.join("epmd.sock")
    }

    /// Where the command line asks.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    /// Writes the epmd module and returns the folder for the VM's code path.
    pub(crate) fn epmd_module(&self) -> Result<&Path, WorkloadError> {
        let file = self.path.join("meshx_epmd.beam");
        let what = format!("cannot write {}", file.display());
        fs::write(&file, EPMD_MODULE).map_err(WorkloadError::io(what))?;
        Ok(&self.path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the run's folder stays");
        }
        if let Some(base) = self.path.parent() {
            // The last one turns off the light; it is not empty otherwise.
            drop(fs::remove_dir(base));
        }
    }
}

/// Makes a folder of mode 0700, or checks that it is one of ours and nobody else can enter it.
fn private(path: &Path) -> Result<(), WorkloadError> {
    let what = || format!("cannot use {} as a private folder", path.display());
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(WorkloadError::io(what())(error)),
    }
    if is_ours(path) {
        Ok(())
    } else {
        let reason = "it belongs to somebody else, or others can enter it";
        Err(WorkloadError::io(what())(std::io::Error::other(reason)))
    }
}

/// True for a folder (not a link to one) that is ours and that nobody else can enter.
fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| {
        meta.is_dir()
            && meta.uid() == rustix::process::getuid().as_raw()
            && (meta.mode() & 0o777) == 0o700
    })
}

/// True for a path that needs no quoting and leaves room for a socket's name (unix(7): 108 bytes).
fn is_plain(path: &Path) -> bool {
    path.to_str().is_some_and(|text| {
        let legal = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        text.len() <= 60 && text.chars().all(legal)
    })
}

/// Removes what runs that were killed left behind.
fn reap(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((pid, _)) = name.split_once('-') else { continue };
        let alive = Path::new("/proc").join(pid).exists()
            || UnixStream::connect(path.join("admin.sock")).is_ok();
        if !alive && pid.parse::<u32>().is_ok() {
            drop(fs::remove_dir_all(&path));
        }
    }
}
