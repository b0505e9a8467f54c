//! A hidden node that lives as long as one command.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meshx_core::NodeName;
use meshx_node::carrier::{
    self, Carried, Carrier, Listen, Myself, OnePort, PortInName, Stream, Tcp,
};
use meshx_node::{Builder, Node, Visibility};
use meshx_workload::{Mesh, Notice};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::cookie::cookie;
use crate::args::{Ask, ControlPlane, Ports, Way};
use crate::commands::client;
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// The node that asks. Nobody finds it: it is connected where it connects.
pub(crate) struct Asking {
    pub(crate) node: Node,
    pub(crate) limit: Duration,
    /// Whether its name is nobody's, and gone with it.
    nameless: bool,
    /// Told of each signal that ends a program.
    interrupted: Arc<Notify>,
}

impl Asking {
    /// Starts it, to ask `target`.
    pub(crate) async fn start(
        ask: &Ask,
        target: &NodeName,
        output: Output,
    ) -> Result<Self, Failure> {
        let name = match &ask.name {
            Some(name) => name.to_string(),
            // Short and long names do not mix, so the host is that of the node asked.
            None => format!("meshx-{}@{}", meshx_rt::random::hex(8), target.host()),
        };
        let builder = Node::builder(name)
            .cookie(cookie(ask.way.cookie_file.as_deref())?)
            .visibility(Visibility::Hidden)
            .setup_time(ask.timeout);
        let builder = if ask.way.mesh {
            builder.carrier(carrier::Mesh::new(mesh(
                &ask.way.control_plane,
                only_what_is_news(output),
            )?))
        } else {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            builder.carrier(DialOnly(tcp(&ask.way, address)?))
        };
        // Before the node is anywhere: what it leaves behind, it takes back.
        let interrupted = interruptions()?;
        let node = start(builder).await?;
        Ok(Self { node, limit: ask.timeout, nameless: ask.name.is_none(), interrupted })
    }

    /// Connects to a node, within the limit.
    pub(crate) async fn connect(&self, target: &NodeName) -> Result<(), Failure> {
        let connecting = self.node.connect(target.as_str());
        match tokio::time::timeout(self.limit, connecting).await {
            Ok(done) => done.map_err(Failure::from),
            Err(_) => Err(self.too_late(target)),
        }
    }

    /// Runs what asks to its end, or until a signal; then the node is gone, from the mesh, too.
    pub(crate) async fn finish<T>(
        &self,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let interrupted = || Failure::new(313, exit::INTERRUPTED, "interrupted");
        let done = tokio::select! {
            done = asking => done,
            () = self.interrupted.notified() => Err(interrupted()),
        };
        tokio::select! {
            () = self.node.stop() => {}
            // A second signal does not wait.
            () = self.interrupted.notified() => {}
        }
        done.map_err(|failure| self.without_own_name(failure))
    }

    /// A command with a name that nobody has any more is no advice.
    fn without_own_name(&self, failure: Failure) -> Failure {
        let own = self.node.name().as_str();
        if !self.nameless || !failure.hint.as_deref().is_some_and(|hint| hint.contains(own)) {
            return failure;
        }
        let denied = failure.exit == exit::DENIED;
        let hint = denied.then(|| "--as NAME@HOST asks by a name that is allowed to".to_owned());
        Failure { hint, ..failure }
    }

    pub(crate) fn too_late(&self, target: &NodeName) -> Failure {
        let message = format!("{target} did not answer within {:?}", self.limit);
        Failure::new(212, exit::TIMED_OUT, message).hint("--timeout gives it more time")
    }
}

/// Tells of each SIGTERM and SIGINT from now on.
pub(crate) fn interruptions() -> Result<Arc<Notify>, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::internal("listen for signals", &e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tell.notify_one();
        }
    });
    Ok(told)
}

/// The mesh that the flags name. Its services answer the command line.
pub(crate) fn mesh(
    control_plane: &ControlPlane,
    notices: meshx_workload::Notify,
) -> Result<Mesh, Failure> {
    let runtime_dir = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mesh = Mesh::new(client(control_plane)?).notify(notices);
    Ok(mesh.answers_commands(runtime_dir))
}

/// Without what went wrong with a connection: that is the command's own failure, told by itself.
pub(crate) fn only_what_is_news(output: Output) -> meshx_workload::Notify {
    let notices = output.notices();
    Arc::new(move |notice| {
        if !matches!(notice, Notice::Failed { .. }) {
            notices(notice);
        }
    })
}

