//! `meshx node`, and the commands that talk to nodes.

mod asking;
mod call;
mod cookie;
mod ping;
mod processes;
mod shell;

use std::net::SocketAddr;

use meshx_core::Diagnostic as _;
use meshx_node::carrier::{Static, Tcp};
use meshx_node::{Node, NodeEvent, Visibility};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

pub(crate) use asking::Asking;
pub(crate) use call::run as call;
pub(crate) use ping::run as ping;
pub(crate) use shell::run as shell;

use crate::args::{self, ControlPlane};
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;

pub(crate) async fn run(arguments: args::Node, output: Output) -> Result<u8, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::internal("listen for signals", &e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let node = begin(&arguments, output).await?;
    tokio::spawn(tell(node.clone()));
    processes::start(&node).await?;
    announce(&node, &arguments, output);
    for peer in &arguments.connect {
        if let Err(error) = node.connect(peer.as_str()).await {
            output.line(&format!("meshx: {error} [{}]", error.code()));
        }
    }
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tokio::select! {
        () = node.stop() => {}
        // A second signal does not wait.
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(exit::SUCCESS)
}

/// A visible node in the mesh that Consul's variables name, with what runs on `meshx node`.
pub(crate) async fn in_mesh(name: &str, output: Output) -> Result<Node, Failure> {
    let builder = Node::builder(name).cookie(cookie::cookie(None)?).visibility(Visibility::VISIBLE);
    let control_plane = ControlPlane { http_addr: variable("CONSUL_HTTP_ADDR"), token_file: None };
    let builder = asking::over_mesh(builder, &control_plane, output)?;
    let node = asking::start(processes::functions(builder)).await?;
    processes::start(&node).await?;
    Ok(node)
}

/// Whether this user has a cookie already.
pub(crate) fn has_cookie() -> bool {
    cookie::cookie(None).is_ok()
}

/// Starts the node of these arguments.
async fn begin(arguments: &args::Node, output: Output) -> Result<Node, Failure> {
    let way = &arguments.way;
    let visibility = if arguments.hidden { Visibility::Hidden } else { Visibility::VISIBLE };
    let builder = Node::builder(arguments.name.to_string())
        .cookie(cookie::cookie(way.cookie_file.as_deref())?)
        .visibility(visibility);
    let address = SocketAddr::new(arguments.listen, arguments.port);
    let builder = if way.mesh {
        asking::over_mesh(builder, &way.control_plane, output)?
    } else if arguments.no_epmd {
        builder.carrier(Tcp::new(address, Static::new()))
    } else {
        builder.carrier(Tcp::new(address, asking::epmd(way.epmd_port)?))
    };
    asking::start(processes::functions(builder)).await
}

/// One line when everything is there, for people and for scripts that took a free port.
fn announce(node: &Node, arguments: &args::Node, output: Output) {
    let address = node.addresses().first().cloned().unwrap_or_default();
    let port = address.parse::<SocketAddr>().ok().map(|address| address.port());
    if output.json {
        let value = serde_json::json!({
            "schema": "meshx.node/1",
            "name": node.name().as_str(),
            "creation": node.creation(),
            "hidden": arguments.hidden,
            "carrier": if arguments.way.mesh { "mesh" } else { "tcp" },
            "address": address,
            "port": port,
        });
        output.story(&value.to_string());
        return;
    }
    let seen = if arguments.hidden { "hidden" } else { "visible" };
    let creation = node.creation();
    output.story(&format!(
        "{} listens at {address}   {seen}, creation {creation}",
        node.name().as_str()
    ));
    output.say("it answers ping, erpc and rpc; processes: echo, counter. Ctrl-C stops.");
}

/// Logs which nodes come and go, until this one stops.
async fn tell(node: Node) {
    let mut events = node.monitor_nodes();
    loop {
        match events.recv().await {
            Ok(NodeEvent::Up { node, hidden, .. }) => {
                tracing::info!(node = node.as_str(), hidden, "node up");
            }
            Ok(NodeEvent::Down { node, reason, .. }) => {
                tracing::info!(node = node.as_str(), reason, "node down");
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
