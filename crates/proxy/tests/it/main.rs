//! Sidecars in one process, with real certificates and real TCP on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod drain;
mod erlang;
mod flow;
mod forge;
mod greeting;
mod load;
mod policy;
mod refusal;
mod retry;
mod support;
