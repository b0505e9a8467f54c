//! How busy a connection is, for who chooses among several.

use std::sync::atomic::Ordering;

use super::{Connection, lock};
use crate::{Error, Executed, Kind};

/// So much waits to be written before who expects no answer waits, too.
const AHEAD: u64 = 256 * 1024;

impl Connection {
    /// Whether so many calls are all that the peer takes at a time (§7.1).
    pub(crate) fn is_full(&self, calls: usize) -> bool {
        calls >= usize::try_from(self.max_streams).unwrap_or(usize::MAX)
    }

    /// How many calls the peer takes at a time.
    pub(crate) fn most_calls(&self) -> u32 {
        self.max_streams
    }

    /// Whether the peer takes a message of that length, and new calls at all.
    pub(crate) fn check(&self, size: usize) -> Result<(), Error> {
        let limit = self.max_message;
        if u64::try_from(size).unwrap_or(u64::MAX) > limit {
            let reason = format!("an argument of {size} bytes; {limit} are taken");
            return Err(Error::new(Kind::Value, Executed::Never, reason).at(&self.peer.address));
        }
        if !self.is_open() {
            let reason = "the peer takes no new calls";
            return Err(Error::new(Kind::Draining, Executed::Never, reason).at(&self.peer.address));
        }
        Ok(())
    }

    /// Waits until not too much is to be written, or the connection is closed.
    pub(crate) async fn drained(&self) {
        loop {
            let room = self.room.notified();
            let appended = lock(&self.out).outbox.appended();
            let waits = appended.saturating_sub(self.written.load(Ordering::Acquire));
            if waits <= AHEAD {
                return;
            }
            tokio::select! {
                () = room => {}
                () = self.closed() => return,
            }
        }
    }
}
