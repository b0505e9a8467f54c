//! `meshx rpc`: a client and a server at the command line.

mod asking;
mod bench;
mod call;
mod failing;
mod functions;
mod json;
mod key;
mod listing;
mod member;
mod metrics;
mod ping;
mod serve;

use crate::args::rpc::{Rpc, RpcAction};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) async fn run(arguments: Rpc, output: Output) -> Result<u8, Failure> {
    match arguments.action {
        RpcAction::List(arguments) => listing::list(&arguments, output).await,
        RpcAction::Describe(arguments) => listing::describe(&arguments, output).await,
        RpcAction::Call(arguments) => call::call(&arguments, output).await,
        RpcAction::Cast(arguments) => call::cast(&arguments, output).await,
        RpcAction::Ping(arguments) => ping::run(&arguments, output).await,
        RpcAction::Serve(arguments) => serve::run(&arguments, output).await,
        RpcAction::Bench(arguments) => bench::run(&arguments, output).await,
    }
}
