//! The fuzz targets on their seeds, on stable.

#[path = "../../../fuzz/src/dist.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod dist;
#[path = "../../../fuzz/src/link.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod link;
#[path = "../../../fuzz/src/seeds.rs"]
#[allow(unreachable_pub, reason = "a module of another crate")]
mod on_seeds;

use on_seeds::run;

#[test]
fn epmd_request() {
    run("epmd_request", 3, dist::epmd_request);
}

#[test]
fn epmd_reply() {
    run("epmd_reply", 3, dist::epmd_reply);
}

#[test]
fn handshake_name() {
    run("handshake_name", 3, dist::handshake_name);
}

#[test]
fn handshake_observer() {
    run("handshake_observer", 3, dist::handshake_observer);
}

#[test]
fn link() {
    run("link", 3, link::link);
}
