//! What is done around calls: interceptors, and attempts beside others.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clients;
mod hedges;
mod servers;
#[cfg(feature = "tower")]
mod towers;

use std::sync::{Arc, Mutex};

use meshx_rpc::transport::Memory;
use meshx_rpc::{Body, Client, ClientBuilder, Error, Functions, Next, Request, Server, Serving};

/// What was seen, in its order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    /// And forgets it.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// An interceptor that notes when it begins and ends.
    pub(crate) fn noting(
        &self,
        name: &'static str,
    ) -> impl Fn(
        Request,
        Next,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Body, Error>> + Send>>
    + Send
    + Sync
    + 'static {
        let seen = self.clone();
        move |request, next| {
            let seen = seen.clone();
            Box::pin(async move {
                seen.note(format!("{name} {} {}", request.way().name(), request.function()));
                let result = next.run(request).await;
                seen.note(format!("{name} {}", if result.is_ok() { "ok" } else { "error" }));
                result
            })
        }
    }
}

pub(crate) fn functions() -> Functions {
    Functions::new()
        .add("add", async |(a, b): (u32, u32)| a.checked_add(b).ok_or("too large"))
        .add("forever", |()| std::future::pending::<Result<(), String>>())
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

/// Waits until that is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}
