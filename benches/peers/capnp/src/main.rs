//! An echo of Cap'n Proto RPC: a server and a client that `meshx-benches rpc` starts as it starts ours.
//! Nothing of it may leave its thread, so each end has a runtime of one, as always with this library.

#[allow(warnings, clippy::all, reason = "not written by us")]
#[rustfmt::skip]
mod echo_capnp;
#[allow(dead_code, reason = "the raw echo is not here")]
#[path = "../../../src/rpc/load.rs"]
mod load;

use std::rc::Rc;

use anyhow::{Result, bail};
use bytes::Bytes;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client};
use echo_capnp::echo;
use futures::io::{BufReader, BufWriter};
use send_wrapper::SendWrapper;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use load::{Caller, say};

struct Echoes;

impl echo::Server for Echoes {
    async fn echo(
        self: Rc<Self>,
        params: echo::EchoParams,
        mut results: echo::EchoResults,
    ) -> Result<(), capnp::Error> {
        results.get().set_body(params.get()?.get_body()?);
        Ok(())
    }
}

/// The load wants what may go to other threads. The runtime has none; the wrapper would notice one.
#[derive(Clone)]
struct Capnp(SendWrapper<echo::Client>);

impl Caller for Capnp {
    fn echo(&self, body: Bytes) -> impl Future<Output = Result<usize>> + Send {
        let mut request = self.0.echo_request();
        request.get().set_body(&body);
        let answer = request.send().promise;
        SendWrapper::new(async move { Ok(answer.await?.get()?.get_body()?.len()) })
    }
}

/// The arguments are those of `src/rpc/ends.rs`.
fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match &words[..] {
        [what, _] if what == "rpc-serve" => runtime.block_on(serve()),
        [what, _, address, millis, cells @ ..] if what == "rpc-drive" => runtime.block_on(async {
            let network = network(TcpStream::connect(address).await?, Side::Client)?;
            let mut system = RpcSystem::new(Box::new(network), None);
            let capnp = Capnp(SendWrapper::new(system.bootstrap(Side::Server)));
            tokio::spawn(SendWrapper::new(system));
            let drive = async |cell, duration| load::drive(&capnp, cell, duration).await;
            load::run(millis, cells, drive).await
        }),
        _ => bail!("`rpc-serve` or `rpc-drive`, please"),
    }
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&format!("ready {}", listener.local_addr()?))?;
    let echoes: echo::Client = new_client(Echoes);
    loop {
        let (stream, _) = listener.accept().await?;
        let network = network(stream, Side::Server)?;
        let system = RpcSystem::new(Box::new(network), Some(echoes.client.clone()));
        tokio::spawn(SendWrapper::new(system));
    }
}

/// Buffered, as the library recommends.
fn network(
    stream: TcpStream,
    side: Side,
) -> Result<VatNetwork<BufReader<Compat<tokio::net::tcp::OwnedReadHalf>>>> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let (read, write) = (BufReader::new(read.compat()), BufWriter::new(write.compat_write()));
    Ok(VatNetwork::new(read, write, side, capnp::message::ReaderOptions::default()))
}
