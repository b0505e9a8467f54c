//! Whether the peer is there, for who wants to know (§9.1).

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Connection, lock};
use crate::patience::Patience;
use crate::proto::v2::{Flags, Type};
use crate::{Error, Executed, Kind};

/// So many wait for answers on one connection.
const MOST: usize = 1024;

/// The questions that are not answered yet, by what was sent with them. The connection's own, which
/// keep it alive, are 0.
#[derive(Debug, Default)]
pub(super) struct Pings(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<()>>,
}

impl Connection {
    /// Asks the peer whether it is there, and waits for its answer.
    pub(crate) async fn ping(&self, patience: Patience) -> Result<(), Error> {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut asked = lock(&self.pings.0);
            asked.waiting.retain(|_, waiting| !waiting.is_closed());
            if asked.waiting.len() >= MOST {
                let reason = format!("{MOST} pings wait on this connection");
                return Err(Error::new(Kind::Overloaded, Executed::Never, reason));
            }
            asked.last = asked.last.wrapping_add(1).max(1);
            let number = asked.last;
            asked.waiting.insert(number, sender);
            number
        };
        self.frame(Type::Ping, Flags::NONE, 0, &number.to_le_bytes(), &Bytes::new());
        let lost = || {
            let why = self.why();
            let why = why.unwrap_or_else(|| {
                Error::new(Kind::Transport, Executed::Never, "the connection ended")
            });
            Error::new(why.kind(), Executed::Never, why.reason())
        };
        tokio::select! {
            answered = tokio::time::timeout_at(patience.until, answer) => match answered {
                Ok(answered) => answered.map_err(|_| lost()),
                Err(_) => Err(patience.over()),
            },
            () = self.closed() => Err(lost()),
        }
    }

    /// The peer has answered.
    pub(super) fn ponged(&self, payload: [u8; 8]) {
        let waiting = lock(&self.pings.0).waiting.remove(&u64::from_le_bytes(payload));
        // Who waits may have gone.
        _ = waiting.map(|waiting| waiting.send(()));
    }
}
