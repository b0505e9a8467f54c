//! A call as it is made, again where that is right (§8.3).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::around::Asked;
use super::pool::Pool;
use super::{Call, Inside};
use crate::connection::{Connection, Message, Pending, Request};
use crate::context::Context;
use crate::event::{Amount, Called, Event, Side, Times, Way};
use crate::patience::Patience;
use crate::proto::v2::Extensions;
use crate::{Body, Error, Executed, Kind, TraceParent};

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making {
    pub(super) patience: Patience,
    /// When it begins.
    pub(super) now: Instant,
    /// So many were made, with this one.
    pub(super) made: u32,
    pub(super) way: Way,
    /// Its place in a trace.
    pub(super) trace: Option<TraceParent>,
}

/// What was seen of it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) making: Making,
    /// So many were made, with those beside it.
    pub(super) made: u32,
    pub(super) used: Option<Arc<Connection>>,
    pub(super) times: Times,
    pub(super) sent: Amount,
}

impl Seen {
    pub(super) fn new(making: Making) -> Self {
        let (times, sent) = (Times::default(), Amount::default());
        Self { making, made: making.made, used: None, times, sent }
    }
}

impl Call<'_> {
    /// Makes the call, with what is around it.
    pub(super) async fn make(&self, argument: Body, way: Way) -> Result<Message, Error> {
        let context = Context::current();
        let (context, patience) = (context.as_ref(), self.patience(context.as_ref()));
        if self.client.0.chain.is_empty() {
            return self.attempts(&argument, way, (patience, patience.begun), context).await;
        }
        // Apart, so that calls with nothing around them are small.
        let around = Box::pin(self.around(argument, way, Asked::Call, patience, context));
        around.await.map(|(body, _)| Message::small(body, 0))
    }

    /// Makes the call, again where that is right (§8.3).
    pub(super) async fn attempts(
        &self,
        argument: &Body,
        way: Way,
        (patience, mut now): (Patience, Instant),
        context: Option<&Context>,
    ) -> Result<Message, Error> {
        let Inside { pool, retries, budget, .. } = &*self.client.0;
        let (mut avoided, mut made) = (None, 0_u32);
        budget.earn();
        loop {
            made = made.saturating_add(1);
            let trace = self.trace(context);
            let mut seen = Seen::new(Making { patience, now, made, way, trace });
            let result = self.attempt(argument, context, avoided.as_ref(), &mut seen).await;
            made = seen.made;
            let result = result.map_err(|error| error.of(self.function));
            self.tell(&result, &seen);
            let error = match result {
                Ok(message) => return Ok(message),
                Err(error) => error,
            };
            let again = retries.may(&error, self.idempotent, made) && budget.spend();
            let pause = retries.pause(&error, made);
            if !again || patience.left(Instant::now()) <= pause {
                return Err(error.at(&pool.address()));
            }
            tokio::time::sleep(pause).await;
            now = Instant::now();
            avoided = seen.used;
        }
    }

    async fn attempt(
        &self,
        argument: &Body,
        context: Option<&Context>,
        avoided: Option<&Arc<Connection>>,
        seen: &mut Seen,
    ) -> Result<Message, Error> {
        let Inside { pool, queue, hedge, .. } = &*self.client.0;
        let mut making = seen.making;
        let _turn = match queue.try_acquire() {
            Ok(turn) => turn,
            Err(_) => turn(queue, &mut making).await?,
        };
        let _leaves = Leaves(pool);
        let pending = loop {
            let connection = match pool.at_once(making.now, avoided) {
                Some(connection) => connection,
                None => {
                    let picked = pool.pick((making.patience, making.now), avoided).await?;
                    making.now = Instant::now();
                    picked
                }
            };
            seen.times.queue = making.now.saturating_duration_since(seen.making.now);
            let sent = self.send(&connection, argument, making, context);
            let is_open = connection.is_open();
            seen.used = Some(connection);
            match sent {
                // Another call was faster, or it was replaced just now: there is a place elsewhere,
                // or will be.
                Err(error) if error.kind() == Kind::Overloaded || !is_open => {
                    tokio::task::yield_now().await;
                    making.now = Instant::now();
                    if making.patience.left(making.now).is_zero() {
                        return Err(error);
                    }
                }
                sent => break sent?,
            }
        };
        seen.sent = pending.sent;
        let hedge = self.hedge.unwrap_or(*hedge);
        if hedge.most == 0 || !self.idempotent || making.way != Way::Call {
            return pending.await;
        }
        Box::pin(self.hedged(hedge, pending, argument, context, seen)).await
    }

    /// Sends it; an error says that it was not.
    pub(super) fn send(
        &self,
        connection: &Arc<Connection>,
        argument: &Body,
        making: Making,
        context: Option<&Context>,
    ) -> Result<Pending, Error> {
        let Making { patience, now, made, way, trace } = making;
        let request = Request {
            function: self.function,
            argument,
            timeout: Some(patience.left(now)),
            way,
            extensions: &self.extensions(made, trace, context)?,
        };
        connection.call(&request, (patience, now))
    }

    /// Its place in the trace of the call that this is a part of, or in that of its metadata.
    pub(super) fn trace(&self, context: Option<&Context>) -> Option<TraceParent> {
        let above = TraceParent::of(&self.metadata);
        let above = above.or_else(|| TraceParent::of(context?.metadata()));
        above.map(|above| above.child())
    }

    pub(super) fn extensions(
        &self,
        attempt: u32,
        trace: Option<TraceParent>,
        context: Option<&Context>,
    ) -> Result<bytes::BytesMut, Error> {
        let mut metadata = self.metadata.clone();
        let mut tracestate =
            context.and_then(|it| it.value(TraceParent::STATE_KEY)).map(str::to_owned);
        if TraceParent::of(&metadata).is_some() {
            // It has become `trace`; the callee is told of one.
            let state = metadata.iter().find(|(key, _)| key == TraceParent::STATE_KEY);
            tracestate = state.map(|(_, state)| state.clone());
            metadata.retain(|(key, _)| key != TraceParent::KEY && key != TraceParent::STATE_KEY);
        }
        let extensions = Extensions {
            traceparent: trace.map(|trace| trace.to_string()),
            tracestate,
            metadata,
            attempt: (attempt > 1).then(|| u8::try_from(attempt).unwrap_or(u8::MAX)),
        };
        if extensions.is_empty() {
            return Ok(bytes::BytesMut::new());
        }
        extensions.encode().ok_or_else(|| {
            let reason = "its metadata is more than 64 pairs, or than 16 KiB";
            Error::new(Kind::Value, Executed::Never, reason).of(self.function)
        })
    }

    pub(super) fn tell(&self, result: &Result<Message, Error>, seen: &Seen) {
        let observers = &self.client.0.pool.own.observers;
        if observers.is_empty() {
            return;
        }
        let Seen { making, used, sent, times, .. } = seen;
        let Making { now, made, way, trace, .. } = *making;
        let mut times = *times;
        times.ser = self.wrote;
        times.recv = result.as_ref().map_or(Duration::ZERO, |message| message.took);
        let rest = times.queue.saturating_add(times.recv);
        times.exec = now.elapsed().saturating_sub(rest);
        let received = result.as_ref().map_or(Amount::default(), |message| Amount {
            bytes: message.body.bytes.len() as u64,
            blocks: message.blocks,
        });
        observers.tell(&Event::Called(&Called {
            side: Side::Client,
            way,
            function: self.function,
            peer: used.as_ref().map(|connection| &*connection.peer),
            req_ref: 0,
            trace,
            result: result.as_ref().map(|_| ()),
            attempt: made,
            times,
            sent: *sent,
            received,
        }));
    }
}

/// A call's turn among those of its client, when there was none at once.
async fn turn<'q>(queue: &'q Semaphore, making: &mut Making) -> Result<SemaphorePermit<'q>, Error> {
    let patience = making.patience;
    let waits = Box::pin(tokio::time::timeout_at(patience.until, queue.acquire()));
    let turn = waits.await.ok().and_then(Result::ok);
    making.now = Instant::now();
    turn.ok_or_else(|| {
        let reason = format!("not its turn within {:?}: too many calls", patience.whole());
        Error::new(Kind::Overloaded, Executed::Never, reason)
    })
}

/// A call that ends, however it does, leaves its place to another.
pub(super) struct Leaves<'p>(pub(super) &'p Pool);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.freed();
    }
}
