//! The sidecar: mutual TLS between services, one intention at a time.
//!
//! A [`Sidecar`] stands beside one program. Its *inbound* side accepts peers' sidecars on a public
//! listener, proves who they are, asks the intentions, and copies bytes to the program's loopback
//! port. Its *outbound* side gives the program loopback listeners ([`Sidecar::open`]) that lead to
//! any passing instance of another service.
//!
//! What it promises:
//!
//! * **Nobody gets in who should not.** No byte of a connection reaches the program before the
//!   handshake, the identity and the intentions have been checked, and, on an Erlang link, before
//!   the node name in the distribution hello is the one in the certificate.
//! * **Deny means cut.** Live connections are judged again on every change of the intentions; only
//!   those that became denied are closed.
//! * **Nothing allowed is cut.** Certificates rotate, endpoints come and go, the control plane
//!   dies: live connections go on. There is no idle time-out. Half-close is passed on.
//! * **Everything is said.** Each refusal is an [`Event`] that names its [`Step`], counted and kept
//!   in the [`Journal`].

mod connections;
mod erlang;
mod greeting;
mod inbound;
mod journal;
mod outbound;
mod sidecar;
mod tap;

pub use connections::{Connection, ConnectionFacts, Connections, Direction};
pub use journal::{Event, Journal, Outcome, Step};
pub use outbound::EndpointView;
pub use sidecar::{OpenUpstream, Protocol, Sidecar, SidecarConfig};

use std::time::Duration;

/// Time for a peer to finish the TLS handshake.
pub const TLS_LIMIT: Duration = Duration::from_secs(10);
/// Time for a peer to say its first byte: it has nothing to wait for.
pub const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(2);
/// Time for an Erlang node to send its hello after the connection stands. OTP's own limit for a
/// whole handshake (`net_setuptime`) is 7 s.
pub const HELLO_LIMIT: Duration = Duration::from_secs(7);
/// Time to reach one instance, the TLS handshake included, while there is another to try; and to
/// connect to the program.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Time to find an instance that answers, over all of them; below OTP's 7 s.
pub const FIND_LIMIT: Duration = Duration::from_secs(6);
/// Handshakes under way at one inbound listener; more are refused at once.
pub const MAX_HANDSHAKES: usize = 512;
/// Connections to one inbound listener that have not said a byte; more are refused at once. They do
/// not take the places of those who do.
pub const MAX_SILENT: usize = 4_096;
/// Connections of one sidecar, both directions together; more are refused at once.
pub const MAX_CONNECTIONS: usize = 16_384;
