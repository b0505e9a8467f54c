//! An echo of tonic (gRPC, a message of prost with one field of bytes): a server and a client that
//! `meshx-benches rpc` starts as it starts ours. Its windows are as they come, 1 MiB at the server, 2 MiB
//! for a stream and 5 for all at the client: with larger ones it echoed large bodies more slowly.

#[allow(dead_code, reason = "the raw echo is not here")]
#[path = "../../../src/rpc/load.rs"]
mod load;

mod generated {
    #![allow(warnings, clippy::all, reason = "not written by us")]
    include!(concat!(env!("OUT_DIR"), "/echo.Echo.rs"));
}

use anyhow::{Result, bail};
use bytes::Bytes;
use generated::echo_client::EchoClient;
use generated::echo_server::{Echo, EchoServer};
use tokio::runtime::Builder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use load::{Caller, say};

/// More than are ever in flight: queues are to be no limit.
const QUEUE: u16 = 16_384;

/// `message Body { bytes body = 1; }`, the bytes shared instead of copied.
#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

struct Echoes;

#[tonic::async_trait]
impl Echo for Echoes {
    async fn echo(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

#[derive(Clone)]
struct Tonic(EchoClient<Channel>);

impl Caller for Tonic {
    async fn echo(&self, body: Bytes) -> Result<usize> {
        // A call wants the client for itself; a clone is a handle to the same connection.
        let mut client = self.0.clone();
        Ok(client.echo(Body { body }).await?.into_inner().body.len())
    }
}

/// The arguments are those of `src/rpc/ends.rs`.
fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let subject = words.get(1).map(String::as_str).unwrap_or_default();
    let mut builder = match subject {
        "tonic" => Builder::new_multi_thread(),
        "tonic-1" => Builder::new_current_thread(),
        other => bail!("`{other}` is no subject"),
    };
    let runtime = builder.enable_all().build()?;
    match &words[..] {
        [what, _] if what == "rpc-serve" => runtime.block_on(async {
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
            say(&format!("ready {}", incoming.local_addr()?))?;
            let mut server = Server::builder().max_concurrent_streams(u32::from(QUEUE));
            let served = server.add_service(EchoServer::new(Echoes));
            Ok(served.serve_with_incoming(incoming).await?)
        }),
        [what, _, address, millis, cells @ ..] if what == "rpc-drive" => runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .tcp_nodelay(true)
                .buffer_size(usize::from(QUEUE));
            let tonic = Tonic(EchoClient::new(endpoint.connect().await?));
            let drive = async |cell, duration| load::drive(&tonic, cell, duration).await;
            load::run(millis, cells, drive).await
        }),
        _ => bail!("`rpc-serve` or `rpc-drive`, please"),
    }
}
