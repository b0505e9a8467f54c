//! An echo of Volo (Thrift, its pool of connections as it comes): a server and a client that
//! `meshx-benches rpc` starts as it starts ours.

#[allow(dead_code, reason = "the raw echo is not here")]
#[path = "../../../src/rpc/load.rs"]
mod load;

mod generated {
    #![allow(warnings, clippy::all, reason = "not written by us")]
    include!(concat!(env!("OUT_DIR"), "/volo_gen.rs"));
}

use std::net::SocketAddr;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use generated::volo_gen::echo::{Echo, EchoClient, EchoClientBuilder, EchoServer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use volo::net::incoming::DefaultIncoming;

use load::{Caller, say};

struct Echoes;

impl Echo for Echoes {
    async fn echo(&self, body: Bytes) -> Result<Bytes, volo_thrift::ServerError> {
        Ok(body)
    }
}

#[derive(Clone)]
struct Volo(EchoClient);

impl Caller for Volo {
    async fn echo(&self, body: Bytes) -> Result<usize> {
        Ok(self.0.echo(body).await?.len())
    }
}

/// The arguments are those of `src/rpc/ends.rs`.
fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Runtime::new()?;
    match &words[..] {
        [what, _] if what == "rpc-serve" => runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            say(&format!("ready {}", listener.local_addr()?))?;
            let served = EchoServer::new(Echoes).run(DefaultIncoming::from(listener)).await;
            served.map_err(|error| anyhow!("{error}"))
        }),
        [what, _, address, millis, cells @ ..] if what == "rpc-drive" => runtime.block_on(async {
            let address: SocketAddr = address.parse()?;
            let volo = Volo(EchoClientBuilder::new("echo").address(address).build());
            let drive = async |cell, duration| load::drive(&volo, cell, duration).await;
            load::run(millis, cells, drive).await
        }),
        _ => bail!("`rpc-serve` or `rpc-drive`, please"),
    }
}
