//! The fuzz targets on their seeds, on stable.

#[path = "../../../fuzz/src/rpc_v1.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod rpc_v1;

#[path = "../../../fuzz/src/seeds.rs"]
#[allow(unreachable_pub, reason = "a module of another crate")]
mod on_seeds;
#[path = "../../../fuzz/src/rpc_v2.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod rpc_v2;

use on_seeds::run;

#[test]
fn rpc_v1() {
    run("rpc_v1", 3, rpc_v1::rpc_v1);
}

#[test]
fn rpc_v2() {
    run("rpc_v2", 3, rpc_v2::rpc_v2);
}
