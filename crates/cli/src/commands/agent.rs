//! `meshx agent`.

use std::io::IsTerminal as _;
use std::time::Instant;

use meshx_agent::{Agent, AgentConfig};
use meshx_core::Action;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{self, Policy};
use crate::failure::{Failure, exit};
use crate::output::Output;

pub(crate) async fn run(arguments: args::Agent, output: Output) -> Result<u8, Failure> {
    let begun = Instant::now();
    let default_policy = match arguments.default_intention {
        Policy::Allow => Action::Allow,
        Policy::Deny => Action::Deny,
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let config = AgentConfig {
        http_addr: arguments.http_addr,
        dns_addr: arguments.dns_addr.0,
        data_dir: arguments.data_dir.clone(),
        datacenter: arguments.datacenter.clone(),
        node_name: arguments
            .node
            .clone()
            .unwrap_or_else(|| host.split('.').next().unwrap_or("localhost").to_owned()),
        default_policy,
        advertise: arguments.advertise,
    };
    let listen = |kind| signal(kind).map_err(|e| Failure::internal("listen for signals", &e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = listen(SignalKind::hangup())?;
    // Asked now: of a terminal that is closed, the answer is no.
    let hangup_ends = std::io::stderr().is_terminal();
    let agent = Agent::start(config).await?;
    let ready = begun.elapsed().as_millis();
    announce(&agent, &arguments, ready, output);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            // A closed terminal ends what was started in it. A service manager means "reload", and
            // there is nothing to reload.
            _ = hup.recv() => if hangup_ends { break },
        }
    }
    tokio::select! {
        () = agent.shutdown() => {}
        // A second signal does not wait.
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(exit::SUCCESS)
}

/// One line for each thing that a user needs to know. In JSON, one line on stdout, for scripts that
/// took a free port.
fn announce(agent: &Agent, arguments: &args::Agent, ready: u128, output: Output) {
    let http = agent.http_addr();
    let dns = agent.dns_addr().map(|addr| addr.to_string());
    let version = env!("CARGO_PKG_VERSION");
    if output.json {
        let value = serde_json::json!({
            "schema": "meshx.agent/1",
            "http_addr": http.to_string(),
            "dns_addr": dns,
            "datacenter": arguments.datacenter,
            "trust_domain": agent.trust_domain().to_string(),
            "data_dir": arguments.data_dir,
            "ready_milliseconds": u64::try_from(ready).unwrap_or(u64::MAX),
        });
        Output::new(false, false).data(&value, ToString::to_string);
        return;
    }
    let data = match &arguments.data_dir {
        Some(dir) => format!("certificate authority and intentions in {}", dir.display()),
        None => "in memory: lost on exit; keep it with --data-dir DIR".to_owned(),
    };
    let policy = match arguments.default_intention {
        Policy::Allow => "allow by default; change with `meshx intentions deny '*' '*'`",
        Policy::Deny => "deny by default; open with `meshx intentions allow SOURCE DESTINATION`",
    };
    output.say(&format!("meshx agent {version}: a control plane for one machine (Consul's API)\n"));
    output.say(&format!("  HTTP API      http://{http}"));
    output.say(&format!("  DNS           {}", dns.as_deref().unwrap_or("off")));
    output.say(&format!(
        "  Datacenter    {}   trust domain {}",
        arguments.datacenter,
        agent.trust_domain()
    ));
    output.say(&format!("  Data          {data}"));
    output.say(&format!("  Policy        {policy}"));
    if !http.ip().is_loopback() {
        output.say("  Warning       everybody who reaches this address controls the mesh");
    }
    let default = http.port() == 8500 && http.ip().is_loopback();
    let address = if default { String::new() } else { format!("CONSUL_HTTP_ADDR={http} ") };
    output.say(&format!("\nNext: {address}meshx exec --name node1@myhost -- iex"));
    output.say(&format!("Ready in {ready} ms. Ctrl-C stops."));
}
