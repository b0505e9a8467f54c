//! The scenarios, by what they are about. Each takes a subject with an empty registry.

pub mod blocking;
pub mod catalog;
pub mod checks;
pub mod connect;
pub mod dns;
pub mod errors;
pub mod intentions;
pub mod services;
