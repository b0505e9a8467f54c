//! What is agreed on, and what is allowed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::wire::{self, Hello};
use crate::context::Refs;
use crate::error::{Error, Executed, Kind};
use crate::event::{Observe, Observers};

/// What both ends must have alike, and who we are. The defaults are those of the Elixir package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Common {
    /// The largest block, 200 to 268 435 456 bytes; `blk_max_size` in Elixir. Default 16 384. Not
    /// negotiated: where it differs, the handshake is refused.
    pub block_size: u64,
    /// Whether every block has a CRC-32; `cks_mfa` in Elixir. Default off. Not negotiated and not
    /// said: where it differs, requests fail.
    pub checksums: bool,
    /// What both sides know; default empty. It keeps apart what should not talk with each other, and
    /// nothing more: the digest is a CRC-32, so who has seen one handshake can make another.
    pub shared_key: SharedKey,
    /// The references of our side: at most 255 bytes each. An empty `conn_ref` stands for four random
    /// bytes: one for each connection of a client's pool, one for a whole server.
    pub refs: Refs,
    /// The longest argument or result that is taken; default 64 MiB.
    pub message_max: usize,
}

/// The text that is mixed into the digests of handshakes. It is not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SharedKey(Zeroizing<Vec<u8>>);

/// How a [`Server`](super::Server) serves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// What both ends must have alike, and who we are.
    pub common: Common,
    /// Whether a handshake that fails is answered with nothing but the end of the connection.
    pub quiet: bool,
    /// How long a handshake may take; default 5 s.
    pub handshake: Duration,
    /// How long a request may take to come, from its first byte to its last; default 60 s. Between
    /// requests a client may be silent for as long as it likes.
    pub receive: Duration,
    /// How long a client may take nothing of an answer; default 30 s.
    pub send: Duration,
    /// How long a function may run; `timeout_execute` in Elixir. Default without limit.
    pub execute: Option<Duration>,
    /// How many connections at most; default 1024. Others wait to be accepted.
    pub connections: usize,
    /// How many casts may run at a time; default 1024. The next one is acknowledged when there is
    /// room for it.
    pub casts: usize,
    /// How long calls may go on when the server stops; default 10 s.
    pub drain: Duration,
    pub(crate) observers: Observers,
}

/// How a [`Client`](super::Client) calls.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// What both ends must have alike, and who we are.
    pub common: Common,
    /// How many requests may be under way at a time, each on a connection of its own; default 5.
    pub connections: usize,
    /// How many connections more stand ready, as each error costs one; default 1.
    pub spares: usize,
    /// How many requests may wait for a connection; default 1024. Others wait for a place.
    pub queue: usize,
    /// How long a request may take, unless it says otherwise; default 30 s.
    pub timeout: Duration,
    /// How often a request is made again that was surely not executed, or is idempotent; default 3.
    pub retries: u32,
    /// How long a connection may take to be made; default 5 s.
    pub connect: Duration,
    /// How long a handshake may take; default 5 s.
    pub handshake: Duration,
    /// How long after its handshake a connection is used; default 2 ms. The Elixir server loses a
    /// request that comes before it has set its socket to the longer frames.
    pub settle: Duration,
    /// After how long without a request a connection is made anew, give or take a tenth;
    /// `idle_reconnect` in Elixir. Default never.
    pub idle: Option<Duration>,
    /// The first and the longest pause between attempts to connect; default 50 ms and 5 s.
    pub reconnect: (Duration, Duration),
    /// Where the numbers of handshakes and requests come from. By default they count up from 1.
    pub numbers: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
    pub(super) observers: Observers,
}

impl SharedKey {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for SharedKey {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.as_bytes().to_vec()))
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(…)")
    }
}

impl Default for Common {
    fn default() -> Self {
        let refs = Refs {
            conn_ref: Vec::new(),
            // As a VM without a name says.
            node_ref: "nonode@nohost".to_owned(),
            svc_ref: "meshx".to_owned(),
        };
        Self {
            block_size: 16_384,
            checksums: false,
            shared_key: SharedKey::default(),
            refs,
            message_max: 64 << 20,
        }
    }
}

impl Common {
    /// A mistake in configuration is told before anything is connected.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::new(Kind::Value, Executed::Never, reason));
        let (sizes, size) = (wire::BLOCK_SIZES, self.block_size);
        if !sizes.contains(&size) {
            let (least, most) = sizes.into_inner();
            return wrong(format!("block_size is {size}; it can be {least} to {most}"));
        }
        match self.hello(0, self.refs.conn_ref.clone()).request(b"") {
            Ok(_) => Ok(()),
            Err(error) => wrong(error.to_string()),
        }
    }

    /// What we say in a handshake.
    pub(super) fn hello(&self, hsk_ref: u64, conn_ref: Vec<u8>) -> Hello {
        let Refs { node_ref, svc_ref, .. } = self.refs.clone();
        Hello { hsk_ref, conn_ref, block_size: self.block_size, svc_ref, node_ref }
    }

    /// The configured `conn_ref`, or four random bytes.
    pub(super) fn conn_ref(&self) -> Vec<u8> {
        if self.refs.conn_ref.is_empty() {
            return meshx_rt::random::u32().to_be_bytes().to_vec();
        }
        self.refs.conn_ref.clone()
    }

    pub(super) fn writer(&self, conn_ref: Vec<u8>) -> wire::Writer {
        let (block_size, checksums) = (self.block_size, self.checksums);
        wire::Writer { conn_ref: Bytes::from(conn_ref), block_size, checksums }
    }

    /// The longest frame: a message of the longest kind in one block, and what is around it.
    pub(super) fn frame_max(&self) -> usize {
        self.message_max.saturating_add(70_000)
    }
}

impl ServerOptions {
    /// Tells somebody else, too, what happens.
    #[must_use]
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.observers.add(Arc::new(observer));
        self
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            common: Common::default(),
            quiet: false,
            handshake: Duration::from_secs(5),
            receive: Duration::from_mins(1),
            send: Duration::from_secs(30),
            execute: None,
            connections: 1024,
            casts: 1024,
            drain: Duration::from_secs(10),
            observers: Observers::default(),
        }
    }
}

impl ClientOptions {
    /// Tells somebody else, too, what happens.
    #[must_use]
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.observers.add(Arc::new(observer));
        self
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            common: Common::default(),
            connections: 5,
            spares: 1,
            queue: 1024,
            timeout: Duration::from_secs(30),
            retries: 3,
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            settle: Duration::from_millis(2),
            idle: None,
            reconnect: (Duration::from_millis(50), Duration::from_secs(5)),
            numbers: None,
            observers: Observers::default(),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("common", &self.common)
            .field("connections", &self.connections)
            .field("spares", &self.spares)
            .field("queue", &self.queue)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}
