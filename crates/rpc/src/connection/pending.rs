//! What comes of a call, for its caller.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::time::{Sleep, sleep_until};

use super::Connection;
use super::slots::{Answer, Place};
use crate::event::Amount;
use crate::patience::Patience;
use crate::{Error, Executed, Kind};

/// A call that was sent, and what comes of it. Dropping it cancels the call (§7.5).
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) connection: Arc<Connection>,
    pub(super) place: Place,
    pub(super) patience: Patience,
    /// Once the end of it is near.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) is_over: bool,
    /// What was sent.
    pub(crate) sent: Amount,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        let mut slots = this.connection.calls.lock();
        if let Some(answer) = slots.take_answer(this.place) {
            this.is_over = true;
            return Poll::Ready(answer);
        }
        let Some(waiting) = slots.waiting(this.place) else {
            let lost = Error::new(Kind::Transport, Executed::Maybe, "the connection ended");
            return Poll::Ready(Err(lost));
        };
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(context.waker()),
            waker @ None => *waker = Some(context.waker().clone()),
        }
        if !waiting.timed {
            return Poll::Pending;
        }
        drop(slots);
        let until = this.patience.until;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        timer.as_mut().poll(context).map(|()| Err(this.patience.over()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (connection, place) = (&self.connection, self.place);
        let mut slots = connection.calls.lock();
        if slots.take_answer(place).is_some() {
            return;
        }
        let Some(waiting) = slots.waiting(place) else { return };
        let assembly = waiting.coming.as_ref().map(|coming| &coming.assembly);
        if let Some(whole) = assembly.filter(|it| it.is_whole()) {
            // The server has ended it; only room was missing. It is told that there is some.
            let total = whole.total();
            slots.free(place.stream);
            connection.grant(place.stream, total);
        } else if connection.push(|outbox| outbox.take_back(place.stream)) == Some(true) {
            // Not a byte of it was said.
            slots.free(place.stream);
        } else {
            slots.abandon(place);
            connection.cancel(place);
        }
    }
}
