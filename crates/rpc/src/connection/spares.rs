//! The memory of large messages, used again: fresh memory of the system costs more than what is written
//! into it.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::lock;

/// So much is kept for the messages to come, of one connection.
const MOST: usize = 8 << 20;
/// What is shorter is not worth it.
const WORTH: usize = 64 * 1024;

/// Memory that no message needs any more, of one connection: no other peer's bytes get there.
#[derive(Debug, Clone, Default)]
pub(super) struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

/// Memory of a message, which goes back when nobody has the message any more.
struct Lent {
    bytes: Vec<u8>,
    home: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Spares {
    /// Memory for a message of that length, if there is some; empty, and perhaps without any, else.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut all = lock(&self.0);
        let fits = |it: &Vec<u8>| it.capacity() >= len && it.capacity() / 4 <= len;
        let mut bytes = all.iter().position(fits).map(|at| all.swap_remove(at)).unwrap_or_default();
        bytes.clear();
        bytes
    }

    /// The message that is in there.
    pub(super) fn message(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() < WORTH {
            return bytes.into();
        }
        Bytes::from_owner(Lent { bytes, home: Arc::downgrade(&self.0) })
    }

    /// Gives all of it back to the system.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        drop(all);
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut all = lock(&home);
        let kept = all.iter().map(Vec::capacity).fold(self.bytes.capacity(), usize::saturating_add);
        if kept <= MOST {
            all.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_as_long_as_it_is_not_too_much() {
        let spares = Spares::default();
        let lend = |len: usize| {
            let mut bytes = spares.take(len);
            bytes.resize(len, 7);
            let at = bytes.as_ptr();
            (at, spares.message(bytes))
        };
        let (first, message) = lend(1 << 20);
        let copy = message.clone();
        drop(message);
        assert_ne!(lend(1 << 20).0, first, "somebody has it");
        drop(copy);
        spares.clear();
        let (second, message) = lend(1 << 20);
        drop(message);
        // A little longer does not fit, and for a short one it is a waste.
        let others = [lend((1 << 20) + 1), lend(100_000)];
        let (third, again) = lend((1 << 20) - 1);
        assert_eq!(second, third);
        assert_eq!(again.len(), (1 << 20) - 1);
        drop((others, again));
        let many: Vec<_> = (0..20).map(|_| lend(1 << 20).1).collect();
        drop(many);
        let kept: usize = lock(&spares.0).iter().map(Vec::capacity).sum();
        assert!((1 << 20..=MOST).contains(&kept), "{kept}");
        let late = lend(1 << 20).1;
        drop(spares);
        assert!(late.iter().all(|byte| *byte == 7));
    }
}
