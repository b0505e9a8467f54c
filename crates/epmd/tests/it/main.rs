//! Client and daemon against OTP's own daemon.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod compare;
mod otp;
