//! `meshx node`, and the commands that talk to nodes.

mod asking;
mod call;
mod cookie;
mod ping;
mod processes;
mod shell;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::Arc;

use meshx_core::NodeName;
use meshx_node::carrier::{self, Static, Tcp};
use meshx_node::{Keeping, Node, NodeEvent, Visibility};
use meshx_proxy::Direction;
use meshx_workload::{Mesh, Notice, Notify};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

pub(crate) use asking::{Asking, interruptions, mesh, only_what_is_news};
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
    let mut hup = listen(SignalKind::hangup())?;
    // Asked now: of a terminal that is closed, the answer is no.
    let hangup_ends = std::io::stderr().is_terminal();
    let mesh = match arguments.way.mesh {
        true => Some(mesh(&arguments.way.control_plane, without(&arguments.connect, output))?),
        false => None,
    };
    let mesh = mesh.map(|mesh| mesh.replaces(arguments.replace));
    let node = begin(&arguments, mesh.clone()).await?;
    tokio::spawn(tell(node.clone()));
    processes::start(&node).await?;
    announce(&node, &arguments, output);
    let kept = arguments.connect.iter().map(|peer| node.keep(peer.as_str()));
    let kept = kept.collect::<Result<Vec<_>, _>>()?;
    for peer in &kept {
        tokio::spawn(tell_kept(peer.node().to_string(), peer.watch(), output));
    }
    let replaced = async {
        match &mesh {
            Some(mesh) => mesh.asked_to_stop().await,
            None => std::future::pending().await,
        }
    };
    let closed = async {
        // A closed terminal ends what was started in it. A service manager means "reload" by it, and
        // there is nothing to reload.
        while hup.recv().await.is_some() && !hangup_ends {}
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = closed => {}
        () = replaced => {}
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
    let builder = builder.carrier(carrier::Mesh::new(mesh(&control_plane, output.notices())?));
    let node = asking::start(processes::functions(builder)).await?;
    processes::start(&node).await?;
    Ok(node)
}

/// Whether this user has a cookie already.
pub(crate) fn has_cookie() -> bool {
    cookie::cookie(None).is_ok()
}

/// Starts the node of these arguments.
async fn begin(arguments: &args::Node, mesh: Option<Mesh>) -> Result<Node, Failure> {
    let way = &arguments.way;
    let visibility = if arguments.hidden { Visibility::Hidden } else { Visibility::VISIBLE };
    let builder = Node::builder(arguments.name.to_string())
        .cookie(cookie::cookie(way.cookie_file.as_deref())?)
        .visibility(visibility);
    let address = SocketAddr::new(arguments.listen, arguments.port);
    let builder = if let Some(mesh) = mesh {
        builder.carrier(carrier::Mesh::new(mesh))
    } else if arguments.no_epmd && way.ports.are_unknown() {
        builder.carrier(Tcp::new(address, Static::new()))
    } else {
        builder.carrier(asking::tcp(way, address)?)
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
    if output.quiet {
        return;
    }
    output.story(&format!(
        "{} listens at {address}   {seen}, creation {creation}",
        node.name().as_str()
    ));
    output.say("it answers ping, erpc and rpc; processes: echo, counter. Ctrl-C stops.");
}

/// Notices without what `tell_kept` tells.
fn without(kept: &[NodeName], output: Output) -> Notify {
    let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let notices = output.notices();
    Arc::new(move |notice| match &notice {
        Notice::Failed { event, .. }
            if event.direction == Direction::Outbound && kept.contains(&event.destination) => {}
        _ => notices(notice),
    })
}

/// Says when a node that is to be connected is not there, and when it is there again.
async fn tell_kept(peer: String, mut state: watch::Receiver<Keeping>, output: Output) {
    use meshx_core::Diagnostic as _;
    let mut missed = None;
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            Keeping::Down { reason, failures: 1.. } if missed != Some(reason.code()) => {
                let code = reason.code();
                missed = Some(code);
                output.line(&format!(
                    "meshx: {reason} [{code}]; it is dialled again until it is there"
                ));
            }
            Keeping::Up if missed.is_some() => {
                missed = None;
                output.say(&format!("meshx: {peer} is connected"));
            }
            _ => {}
        }
        if state.changed().await.is_err() {
            return;
        }
    }
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
