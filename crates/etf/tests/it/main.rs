//! Integration tests of the term format.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests and their helpers")]

mod corpus;
mod dist;
mod erl;
mod frames;
mod laws;
mod live;
mod random;
mod records;
mod seeds;
#[path = "../../../dist/tests/support/mod.rs"]
mod support;
mod typed;
mod vectors;
