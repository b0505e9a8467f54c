//! Remote procedure calls, as `erpc` and `rpc` make and serve them.

mod arguments;
mod client;
mod error;

pub use arguments::Arguments;
pub use error::RpcError;
