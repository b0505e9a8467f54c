//! A peer on a bare socket, which says what a test wants.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use meshx_dist::handshake::{Cookie, Framing, Initiator, Local};
use meshx_node::Flags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::COOKIE;

/// Who it says it is, and how.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) cookie: String,
    pub(crate) flags: Flags,
    pub(crate) creation: u32,
}

impl Claim {
    pub(crate) fn of(name: &str) -> Self {
        Self {
            name: format!("{name}@127.0.0.1"),
            cookie: COOKIE.to_owned(),
            flags: Flags::NODE,
            creation: 77,
        }
    }

    /// The handshake as initiator, with `node`; `None` if that one closes.
    pub(crate) async fn shake(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        node: &str,
    ) -> Option<meshx_dist::handshake::Link> {
        let mut out = BytesMut::new();
        let local = Local {
            name: self.name.clone(),
            flags: self.flags,
            creation: self.creation,
            cookie: Cookie::new(self.cookie.clone()),
        };
        let mut initiator = Initiator::new(Framing::U16, local, node, 4711, &mut out).unwrap();
        loop {
            stream.write_all_buf(&mut out).await.ok()?;
            let mut bytes = BytesMut::new();
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            if let Some(link) = initiator.received(&bytes, &mut out).ok()? {
                return Some(link);
            }
        }
    }

    /// A connection that is up.
    pub(crate) async fn connect(&self, to: SocketAddr, node: &str) -> Option<TcpStream> {
        let mut stream = dial(to).await;
        self.shake(&mut stream, node).await?;
        Some(stream)
    }
}

pub(crate) async fn dial(to: SocketAddr) -> TcpStream {
    meshx_rt::net::dial(to, crate::LIMIT).await.unwrap()
}

/// The body of a frame, with its length in front.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_u32(u32::try_from(body.len()).unwrap());
    frame.put_slice(body);
    frame
}

/// A message of the handshake, with its length in front.
pub(crate) fn short_frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_u16(u16::try_from(body.len()).unwrap());
    frame.put_slice(body);
    frame
}

/// Whether the other side closes in time, whatever it says before.
pub(crate) async fn is_closed(stream: &mut (impl AsyncRead + Unpin), limit: Duration) -> bool {
    let mut nothing = vec![0; 4096];
    let end = async { while !matches!(stream.read(&mut nothing).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(limit, end).await.is_ok()
}
