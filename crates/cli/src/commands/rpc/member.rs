//! A service of the mesh that asks, or answers, as long as one command.

use std::net::SocketAddr;
use std::time::Duration;

use meshx_core::{Connected, Lease, Running, Service, ServiceMesh as _, ServiceName, Upstream};
use meshx_rpc::transport::{self, Carried, Dial, MeshListening, Stream, Tcp};
use meshx_workload::Mesh;

use crate::args::rpc::{Reach, Serve};
use crate::commands::node::{mesh, only_what_is_news};
use crate::failure::{Failure, exit};
use crate::output::Output;

/// A connection ended for the reason that the mesh gives if that is no older.
const RECENT: Duration = Duration::from_secs(2);

/// Who asks.
pub(super) struct Member {
    mesh: Mesh,
    running: Running,
    connected: Connected,
    /// Whether its name is nobody's, and gone with it.
    nameless: bool,
}

/// The way to the service that is asked: through the sidecar.
struct Way {
    service: ServiceName,
    local: Tcp,
}

impl Member {
    /// Joins the mesh, with a way to `service`.
    pub(super) async fn join(
        service: &ServiceName,
        reach: &Reach,
        output: Output,
    ) -> Result<Self, Failure> {
        let name = match &reach.name {
            Some(name) => name.clone(),
            None => format!("meshx-{}", meshx_rt::random::hex(8))
                .parse()
                .map_err(|error| Failure::internal("make a name", &error))?,
        };
        let mesh = mesh(&reach.control_plane, only_what_is_news(output))?;
        let running = mesh.start(Service::named(name)).await?;
        match mesh.connect(&running, Upstream::to(service.clone())).await {
            Ok(connected) => {
                let nameless = reach.name.is_none();
                Ok(Self { mesh, running, connected, nameless })
            }
            Err(error) => {
                // The failure is that there is no way.
                drop(mesh.stop(running).await);
                Err(error.into())
            }
        }
    }

    pub(super) fn way(&self) -> impl Dial {
        let Connected { destination, local, .. } = &self.connected;
        Way { service: destination.clone(), local: Tcp::to(local.to_string()) }
    }

    /// Why the last connection was refused or cut, if it was the mesh.
    pub(super) fn why(&self) -> Option<Failure> {
        let Self { mesh, running, connected, nameless } = self;
        let failure = Failure::of(&mesh.last_failure(running, &connected.destination, RECENT)?);
        // A command with a name that nobody has any more is no advice.
        let own = running.name.as_str();
        if !nameless || !failure.hint.as_deref().is_some_and(|hint| hint.contains(own)) {
            return Some(failure);
        }
        let denied = failure.exit == exit::DENIED;
        let hint = denied.then(|| "--as NAME asks as a service that is allowed to".to_owned());
        Some(Failure { hint, ..failure })
    }

    /// Leaves, and waits until that is done.
    pub(super) async fn leave(self) {
        let Self { mesh, running, connected, .. } = self;
        drop(connected);
        if let Err(error) = mesh.stop(running).await {
            tracing::warn!(%error, "the registration is left to expire");
        }
    }
}

impl Dial for Way {
    fn dial(&self) -> Carried<'_, Stream> {
        Box::pin(async move {
            let stream = self.local.dial().await?;
            Ok(Stream { address: self.address(), ..stream })
        })
    }

    fn address(&self) -> String {
        self.service.to_string()
    }
}

/// Who answers.
pub(super) struct Serving {
    mesh: Mesh,
    service: Service,
    _member: transport::Mesh<Mesh>,
}

impl Serving {
    /// Joins the mesh, and listens there.
    pub(super) async fn start(
        arguments: &Serve,
        output: Output,
    ) -> Result<(Self, MeshListening<Mesh>), Failure> {
        use transport::ServeError;
        let mesh = mesh(&arguments.control_plane, output.notices())?;
        let service = Service::named(arguments.name.clone());
        let served = transport::Mesh::serve(mesh.clone(), service.clone()).await;
        let (member, listening) = served.map_err(|error| match error {
            ServeError::Mesh(error) => Failure::from(error),
            other => Failure::internal("serve in the mesh", &other),
        })?;
        Ok((Self { mesh, service, _member: member }, listening))
    }

    /// Leaves, and waits until that is done.
    pub(super) async fn leave(self) {
        let Self { mesh, service: Service { name, id, .. }, _member } = self;
        // What the listener holds is taken out by its name.
        let (nowhere, lease) = (SocketAddr::from(([0, 0, 0, 0], 0)), Lease::new(|| {}));
        let running = Running { name, id, local: nowhere, public: nowhere, lease };
        if let Err(error) = mesh.stop(running).await {
            tracing::warn!(%error, "the registration is left to expire");
        }
    }
}
