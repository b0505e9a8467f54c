//! What two sidecars cost on the way.

use std::path::Path;
use std::time::{Duration, Instant};

use meshx_e2e::{ControlPlane, Mesh, Need, Process, consul, skips, wait_until};
use serde_json::json;

use crate::echo;
use crate::sample::{Sample, say};

const READY: Duration = Duration::from_secs(40);
const ROUND_TRIPS: usize = 5_000;
const CONNECTIONS: usize = 300;
const BULK: usize = 512 * 1024 * 1024;

/// A way from a client to the echo server, and what has to live for it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) peer: &'static str,
    pub(crate) address: String,
    pub(crate) processes: Vec<Process>,
    _mesh: Option<Mesh>,
}

/// Interleaved, so that what else the machine does hits all of them.
pub(crate) fn through_a_pair_of_sidecars() {
    let port = echo::serve();
    let mut routes = vec![direct(port), through_meshx(port)];
    if !skips(&[Need::Consul]) {
        routes.push(through_consul_proxies(port));
    }
    let mut streams: Vec<_> =
        routes.iter().map(|route| echo::connect(&route.address).unwrap()).collect();
    let mut samples: Vec<Sample> = routes.iter().map(|_| Sample::default()).collect();
    for _ in 0..ROUND_TRIPS / 100 {
        for (stream, sample) in streams.iter_mut().zip(&mut samples) {
            for _ in 0..100 {
                sample.push(echo::round_trip(stream));
            }
        }
    }
    for (route, sample) in routes.iter().zip(samples) {
        sample.report("64 bytes and back", route.peer, "");
    }
    let mut samples: Vec<Sample> = routes.iter().map(|_| Sample::default()).collect();
    for _ in 0..CONNECTIONS {
        for (route, sample) in routes.iter().zip(&mut samples) {
            let start = Instant::now();
            echo::connect(&route.address).unwrap();
            sample.push(start.elapsed());
        }
    }
    for (route, sample) in routes.iter().zip(samples) {
        sample.report("new connection until the first byte came back", route.peer, "");
    }
    for route in &routes {
        let mut best = Sample::default();
        for _ in 0..3 {
            best.push(echo::send(&route.address, BULK));
        }
        let seconds = best.percentile(50).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = BULK as f64 * 8.0 / seconds / 1e9;
        say(&format!("| one stream, 512 MiB | {} | {rate:.1} Gb/s | | |", route.peer));
    }
}

fn direct(port: u16) -> Route {
    let address = format!("127.0.0.1:{port}");
    Route { peer: "direct", address, processes: Vec::new(), _mesh: None }
}

/// Two `meshx exec`: the server's sidecar and the client's.
pub(crate) fn through_meshx(port: u16) -> Route {
    let mesh = Mesh::agent();
    let db = mesh.exec(&["--name", "db", "--port", &port.to_string()], &["cat"]);
    let script = "echo $MESHX_UPSTREAM_DB; cat";
    let web = mesh.exec(&["--name", "web", "--upstream", "db"], &["sh", "-c", script]);
    let address = web.next_line(READY).unwrap();
    wait_until("an echo through meshx", READY, || echo::connect(&address));
    Route { peer: "meshx, pair", address, processes: vec![db, web], _mesh: Some(mesh) }
}

/// Two `consul connect proxy`.
pub(crate) fn through_consul_proxies(port: u16) -> Route {
    let mesh = Mesh::start(ControlPlane::Consul);
    let free = || {
        let address = Mesh::free_address();
        address.rsplit(':').next().unwrap().parse::<u16>().unwrap()
    };
    let (public, local) = (free(), free());
    mesh.put(
        "/v1/agent/service/register",
        &json!({
            "Name": "db", "Port": port, "Connect": {"SidecarService": {"Port": public}},
        }),
    );
    mesh.put(
        "/v1/agent/service/register",
        &json!({
            "Name": "web", "Connect": {"SidecarService": {"Port": free(), "Proxy": {"Upstreams": [
                {"DestinationName": "db", "LocalBindPort": local}]}}},
        }),
    );
    let proxy = |service: &str| {
        let mut command = mesh.bare_command(Path::new(&consul().unwrap()));
        command.args(["connect", "proxy", "-sidecar-for", service]);
        Process::start(&format!("consul connect proxy for {service}"), &mut command)
    };
    let processes = vec![proxy("db"), proxy("web")];
    let address = format!("127.0.0.1:{local}");
    // Its own check of the sidecar runs every ten seconds.
    wait_until("an echo through Consul's proxies", READY, || echo::connect(&address));
    Route { peer: "Consul 1.8.7's own proxy, pair", address, processes, _mesh: Some(mesh) }
}
