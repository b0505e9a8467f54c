//! Listeners and dialers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// An idle peer is probed after this long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Time between probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Probes without an answer before the connection is given up: 30 s + 4 × 10 s in all.
const KEEPALIVE_PROBES: u32 = 4;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Opens a TCP connection within `limit`, tuned as [`tune`] says.
pub async fn dial(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let connected = tokio::time::timeout(limit, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
    })??;
    tune(&stream)?;
    Ok(stream)
}

/// Binds a listener. The address may be taken over from a process that just ended
/// (`SO_REUSEADDR`), never from one that listens.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds a listener on the first free port of `ports`, beginning at a place that `seed` chooses;
/// on any free port when the whole range is taken.
pub fn listen_in(ip: IpAddr, ports: std::ops::Range<u16>, seed: usize) -> io::Result<TcpListener> {
    let count = ports.len();
    for step in 0..count {
        if let Some(port) = ports.clone().nth((seed + step) % count) {
            match listen(SocketAddr::new(ip, port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                done => return done,
            }
        }
    }
    listen(SocketAddr::new(ip, 0))
}

/// A loopback port that is free now. Another process may take it before it is used; retry then.
pub fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Nagle off, keepalive on: a peer that vanished without a word is noticed after about 70 s.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
