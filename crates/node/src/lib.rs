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
//!
//! ```
//! use std::time::Duration;
//!
//! use meshx_node::carrier::{Memory, Switchboard};
//! use meshx_node::etf::{Pid, term};
//! use meshx_node::{Cookie, Node, Signal};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // Two nodes in one program. To meet stock ones, the carrier is
//! // `Tcp::loopback(Epmd::local()?)`, and the cookie that of ~/.erlang.cookie.
//! let board = Switchboard::new();
//! let node = |name| Node::builder(name).cookie(Cookie::new("secret")).carrier(Memory::new(&board));
//! let shop = node("shop@127.0.0.1").start().await?;
//! let till = node("till@127.0.0.1").start().await?;
//!
//! // A process with a name, that answers `{Pid, N}` with `{twice, 2 * N}`, once.
//! let mut server = shop.mailbox()?;
//! server.register("double")?;
//! tokio::spawn(async move {
//!     if let Some(Signal::Message(message)) = server.receive().await
//!         && let Ok((from, n)) = message.body.typed::<(Pid, i64)>()
//!     {
//!         server.send_term(&from, &term!({twice, (2 * n)})).await?;
//!     }
//!     Ok::<(), meshx_node::SendError>(())
//! });
//!
//! // `{double, 'shop@127.0.0.1'} ! {self(), 21}` connects to the node first.
//! let mut client = till.mailbox()?;
//! let watched = client.monitor(("double", "shop@127.0.0.1")).await;
//! client.send(("double", "shop@127.0.0.1"), &(client.pid(), 21)).await?;
//! let limit = Duration::from_secs(5);
//! let Some(Signal::Message(answer)) = client.receive_within(limit).await else { panic!() };
//! assert_eq!(answer.body.term()?, term!({twice, 42}));
//! // It has ended since, and who watches it is told.
//! let Some(Signal::Down(down)) = client.receive_within(limit).await else { panic!() };
//! assert_eq!((down.reference, down.reason), (watched, term!(normal)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * Processes: [`Node::mailbox`], [`Node::spawn`], and [`Node::offer`] for those that others start.
//! * Servers: [`GenServer`] and [`Node::serve`]; stock ones are called with [`Mailbox::call`],
//!   [`Node::call`], [`Node::multi_call`], and event managers with [`Node::event_manager`].
//! * Functions: [`Node::rpc`] calls those of other nodes, an [`RpcTable`] are those that others call.
//! * Groups: [`pg`]. Who is there: [`Node::nodes`], [`Node::monitor_nodes`]; who is to be: [`Node::keep`].
//!
//! A program whose messages are `#[derive(meshx_etf::Etf)]` depends on `meshx-etf`, too. What a
//! node without a VM cannot do is listed in `docs/node.md` of the repository.

mod behaviour;
mod builder;
mod call;
pub mod carrier;
mod connection;
mod envelope;
mod error;
pub mod global;
mod keep;
mod membership;
mod node;
pub mod pg;
mod process;
mod rpc;
mod services;
mod spawned;
mod to;

/// What is written there compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/node.md")]
struct Documents;

pub use behaviour::{Answer, EventManager, GenServer, Info, Next, Replies, ServeError};
pub use builder::{Builder, Visibility};
pub use call::{CallError, Caller};
pub use error::{ConnectError, NameError, SendError, StartError};
pub use keep::{Keeping, Kept};
pub use meshx_dist::handshake::{Cookie, Flags};
pub use meshx_dist::link::{Limits, Ticktime};
pub use meshx_dist::{Payload, control::Target};
pub use meshx_etf as etf;
pub use node::{Node, NodeEvent, PeerInfo, TooManyProcesses};
pub use process::{Down, Mailbox, Message, Signal};
pub use rpc::{Arguments, Parameters, Raise, RpcCall, RpcError, RpcTable};
pub use to::To;
