//! The fuzz targets on their seeds, on stable.

use std::path::Path;

#[path = "../../../../fuzz/src/etf.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod etf;

/// Runs `target` on each of its seeds, and on each of their beginnings.
#[track_caller]
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut count = 0;
    for seed in std::fs::read_dir(&folder).expect("a folder of seeds") {
        let seed = std::fs::read(seed.expect("a seed").path()).expect("a seed");
        for end in 0..=seed.len() {
            target(&seed[..end]);
        }
        count += 1;
    }
    assert!(count >= 6, "only {count} seeds in {}", folder.display());
}

#[test]
fn term_decode() {
    run("term_decode", etf::term_decode);
}

#[test]
fn dist_header() {
    run("dist_header", etf::dist_header);
}

#[test]
fn text_parse() {
    run("text_parse", etf::text_parse);
}
