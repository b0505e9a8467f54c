//! `meshx rpc serve`.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use meshx_rpc::event::{Log, Metrics, Pretty};
use meshx_rpc::transport::{Tcp, Unix};
use meshx_rpc::{Policy, Server, v1};
use tokio::signal::unix::{SignalKind, signal};

use super::functions::functions;
use super::key::key;
use super::{member, metrics};
use crate::args::rpc::{Listening, Serve};
use crate::failure::{Failure, exit};
use crate::output::Output;

/// How long a policy may be, as text.
const POLICY: u64 = 8 << 20;

pub(super) async fn run(arguments: &Serve, output: Output) -> Result<u8, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::internal("listen for signals", &e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let offered = functions(&arguments.functions);
    let names: Vec<String> = offered.names().map(str::to_owned).collect();
    let mut server = Server::new(offered)
        .named(arguments.name.as_str(), "")
        .listing(arguments.listing)
        .grace(arguments.drain);
    if let Some(file) = &arguments.key_file {
        server = server.key(key(file)?);
    }
    if let Some(file) = &arguments.policy {
        server = server.policy(policy(file)?);
    }
    // Who wants more than warnings reads along. Either way a call is told once.
    server = match tracing::enabled!(target: "meshx_rpc", tracing::Level::INFO) {
        true => server.observe(Pretty::new()),
        false => server.observe(Log::new()),
    };
    let metrics = match arguments.metrics {
        Some(wanted) => {
            let metrics = Metrics::new();
            let refused = |error| refused(&Listening::Tcp(wanted), &error);
            let address = metrics::listen(wanted, metrics.clone()).map_err(refused)?;
            server = server.observe(metrics);
            Some(address)
        }
        None => None,
    };
    if arguments.v1 {
        server = server.also_v1(v1::ServerOptions::default())?;
    }
    let mut addresses = Vec::new();
    let anywhere = [Listening::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))];
    let listen = match arguments.listen.is_empty() && !arguments.mesh {
        true => &anywhere[..],
        false => &arguments.listen,
    };
    for wanted in listen {
        let (more, address) = bind(server, wanted).map_err(|error| refused(wanted, &error))?;
        server = more;
        addresses.push(address);
    }
    let mut member = None;
    if arguments.mesh {
        let (joined, listening) = member::Serving::start(arguments, output).await?;
        server = server.listen(listening);
        member = Some(joined);
        addresses.push(arguments.name.to_string());
    }
    let serving = server.start();
    announce(arguments, &names, (&addresses, metrics), output);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    let stopped = async {
        let left = async {
            if let Some(member) = member {
                member.leave().await;
            }
        };
        // Together: the sidecar waits for the connections that the server ends.
        tokio::join!(left, serving.stop());
    };
    tokio::select! {
        () = stopped => {}
        // A second signal does not wait.
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(exit::SUCCESS)
}

/// Listens there, too; and where that is.
fn bind(server: Server, wanted: &Listening) -> io::Result<(Server, String)> {
    match wanted {
        Listening::Tcp(address) => {
            let listening = Tcp::listen(*address)?;
            let address = listening.local_addr().to_string();
            Ok((server.listen(listening), address))
        }
        Listening::Unix(path) => {
            Ok((server.listen(Unix::listen(path)?), format!("unix:{}", path.display())))
        }
    }
}

fn refused(wanted: &Listening, error: &io::Error) -> Failure {
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let exit = if is_taken { exit::CONFLICT } else { exit::CONFIGURATION };
    match wanted {
        Listening::Tcp(address) => {
            let failure = Failure::new(843, exit, format!("cannot listen at {address}: {error}"));
            if is_taken { failure.hint("--listen IP:0 takes a port that is free") } else { failure }
        }
        Listening::Unix(path) => {
            let path = path.display();
            let failure = Failure::new(843, exit, format!("cannot listen at unix:{path}: {error}"));
            match is_taken {
                true => failure.hint(format!("if no server runs there, it was killed: rm {path}")),
                false => failure,
            }
        }
    }
}

fn policy(path: &Path) -> Result<Policy, Failure> {
    let shown = path.display();
    let failed = |what: String| Failure::new(842, exit::CONFIGURATION, what);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(POLICY).read_to_string(&mut text))
        .map_err(|error| failed(format!("cannot read the policy {shown}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| {
        failed(format!("{shown} is no policy: {error}"))
            .hint("`meshx rpc serve --help` has one to begin with")
    })
}

/// One line when everything is there, for people and for scripts that took a free port.
fn announce(
    arguments: &Serve,
    names: &[String],
    (addresses, metrics): (&[String], Option<SocketAddr>),
    output: Output,
) {
    let (key, policy) = (arguments.key_file.is_some(), arguments.policy.is_some());
    if output.json {
        let value = serde_json::json!({
            "schema": "meshx.rpc.serve/1",
            "name": arguments.name.as_str(),
            "mesh": arguments.mesh,
            "v1": arguments.v1,
            "addresses": addresses,
            "functions": names,
            "listing": arguments.listing,
            "key": key,
            "policy": policy,
            "metrics": metrics,
        });
        output.story(&value.to_string());
    } else if !output.quiet {
        let (addresses, names) = (addresses.join(", "), names.join(", "));
        output.story(&format!("{} listens at {addresses}   functions: {names}", arguments.name));
        if let Some(metrics) = metrics {
            output.say(&format!("metrics: http://{metrics}/metrics"));
        }
        let wire = if arguments.mesh { "in the mesh" } else { "without TLS" };
        output.say(&format!("{wire}; `meshx rpc call` calls. Ctrl-C stops."));
    }
    let is_open = |wanted: &Listening| matches!(wanted, Listening::Tcp(address) if !address.ip().is_loopback());
    if !key && arguments.listen.iter().any(is_open) {
        output.line("meshx: whoever reaches this address may call: there is no --key-file");
    }
}
