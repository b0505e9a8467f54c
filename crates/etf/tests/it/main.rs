//! Integration tests of the term format.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests and their helpers")]

mod corpus;
mod dist;
mod erl;
mod laws;
mod random;
mod seeds;
mod typed;
mod vectors;
