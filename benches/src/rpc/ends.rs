//! The processes that are our own: a server or a client of one subject.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use meshx_rpc::transport::Tcp;
use meshx_rpc::{Algorithm, Body, Client, Functions, Server, v1};
use meshx_rt::net;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::load::{self, Caller, say};
use super::{raw, single};

/// The first argument of a server's process; then comes the subject.
pub(crate) const SERVE: &str = "rpc-serve";
/// The first argument of a client's process; then come the subject, the server's address, the
/// milliseconds of a cell, and the cells.
pub(crate) const DRIVE: &str = "rpc-drive";

/// Runs a server until it is ended, or a client until it is done.
pub(crate) fn run(words: &[String]) -> Result<()> {
    match words {
        [what, subject] if what == SERVE => runtime(subject)?.block_on(serve(subject)),
        [what, subject, address, millis, cells @ ..] if what == DRIVE => {
            runtime(subject)?.block_on(drive(subject, address, millis, cells))
        }
        _ => bail!("a subject, please"),
    }
}

/// A subject whose name ends so has one thread for all.
fn runtime(subject: &str) -> Result<Runtime> {
    let mut builder = match subject.ends_with("-1") {
        true => Builder::new_current_thread(),
        false => Builder::new_multi_thread(),
    };
    Ok(builder.enable_all().build()?)
}

async fn serve(subject: &str) -> Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let functions = Functions::new().add_raw("echo", async |body| Ok(body));
    match subject {
        "raw" | "raw-single" => {
            let listener = net::listen(any)?;
            say(&format!("ready {}", listener.local_addr()?))?;
            // Not on this thread, which is none of the runtime's.
            match subject {
                "raw" => tokio::spawn(raw::serve(listener)).await?,
                _ => tokio::spawn(single::serve(listener)).await?,
            }
        }
        "v1" => {
            let listener = Tcp::listen(any)?;
            say(&format!("ready {}", listener.local_addr()))?;
            let server = v1::Server::new(functions, v1::ServerOptions::default())?;
            let stop = CancellationToken::new();
            Ok(tokio::spawn(async move { server.run(listener, stop).await }).await?)
        }
        _ => {
            let listener = Tcp::listen(any)?;
            let address = listener.local_addr();
            let server = Server::new(functions).listen(listener).checksums(&checksums(subject));
            let _serving = server.start();
            say(&format!("ready {address}"))?;
            std::future::pending().await
        }
    }
}

async fn drive(subject: &str, address: &str, millis: &str, cells: &[String]) -> Result<()> {
    match subject {
        "raw" => {
            let drive = async |cell, duration| raw::drive(address.to_owned(), cell, duration).await;
            load::run(millis, cells, drive).await
        }
        "raw-single" => {
            let drive =
                async |cell, duration| single::drive(address.to_owned(), cell, duration).await;
            load::run(millis, cells, drive).await
        }
        "v1" => {
            let mut options = v1::ClientOptions::default();
            options.connections = 8;
            let client = V1(v1::Client::new(Tcp::to(address), options)?);
            let drive = async |cell, duration| load::drive(&client, cell, duration).await;
            load::run(millis, cells, drive).await
        }
        _ => {
            let client = Client::to(Tcp::to(address)).connections(1).max_age(None);
            let client = V2(client.checksums(&checksums(subject)).start());
            let drive = async |cell, duration| load::drive(&client, cell, duration).await;
            load::run(millis, cells, drive).await
        }
    }
}

fn checksums(subject: &str) -> [Algorithm; 1] {
    [if subject == "meshx-plain" { Algorithm::None } else { Algorithm::Crc32c }]
}

#[derive(Clone)]
struct V2(Client);

impl Caller for V2 {
    async fn echo(&self, body: Bytes) -> Result<usize> {
        let echo = self.0.function("echo").call_raw(Body::raw(body)).await;
        Ok(echo.context("no echo")?.bytes.len())
    }
}

#[derive(Clone)]
struct V1(v1::Client);

impl Caller for V1 {
    async fn echo(&self, body: Bytes) -> Result<usize> {
        let echo = self.0.request("echo").call_raw(Body::raw(body)).await;
        Ok(echo.context("no echo")?.bytes.len())
    }
}
