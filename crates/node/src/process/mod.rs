//! Processes: their mailboxes, links, monitors and names.

mod cell;
mod mailbox;
mod reply;
mod signal;
mod table;

pub(crate) use cell::{
    Cell, Farewell, Fate, LinkProtocol, LinkStep, Reply, SpawnStep, Spawning, Via, Watcher,
};
pub use mailbox::Mailbox;
pub use signal::{Down, Message, Signal};
pub(crate) use table::Table;

use meshx_etf::Pid;

/// What stands for a process where the order of its messages is kept.
pub(crate) fn sender(pid: &Pid) -> u64 {
    u64::from(pid.serial) << 32 | u64::from(pid.id)
}
