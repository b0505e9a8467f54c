//! The commands, one room each.

mod agent;
mod check;
mod demo;
pub(crate) mod epmd;
mod etf;
mod exec;
mod intentions;
mod meta;
mod node;
mod nodes;
mod proxy;
mod rpc;
mod secret;
mod services;
mod status;
mod why;

use meshx_consul::{Client, Config};

use crate::args::{Command, ControlPlane};
use crate::environment::variable;
use crate::failure::Failure;
use crate::output::Output;

/// Runs a command and gives the status to exit with.
pub(crate) async fn run(command: Command, output: Output) -> Result<u8, Failure> {
    match command {
        Command::Demo(arguments) => demo::run(arguments, output).await,
        Command::Agent(arguments) => agent::run(arguments, output).await,
        Command::Exec(arguments) => exec::run(arguments, output).await,
        Command::Proxy(arguments) => proxy::run(arguments, output).await,
        Command::Intentions(arguments) => intentions::run(arguments, output).await,
        Command::Services(arguments) => services::run(arguments, output).await,
        Command::Status(arguments) => status::run(&arguments, output).await,
        Command::Why(arguments) => why::run(&arguments, output).await,
        Command::Check(arguments) => check::run(&arguments, output).await,
        Command::Etf(arguments) => etf::run(arguments, output),
        Command::Node(arguments) => node::run(arguments, output).await,
        Command::Nodes(arguments) => nodes::run(arguments, output).await,
        Command::Ping(arguments) => node::ping(arguments, output).await,
        Command::Call(arguments) => node::call(arguments, output).await,
        Command::Shell(arguments) => node::shell(arguments, output).await,
        Command::Rpc(arguments) => Box::pin(rpc::run(arguments, output)).await,
        Command::Completions(arguments) => Ok(meta::completions(&arguments)),
        Command::Version => Ok(meta::version(output)),
        Command::DemoPeer(arguments) => demo::peer::run(&arguments).await,
        // Handled before the runtime exists.
        Command::Launch(_) | Command::Epmd(_) => Ok(crate::failure::exit::INTERNAL),
    }
}

/// A client of the control plane that the flags and Consul's variables name.
pub(crate) fn client(arguments: &ControlPlane) -> Result<Client, Failure> {
    let with_flags = |name: &str| match name {
        "CONSUL_HTTP_ADDR" => arguments.http_addr.clone(),
        "CONSUL_HTTP_TOKEN_FILE" => arguments
            .token_file
            .as_ref()
            .map(|path| path.display().to_string())
            .or_else(|| variable(name)),
        _ => variable(name),
    };
    Ok(Client::new(Config::from_variables(with_flags)?)?)
}