/// Plain TCP to nodes that are found as the flags say.
pub(super) fn tcp(way: &Way, listen: SocketAddr) -> Result<Tcp, Failure> {
    Ok(match &way.ports {
        Ports { peer_port: Some(port), .. } => Tcp::new(listen, OnePort::new(*port)),
        Ports { port_base: Some(base), .. } => Tcp::new(listen, PortInName::from_base(*base)),
        Ports { .. } => Tcp::new(listen, epmd(way.epmd_port)?),
    })
}

impl Ports {
    /// Whether the flags do not say where nodes listen.
    pub(super) fn are_unknown(&self) -> bool {
        self.peer_port.is_none() && self.port_base.is_none()
    }

    /// Where that node listens, if the flags say.
    pub(super) fn of(&self, node: &NodeName) -> Result<Option<u16>, Failure> {
        let by_name = |base| PortInName::from_base(base).port(node.as_str());
        let port = self.port_base.map(by_name).transpose();
        let port = port.map_err(|error| Failure::new(401, exit::CONFIGURATION, error.to_string()));
        Ok(port?.or(self.peer_port))
    }
}

/// The port mapper of every host: at the port of the flag, or of the VM's own variable.
fn epmd(port: Option<u16>) -> Result<carrier::Epmd, Failure> {
    match port {
        Some(port) => Ok(carrier::Epmd::at_port(port)),
        None => carrier::Epmd::local()
            .map_err(|error| Failure::new(401, exit::CONFIGURATION, error.to_string())),
    }
}

/// Starts a node; what the mesh or EPMD refuse keeps its code.
pub(super) async fn start(builder: Builder) -> Result<Node, Failure> {
    use meshx_core::{Diagnostic as _, MeshError};
    use meshx_node::StartError;
    builder.start().await.map_err(|error| {
        let failure = Failure::new(312, exit::NEGATIVE, error.to_string());
        match &error {
            StartError::Name { .. } | StartError::Cookie(_) => {
                Failure { exit: exit::CONFIGURATION, ..failure }
            }
            StartError::Listen { reason, .. } => {
                let mesh = reason.get_ref().and_then(|inner| inner.downcast_ref::<MeshError>());
                let epmd = reason.get_ref().and_then(|inner| inner.downcast_ref());
                match mesh {
                    Some(mesh) => {
                        let known = Failure::of(mesh);
                        Failure { code: mesh.code(), hint: known.hint, exit: known.exit, ..failure }
                    }
                    None if reason.kind() == std::io::ErrorKind::InvalidInput => Failure {
                        code: meshx_core::Code(401),
                        exit: exit::CONFIGURATION,
                        ..failure.hint("with --port-base, a node's name says where it listens")
                    },
                    None => match epmd {
                        Some(epmd) => of_epmd(epmd, failure),
                        None => failure.hint("is the port free? --port 0 takes one that is"),
                    },
                }
            }
            _ => failure,
        }
    })
}

/// The port mapper did not register the node.
fn of_epmd(error: &meshx_epmd::Error, failure: Failure) -> Failure {
    use meshx_core::Diagnostic as _;
    use meshx_epmd::Error;
    let hint = match (error, error.hint()) {
        (Error::Absent { .. }, Some(hint)) => {
            Some(format!("{hint}, or do without: --no-epmd, --peer-port or --port-base"))
        }
        (_, hint) => hint,
    };
    let exit = match error {
        Error::Taken { .. } => exit::CONFLICT,
        Error::Request { .. } | Error::Variable(_) => exit::CONFIGURATION,
        _ => failure.exit,
    };
    Failure { code: error.code(), hint, exit, ..failure }
}

/// A carrier that dials, and is not dialled.
#[derive(Debug)]
struct DialOnly<C>(C);

impl<C: Carrier> Carrier for DialOnly<C> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn listen<'a>(&'a self, _: &'a Myself) -> Carried<'a, Box<dyn Listen>> {
        Box::pin(async { Ok(Box::new(Deaf) as Box<dyn Listen>) })
    }

    fn dial<'a>(&'a self, node: &'a str) -> Carried<'a, Stream> {
        self.0.dial(node)
    }
}

struct Deaf;

impl Listen for Deaf {
    fn accept(&mut self) -> Carried<'_, Stream> {
        Box::pin(std::future::pending())
    }

    fn address(&self) -> String {
        "nowhere".to_owned()
    }
}
