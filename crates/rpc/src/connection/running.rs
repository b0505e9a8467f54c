//! Functions that run, and their answers (§7.2, §7.5, §7.8).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::assembly::{Message, Room};
use super::served::{Call, Casting, Serving};
use super::{Connection, lock, reply_payload};
use crate::context::Context;
use crate::event::{Amount, Called, Event, Side, Times, Way};
use crate::functions::Running;
use crate::proto::v2::{Extensions, Flags, Type, fail_payload};
use crate::{Body, Codec, Error, Executed, Kind, TraceParent};

impl Connection {
    /// Runs a function of messages both ways.
    pub(super) fn begin_exchange(self: &Arc<Self>, mut call: Call, codec: Codec) {
        let Some(context) = self.context(&mut call) else { return };
        let stream = call.stream;
        let mut open = lock(&self.served.open);
        let place = open.next(stream);
        let (inbox, receiving, sending) = self.exchange(place);
        self.push(|outbox| outbox.begin_exchange(place));
        let running = call.function.run_exchange(context.clone(), codec, receiving, sending);
        let connection = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = until(call.deadline, running).await;
            let mut open = lock(&connection.served.open);
            if open.take(place).is_none() {
                return;
            }
            connection.push(|outbox| match result.is_ok() {
                true => outbox.message(place, Bytes::new(), true),
                false => outbox.forget(stream),
            });
            drop(open);
            connection.finish(&call, Amount::default(), result);
        });
        let task = task.abort_handle();
        let serving = Serving::Exchange { inbox: Some(inbox), task, context };
        open.all.insert(stream, (place.generation, serving));
    }

    /// What travelled with a call; `None`: it breaks the protocol.
    fn context(&self, call: &mut Call) -> Option<Context> {
        let extensions = match call.extensions.is_empty() {
            true => Ok(Extensions::default()),
            false => Extensions::decode(&call.extensions),
        };
        let extensions = match extensions {
            Ok(extensions) => extensions,
            Err(error) => {
                self.refuse(Kind::Protocol, &error.to_string());
                return None;
            }
        };
        call.attempt = extensions.attempt.map_or(1, u32::from);
        // What the function calls itself is below this call.
        let above = extensions.traceparent.and_then(|it| it.parse::<TraceParent>().ok());
        call.trace = above.map(|above| above.child());
        let mut metadata = extensions.metadata;
        metadata.extend(call.trace.map(|it| ("traceparent".to_owned(), it.to_string())));
        metadata.extend(extensions.tracestate.map(|it| ("tracestate".to_owned(), it)));
        let (peer, name) = (Arc::clone(&self.peer), Arc::clone(call.function.name()));
        let context = Context::new(peer, name, call.stream.into(), call.deadline, metadata);
        let context = if call.begun.is_some() { context.timed() } else { context };
        call.context = call.begun.is_some().then(|| context.clone());
        Some(context)
    }

    /// Runs a function: in this `task`, as far as it does not wait, and then in one of its own.
    pub(super) fn run(
        self: &Arc<Self>,
        task: &mut task::Context<'_>,
        mut call: Call,
        argument: Message,
    ) {
        let Some(context) = self.context(&mut call) else { return };
        let Message { body, room, blocks, took } = argument;
        call.took = took;
        let received = Amount { bytes: body.bytes.len() as u64, blocks };
        let mut running = call.function.run(call.way, context, body);
        if call.way == Way::Cast {
            // From here on it is nobody's any more, and runs to its end.
            call.acknowledged = true;
            call.deadline = None;
            if !call.quiet {
                self.frame(Type::Ack, Flags::NONE, call.stream, &[], &Bytes::new());
            }
        }
        match Pin::new(&mut running).poll(task) {
            Poll::Ready(result) => {
                drop(room);
                self.finish(&call, received, result);
            }
            Poll::Pending => self.go_on(call, running, room, received),
        }
    }

    /// The function waits for something: it goes on by itself.
    fn go_on(self: &Arc<Self>, call: Call, running: Running, room: Option<Room>, received: Amount) {
        let stream = call.stream;
        let context = running.context().clone();
        let connection = Arc::clone(self);
        if call.way == Way::Cast {
            // Its number is free, and it runs to its end.
            let casting = Casting::new(self);
            tokio::spawn(async move {
                let _room = room;
                let result = running.await;
                drop(casting);
                connection.finish(&call, received, result);
            });
            return;
        }
        let mut open = lock(&self.served.open);
        let place = open.next(stream);
        let task = tokio::spawn(async move {
            let _room = room;
            let result = until(call.deadline, running).await;
            let running = lock(&connection.served.open).take(place);
            if running.is_some() {
                connection.finish(&call, received, result);
            }
        });
        let serving = Serving::Running { task: task.abort_handle(), context };
        if open.ended {
            return serving.stop();
        }
        open.all.insert(stream, (place.generation, serving));
    }

    /// Answers.
    pub(super) fn finish(&self, call: &Call, received: Amount, result: Result<Body, Error>) {
        let too_long = |body: &Body| {
            let size = u64::try_from(body.bytes.len()).unwrap_or(u64::MAX);
            (size > self.max_message).then(|| {
                let limit = self.max_message;
                let reason = format!("the result has {size} bytes; the caller takes {limit}");
                Error::new(Kind::Value, Executed::Yes, reason)
            })
        };
        let result = result.and_then(|body| too_long(&body).map_or(Ok(body), Err));
        let mut sent = Amount::default();
        if call.way != Way::Cast {
            match &result {
                Ok(_) if call.way == Way::Stream => {}
                Ok(body) => {
                    let opening = (&[][..], &reply_payload(body)[..]);
                    let message = self.zipped(&body.bytes);
                    let (kind, stream) = (Type::Reply, call.stream);
                    let said = self.message(kind, Flags::NONE, stream, opening, message);
                    if said.as_ref().is_some_and(|said| said.wakes) {
                        self.work.notify_one();
                    }
                    sent = said.map(|said| said.amount).unwrap_or_default();
                }
                Err(error) => self.fail(call.stream, error),
            }
        } else if let Err(error) = &result {
            if !call.acknowledged && !call.quiet {
                self.fail(call.stream, error);
            }
            self.tell(&Event::CastLost { function: call.function.name(), error });
        }
        let Some(begun) = call.begun else { return };
        let (dser, ser) = call.context.as_ref().map(Context::spent).unwrap_or_default();
        let mut times = Times { recv: call.took, dser, ser, ..Times::default() };
        times.exec = begun.elapsed().saturating_sub(times.total());
        self.tell(&Event::Called(&Called {
            side: Side::Server,
            way: call.way,
            function: call.function.name(),
            peer: Some(&self.peer),
            req_ref: call.stream.into(),
            result: result.as_ref().map(|_| ()),
            attempt: call.attempt,
            trace: call.trace,
            times,
            sent,
            received,
        }));
    }

    pub(super) fn fail(&self, stream: u32, error: &Error) {
        self.frame(Type::Fail, Flags::NONE, stream, &fail_payload(error), &Bytes::new());
    }

    /// A call that was refused.
    pub(super) fn told(&self, name: &str, flags: Flags, stream: u32, result: Result<(), &Error>) {
        if self.observers.is_empty() {
            return;
        }
        self.tell(&Event::Called(&Called {
            side: Side::Server,
            way: if flags.has(Flags::CAST) { Way::Cast } else { Way::Call },
            function: name,
            peer: Some(&self.peer),
            req_ref: stream.into(),
            result,
            attempt: 1,
            trace: None,
            times: Times::default(),
            sent: Amount::default(),
            received: Amount::default(),
        }));
    }
}

/// §7.8.
async fn until(deadline: Option<Instant>, running: Running) -> Result<Body, Error> {
    let Some(at) = deadline else { return running.await };
    let context = running.context().clone();
    tokio::time::timeout_at(at, running).await.unwrap_or_else(|_| {
        context.cancel();
        let reason = "the function took longer than its caller waits";
        Err(Error::new(Kind::Deadline, Executed::Yes, reason))
    })
}
