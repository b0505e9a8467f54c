//! MeshxRpc, version 1: as the Elixir package `meshx_rpc` 0.1.1 speaks it.

pub mod wire {
    //! The protocol as values: bytes in, values and bytes out. For tests, tools and fuzzing.

    pub use crate::proto::v1::*;
}
