//! Ways from a client to a server: direct, through two of our sidecars, through two of Consul's.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::control_plane::{ControlPlane, Kind};
use crate::machine;
use crate::peer;
use crate::program::Program;
use crate::report::{Section, note};
use crate::stage::Stage;

/// How long a pair may take until a connection passes through it.
const READY: Duration = Duration::from_secs(30);

/// A way, and the sidecars that must live for it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) title: &'static str,
    pub(crate) address: SocketAddr,
    sidecars: Vec<Program>,
}

/// What the claims are about, and what they are compared with.
pub(crate) const DIRECT: &str = "direct TCP";
pub(crate) const OURS: &str = "meshx proxy pair";
pub(crate) const THEIRS: &str = "consul connect proxy pair";

/// The service that our pair leads to, and the one that it leads from.
pub(crate) const SERVER: &str = "bench-db";
pub(crate) const CLIENT: &str = "bench-web";

impl Route {
    fn direct(port: u16) -> Self {
        Self { title: DIRECT, address: loopback(port), sidecars: Vec::new() }
    }

    /// Client, `meshx proxy`, mTLS, `meshx proxy`, server.
    pub(crate) fn meshx(stage: &Stage, plane: &ControlPlane, server: u16) -> Result<Self> {
        let upstream = stage.free_port()?;
        let inbound = ["proxy", "--service", SERVER, "--port", &server.to_string()];
        let outbound =
            ["proxy", "--service", CLIENT, "--upstream", &format!("{SERVER}:{upstream}")];
        let start =
            |arguments: &[&str]| stage.start("meshx proxy", stage.meshx(&plane.address, arguments));
        let sidecars = vec![start(&inbound)?, start(&outbound)?];
        Self { title: OURS, address: loopback(upstream), sidecars }.ready(stage)
    }

    /// Client, `consul connect proxy`, mTLS, `consul connect proxy`, server.
    pub(crate) fn consul(stage: &Stage, plane: &ControlPlane, server: u16) -> Result<Self> {
        let upstream = stage.free_port()?;
        let (inbound, outbound) = (stage.free_port()?, stage.free_port()?);
        // Consul's own default check of a sidecar would keep it critical for ten seconds.
        let checks = |service| json!([{"Name": "the service's own", "AliasService": service}]);
        let services = [
            json!({"Name": "peer-db", "Address": "127.0.0.1", "Port": server, "Connect": {
                "SidecarService": {"Address": "127.0.0.1", "Port": inbound,
                    "Checks": checks("peer-db")}}}),
            json!({"Name": "peer-web", "Connect": {
                "SidecarService": {"Address": "127.0.0.1", "Port": outbound,
                    "Checks": checks("peer-web"),
                    "Proxy": {"Upstreams": [
                        {"DestinationName": "peer-db", "LocalBindPort": upstream}]}}}}),
        ];
        for service in services {
            crate::http::put(&plane.address, "/v1/agent/service/register", &service)?;
        }
        let consul = stage.consul.as_deref().context("no Consul")?;
        let start = |service: &str| {
            let mut command = stage.command(consul, &plane.address);
            command.args(["connect", "proxy", "-sidecar-for", service]);
            stage.start("consul connect proxy", command)
        };
        let sidecars = vec![start("peer-db")?, start("peer-web")?];
        Self { title: THEIRS, address: loopback(upstream), sidecars }.ready(stage)
    }

    /// Both sidecars' CPU time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.sidecars.iter().map(|sidecar| machine::cpu_seconds(sidecar.pid())).sum()
    }

    /// What both sidecars hold now, in MB.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.sidecars.iter().map(|sidecar| Ok(machine::memory(sidecar.pid())?.resident)).sum()
    }

    fn ready(self, stage: &Stage) -> Result<Self> {
        let pause = Duration::from_millis(50);
        let passes = || peer::echoing(self.address).map(drop);
        let title = self.title;
        stage
            .budget
            .until(&format!("an echo through {title}"), READY, pause, passes)
            .with_context(|| {
                self.sidecars.iter().map(Program::last_words).collect::<Vec<_>>().join("; ")
            })?;
        Ok(self)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// All ways to one server, under one control plane.
#[derive(Debug)]
pub(crate) struct Field {
    // Before the control plane, so that sidecars can take their leave of it.
    pub(crate) routes: Vec<Route>,
    pub(crate) plane: ControlPlane,
}

impl Field {
    /// Both pairs under the same real Consul; without it, ours alone under our agent.
    pub(crate) fn lay(stage: &Stage, section: &mut Section) -> Result<Self> {
        let server = peer::serve()?;
        let kind = if stage.consul.is_some() { Kind::Consul } else { Kind::Meshx };
        let plane = ControlPlane::start(stage, kind)?;
        plane.await_authority(stage)?;
        let mut routes = vec![Route::direct(server), Route::meshx(stage, &plane, server)?];
        if kind == Kind::Consul {
            routes.push(Route::consul(stage, &plane, server)?);
        } else {
            without_consul(section);
        }
        Ok(Self { routes, plane })
    }

    /// The routes, beginning with another one in each repetition, so that none is always first.
    pub(crate) fn in_turn(&self, run: u32) -> impl Iterator<Item = (usize, &Route)> {
        let count = self.routes.len();
        let first = run as usize % count;
        (0..count).map(move |step| (first + step) % count).map(|at| (at, &self.routes[at]))
    }
}

/// Says in the report that the peer was not measured.
pub(crate) fn without_consul(section: &mut Section) {
    const WHY: &str = "Consul not measured: no MESHX_TEST_CONSUL (`cargo xtask provision` has one)";
    section.notice(WHY.to_owned());
    note(WHY);
}
