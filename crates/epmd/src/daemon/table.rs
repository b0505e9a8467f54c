//! Who is registered.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use meshx_dist::epmd::{Alive, AliveReply, DumpEntry, DumpReply, NamesReply};
use rustix::net::RecvFlags;
use tokio::net::TcpStream;

use super::OLD_NAMES_MAX;
use super::seats::SeatId;

/// The least creation of 32 bits; smaller ones belong to the old form.
const CREATION_MIN: u32 = 4;

/// The names, and those of before.
#[derive(Debug)]
pub(super) struct Table {
    nodes: HashMap<String, Node>,
    /// Oldest first.
    old: VecDeque<Old>,
    /// The creation given last.
    creation: u32,
    /// Counts registrations, for the order of the replies.
    order: u64,
}

#[derive(Debug)]
struct Node {
    alive: Alive,
    /// 1 to 3, for nodes that know no more.
    short: u16,
    order: u64,
    seat: SeatId,
    stream: Arc<TcpStream>,
}

#[derive(Debug)]
struct Old {
    name: String,
    port: u16,
    fd: i32,
    short: u16,
}

impl Table {
    /// An empty table whose creations begin where no table before it came to: at the clock's
    /// milliseconds, of which a daemon never uses up one for each registration.
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let creation = u32::try_from(since.as_millis() & u128::from(u32::MAX)).unwrap_or_default();
        Self { nodes: HashMap::new(), old: VecDeque::new(), creation, order: 0 }
    }

    /// Gives the name to a connection, unless a live one has it.
    pub(super) fn register(
        &mut self,
        alive: Alive,
        seat: SeatId,
        stream: Arc<TcpStream>,
    ) -> AliveReply {
        if let Some(holder) = self.nodes.get(&alive.name) {
            if is_open(&holder.stream) {
                return AliveReply::refused(&alive);
            }
            // Its end is here already; its task has yet to come to it.
            self.remove(&alive.name);
        }
        self.creation = next_creation(self.creation);
        let before = self.old.iter().position(|old| old.name == alive.name);
        let short = match before.and_then(|at| self.old.remove(at)) {
            Some(old) => old.short % 3 + 1,
            None => u16::try_from(self.creation % 3).unwrap_or_default() + 1,
        };
        let reply = if alive.wants_long_creation() {
            AliveReply::Extended { result: 0, creation: self.creation }
        } else {
            AliveReply::Short { result: 0, creation: short }
        };
        self.order += 1;
        let name = alive.name.clone();
        self.nodes.insert(name, Node { alive, short, order: self.order, seat, stream });
        reply
    }

    /// The registration of a name.
    pub(super) fn find(&self, name: &str) -> Option<&Alive> {
        self.nodes.get(name).map(|node| &node.alive)
    }

    /// Whether nobody is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The connection is gone, and with it the name, if it is still its own.
    pub(super) fn release(&mut self, name: &str, seat: SeatId) -> bool {
        let is_holder = self.nodes.get(name).is_some_and(|node| node.seat == seat);
        if is_holder {
            self.remove(name);
        }
        is_holder
    }

    /// Takes a name from its holder, which is returned.
    pub(super) fn remove(&mut self, name: &str) -> Option<SeatId> {
        let Node { alive, short, seat, stream, .. } = self.nodes.remove(name)?;
        let fd = stream.as_raw_fd();
        if self.old.len() == OLD_NAMES_MAX {
            self.old.pop_front();
        }
        self.old.push_back(Old { name: alive.name, port: alive.port, fd, short });
        Some(seat)
    }

    /// What NAMES answers; the latest name first, as OTP's daemon does.
    pub(super) fn names(&self, port: u16) -> NamesReply {
        let nodes = self.latest().map(|node| (node.alive.name.clone(), node.alive.port)).collect();
        NamesReply { port: port.into(), nodes, ignored: 0 }
    }

    /// What DUMP answers; live names latest first, old ones oldest first.
    pub(super) fn dump(&self, port: u16) -> DumpReply {
        let entry = |name: &str, port, fd| DumpEntry { name: name.to_owned(), port, fd };
        let active = self
            .latest()
            .map(|node| entry(&node.alive.name, node.alive.port, node.stream.as_raw_fd()))
            .collect();
        let old = self.old.iter().map(|old| entry(&old.name, old.port, old.fd)).collect();
        DumpReply { port: port.into(), active, old }
    }

    fn latest(&self) -> impl Iterator<Item = &Node> {
        let mut nodes: Vec<&Node> = self.nodes.values().collect();
        nodes.sort_unstable_by_key(|node| std::cmp::Reverse(node.order));
        nodes.into_iter()
    }
}

