//! The command line `meshx`.

mod args;
mod commands;
mod environment;
mod failure;
mod output;
mod sidecars;

use clap::Parser as _;

use crate::args::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;

fn main() -> std::process::ExitCode {
    if let Some(words) = commands::epmd::called_as_epmd() {
        return commands::epmd::main(&words);
    }
    let arguments = Arguments::parse();
    // Before any thread exists: the new program replaces this one.
    if let Command::Launch(launch) = &arguments.command {
        let (status, reason) = meshx_workload::launch(launch.parent, &launch.command);
        Output::new(false, false).line(&format!("meshx: {reason}"));
        return status.into();
    }
    let output = Output::new(arguments.json, arguments.quiet);
    if let Command::Epmd(epmd) = &arguments.command {
        return commands::epmd::run_command(&epmd.flags, output, arguments.verbose);
    }
    output::start_logging(arguments.verbose);
    let runtime = match runtime(&arguments.command) {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&Failure::internal("start the runtime", &error)),
    };
    // On this thread, not on a worker: `exec` ties its child's life to the thread that starts it.
    let code = match runtime.block_on(commands::run(arguments.command, output)) {
        Ok(code) => code.into(),
        Err(failure) => output.fail(&failure),
    };
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    code
}

/// Daemons get a worker for each core; a question to the agent needs no threads.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match command {
        Command::Agent(_)
        | Command::Exec(_)
        | Command::Proxy(_)
        | Command::Demo(_)
        | Command::DemoPeer(_)
        | Command::Node(_)
        | Command::Shell(_) => tokio::runtime::Builder::new_multi_thread(),
        Command::Rpc(rpc) if rpc.threads() != 1 => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    if let Command::Rpc(rpc) = command
        && rpc.threads() > 1
    {
        builder.worker_threads(rpc.threads());
    }
    builder.enable_all().build()
}
