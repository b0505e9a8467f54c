//! The Erlang Port Mapper Daemon, both roles, over TCP.
//!
//! * [`Client`] registers a node at a machine's daemon and asks daemons where nodes are. It speaks
//!   to any daemon: OTP's own, or the one here.
//! * [`Daemon`] takes the place of OTP's for virtual machines that run without `meshx exec`.
//!
//! The bytes on the wire are [`meshx_dist::epmd`]; this crate adds sockets, time and the table of
//! names. Every wait has a bound, which is a documented constant.

pub mod client;
pub mod daemon;

pub use client::{Client, Error, Kept, Lease, Standing};
pub use daemon::Daemon;
