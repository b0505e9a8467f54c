//! A Rust program that is an Erlang node.
//!
//! A [`Node`] meets stock Erlang and Elixir nodes as one of their own: its processes
//! ([`Mailbox`]) have pids and registered names, are linked with and monitor remote ones, and take
//! and send messages. How nodes reach each other is a [`carrier`]'s business: TCP with EPMD as
//! everywhere, or whatever carries bytes.
//!
//! What is promised is what the Erlang reference manual promises ("Processes", "Distributed
//! Erlang"): signals between two processes stay in order; each link and monitor ends exactly once,
//! with `noconnection` if the other node is lost.

mod behaviour;
mod builder;
mod call;
pub mod carrier;
mod connection;
mod envelope;
mod error;
pub mod global;
mod membership;
mod node;
pub mod pg;
mod process;
mod rpc;
mod services;
mod spawned;
mod to;

pub use behaviour::{Answer, EventManager, GenServer, Info, Next, Replies, ServeError};
pub use builder::{Builder, Visibility};
pub use call::{CallError, Caller};
pub use error::{ConnectError, NameError, SendError, StartError};
pub use meshx_dist::handshake::{Cookie, Flags};
pub use meshx_dist::link::{Limits, Ticktime};
pub use meshx_dist::{Payload, control::Target};
pub use meshx_etf as etf;
pub use node::{Node, NodeEvent, PeerInfo, TooManyProcesses};
pub use process::{Down, Mailbox, Message, Signal};
pub use rpc::{Arguments, Parameters, Raise, RpcCall, RpcError, RpcTable};
pub use to::To;
