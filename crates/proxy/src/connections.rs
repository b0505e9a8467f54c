//! The connections that live, and the judgement over them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use meshx_core::{IntentionSet, ServiceName, Verdict};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{Event, Journal, MAX_CONNECTIONS, Outcome};

/// Which way a connection was made, seen from the program beside the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Direction {
    /// A peer dialled the program.
    Inbound,
    /// The program dialled a peer.
    Outbound,
}

/// What is known of a live connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConnectionFacts {
    /// Number of the connection at this sidecar.
    pub id: u64,
    /// Seen from the program beside the sidecar.
    pub direction: Direction,
    /// Who dialled.
    pub source: ServiceName,
    /// Who was dialled.
    pub destination: ServiceName,
    /// The identity that the other sidecar proved.
    pub peer: String,
    /// The serial number of the other sidecar's certificate.
    pub peer_serial: String,
    /// The other sidecar's address.
    pub remote: String,
    /// The TLS version.
    pub tls: String,
    /// The cipher suite.
    pub cipher: String,
    /// How long it lives, in milliseconds.
    pub age_milliseconds: u64,
    /// Bytes from the dialling side.
    pub sent: u64,
    /// Bytes towards the dialling side.
    pub received: u64,
}

/// All live connections of a sidecar. Cheap to clone; clones share the table.
#[derive(Clone, Debug)]
pub struct Connections {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Entry>>,
    journal: Journal,
    /// Cancelled when the sidecar is at its end: cuts what lives, and what comes to live after.
    all: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    facts: ConnectionFacts,
    /// Where the program sees it come from.
    from: Option<SocketAddr>,
    since: Instant,
    progress: Arc<Progress>,
    cut: CancellationToken,
}

/// How far a connection has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Both ends stand and bytes flow.
    opened: AtomicBool,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// Who is connected to whom, and how that was proved.
pub(crate) struct NewConnection {
    pub(crate) direction: Direction,
    pub(crate) source: ServiceName,
    pub(crate) destination: ServiceName,
    pub(crate) peer: meshx_identity::Peer,
    pub(crate) remote: String,
}

impl Connections {
    pub(crate) fn new(journal: Journal) -> Self {
        let (live, all) = (Mutex::new(HashMap::new()), CancellationToken::new());
        Self { inner: Arc::new(Inner { next: AtomicU64::new(1), live, journal, all }) }
    }

    /// Enters a connection into the table; it leaves when the guard drops. `None`: the table is
    /// full.
    ///
    /// Enter first and judge after, never the other way round: a change of the intentions that
    /// comes between would be missed.
    pub(crate) fn enter(&self, new: NewConnection) -> Option<Connection> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let facts = ConnectionFacts {
            id,
            direction: new.direction,
            source: new.source,
            destination: new.destination,
            peer: new.peer.id.to_string(),
            peer_serial: new.peer.serial,
            remote: new.remote,
            tls: new.peer.tls_version,
            cipher: new.peer.cipher_suite,
            age_milliseconds: 0,
            sent: 0,
            received: 0,
        };
        let (progress, cut) = (Arc::new(Progress::default()), self.inner.all.child_token());
        let entry = Entry {
            facts,
            from: None,
            since: Instant::now(),
            progress: Arc::clone(&progress),
            cut: cut.clone(),
        };
        let mut live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.len() >= MAX_CONNECTIONS {
            return None;
        }
        live.insert(id, entry);
        Some(Connection { id, table: self.clone(), progress, cut })
    }

    /// Judges every live connection and cuts those that are denied now. Returns how many.
    pub fn judge(&self, policy: &IntentionSet) -> usize {
        let denied: Vec<(ConnectionFacts, Verdict, CancellationToken)> = {
            let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.values()
                .filter(|entry| !entry.cut.is_cancelled())
                .filter_map(|entry| {
                    let verdict = policy.judge(&entry.facts.source, &entry.facts.destination);
                    (!verdict.is_allowed())
                        .then(|| (entry.facts.clone(), verdict, entry.cut.clone()))
                })
                .collect()
        };
        // First the reason, then the end: who sees the end may ask for the reason.
        for (facts, verdict, cut) in &denied {
            self.note(facts.clone(), Outcome::Cut { rule: verdict.to_string() });
            cut.cancel();
        }
        denied.len()
    }

    fn note(&self, facts: ConnectionFacts, outcome: Outcome) {
        let (source, destination) = (facts.source.into(), facts.destination.into());
        let event =
            Event::now(facts.direction, Some(source), destination, Some(facts.remote), outcome);
        self.inner.journal.add(event);
    }

    /// Cuts every connection, those in the middle of a handshake included: the end of a drain.
    /// Returns how many lived.
    pub(crate) fn cut_all(&self) -> usize {
        let lived = self.len();
        self.inner.all.cancel();
        lived
    }

    /// Runs a connection from its first byte to its last, or until [`Self::cut_all`].
    pub(crate) async fn run<T>(&self, connection: impl Future<Output = T>) -> Option<T> {
        self.inner.all.run_until_cancelled(connection).await
    }

    /// The live connections: those that have passed every check.
    pub fn list(&self) -> Vec<ConnectionFacts> {
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> =
            live.values().filter(|entry| entry.is_open()).map(Entry::facts).collect();
        list.sort_unstable_by_key(|facts| facts.id);
        list
    }

    /// The identity that was proved by who is behind the connection that the program beside the
    /// sidecar accepted from `from`; `None`: the sidecar made no such connection.
    pub fn caller(&self, from: SocketAddr) -> Option<String> {
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = live.values().find(|entry| entry.from == Some(from))?;
        Some(entry.facts.peer.clone())
    }

    /// How many live.
    pub fn len(&self) -> usize {
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.values().filter(|entry| entry.is_open()).count()
    }

    /// How many live that were made this way.
    pub fn count(&self, direction: Direction) -> usize {
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.values().filter(|e| e.is_open() && e.facts.direction == direction).count()
    }

    /// True when none lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        self.progress.opened.load(Ordering::Relaxed)
    }

    fn facts(&self) -> ConnectionFacts {
        ConnectionFacts {
            age_milliseconds: milliseconds(self.since),
            sent: self.progress.sent.load(Ordering::Relaxed),
            received: self.progress.received.load(Ordering::Relaxed),
            ..self.facts.clone()
        }
    }
}

/// A live connection's place in the table.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    table: Connections,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cut: CancellationToken,
}

impl Connection {
    /// The program will see it come from there.
    pub(crate) fn comes_from(&self, address: SocketAddr) {
        let mut live = self.table.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = live.get_mut(&self.id) {
            entry.from = Some(address);
        }
    }

    /// Every check is passed and both ends stand.
    pub(crate) fn opened(&self) {
        self.progress.opened.store(true, Ordering::Relaxed);
        let facts = {
            let live = self.table.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.get(&self.id).map(Entry::facts)
        };
        if let Some(facts) = facts {
            self.table.note(facts, Outcome::Opened);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let entry = {
            let mut live = self.table.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.remove(&self.id)
        };
        if let Some(entry) = entry.filter(Entry::is_open) {
            let facts = entry.facts();
            let closed = Outcome::Closed {
                sent: facts.sent,
                received: facts.received,
                milliseconds: facts.age_milliseconds,
            };
            self.table.note(facts, closed);
        }
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
