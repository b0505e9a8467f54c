//! How busy a connection is, for who chooses among several.

use std::sync::atomic::Ordering;

use super::{Connection, lock};

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
