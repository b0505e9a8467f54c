//! What a sidecar tells about itself: `GET /v1/meshx/sidecar` on a Unix socket that only its user
//! (and root) can open. The socket's path stands in the registration's metadata, under [`META_ADMIN`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Json, Router};
use meshx_consul::{Client, Config, ConsulError};
use meshx_proxy::{ConnectionFacts, Event, Protocol};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::WorkloadError;

/// Metadata of a registration: the path of the admin socket.
pub const META_ADMIN: &str = "meshx-admin";
/// Metadata of a registration: the process that registered.
pub const META_PID: &str = "meshx-pid";
/// Metadata of a registration: when that process started, in the kernel's ticks.
pub const META_START: &str = "meshx-start";
/// Metadata of a registration: the machine it runs on.
pub const META_HOST: &str = "meshx-host";
/// Metadata of a registration: `tcp` or `erlang`.
pub const META_PROTOCOL: &str = "meshx-protocol";

/// A sidecar's account of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SidecarReport {
    /// `meshx.sidecar/1`.
    pub schema: String,
    /// The service beside which it stands.
    pub service: String,
    /// The instance.
    pub id: String,
    /// What flows through it.
    pub protocol: Protocol,
    /// Its process.
    pub pid: u32,
    /// Where peers reach it.
    pub public: String,
    /// Where its program listens, if it does.
    pub local: Option<String>,
    /// The identity that it proves.
    pub spiffe_id: String,
    /// The serial number of its certificate.
    pub certificate_serial: String,
    /// Seconds until its certificate expires; 0 when it has expired.
    pub certificate_seconds_left: u64,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Its upstreams: local address by service.
    pub upstreams: BTreeMap<String, String>,
    /// The connections that live.
    pub connections: Vec<ConnectionFacts>,
    /// The last events, oldest first.
    pub events: Vec<Event>,
    /// Refusals by step since the start.
    pub refused: BTreeMap<String, u64>,
}

/// Asks the sidecar behind a socket.
pub async fn ask(socket: &Path) -> Result<SidecarReport, ConsulError> {
    let client = Client::new(Config::at(&format!("unix://{}", socket.display()))?)?;
    Ok(client.get("/v1/meshx/sidecar").await?.value)
}

/// Asks the process behind a socket to end its program and leave the mesh.
pub(crate) async fn ask_to_stop(socket: &Path) -> Result<(), ConsulError> {
    let client = Client::new(Config::at(&format!("unix://{}", socket.display()))?)?;
    client.post::<serde_json::Value>("/v1/meshx/stop").await.map(drop)
}

/// Serves reports until `done`; cancels `stop` when asked to stop.
pub(crate) fn serve(
    socket: &Path,
    report: impl Fn() -> Option<SidecarReport> + Send + Sync + 'static,
    stop: CancellationToken,
    done: CancellationToken,
) -> Result<(), WorkloadError> {
    let what = format!("cannot listen on {}", socket.display());
    let listener = UnixListener::bind(socket).map_err(WorkloadError::io(what))?;
    let report = Arc::new(report);
    let tell = move || {
        let report = report();
        async move { report.map(Json).ok_or(axum::http::StatusCode::SERVICE_UNAVAILABLE) }
    };
    let end = move || {
        stop.cancel();
        async { Json(serde_json::json!({ "stopping": true })) }
    };
    let router =
        Router::new().route("/v1/meshx/sidecar", get(tell)).route("/v1/meshx/stop", post(end));
    tokio::spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(done.cancelled_owned());
        if let Err(error) = server.await {
            tracing::debug!(%error, "the admin socket closed");
        }
    });
    Ok(())
}
