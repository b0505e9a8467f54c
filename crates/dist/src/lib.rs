//! The Erlang distribution and EPMD's wire protocol as values and state machines.
//!
//! This crate opens no sockets, reads no clock, draws no random numbers and starts no tasks: bytes
//! go in, values and bytes come out. Who owns a socket, how long it may stay silent and where a
//! challenge comes from is the caller's business.
//!
//! * [`epmd`]: requests and replies of the Erlang Port Mapper Daemon, both roles, and the few
//!   conventions by which our private front door carries more in the same format
//!   ([`epmd::front_door`]).
//! * [`handshake`]: the messages of the version 6 handshake, a passive [`handshake::Observer`] for
//!   relays, and the two active roles.
//! * [`control`]: what travels between connected nodes; [`Payload`]: the terms in it.
//! * [`link`]: a connection after its handshake: frames, fragments, ticks.
//! * [`name`]: what a node name may look like here.
//!
//! What every decoder guarantees: it never panics, never allocates more than its documented bound,
//! and gives the same answer however the input was cut into pieces.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod control;
pub mod epmd;
pub mod handshake;
pub mod link;
pub mod name;
mod payload;
mod wire;

pub use payload::Payload;
