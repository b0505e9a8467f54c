//! How fast a deny works.

use std::io::Read;
use std::time::{Duration, Instant};

use meshx_e2e::{ControlPlane, Mesh, Need, skips, wait_until};
use serde_json::json;

use crate::echo;
use crate::sample::Sample;

const READY: Duration = Duration::from_secs(40);

/// From the moment the intention is sent until the client's socket is closed.
pub(crate) fn deny_to_cut() {
    measure(ControlPlane::Agent, "meshx agent");
    if !skips(&[Need::Consul]) {
        measure(ControlPlane::Consul, "Consul 1.8.7");
    }
}

fn measure(kind: ControlPlane, peer: &str) {
    let mesh = Mesh::start(kind);
    let port = echo::serve().to_string();
    let _db = mesh.exec(&["--name", "db", "--port", &port], &["cat"]);
    let script = "echo $MESHX_UPSTREAM_DB; cat";
    let web = mesh.exec(&["--name", "web", "--upstream", "db"], &["sh", "-c", script]);
    let address = web.next_line(READY).unwrap();
    let mut sample = Sample::default();
    for _ in 0..20 {
        mesh.cli_ok(&["intentions", "allow", "web", "db"]);
        let mut stream = wait_until("an echo", READY, || echo::connect(&address));
        let start = Instant::now();
        // Consul's API of old and new, without the time that a command line takes to start.
        let id = mesh.get_json("/v1/connect/intentions")[0]["ID"].as_str().map(str::to_owned);
        let path = format!("/v1/connect/intentions/{}", id.unwrap());
        let intention = json!({"SourceName": "web", "DestinationName": "db", "Action": "deny",
            "SourceType": "consul"});
        mesh.put(&path, &intention);
        let end = stream.read(&mut [0]);
        sample.push(start.elapsed());
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    sample.report("deny until the connection is cut", peer, "100 ms");
}
