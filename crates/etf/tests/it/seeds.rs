//! The fuzz targets on their seeds, on stable.

#[path = "../../../../fuzz/src/etf.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of another crate")]
mod etf;
#[path = "../../../../fuzz/src/seeds.rs"]
#[allow(unreachable_pub, reason = "a module of another crate")]
mod on_seeds;

use on_seeds::run;

#[test]
fn term_decode() {
    run("term_decode", 6, etf::term_decode);
}

#[test]
fn dist_header() {
    run("dist_header", 6, etf::dist_header);
}

#[test]
fn text_parse() {
    run("text_parse", 6, etf::text_parse);
}
