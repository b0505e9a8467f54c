//! What the fuzz targets check, apart from the fuzzer: the same functions run on the seeds in
//! `seeds/` on stable, as ordinary tests of the crates.

pub mod dist;
pub mod etf;
pub mod link;
pub mod rpc_v1;
pub mod rpc_v2;
