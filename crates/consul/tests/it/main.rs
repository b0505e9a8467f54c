//! The client against an agent that follows a script, and against a real Consul where there is one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]

mod agent;
mod blocking;
mod errors;
mod intentions;
mod real;
mod registration;
mod secrets;
mod transport;
mod views;
