//! Connections that can be frozen: nothing is lost, and nothing gets through.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use meshx_node::carrier::{Carried, Carrier, Listen, Myself, Stream, Tcp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};
use tokio::sync::watch;

/// For each two nodes, whether what they say to each other gets through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<Mutex<HashMap<Pair, Gate>>>);

type Pair = (String, String);
type Gate = watch::Sender<bool>;

impl Gates {
    pub(crate) fn set(&self, one: &str, other: &str, open: bool) {
        self.with(one, other, |gate| gate.send_replace(open));
    }

    fn watch(&self, one: &str, other: &str) -> watch::Receiver<bool> {
        self.with(one, other, watch::Sender::subscribe)
    }

    fn with<T>(&self, one: &str, other: &str, act: impl FnOnce(&Gate) -> T) -> T {
        let key = if one < other { (one, other) } else { (other, one) };
        let key = (key.0.to_owned(), key.1.to_owned());
        act(self.0.lock().unwrap().entry(key).or_insert_with(|| watch::channel(true).0))
    }
}

/// TCP with a gate in each connection that is dialled.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) tcp: Tcp,
    pub(crate) own: String,
    pub(crate) gates: Gates,
}

impl Carrier for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn listen<'a>(&'a self, me: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        self.tcp.listen(me)
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        Box::pin(async move {
            let stream = self.tcp.dial(node).await?;
            let (near, far) = duplex(64 * 1024);
            let (near_read, near_write) = split(near);
            let (far_read, far_write) = split(far);
            let gate = self.gates.watch(&self.own, node);
            tokio::spawn(relay(far_read, stream.write, gate.clone()));
            tokio::spawn(relay(stream.read, far_write, gate));
            Ok(Stream {
                read: Box::new(near_read),
                write: Box::new(near_write),
                address: stream.address,
                identity: None,
            })
        })
    }
}

async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if gate.wait_for(|open| *open).await.is_err() {
            break;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    // An end does not get through either.
    drop(gate.wait_for(|open| *open).await);
    drop(to.shutdown().await);
}
