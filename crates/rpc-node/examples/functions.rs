//! Functions of an RPC server that Erlang and Elixir nodes call with nothing installed.
//!
//! In two terminals; the first writes the cookie and starts the port mapper:
//!
//! ```console
//! $ iex --name me@127.0.0.1
//! $ cargo run -p meshx-rpc-node --example functions -- rust@127.0.0.1 ~/.erlang.cookie 127.0.0.1:7000
//! ```
//!
//! Then in the shell of Elixir:
//!
//! ```console
//! iex> :erpc.call(:"rust@127.0.0.1", :functions, :add, [40, 2])
//! 42
//! iex> :erpc.call(:"rust@127.0.0.1", :functions, :divide, [1, 0])
//! ** (ErlangError) Erlang error: {:exception, {:application, "division by zero"}, [{:functions, :divide, 2, []}]}
//! iex> GenServer.call({:functions, :"rust@127.0.0.1"}, {:divide, [84, 2]})
//! {:ok, 42}
//! iex> GenServer.call({:functions, :"rust@127.0.0.1"}, {:divide, [1, 0]})
//! {:error, {:application, "division by zero"}}
//! ```
//!
//! With `erl -name me@127.0.0.1` it is `erpc:call('rust@127.0.0.1', functions, add, [40, 2]).`, and
//! without a node `meshx rpc call 127.0.0.1:7000 add '[40, 2]'`; the address can be left out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example")]

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use meshx_node::carrier::{Epmd, Tcp};
use meshx_node::{Cookie, Node, RpcTable};
use meshx_rpc::{Context, Functions, Server, transport};
use meshx_rpc_node::Offer;

async fn add((a, b): (i64, i64)) -> Result<i64, String> {
    a.checked_add(b).ok_or_else(|| "too large".to_owned())
}

async fn divide((a, b): (i64, i64)) -> Result<i64, String> {
    a.checked_div(b).ok_or_else(|| "division by zero".to_owned())
}

async fn who((): ()) -> Result<String, String> {
    Context::current().map(|it| it.peer().address.clone()).ok_or_else(|| "nobody".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("functions: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, file, address) = match &arguments[..] {
        [name, file] => (name, file, None),
        [name, file, address] => (name, file, Some(address)),
        _ => return Err("usage: functions NAME COOKIE_FILE [ADDRESS]".into()),
    };
    let cookie = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;

    let functions = Functions::new().add("add", add).add("divide", divide).add("who", who);
    let offer = Offer::new(functions.clone());
    let node = Node::builder(name)
        .cookie(Cookie::new(cookie.trim()))
        .carrier(Tcp::loopback(Epmd::local()?))
        .rpc(offer.table("functions", RpcTable::new()))
        .start()
        .await?;
    node.serve("functions", offer.server("functions")).await?;
    let server = match address {
        Some(address) => {
            let listener = transport::Tcp::listen(address.parse()?)?;
            println!("{} serves them, too", listener.local_addr());
            Some(Server::new(functions).listen(listener).start())
        }
        None => None,
    };
    println!("{name} offers its functions");
    tokio::signal::ctrl_c().await?;
    if let Some(server) = server {
        server.stop().await;
    }
    node.stop().await;
    Ok(())
}
