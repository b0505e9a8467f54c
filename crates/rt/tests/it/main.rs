//! What the seam to the operating system promises, asked from outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fickle;
mod net;
mod relay;
