//! The functions of an RPC server, for Erlang and Elixir nodes that have nothing installed.
//!
//! A program that has [`Functions`](meshx_rpc::Functions) for `meshx_rpc` and is a
//! [`Node`](meshx_node::Node) makes an [`Offer`] of them: then any node of the cluster calls them by
//! `erpc` and `rpc`, as functions of a module, or by `GenServer`, as a server. `docs/node.md` of the
//! repository shows it from their side.

mod desk;
mod offer;
mod outcome;
mod places;

pub use desk::Desk;
pub use offer::Offer;
