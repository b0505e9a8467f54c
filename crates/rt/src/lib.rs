//! The one seam to the operating system.
//!
//! TCP connections are opened here and nowhere else, so that each of them has Nagle's
//! algorithm off, keepalive on and a time limit; bytes are relayed here, so that half-close is
//! right everywhere; waiting between tries is [`Backoff`], so that no loop spins and no herd forms; what strangers can
//! bring about is told to operators by [`Seldom`], so that they fill no log.

mod backoff;
pub mod net;
pub mod random;
mod relay;
mod seldom;
mod turn;

pub use backoff::Backoff;
pub use relay::{Ended, Side, Tap, relay};
pub use seldom::Seldom;
pub use turn::{after_others, wake_together};
