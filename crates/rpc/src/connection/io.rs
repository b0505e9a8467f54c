//! What a connection does by itself, from its beginning to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::reading::{self, Read, Reader};
use super::writing::{self, Write};
use super::{Connection, Service};
use crate::event::{Event, Side};
use crate::proto::v2::{Flags, Frame, Frames, Type};
use crate::{Error, Executed, Kind};

/// Starts both tasks. `service` is what a server offers.
pub(super) fn start(
    connection: &Arc<Connection>,
    service: Option<Arc<Service>>,
    (read, frames, surplus): (Read, Frames, BytesMut),
    write: Write,
) {
    let (reading, writing) = (Arc::clone(connection), Arc::clone(connection));
    tokio::spawn(async move {
        let reader = Arc::clone(&reading);
        let reader = tokio::spawn(async move {
            let _ends = Ends(Arc::clone(&reader));
            let mut taking = Reader {
                connection: Arc::clone(&reader),
                service,
                frames,
                buffer: surplus,
                woken: Vec::new(),
                since: 0,
                chunk: reading::MANY,
            };
            if let Err(error) = reading::read(&mut taking, read).await {
                reader.close(error);
            }
        });
        let writer = tokio::spawn(async move {
            let _ends = Ends(Arc::clone(&writing));
            writing::write(&writing, write).await;
        });
        drop(writer.await);
        drop(reader.await);
        reading.ended();
    });
}

/// Whatever ends one of the tasks, a panic, too, ends the connection.
struct Ends(Arc<Connection>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.close(Error::new(Kind::Transport, Executed::Maybe, "the connection ended"));
    }
}

impl Connection {
    /// Both tasks have ended: whoever waits is told.
    fn ended(&self) {
        drop(self.give_pen());
        let why = self.why();
        self.calls.end(why.as_ref(), self.written.load(Ordering::Acquire));
        self.served.end();
        let error = why.as_ref().filter(|error| error.kind() != Kind::Draining);
        self.tell(&Event::Disconnected { side: self.side, peer: &self.peer, error });
    }
}

/// The transport does not go on.
pub(super) fn lost(reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Transport, Executed::Maybe, format!("the connection was lost: {reason}"))
}

/// What both sides understand; the rest is given back.
pub(super) fn common(connection: &Connection, frame: Frame) -> Result<Option<Frame>, String> {
    match frame {
        Frame::Ping(payload) => {
            connection.frame(Type::Pong, Flags::NONE, 0, &payload, &Bytes::new());
        }
        Frame::Credit { stream, bytes } => {
            connection.push(|outbox| outbox.credit(stream, bytes));
        }
        Frame::Goaway { .. } => {
            connection.draining.store(true, Ordering::Release);
            let reason = "the peer takes no new calls";
            if connection.side == Side::Client {
                let why = Error::new(Kind::Draining, Executed::Never, reason);
                connection.close_if_idle(why);
            }
        }
        Frame::Fail { stream: 0, error } => {
            let reason = format!("the peer ended the connection: {}", error.reason());
            connection.close(Error::new(error.kind(), Executed::Maybe, reason));
        }
        Frame::Pong(payload) => connection.ponged(payload),
        Frame::Unknown => {}
        Frame::Hello(_) | Frame::Auth(_) => {
            return Err("a second handshake on one connection".to_owned());
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}
