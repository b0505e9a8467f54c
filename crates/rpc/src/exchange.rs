//! Messages both ways, as a program sees them.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Receiving, Sending};
use crate::{Body, Codec, Error, Executed, Kind};

/// What the other side says. Who does not take it holds the other side back, which may say no more
/// than [`Limits::stream_window`](crate::Limits::stream_window) bytes ahead.
///
/// At a client, dropping it before its end stops the function.
#[derive(Debug)]
pub struct Incoming<T> {
    codec: Codec,
    receiving: Receiving,
    at_client: bool,
    of: PhantomData<fn() -> T>,
}

/// What this side says. At a client, dropping it says that there is no more; a function says so when
/// it returns.
#[derive(Debug)]
pub struct Outgoing<T: ?Sized> {
    codec: Codec,
    sending: Sending,
    at_client: bool,
    of: PhantomData<fn(&T)>,
}

impl<T: DeserializeOwned> Incoming<T> {
    pub(crate) fn new(codec: Codec, receiving: Receiving, at_client: bool) -> Self {
        Self { codec, receiving, at_client, of: PhantomData }
    }

    /// The next message; `None` after the last one. An error of the peer or the connection is the last
    /// one; a message that cannot be read is an error, and others may follow.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        let message = match self.receiving.next().await? {
            Ok(bytes) => Body { codec: self.codec, bytes },
            Err(error) => return Some(Err(error)),
        };
        Some(message.decode().map_err(|error| {
            let reason = format!("a message cannot be read: {error}");
            Error::new(Kind::Value, Executed::Yes, reason)
        }))
    }
}

impl<T: Serialize + ?Sized> Outgoing<T> {
    pub(crate) fn new(codec: Codec, sending: Sending, at_client: bool) -> Self {
        Self { codec, sending, at_client, of: PhantomData }
    }

    /// Sends a message; waits while too much waits already.
    pub async fn send(&mut self, message: &T) -> Result<(), Error> {
        let body = Body::encode(self.codec, message).map_err(|error| {
            let reason = format!("a message cannot be written: {error}");
            Error::new(Kind::Value, Executed::Never, reason)
        })?;
        self.sending.send(body.bytes).await
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        if self.at_client && !self.receiving.is_over() {
            self.receiving.leave();
        }
    }
}

impl<T: ?Sized> Drop for Outgoing<T> {
    fn drop(&mut self) {
        if self.at_client {
            self.sending.finish();
        }
    }
}
