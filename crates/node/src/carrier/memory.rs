//! Pipes inside of one program, for tests and for many nodes in one process.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{DuplexStream, duplex, split};
use tokio::sync::mpsc;

use super::{Carried, Carrier, Listen, Myself, Stream};

/// How much fits into a pipe.
const PIPE: usize = 256 * 1024;
/// How many streams may wait to be accepted.
const BACKLOG: usize = 128;

/// Where nodes of one program find each other.
#[derive(Debug, Clone, Default)]
pub struct Switchboard(Arc<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>>);

/// A carrier of one program: pipes over a [`Switchboard`].
#[derive(Debug, Clone)]
pub struct Memory {
    board: Switchboard,
}

impl Memory {
    /// A carrier of this switchboard; each node has its own.
    pub fn new(board: &Switchboard) -> Self {
        Self { board: board.clone() }
    }
}

impl Switchboard {
    /// A switchboard to which nobody is connected.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Carrier for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async move {
            let (sender, streams) = mpsc::channel(BACKLOG);
            let mut nodes = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
            if nodes.get(&me.name).is_some_and(|held| !held.is_closed()) {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "the name is taken"));
            }
            nodes.insert(me.name.clone(), sender);
            Ok(Box::new(Listening { streams }) as Box<dyn Listen>)
        })
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        let sender = {
            let nodes = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.get(node).cloned()
        };
        Box::pin(async move {
            let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens");
            let (ours, theirs) = duplex(PIPE);
            sender.ok_or_else(refused)?.send(theirs).await.map_err(|_| refused())?;
            Ok(halves(ours))
        })
    }
}

struct Listening {
    streams: mpsc::Receiver<DuplexStream>,
}

impl Listen for Listening {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(async move {
            match self.streams.recv().await {
                Some(stream) => Ok(halves(stream)),
                None => std::future::pending().await,
            }
        })
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

fn halves(stream: DuplexStream) -> Stream {
    let (read, write) = split(stream);
    let address = "memory".to_owned();
    Stream { read: Box::new(read), write: Box::new(write), address, identity: None }
}
