//! One connection: a request, and what comes back.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use meshx_dist::epmd::{self, Request, TEXT_MAX};
use meshx_rt::net;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{CONNECT_LIMIT, EXCHANGE_LIMIT, Error, Wanted};

/// What a decoder finds at the start of a buffer, and the bytes it took; `None` if it needs more.
type Decoded<T> = Result<Option<(T, usize)>, epmd::Error>;

/// A connection on which the request was sent.
#[derive(Debug)]
pub(super) struct Exchange {
    stream: TcpStream,
    daemon: SocketAddr,
    wanted: Wanted,
    until: Instant,
}

impl Exchange {
    /// Connects to the first address that accepts, and asks.
    pub(super) async fn open(
        addresses: &[SocketAddr],
        wanted: Wanted,
        request: &Request,
    ) -> Result<Self, Error> {
        let mut wire = BytesMut::new();
        if let Err(reason) = request.encode(&mut wire) {
            return Err(Error::Request { wanted, reason });
        }
        let until = Instant::now() + EXCHANGE_LIMIT;
        let (stream, daemon) = match connect(addresses).await {
            Ok(connected) => connected,
            Err((daemon, source)) if source.kind() == io::ErrorKind::TimedOut => {
                return Err(Error::Silent { daemon, wanted, limit: CONNECT_LIMIT });
            }
            Err((daemon, source)) => return Err(Error::Absent { daemon, wanted, source }),
        };
        let mut exchange = Self { stream, daemon, wanted, until };
        match timeout_at(until, exchange.stream.write_all(&wire)).await {
            Ok(Ok(())) => Ok(exchange),
            Ok(Err(source)) => Err(exchange.broken(source)),
            Err(_) => Err(exchange.silent()),
        }
    }

    /// Reads until `decode` has an answer; it has one or an error once it sees `most` bytes. Bytes
    /// after the answer are not looked at: a lease ends by them, and the rest is closed.
    pub(super) async fn reply<T>(
        &mut self,
        most: usize,
        decode: fn(&[u8]) -> Decoded<T>,
    ) -> Result<T, Error> {
        let mut buffer = BytesMut::with_capacity(most.min(512));
        loop {
            match decode(&buffer) {
                Ok(Some((reply, _))) => return Ok(reply),
                Ok(None) => {}
                Err(reason) => return Err(self.malformed(reason)),
            }
            if !self.read(&mut buffer, most).await? {
                return Err(self.closed());
            }
        }
    }

    /// Reads to the end of the stream, which is the end of a text.
    pub(super) async fn whole<T>(
        &mut self,
        decode: fn(&[u8]) -> Result<T, epmd::Error>,
    ) -> Result<T, Error> {
        let mut buffer = BytesMut::with_capacity(512);
        // One byte more than is allowed, so that a text that is too long is seen as such.
        while self.read(&mut buffer, TEXT_MAX.saturating_add(1)).await? {
            if buffer.len() > TEXT_MAX {
                break;
            }
        }
        if buffer.is_empty() {
            return Err(self.closed());
        }
        decode(&buffer).map_err(|reason| self.malformed(reason))
    }

    /// The name that we wanted belongs to another node.
    pub(super) fn taken(self) -> Error {
        Error::Taken { daemon: self.daemon, wanted: self.wanted }
    }

    /// The answer is about another node.
    pub(super) fn other_node(self, found: String) -> Error {
        Error::OtherNode { daemon: self.daemon, wanted: self.wanted, found }
    }

    pub(super) fn into_parts(self) -> (TcpStream, SocketAddr) {
        (self.stream, self.daemon)
    }

    /// False at the end of the stream. Never holds more than `most` bytes.
    async fn read(&mut self, buffer: &mut BytesMut, most: usize) -> Result<bool, Error> {
        let room = most.saturating_sub(buffer.len());
        let mut part = (&mut self.stream).take(u64::try_from(room).unwrap_or(u64::MAX));
        match timeout_at(self.until, part.read_buf(buffer)).await {
            Ok(Ok(count)) => Ok(count > 0),
            Ok(Err(source)) => Err(self.broken(source)),
            Err(_) => Err(self.silent()),
        }
    }

    fn broken(&self, source: io::Error) -> Error {
        // A daemon that closes before it has read everything resets the connection.
        if source.kind() == io::ErrorKind::ConnectionReset {
            return self.closed();
        }
        Error::Broken { daemon: self.daemon, wanted: self.wanted.clone(), source }
    }

    fn silent(&self) -> Error {
        let limit = EXCHANGE_LIMIT;
        Error::Silent { daemon: self.daemon, wanted: self.wanted.clone(), limit }
    }

    fn closed(&self) -> Error {
        Error::Closed { daemon: self.daemon, wanted: self.wanted.clone() }
    }

    fn malformed(&self, reason: epmd::Error) -> Error {
        Error::Malformed { daemon: self.daemon, wanted: self.wanted.clone(), reason }
    }
}

/// The first address that accepts, or how the first of them failed: it is the one that is meant.
async fn connect(
    addresses: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), (SocketAddr, io::Error)> {
    let mut first = None;
    for &address in addresses {
        match net::dial(address, CONNECT_LIMIT / u32::try_from(addresses.len()).unwrap_or(1)).await
        {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => first = first.or(Some((address, error))),
        }
    }
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Err(first.unwrap_or_else(|| (nowhere, io::ErrorKind::AddrNotAvailable.into())))
}
