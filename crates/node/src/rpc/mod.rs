//! Remote procedure calls, as `erpc` and `rpc` make and serve them.

mod arguments;
mod client;
mod erpc;
mod error;
mod execute;
mod rex;
mod table;
#[cfg(test)]
mod tests;

pub use arguments::{Arguments, Parameters};
pub(crate) use erpc::offer;
pub use error::RpcError;
pub(crate) use execute::Rpc;
pub(crate) use rex::serve as rex;
pub use table::{Raise, RpcCall, RpcTable};
