//! What travels between connected nodes: control messages, payloads, frames, fragments, ticks.
#![allow(clippy::unwrap_used, clippy::panic_in_result_fn, reason = "tests and their helpers")]

mod common;
mod laws;
mod operations;
#[path = "../../../etf/tests/it/random.rs"]
#[allow(dead_code, reason = "the generators of another crate's tests")]
mod random;
mod refusals;
