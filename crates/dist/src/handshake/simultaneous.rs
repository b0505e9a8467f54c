//! Two nodes that dial each other at once.

use super::Status;

/// What an acceptor answers whose own attempt to dial the same peer is not finished
/// (`erl_dist_protocol`, "Distribution Handshake", step 3): of the two attempts that of the node
/// with the greater name goes on, names being compared as bytes.
///
/// * [`Status::OkSimultaneous`]: the incoming attempt goes on; the acceptor closes its own.
/// * [`Status::Nok`]: the acceptor's own attempt goes on. The initiator, whose attempt ends with
///   [`Failure::Refused`](super::Failure::Refused), is content with the incoming connection, and
///   waits for it as long as for a handshake.
///
/// An acceptor without an attempt of its own answers [`Status::Ok`], and one that has a connection
/// already [`Status::Alive`]. For exactly one connection to remain, a node must dial a peer only
/// while it has neither a connection to it nor a handshake with it, in either direction.
///
/// ```
/// use meshx_dist::handshake::{Status, answer_to_simultaneous};
/// assert_eq!(answer_to_simultaneous("shop@h1", "bank@h2"), Status::Nok);
/// assert_eq!(answer_to_simultaneous("bank@h2", "shop@h1"), Status::OkSimultaneous);
/// ```
pub fn answer_to_simultaneous(own: &str, peer: &str) -> Status {
    if own.as_bytes() > peer.as_bytes() { Status::Nok } else { Status::OkSimultaneous }
}
