//! What travels between connected nodes: control messages, payloads, frames, fragments, ticks.
#![allow(
    clippy::unwrap_used,
    clippy::panic_in_result_fn,
    clippy::print_stderr,
    reason = "tests and their helpers"
)]

mod common;
mod fragments;
mod hostile;
mod laws;
mod operations;
mod pair;
#[path = "../../../etf/tests/it/random.rs"]
#[allow(dead_code, reason = "the generators of another crate's tests")]
mod random;
mod refusals;
mod ticks;
mod wire;
