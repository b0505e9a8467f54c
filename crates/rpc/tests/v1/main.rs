//! Version 1 between our client, our server, recorded bytes of the Elixir package, and peers that mean
//! no good.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod captures;
mod casts;
mod hostile;
mod peer;
mod replay;
mod retries;
mod together;
