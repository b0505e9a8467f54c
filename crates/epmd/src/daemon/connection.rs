//! One connection: its request, its answer, its lease.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use meshx_dist::epmd::{Alive, Error, KillReply, PortReply, Request, StopReply};
use meshx_dist::name;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use super::seats::SeatId;

/// Serves a connection in a task of its own. True if another one was closed for it.
pub(super) fn open(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) -> bool {
    let Ok(local) = stream.local_addr() else { return false };
    let is_local = is_local(peer.ip(), local.ip());
    let stranger = (!is_local).then(|| peer.ip().to_canonical());
    let Some(id) = shared.lock().seats.enter(stranger) else {
        tracing::debug!(%peer, "closed: this address has too many connections");
        return false;
    };
    let seat = Seat { shared: Arc::clone(shared), id, stranger, name: None };
    let connection = Connection { seat, stream: Arc::new(stream), is_local, port: local.port() };
    // Not while the lock is held: a runtime that ends drops what is spawned, which needs the lock.
    let task = tokio::spawn(connection.serve()).abort_handle();
    let surplus = {
        let mut state = shared.lock();
        state.seats.served_by(id, task);
        let surplus = state.seats.surplus();
        if surplus.is_some() {
            state.warn("too many connections: the oldest that hold no name are closed");
        }
        surplus
    };
    surplus.map(|oldest| oldest.abort()).is_some()
}

/// Closes the oldest connection that is no lease.
pub(super) fn shed(shared: &Shared) {
    let oldest = shared.lock().seats.oldest();
    if let Some(oldest) = oldest {
        oldest.abort();
    }
}

/// Whether a peer is on this machine: it is a loopback address, or the very one that was dialled.
fn is_local(peer: IpAddr, local: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || peer == local.to_canonical()
}

struct Connection {
    seat: Seat,
    stream: Arc<TcpStream>,
    is_local: bool,
    /// The port that the client dialled.
    port: u16,
}

/// A place among the connections, and the name that its lease holds. Dropped with the connection,
/// however that ends.
#[derive(Debug)]
struct Seat {
    shared: Arc<Shared>,
    id: SeatId,
    stranger: Option<IpAddr>,
    name: Option<String>,
}

/// What follows the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Close,
    Lease,
    /// The daemon ends.
    Kill,
}

