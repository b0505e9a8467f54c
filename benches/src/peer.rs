//! The program behind the sidecars, and the clients in front of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

/// What an acknowledgement stands for.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// How long a client waits for anything.
const LIMIT: Duration = Duration::from_secs(10);

/// What a server does with a connection: its first byte says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Sends back what comes.
    Echo = b'e',
    /// Answers each [`CHUNK`] with one byte.
    Count = b'c',
    /// Sends the first byte back, and no more.
    Once = b'1',
}

/// Listens on a free port of loopback until this process ends.
pub(crate) fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error is the end of the connection, which the client notices.
            thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut mode = [0];
    stream.read_exact(&mut mode)?;
    match mode[0] {
        b'e' => {
            let mut buffer = [0; 16 * 1024];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => stream.write_all(&buffer[..count])?,
                }
            }
        }
        b'c' => {
            let mut buffer = vec![0; 256 * 1024];
            let mut owed = 0;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => owed += count,
                }
                while owed >= CHUNK {
                    owed -= CHUNK;
                    stream.write_all(b".")?;
                }
            }
        }
        _ => {
            stream.write_all(&mode)?;
            // Until the client has closed.
            stream.read(&mut mode).map(drop)
        }
    }
}

/// A connection in this mode, from a source address of its own where many come quickly: each has
/// only as many ports as the system gives out.
pub(crate) fn connect(to: SocketAddr, mode: Mode, source: Option<u8>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(last) = source {
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0));
        socket.bind(&from.into()).with_context(|| format!("cannot bind {from}"))?;
    }
    socket.connect_timeout(&to.into(), LIMIT).with_context(|| format!("cannot connect to {to}"))?;
    socket.set_tcp_nodelay(true)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&[mode as u8])?;
    Ok(stream)
}

/// One message out and back.
pub(crate) fn round_trip(stream: &mut TcpStream, message: &mut [u8]) -> std::io::Result<()> {
    stream.write_all(message)?;
    stream.read_exact(message)
}

/// A connection on which an echo came back, if there is one.
pub(crate) fn echoing(to: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(to, Mode::Echo, None).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    round_trip(&mut stream, &mut [1]).ok()?;
    Some(stream)
}
