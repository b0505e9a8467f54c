//! A service as a trait: its server and its client, here in one process, over TCP.
//!
//! ```console
//! $ cargo run -p meshx-rpc --example orders
//! ```
//!
//! It prints what the server offers and what the calls gave, and ends.
#![allow(clippy::print_stdout, reason = "an example")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use meshx_rpc::transport::Tcp;
use meshx_rpc::{CallError, Client, Server};
use serde::{Deserialize, Serialize};

/// What both sides know: usually a crate of its own.
#[meshx_rpc::service(name = "orders")]
pub trait Orders {
    /// Whether the shop is open.
    async fn ping(&self) -> Result<String, String>;

    /// One order, with or without what was ordered.
    #[rpc(idempotent, timeout = "250ms")]
    async fn get(&self, id: u64, with_lines: bool) -> Result<Order, OrderError>;

    /// Takes an order, and gives its number.
    async fn put(&self, lines: Vec<String>) -> Result<u64, OrderError> {
        let id = self.add(lines).ok_or(OrderError::Full)?;
        Ok(id)
    }

    /// Writes down what happened; nobody waits for it.
    #[rpc(cast)]
    async fn audit(&self, event: String);

    /// Only for the server itself.
    #[rpc(skip)]
    fn add(&self, _lines: Vec<String>) -> Option<u64> {
        None
    }
}

/// An order, as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    id: u64,
    lines: Vec<String>,
}

/// Why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OrderError {
    /// No such number.
    Unknown {
        /// This one.
        id: u64,
    },
    /// No more are taken.
    Full,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { id } => write!(f, "there is no order {id}"),
            Self::Full => f.write_str("no more orders are taken"),
        }
    }
}

/// The server's side.
#[derive(Debug, Default)]
struct Shop(Mutex<BTreeMap<u64, Order>>);

/// So many orders are kept.
const MOST: usize = 1000;

impl Orders for Shop {
    async fn ping(&self) -> Result<String, String> {
        Ok("open".to_owned())
    }

    async fn get(&self, id: u64, with_lines: bool) -> Result<Order, OrderError> {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let order = orders.get(&id).ok_or(OrderError::Unknown { id })?;
        let lines = if with_lines { order.lines.clone() } else { Vec::new() };
        Ok(Order { id, lines })
    }

    async fn audit(&self, event: String) {
        println!("audit: {event}");
    }

    fn add(&self, lines: Vec<String>) -> Option<u64> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.len() == MOST {
            return None;
        }
        let id = orders.last_key_value().map_or(1, |(id, _)| id + 1);
        orders.insert(id, Order { id, lines });
        Some(id)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let functions = OrdersFunctions::of(Arc::new(Shop::default()));
    for name in OrdersFunctions::names() {
        let about = functions.get(name).map(|function| function.about().to_owned());
        println!("{name}: {}", about.unwrap_or_default());
    }
    let listener = Tcp::listen("127.0.0.1:0".parse()?)?;
    let address = listener.local_addr();
    let server = Server::new(functions).listen(listener).start();

    let orders = OrdersClient::new(Client::to(Tcp::to(address.to_string())).start());
    println!("ping: {}", orders.ping().await?);
    let id = orders.put(vec!["tea".to_owned(), "milk".to_owned()]).await?;
    println!("put: {id}");
    println!("get: {:?}", orders.get(id, true).await?);
    orders.audit(format!("order {id} was read")).await?;
    match orders.get(9, true).await {
        Err(CallError::Application(OrderError::Unknown { id })) => println!("get: no order {id}"),
        other => println!("get: {other:?}"),
    }
    server.stop().await;
    if let Err(CallError::Rpc(error)) = orders.ping().await {
        println!("ping: {error}");
    }
    Ok(())
}