impl Connection {
    async fn serve(mut self) {
        let limit = self.seat.shared.config.packet_timeout;
        match timeout(limit, self.answer()).await {
            Ok(Ok(After::Lease)) => self.held().await,
            Ok(Ok(After::Kill)) => {
                tracing::info!("killed by a client");
                self.seat.shared.killed.send_replace(true);
            }
            Ok(Ok(After::Close)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
            Err(_) => tracing::debug!("closed: no whole request within {limit:?}"),
        }
    }

    async fn answer(&mut self) -> io::Result<After> {
        let mut reply = BytesMut::new();
        let Some(request) = self.request().await? else { return Ok(After::Close) };
        let after = self.decide(request, &mut reply);
        if !reply.is_empty() {
            tokio::time::sleep(self.seat.shared.config.delay_write).await;
            self.write(&reply).await?;
        }
        Ok(after)
    }

    /// The request; `None` if there is none to answer.
    async fn request(&self) -> io::Result<Option<Request>> {
        let mut buffer = BytesMut::new();
        loop {
            match Request::decode(&buffer) {
                Ok(Some((request, used))) if used == buffer.len() => return Ok(Some(request)),
                Ok(None) => {}
                Ok(Some(_)) => {
                    tracing::debug!("closed: more than a request");
                    return Ok(None);
                }
                Err(error) => {
                    tracing::debug!(%error, "closed");
                    return Ok(stranger_name(&error, &buffer));
                }
            }
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Does what is asked, and puts the answer into `reply`; nothing is put where OTP's daemon
    /// closes without a word.
    fn decide(&mut self, request: Request, reply: &mut BytesMut) -> After {
        let shared = Arc::clone(&self.seat.shared);
        let relaxed = shared.config.relaxed_command_check;
        let mut state = shared.lock();
        match request {
            Request::PortPlease { name } => {
                let answer = match state.table.find(&name) {
                    Some(alive) => PortReply::Found(alive.clone()),
                    None => PortReply::NotFound { result: 1 },
                };
                encoded(answer.encode(reply));
            }
            Request::Names => encoded(state.table.names(self.port).encode(reply)),
            other if !self.is_local => {
                tracing::debug!(request = ?kind(&other), "refused to another machine");
            }
            Request::Alive(alive) => {
                drop(state);
                return self.register(alive, reply);
            }
            Request::Dump => encoded(state.table.dump(self.port).encode(reply)),
            Request::Kill if relaxed || state.table.is_empty() => {
                KillReply::Ok.encode(reply);
                return After::Kill;
            }
            Request::Kill => KillReply::No.encode(reply),
            Request::Stop { name } if relaxed => {
                let holder = state.table.remove(&name);
                let task = holder.and_then(|seat| state.seats.task_of(seat));
                if let Some(task) = task {
                    task.abort();
                }
                let found = holder.is_some();
                if found { StopReply::Stopped } else { StopReply::NoExist }.encode(reply);
            }
            other => tracing::debug!(request = ?kind(&other), "not allowed"),
        }
        After::Close
    }

    fn register(&mut self, alive: Alive, reply: &mut BytesMut) -> After {
        let (name, port) = (alive.name.clone(), alive.port);
        let answer = {
            let state = &mut *self.seat.shared.lock();
            if !state.seats.has_lease() {
                state.warn(&format!("{name} was not registered: too few descriptors (ulimit -n)"));
                return After::Close;
            }
            let answer = state.table.register(alive, self.seat.id, Arc::clone(&self.stream));
            if answer.creation().is_ok() {
                state.seats.lease(self.seat.id);
            }
            answer
        };
        answer.encode(reply);
        let Ok(creation) = answer.creation() else {
            tracing::info!(name, "refused: the name is taken");
            return After::Close;
        };
        tracing::info!(name, port, creation, "registered");
        // A peer that vanishes without a word must not hold the name for ever.
        if let Err(error) = meshx_rt::net::tune(&self.stream) {
            tracing::debug!(%error, "no keepalive on a lease");
        }
        self.seat.name = Some(name);
        After::Lease
    }

    /// Waits for the end of the lease: the peer closes, or says something, which ends it, too.
    async fn held(&self) {
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match self.stream.try_read(&mut [0; 1]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.seats.leave(self.id, self.stranger);
        if let Some(name) = &self.name
            && state.table.release(name, self.id)
        {
            tracing::info!(name, "unregistered");
        }
    }
}

/// A question for a name that cannot be one is answered as one for a name that nobody has, as OTP's
/// daemon does for 1 to 255 characters of UTF-8 without NUL.
fn stranger_name(error: &Error, buffer: &[u8]) -> Option<Request> {
    let Error::Name { message, .. } = error else { return None };
    let name = buffer.get(3..)?;
    let name = std::str::from_utf8(name.strip_suffix(&[0]).unwrap_or(name)).ok()?;
    if !(1..=name::MAX).contains(&name.chars().count()) || name.contains('\0') {
        return None;
    }
    // No node has the empty name.
    match *message {
        "PORT_PLEASE2_REQ" => Some(Request::PortPlease { name: String::new() }),
        "STOP_REQ" => Some(Request::Stop { name: String::new() }),
        _ => None,
    }
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Alive(_) => "ALIVE2_REQ",
        Request::PortPlease { .. } => "PORT_PLEASE2_REQ",
        Request::Names => "NAMES_REQ",
        Request::Dump => "DUMP_REQ",
        Request::Kill => "KILL_REQ",
        Request::Stop { .. } => "STOP_REQ",
        _ => "another request",
    }
}

/// Names in the table were checked when they came.
fn encoded(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "a reply could not be written");
    }
}
