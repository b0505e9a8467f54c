//! `MeshxRpc`, version 1: as the Elixir package `meshx_rpc` 0.1.1 speaks it.
//!
//! For programs that talk with Elixir programs which have that package. Between programs of this crate
//! version 2 does more: many calls on one connection, errors that do not end it, streams, a real proof
//! of a shared key.
//!
//! ```
//! use meshx_rpc::transport::Memory;
//! use meshx_rpc::v1::{Client, ClientOptions, Server, ServerOptions};
//! use meshx_rpc::{Functions, Kind};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), meshx_rpc::Error> {
//! let functions = Functions::new().add("divide", async |(a, b): (i64, i64)| {
//!     a.checked_div(b).ok_or("division by zero")
//! });
//! // In place of memory: `Tcp::listen` and `Tcp::to`.
//! let (dial, listener) = Memory::pair();
//! let server = Server::new(functions, ServerOptions::default())?;
//! let stop = CancellationToken::new();
//! let serving = tokio::spawn({
//!     let stop = stop.clone();
//!     async move { server.run(listener, stop).await }
//! });
//!
//! let client = Client::new(dial, ClientOptions::default())?;
//! assert_eq!(client.call::<_, i64>("divide", &(42, 2)).await?, 21);
//! let error = client.call::<_, i64>("divide", &(42, 0)).await.unwrap_err();
//! assert_eq!((error.kind(), error.reason()), (Kind::Application, "division by zero"));
//!
//! stop.cancel();
//! serving.await.expect("the server ends");
//! # Ok(())
//! # }
//! ```
//!
//! What is as in Elixir, and what is not:
//!
//! * An unknown function is `{undef, [...]}`; a function that fails with text, or panics, is an Elixir
//!   exception (`%RuntimeError{}`, and `%ArgumentError{}` where the argument cannot be read); one that
//!   fails with any other term tells that term, as `exit` does.
//! * A client's [`Error`](crate::Error) has the term that came as its value.
//! * Requests wait in a queue instead of failing with `:full`, and are made again only if they were
//!   surely not executed, or are said to be idempotent.
//! * All waits, sizes and numbers have limits; what is too large is told as `:message_too_large`.
//! * The digest of the handshake and the checksums are no authentication: whoever has seen one
//!   handshake can forge another. Use mutual TLS underneath, for which the mesh is there.

mod client;
mod exchange;
mod io;
mod lane;
mod options;
mod server;
mod serving;
mod term;

pub use client::{Client, Request};
pub use options::{ClientOptions, Common, ServerOptions, SharedKey};
pub use server::Server;
pub(crate) use server::Service;
pub(crate) use term::unlisted;

/// Longer waits are none, and can be added to any time.
const FAR: std::time::Duration = std::time::Duration::from_hours(365 * 24);

pub mod wire {
    //! The protocol as values: bytes in, values and bytes out. For tests, tools and fuzzing.

    pub use crate::proto::v1::*;
}
