//! Rust nodes and stock ones.
#![allow(clippy::unwrap_used, reason = "tests")]

mod chaos;
mod examples;
mod functions;
mod global;
mod global_full;
mod handshake;
mod limits;
mod messages;
mod otp_23;
mod partition;
mod pg;
mod ports;
mod pubsub;
mod rpc;
mod rpc_out;
mod servers;
mod stock;

use std::time::Duration;

use meshx_e2e::{Epmd, PlainVm, Release};
use meshx_node::carrier::{self, Tcp};
use meshx_node::{Builder, Cookie, Node};

const COOKIE: &str = "a-cookie-of-tests";
/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(20);

/// A stock VM and the EPMD that it is registered with.
struct Stock {
    vm: PlainVm,
    epmd: Epmd,
    name: String,
}

impl Stock {
    fn start(release: Release, name: &str) -> Self {
        let epmd = Epmd::start(release);
        let name = format!("{name}@127.0.0.1");
        let vm = PlainVm::start(release, &name, COOKIE, epmd.port());
        Self { vm, epmd, name }
    }

    /// A Rust node that is registered with the same EPMD, to be refined.
    fn beside(&self, name: &str) -> Builder {
        let carrier = Tcp::loopback(carrier::Epmd::at_port(self.epmd.port()));
        Node::builder(format!("{name}@127.0.0.1")).cookie(Cookie::new(COOKIE)).carrier(carrier)
    }
}
