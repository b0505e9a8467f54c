//! Wire protocols as values, without I/O.

pub(crate) mod v1;
pub(crate) mod v2;
