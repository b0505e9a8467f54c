//! Services of the stories about RPC: one that calls, in this process, and one that serves, in a
//! process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshx_consul::{Client as ControlPlane, Config};
use meshx_core::{
    Connected, Lease, MeshError, Running, Service, ServiceMesh as _, ServiceName, Upstream,
};
use meshx_rpc::event::Event;
use meshx_rpc::transport::{self, Carried, Dial, ServeError, Stream};
use meshx_rpc::{Client, ClientBuilder, Server};
use meshx_rt::net;
use meshx_workload::Mesh;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

use super::peer::say;
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// A connection ended for the reason that the mesh gives if that is no older.
const RECENT: Duration = Duration::from_secs(2);
/// The longest that connecting to the own sidecar may take.
const CONNECT: Duration = Duration::from_secs(2);

/// A service that calls another one.
pub(super) struct Caller {
    mesh: Mesh,
    running: Running,
    connected: Connected,
    /// What became of its connections and calls.
    pub(super) seen: Arc<Seen>,
}

/// What happened to a client.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Attempts that were not the first of their call.
    pub(super) retries: AtomicU64,
    /// A connection ended.
    pub(super) ended: Notify,
}

/// The way to the service that is called: through the sidecar.
struct Way {
    service: ServiceName,
    local: SocketAddr,
}

impl Caller {
    /// Joins the mesh by this name, with a way to `service`.
    pub(super) async fn join(
        control: &ControlPlane,
        name: &str,
        service: &str,
        output: Output,
    ) -> Result<Self, Failure> {
        // What goes wrong with connections is a part of the story.
        let mesh = mesh(control.clone()).notify(crate::commands::node::only_what_is_news(output));
        let running = mesh.start(Service::named(named(name)?)).await?;
        let connected = mesh.connect(&running, Upstream::to(named(service)?)).await?;
        Ok(Self { mesh, running, connected, seen: Arc::default() })
    }

    /// A client on the way to the service.
    pub(super) fn client(&self) -> ClientBuilder {
        let seen = Arc::clone(&self.seen);
        Client::to(self.way()).observe(move |event: &Event<'_>| match event {
            Event::Called(called) if called.attempt > 1 => {
                seen.retries.fetch_add(1, Ordering::Relaxed);
            }
            Event::Disconnected { .. } => seen.ended.notify_one(),
            _ => {}
        })
    }

    pub(super) fn way(&self) -> impl Dial {
        let Connected { destination, local, .. } = &self.connected;
        Way { service: destination.clone(), local: *local }
    }

    /// Why the last connection was refused or cut, if it was the mesh.
    pub(super) fn why(&self) -> Option<MeshError> {
        self.mesh.last_failure(&self.running, &self.connected.destination, RECENT)
    }

    /// Leaves, and waits until that is done.
    pub(super) async fn leave(self) -> Result<(), Failure> {
        let Self { mesh, running, connected, .. } = self;
        drop(connected);
        Ok(mesh.stop(running).await?)
    }
}

/// Serves as an instance of a service until the input ends.
pub(super) async fn serve(service: Service, server: Server) -> Result<u8, Failure> {
    let control = ControlPlane::new(Config::from_variables(variable)?)?;
    let mesh = mesh(control).notify(Output::new(false, false).notices());
    let served = transport::Mesh::serve(mesh.clone(), service.clone()).await;
    let (_member, listening) = served.map_err(|error| match error {
        ServeError::Mesh(error) => Failure::from(error),
        other => Failure::internal("serve in the mesh", &other),
    })?;
    let serving = server.listen(listening).start();
    say("ready");
    let mut nothing = [0; 64];
    while let Ok(1..) = tokio::io::stdin().read(&mut nothing).await {}
    // What the listener holds is taken out by its name.
    let (nowhere, lease) = (SocketAddr::from(([0, 0, 0, 0], 0)), Lease::new(|| {}));
    let Service { name, id, .. } = service;
    let running = Running { name, id, local: nowhere, public: nowhere, lease };
    let (left, ()) = tokio::join!(mesh.stop(running), serving.stop());
    left?;
    Ok(exit::SUCCESS)
}

/// Where `meshx status` and `meshx why` see it.
fn mesh(control: ControlPlane) -> Mesh {
    Mesh::new(control).answers_commands(variable("XDG_RUNTIME_DIR").map(PathBuf::from))
}

pub(super) fn named(name: &str) -> Result<ServiceName, Failure> {
    name.parse().map_err(|error| Failure::internal("name a service", &error))
}

/// A time as the stories tell it.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

impl Dial for Way {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let (read, write) = net::dial(self.local, CONNECT).await?.into_split();
            Ok(Stream::new(read, write, self.address()))
        })
    }

    fn address(&self) -> String {
        self.service.to_string()
    }
}
