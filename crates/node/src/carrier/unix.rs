//! Unix sockets in a folder: for nodes of one machine and one user.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::{Carried, Carrier, Listen, Myself, Stream};

/// Each node listens on a socket of its own name in a folder. Who may enter the folder may connect.
///
/// Beside the socket is a file with `@lock` behind the name, which the node has locked while it lives:
/// one node of a name listens, and what a killed one left behind is in nobody's way. The file stays.
#[derive(Debug)]
pub struct Unix {
    folder: PathBuf,
}

impl Unix {
    /// Sockets are in this folder, which must exist, and be of the user alone.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, node: &str) -> PathBuf {
        // A node name has no slash.
        self.folder.join(node)
    }

    /// The right to the socket of that name, until the file is closed.
    fn lock(&self, node: &str) -> io::Result<Option<File>> {
        // Nor has it two of these.
        let path = self.folder.join(format!("{node}@lock"));
        let file = File::options().create(true).append(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Carrier for Unix {
    fn name(&self) -> &'static str {
        "unix"
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async move {
            let path = self.path(&me.name);
            let taken = || {
                let taken = format!("{} listens at {} already", me.name, path.display());
                io::Error::new(io::ErrorKind::AddrInUse, taken)
            };
            let lock = self.lock(&me.name)?.ok_or_else(taken)?;
            // Somebody who knows of no lock.
            if UnixStream::connect(&path).await.is_ok() {
                return Err(taken());
            }
            // What a killed node left behind.
            drop(std::fs::remove_file(&path));
            let listener = UnixListener::bind(&path)?;
            let inode = inode(&path)?;
            Ok(Box::new(Listening { listener, path, inode, _lock: lock }) as Box<dyn Listen>)
        })
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        Box::pin(async move {
            let path = self.path(node);
            let stream = UnixStream::connect(&path).await.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            Ok(halves(stream, path.display().to_string()))
        })
    }
}

struct Listening {
    listener: UnixListener,
    path: PathBuf,
    /// Which file the socket is.
    inode: (u64, u64),
    /// Released when the socket is away.
    _lock: File,
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Listen for Listening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            Ok(halves(stream, self.path.display().to_string()))
        })
    }

    fn address(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Somebody may have put another in its place.
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn halves(stream: UnixStream, address: String) -> Stream {
    let (read, write) = stream.into_split();
    Stream { read: Box::new(read), write: Box::new(write), address, identity: None }
}
