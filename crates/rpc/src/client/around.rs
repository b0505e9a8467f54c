//! Calls with something around them ([`Intercept`](crate::Intercept)).

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::attempts::Making;
use super::{Call, Client, Hedge};
use crate::connection::{Connection, Receiving, Sending};
use crate::context::Context;
use crate::event::Way;
use crate::functions::Answer;
use crate::intercept::{End, Next, Request};
use crate::patience::Patience;
use crate::{Body, Error, Executed, Kind};

/// What comes after all interceptors.
#[derive(Debug)]
pub(super) enum Asked {
    /// A call or cast, again where that is right.
    Call,
    /// A cast that nobody answers.
    Fire,
    /// The beginning of an exchange.
    Open,
    /// One attempt on this connection.
    There(Arc<Connection>),
}

/// Both directions of an exchange.
type Ends = (Receiving, Sending);

impl Call<'_> {
    /// Makes it with all that is around it, within its time.
    pub(super) async fn around(
        &self,
        argument: Body,
        way: Way,
        asked: Asked,
        patience: Patience,
        context: Option<&Context>,
    ) -> Result<(Body, Option<Ends>), Error> {
        let mut request = Request::of(self.function.into(), way, argument, context.cloned());
        request.metadata.clone_from(&self.metadata);
        request.idempotent = self.idempotent;
        let is_limited = way != Way::Stream || self.timeout.is_some();
        let inherited = context.and_then(Context::deadline);
        request.deadline = if is_limited { Some(patience.until) } else { inherited };
        let (client, reached, ends) =
            (self.client.clone(), AtomicBool::new(false), Mutex::new(None));
        let (hedge, wrote) = (self.hedge, self.wrote);
        let end = Arc::new(Ending { client, asked, hedge, wrote, patience, reached, ends });
        let next = Next::new(&self.client.0.chain, Arc::clone(&end) as _);
        let made = tokio::time::timeout_at(patience.until, end.caught(next.run(request))).await;
        let body = made.unwrap_or_else(|_| Err(end.late())).map_err(|it| it.of(self.function))?;
        Ok((body, end.keep(None)))
    }
}

/// The call itself.
struct Ending {
    client: Client,
    asked: Asked,
    hedge: Option<Hedge>,
    wrote: Duration,
    patience: Patience,
    /// Somebody came that far.
    reached: AtomicBool,
    /// Of an exchange that was begun.
    ends: Mutex<Option<Ends>>,
}

impl End for Ending {
    fn run(self: Arc<Self>, request: Request) -> Answer {
        self.reached.store(true, Ordering::Relaxed);
        Box::pin(async move {
            let context = request.context();
            let inherited = context.and_then(Context::deadline);
            let mut patience = self.patience;
            patience.until = [request.deadline, inherited]
                .into_iter()
                .flatten()
                .fold(patience.until, Instant::min);
            let call = Call {
                client: &self.client,
                function: request.function(),
                codec: request.body.codec,
                timeout: None,
                idempotent: request.idempotent,
                hedge: self.hedge,
                metadata: request.metadata.clone(),
                wrote: self.wrote,
            };
            let (body, way) = (&request.body, request.way());
            let nothing = Body { codec: body.codec, bytes: Bytes::new() };
            match &self.asked {
                Asked::Call => call
                    .attempts(body, way, (patience, Instant::now()), context)
                    .await
                    .map(|message| message.body),
                Asked::Fire => call.fired(body, patience, context).await.map(|()| nothing),
                Asked::Open => {
                    let now = Instant::now();
                    let limit = [request.deadline, inherited].into_iter().flatten().min();
                    let limit = limit.map(|at| at.saturating_duration_since(now));
                    let ends = call.opened(limit, patience, context).await?;
                    self.keep(Some(ends)).into_iter().for_each(leave);
                    Ok(nothing)
                }
                Asked::There(connection) => {
                    let (now, trace) = (Instant::now(), call.trace(context));
                    let making = Making { patience, now, made: 1, way, trace };
                    call.send(connection, body, making, context)?.await.map(|it| it.body)
                }
            }
        })
    }
}

impl Ending {
    /// A panic is an error of this call.
    async fn caught(&self, work: impl Future<Output = Result<Body, Error>>) -> Result<Body, Error> {
        let mut work = pin!(work);
        poll_fn(|task| {
            let poll = AssertUnwindSafe(|| work.as_mut().poll(task));
            catch_unwind(poll).unwrap_or_else(|_| {
                let reason = "an interceptor of the client panicked";
                Poll::Ready(Err(Error::new(Kind::Panic, self.executed(), reason)))
            })
        })
        .await
    }

    /// Keeps what was begun, and gives what was before.
    fn keep(&self, ends: Option<Ends>) -> Option<Ends> {
        std::mem::replace(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner), ends)
    }

    fn late(&self) -> Error {
        if self.reached.load(Ordering::Relaxed) {
            return self.patience.over();
        }
        let whole = self.patience.whole();
        let reason = format!("it was not made within {whole:?}: the client's interceptors held it");
        Error::new(Kind::Deadline, Executed::Never, reason)
    }

    fn executed(&self) -> Executed {
        if self.reached.load(Ordering::Relaxed) { Executed::Maybe } else { Executed::Never }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.keep(None).into_iter().for_each(leave);
    }
}

/// An exchange that was begun for nobody.
fn leave((receiving, mut sending): Ends) {
    receiving.leave();
    sending.finish();
}

/// All of them at the same time; what came of them in their order.
pub(super) async fn together<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<(Pin<Box<_>>, Option<T>)> =
        calls.map(|call| (Box::pin(call), None)).collect();
    poll_fn(|task| {
        let mut is_over = true;
        for (call, result) in calls.iter_mut().filter(|(_, result)| result.is_none()) {
            match call.as_mut().poll(task) {
                Poll::Ready(done) => *result = Some(done),
                Poll::Pending => is_over = false,
            }
        }
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    calls.into_iter().filter_map(|(_, result)| result).collect()
}
