//! Runs a target on its seeds, on stable. The tests of the crates include this file; the fuzzer reads
//! the seeds by itself.

use std::path::Path;

/// Runs `target` on each of its seeds, on each of their beginnings, and on nothing. There must be
/// `at_least` so many.
#[track_caller]
pub fn run(name: &str, at_least: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut count = 0;
    for seed in std::fs::read_dir(&folder).expect("a folder of seeds") {
        let seed = std::fs::read(seed.expect("a seed").path()).expect("a seed");
        for end in 0..=seed.len() {
            target(&seed[..end]);
        }
        count += 1;
    }
    assert!(count >= at_least, "only {count} seeds in {}", folder.display());
}
