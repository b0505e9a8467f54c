//! Unix sockets in a folder: for nodes of one machine and one user.

use std::io;
use std::path::PathBuf;

use tokio::net::{UnixListener, UnixStream};

use super::{Carried, Carrier, Listen, Myself, Stream};

/// Each node listens on a socket of its own name in a folder. Who may enter the folder may connect.
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
}

impl Carrier for Unix {
    fn name(&self) -> &'static str {
        "unix"
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async move {
            let path = self.path(&me.name);
            if UnixStream::connect(&path).await.is_ok() {
                let taken = format!("{} listens at {} already", me.name, path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, taken));
            }
            // What a killed node left behind.
            drop(std::fs::remove_file(&path));
            let listener = UnixListener::bind(&path)?;
            Ok(Box::new(Listening { listener, path }) as Box<dyn Listen>)
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
        drop(std::fs::remove_file(&self.path));
    }
}

fn halves(stream: UnixStream, address: String) -> Stream {
    let (read, write) = stream.into_split();
    Stream { read: Box::new(read), write: Box::new(write), address, identity: None }
}
