//! Arguments that come in blocks (§7.3, §7.4).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::assembly::{Assembly, Room};
use super::served::{Call, Coming, Serving};
use super::server::Service;
use super::slots::Place;
use super::{Connection, lock};
use crate::event::Amount;
use crate::proto::v2::{Block, Flags};
use crate::{Error, Executed, Kind};

impl Connection {
    /// A long argument begins: it gets room in its turn, and is given up when that or the rest of it
    /// takes too long.
    pub(super) fn expect_argument(
        self: &Arc<Self>,
        service: &Arc<Service>,
        call: Call,
        assembly: Assembly,
    ) -> Result<(), String> {
        self.check_windows(assembly.received(), 0)?;
        let patience = call.deadline.unwrap_or_else(|| Instant::now() + self.limits.frame * 4);
        let mut open = lock(&self.served.open);
        let received = u64::try_from(assembly.received()).unwrap_or(u64::MAX);
        open.unasked = open.unasked.saturating_add(received);
        let unasked = open.unasked;
        let (stream, total) = (call.stream, assembly.total());
        let service = Arc::clone(service);
        let coming = Coming { assembly, call, service, receiving: None };
        let place = open.insert(stream, Serving::Argument(Box::new(coming)));
        let connection = Arc::clone(self);
        let receiving = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut patience = pin!(tokio::time::sleep_until(patience));
            tokio::select! {
                room = connection.budget.room(total) => {
                    if let Some(room) = room {
                        connection.roomed(place, room);
                    }
                    patience.await;
                }
                () = &mut patience => {}
                () = connection.closed() => return,
            }
            connection.give_up(place);
        }));
        if let Some((_, Serving::Argument(coming))) = open.all.get_mut(&stream) {
            coming.receiving = Some(receiving);
        }
        drop(open);
        self.check_windows(0, unasked)
    }

    /// A long argument takes too long.
    fn give_up(&self, place: Place) {
        if let Some(Serving::Argument(coming)) = lock(&self.served.open).take(place) {
            let reason = "the argument did not come in time";
            let error = Error::new(Kind::Deadline, Executed::Never, reason);
            self.finish(&coming.call, Amount::default(), Err(error));
        }
    }

    /// A block of a long argument.
    pub(super) fn argument(
        self: &Arc<Self>,
        stream: u32,
        flags: Flags,
        block: &Block,
    ) -> Result<(), String> {
        let mut open = lock(&self.served.open);
        match open.all.get_mut(&stream) {
            Some((_, Serving::Argument(coming))) => {
                coming.assembly.add(block)?;
                let whole = coming.assembly.is_whole();
                if whole != flags.has(Flags::END) {
                    return Err("a long argument ends elsewhere than it was announced".to_owned());
                }
                let (has_room, received) = (coming.assembly.has_room(), coming.assembly.received());
                if !has_room {
                    let len = u64::try_from(block.bytes.len()).unwrap_or(u64::MAX);
                    open.unasked = open.unasked.saturating_add(len);
                    return self.check_windows(received, open.unasked);
                }
                if whole && let Some(Serving::Argument(coming)) = open.remove(stream) {
                    self.begin(*coming);
                }
                Ok(())
            }
            Some((_, Serving::Exchange { inbox, .. })) => {
                if flags.has(Flags::END) {
                    *inbox = None;
                    return Ok(());
                }
                let inbox = inbox.as_mut().ok_or("more after the end of an exchange")?;
                let grant = inbox.take(flags, block, self.limits.max_message)?;
                self.grant(stream, grant);
                Ok(())
            }
            // The stream has ended meanwhile, by a refusal, say (§7.5).
            Some((_, Serving::Running { .. })) | None => Ok(()),
        }
    }

    /// There is room for a long argument: the client is told (§7.4).
    fn roomed(self: &Arc<Self>, place: Place, room: Room) {
        let mut open = lock(&self.served.open);
        let Some((generation, Serving::Argument(coming))) = open.all.get_mut(&place.stream) else {
            return;
        };
        if *generation != place.generation {
            return;
        }
        coming.assembly.set_room(room);
        let (whole, total) = (coming.assembly.is_whole(), coming.assembly.total());
        let received = u64::try_from(coming.assembly.received()).unwrap_or(u64::MAX);
        open.unasked = open.unasked.saturating_sub(received);
        self.grant(place.stream, total);
        if whole && let Some(Serving::Argument(coming)) = open.remove(place.stream) {
            self.begin(*coming);
        }
    }

    /// A long argument is there. It is read in a task of its own: that may take a while.
    fn begin(self: &Arc<Self>, coming: Coming) {
        let Coming { assembly, mut call, service, receiving: _ } = coming;
        let Ok(place) = Arc::clone(&service.places).try_acquire_owned() else {
            let reason = "the server has too many calls in flight";
            let error = Error::new(Kind::Overloaded, Executed::Never, reason);
            return self.finish(&call, Amount::default(), Err(error));
        };
        call.place = Some(place);
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            let late = call.deadline.is_some_and(|at| at <= Instant::now());
            let message = match assembly.message(connection.limits.max_message, Executed::Never) {
                Ok(_) if late => {
                    let reason = "the time was over before it began";
                    Err(Error::new(Kind::Deadline, Executed::Never, reason))
                }
                message => message,
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => return connection.finish(&call, Amount::default(), Err(error)),
            };
            let mut begins = Some((call, message));
            poll_fn(|task| {
                if let Some((call, message)) = begins.take() {
                    connection.run(task, call, message);
                }
                Poll::Ready(())
            })
            .await;
        });
    }
}
