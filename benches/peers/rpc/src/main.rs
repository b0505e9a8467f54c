//! Echoes of other RPC libraries: servers and clients that `meshx-benches rpc` starts as it starts ours.

#[allow(dead_code, reason = "the raw echo is not here")]
#[path = "../../../src/rpc/load.rs"]
mod load;

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport, server};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use load::{Caller, say};

/// More than are ever in flight: queues are to be no limit.
const QUEUE: usize = 16_384;

#[tarpc::service]
trait Echo {
    async fn echo(body: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Echoes;

impl Echo for Echoes {
    async fn echo(self, _: context::Context, body: Bytes) -> Bytes {
        body
    }
}

#[derive(Clone)]
struct Tarpc(EchoClient);

impl Caller for Tarpc {
    async fn echo(&self, body: Bytes) -> Result<usize> {
        Ok(self.0.echo(context::current(), body).await?.len())
    }
}

/// The arguments are those of `src/rpc/ends.rs`.
fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let subject = words.get(1).map(String::as_str).unwrap_or_default();
    let mut builder = match subject {
        "tarpc" => Builder::new_multi_thread(),
        "tarpc-1" => Builder::new_current_thread(),
        other => bail!("`{other}` is no subject"),
    };
    let runtime = builder.enable_all().build()?;
    match &words[..] {
        [what, _] if what == "rpc-serve" => runtime.block_on(serve()),
        [what, _, address, millis, cells @ ..] if what == "rpc-drive" => runtime.block_on(async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut config = client::Config::default();
            config.max_in_flight_requests = QUEUE;
            config.pending_request_buffer = QUEUE;
            let transport = serde_transport::Transport::from((stream, Bincode::default()));
            let tarpc = Tarpc(EchoClient::new(config, transport).spawn());
            let drive = async |cell, duration| load::drive(&tarpc, cell, duration).await;
            load::run(millis, cells, drive).await
        }),
        _ => bail!("`rpc-serve` or `rpc-drive`, please"),
    }
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&format!("ready {}", listener.local_addr()?))?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let transport = serde_transport::Transport::from((stream, Bincode::default()));
        let channel =
            BaseChannel::new(server::Config { pending_response_buffer: QUEUE }, transport);
        let answers = channel.execute(Echoes.serve());
        tokio::spawn(answers.for_each(|answer| async {
            tokio::spawn(answer);
        }));
    }
}
