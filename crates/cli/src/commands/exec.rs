//! `meshx exec`.

use meshx_workload::NamesMode;
use meshx_workload::exec::{ExecConfig, Port, exec};

use crate::args::{Exec, Names, PortArg};
use crate::commands::client;
use crate::environment::variable;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) async fn run(arguments: Exec, output: Output) -> Result<u8, Failure> {
    let client = client(&arguments.control_plane)?;
    let sidecar = arguments.sidecar;
    // Not the path of our file, which an upgrade may have replaced meanwhile.
    let launcher = vec!["/proc/self/exe".into(), "launch".into()];
    let mut config = ExecConfig::new(arguments.command, launcher, variable, output.notices());
    config.name = arguments.name;
    config.names = match arguments.names {
        Names::Auto => NamesMode::Auto,
        Names::Aflags => NamesMode::Aflags,
        Names::Release => NamesMode::Release,
        Names::None => NamesMode::None,
    };
    config.port = arguments.port.map(|port| match port {
        PortArg::Fixed(port) => Port::Fixed(port),
        PortArg::Auto => Port::Auto,
    });
    config.upstreams = arguments.upstreams;
    config.hidden = arguments.hidden;
    config.wait_for = arguments.wait_for;
    config.wait = arguments.wait;
    config.kill_after = arguments.kill_after;
    config.id = sidecar.id;
    config.listen = sidecar.listen;
    config.advertise = sidecar.advertise;
    config.tags = sidecar.tags;
    config.meta = sidecar.meta.into_iter().collect();
    config.replace = sidecar.replace;
    config.drain = sidecar.drain;
    exec(client, config).await.map_err(|error| Failure::from(error).before_child())
}
