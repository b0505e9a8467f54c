//! `meshx proxy`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use meshx_core::ServiceId;
use meshx_proxy::Protocol;
use meshx_workload::{MemberConfig, ProxyConfig, proxy};

use crate::args::Proxy;
use crate::commands::client;
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;

pub(crate) async fn run(arguments: Proxy, output: Output) -> Result<u8, Failure> {
    let client = client(&arguments.control_plane)?;
    let is_node = arguments.service.as_node().is_some();
    let protocol = if is_node { Protocol::Erlang } else { Protocol::Tcp };
    let sidecar = arguments.sidecar;
    let mut member = MemberConfig::new(arguments.service.clone(), protocol);
    member.id = sidecar.id.unwrap_or_else(|| ServiceId::from(&arguments.service));
    member.listen = sidecar.listen;
    member.advertise = sidecar.advertise;
    member.tags = sidecar.tags;
    member.meta = sidecar.meta.into_iter().collect();
    member.replace = sidecar.replace;
    let mut config = ProxyConfig::new(member, output.notices());
    config.local = arguments.port;
    config.upstreams = arguments.upstreams;
    config.wait = arguments.wait;
    config.drain = sidecar.drain;
    // A closed terminal ends what was started in it; a service manager means "reload".
    config.hangup_ends = std::io::stderr().is_terminal();
    config.runtime_dir = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    proxy(client, config).await?;
    Ok(exit::SUCCESS)
}
