//! The target of `meshx-rpc` for version 2. `crates/rpc/tests/seeds.rs` includes this file.

/// The bytes of a peer, after the handshake, without checksums.
pub fn rpc_v2(data: &[u8]) {
    meshx_rpc::look_at_frames(data);
}