/// The creation after `last`: never one of the old form.
fn next_creation(last: u32) -> u32 {
    last.wrapping_add(1).max(CREATION_MIN)
}

/// Whether a lease still stands: its peer has not closed, and has not sent what ends a lease. Asks
/// the kernel, because the task of the lease may not have been told yet.
fn is_open(stream: &TcpStream) -> bool {
    let seen = rustix::net::recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(seen, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
}

#[cfg(test)]
mod tests {
    use meshx_dist::epmd::VERSION_5;

    use super::*;
    use crate::daemon::seats::Seats;

    /// Both ends of a connection.
    async fn connection() -> (Arc<TcpStream>, TcpStream) {
        let listener = meshx_rt::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let limit = std::time::Duration::from_secs(2);
        let ours = meshx_rt::net::dial(address, limit).await.unwrap();
        (Arc::new(listener.accept().await.unwrap().0), ours)
    }

    fn creation(reply: AliveReply) -> u32 {
        reply.creation().unwrap()
    }

    #[tokio::test]
    async fn every_registration_has_another_creation() {
        let mut seats = Seats::new(10);
        let mut table = Table::new();
        let (stream, _peer) = connection().await;
        let mut seen = std::collections::HashSet::new();
        for name in ["a", "b", "a", "a", "b"] {
            let seat = seats.enter(None).unwrap();
            let reply = table.register(Alive::new(name, 1), seat, Arc::clone(&stream));
            assert!(seen.insert(creation(reply)) && creation(reply) >= 4);
            assert!(table.release(name, seat));
        }
        assert_eq!(next_creation(u32::MAX), 4);
        assert_eq!(next_creation(0), 4);
        assert_eq!(next_creation(7), 8);
    }

    #[tokio::test]
    async fn old_nodes_cycle_through_one_to_three() {
        let mut table = Table::new();
        let mut alive = Alive::new("old", 1);
        alive.highest = VERSION_5;
        let (stream, _peer) = connection().await;
        let mut last = None;
        for _ in 0..7 {
            let seat = Seats::new(1).enter(None).unwrap();
            let given = creation(table.register(alive.clone(), seat, Arc::clone(&stream)));
            assert!((1..=3).contains(&given));
            if let Some(last) = last {
                assert_eq!(given, last % 3 + 1);
            }
            last = Some(given);
            table.remove("old");
        }
    }

    #[tokio::test]
    async fn a_dead_holder_loses_its_name_before_its_task_runs() {
        let mut seats = Seats::new(10);
        let (first, second) = (seats.enter(None).unwrap(), seats.enter(None).unwrap());
        let mut table = Table::new();
        let (stream, peer) = connection().await;
        let alive = Alive::new("a", 1);
        assert!(table.register(alive.clone(), first, Arc::clone(&stream)).creation().is_ok());
        assert!(table.register(alive.clone(), second, Arc::clone(&stream)).creation().is_err());
        drop(peer);
        let (again, _peer) = connection().await;
        assert!(table.register(alive, second, again).creation().is_ok());
        assert!(!table.release("a", first), "the late end of the first is not the second's");
        assert!(table.find("a").is_some());
    }

    #[tokio::test]
    async fn old_names_are_bounded_and_oldest_first() {
        let mut table = Table::new();
        let (stream, _peer) = connection().await;
        let seat = Seats::new(1).enter(None).unwrap();
        for number in 0..=OLD_NAMES_MAX {
            let alive = Alive::new(format!("n{number}"), 1);
            table.register(alive.clone(), seat, Arc::clone(&stream));
            table.remove(&alive.name);
        }
        let dump = table.dump(1);
        assert_eq!((dump.active.len(), dump.old.len()), (0, OLD_NAMES_MAX));
        assert_eq!(dump.old[0].name, "n1");
        table.register(Alive::new("n5", 1), seat, stream);
        assert!(table.dump(1).old.iter().all(|old| old.name != "n5"));
    }
}
