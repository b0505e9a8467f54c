//! RPC by an explicit allow-list.
//!
//! * [`Functions`]: what a server offers, and nothing else. Erlang and Elixir nodes call the same by
//!   `erpc` and `GenServer` with `meshx-rpc-node`.
//! * [`Body`] and [`Codec`]: arguments and results as bytes.
//! * [`Error`]: why a call failed, and whether the function ran.
//! * [`Intercept`]: what is done around calls, at either side.
//! * [`Policy`]: who may call which of them.
//! * [`listing`]: what a server tells of what it offers, where that is allowed.
//! * [`transport`]: TCP, Unix sockets, memory; or any [`Dial`](transport::Dial) and
//!   [`Listen`](transport::Listen).
//! * [`event`]: one stream of what happens, from which logs, metrics and traces are made.

mod client;
mod codec;
mod connection;
mod context;
mod error;
pub mod event;
mod exchange;
mod functions;
mod intercept;
pub mod listing;
mod local;
mod patience;
mod policy;
mod proto;
mod server;
#[doc(hidden)]
pub mod service;
#[cfg(feature = "tower")]
pub mod tower;
mod trace;
pub mod transport;
pub mod v1;

pub use client::{Call, Client, ClientBuilder, Hedge, Retries};
pub use codec::{Body, Codec, CodecError};
pub use connection::Limits;
pub use context::{Context, Metadata, Peer, Protocol, Refs};
pub use error::{Error, Executed, Kind};
pub use exchange::{Incoming, Outgoing};
pub use functions::{Failure, Function, Functions, NAME_MAX};
pub use intercept::{Intercept, Next, Request};
pub use policy::{Permits, Policy, PolicyError, Rule};
pub use proto::v2::{Algorithm, Key};
pub use server::{Server, Serving};
pub use service::{CallError, service};
pub use trace::{TraceParent, TraceParentError};

#[doc(hidden)]
pub use proto::v2::look_at as look_at_frames;
