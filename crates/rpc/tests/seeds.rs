//! The fuzz targets on their seeds, on stable.

#[path = "../../../fuzz/src/rpc_v1.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod rpc_v1;

#[path = "../../../fuzz/src/rpc_v2.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod rpc_v2;

use std::path::Path;

/// Runs `target` on each of its seeds, on each of their beginnings, and on nothing.
#[track_caller]
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let seeds = std::fs::read_dir(&folder).expect("a folder of seeds");
    let mut count = 0;
    for seed in seeds {
        let seed = std::fs::read(seed.expect("a seed").path()).expect("a seed");
        for end in 0..=seed.len() {
            target(&seed[..end]);
        }
        count += 1;
    }
    assert!(count >= 3, "only {count} seeds in {}", folder.display());
}

#[test]
fn rpc_v1() {
    run("rpc_v1", rpc_v1::rpc_v1);
}

#[test]
fn rpc_v2() {
    run("rpc_v2", rpc_v2::rpc_v2);
}
