//! Clients and servers of version 2 (`docs/protocol/rpc.md`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod calls;
mod exchange;
mod faults;
mod hostile;
mod large;
mod life;
mod pool;
mod simulation;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshx_rpc::transport::Memory;
use meshx_rpc::{Client, ClientBuilder, Functions, Server, Serving};

/// How often something happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts as long as it lives.
pub(crate) struct Here(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn enter(&self) -> Here {
        self.add();
        Here(Arc::clone(&self.0))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn functions() -> Functions {
    Functions::new()
        .add("add", async |(a, b): (u32, u32)| a.checked_add(b).ok_or("too large"))
        .add("echo", async |text: String| Ok::<_, String>(text))
        .add("sleep", async |ms: u64| {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(ms)
        })
        .add_raw("raw", async |body| Ok(body))
}

/// A client and a server within this process.
pub(crate) fn pair(
    functions: Functions,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
    server: impl FnOnce(Server) -> Server,
) -> (Client, Serving) {
    let (dial, listen) = Memory::pair();
    let server = server(Server::new(functions).listen(listen)).start();
    (client(Client::to(dial)).start(), server)
}

pub(crate) fn plain(functions: Functions) -> (Client, Serving) {
    pair(functions, |client| client, |server| server)
}

/// Waits until that is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}
