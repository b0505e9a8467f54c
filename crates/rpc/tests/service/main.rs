//! Traits that are services, from both sides (`#[meshx_rpc::service]`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod allowed;
mod calls;
mod exchanges;
mod hygiene;
mod manners;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshx_rpc::transport::Memory;
use meshx_rpc::{Client, Functions, Server, Serving};
use serde::{Deserialize, Serialize};

/// What goes to and fro.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) lines: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OrderError {
    Unknown { id: u64 },
    Closed,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { id } => write!(f, "there is no order {id}"),
            Self::Closed => f.write_str("the shop is closed"),
        }
    }
}

/// How often something happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A client and a server within this process.
pub(crate) fn pair(functions: Functions) -> (Client, Serving) {
    let (dial, listen) = Memory::pair();
    let server = Server::new(functions).listen(listen).start();
    (Client::to(dial).start(), server)
}
