//! DNS over UDP and TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use meshx_rt::{net, random};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Transport, View, answer};
use crate::control::Control;
use crate::limits;

/// Tries to find a port that is free for both protocols.
const TRIES: usize = 16;

/// The two sockets of one address.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) address: SocketAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// Binds both protocols to one port; port 0 takes one that is free for both.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<Sockets> {
    let mut tries = 0;
    loop {
        let tcp = net::listen(address)?;
        let bound = tcp.local_addr()?;
        match UdpSocket::bind(bound).await {
            Ok(udp) => return Ok(Sockets { address: bound, udp, tcp }),
            Err(error) if address.port() != 0 || tries == TRIES => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

/// Answers until the agent stops.
pub(crate) fn serve(sockets: Sockets, control: &Arc<Control>, tasks: &TaskTracker) {
    tasks.spawn(serve_udp(sockets.udp, Arc::clone(control)));
    tasks.spawn(serve_tcp(sockets.tcp, Arc::clone(control), tasks.clone()));
}

async fn serve_udp(socket: UdpSocket, control: Arc<Control>) {
    let mut buffer = vec![0; usize::from(limits::DNS_UDP_MAX)];
    loop {
        let received = tokio::select! {
            () = control.stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((length, peer)) => {
                if let Some(reply) = respond(&buffer[..length], &control, Transport::Udp) {
                    // A client that is gone does not read its answer.
                    let _sent = socket.send_to(&reply, peer).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "DNS over UDP");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, control: Arc<Control>, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(limits::DNS_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = control.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                let control = Arc::clone(&control);
                tasks.spawn(async move {
                    tokio::select! {
                        () = control.stop.cancelled() => {}
                        _ended = connection(stream, &control) => {}
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "DNS over TCP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Messages with their length before them (RFC 1035, 4.2.2), until the client is silent for too
/// long or says something that is no message.
async fn connection(mut stream: TcpStream, control: &Control) -> io::Result<()> {
    net::tune(&stream)?;
    let mut message = Vec::new();
    loop {
        let length = timeout(limits::DNS_IDLE, stream.read_u16()).await??;
        message.resize(usize::from(length), 0);
        timeout(limits::DNS_IDLE, stream.read_exact(&mut message)).await??;
        let Some(reply) = respond(&message, control, Transport::Tcp) else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&reply);
        timeout(limits::DNS_IDLE, stream.write_all(&framed)).await??;
    }
}

/// The answer to the bytes of a query. None for what cannot be answered: too short, or an answer
/// itself.
fn respond(bytes: &[u8], control: &Control, transport: Transport) -> Option<Vec<u8>> {
    let &[high, low, flags, ..] = bytes else { return None };
    if flags & 0x80 != 0 {
        return None;
    }
    let reply = match Message::from_vec(bytes) {
        Ok(query) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let now = u32::try_from(now & u64::from(u32::MAX)).unwrap_or_default();
            let seed = u64::from(random::u32()) | 1 << 32;
            control.read(|state| answer(&query, &View { state, now, seed }, transport))
        }
        Err(_) => Message::error_msg(
            u16::from_be_bytes([high, low]),
            OpCode::Query,
            ResponseCode::FormErr,
        ),
    };
    reply.to_vec().ok()
}
