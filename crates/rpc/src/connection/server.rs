//! Calls that are let in: by whom they may be made, whether there is such a function, and a place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::assembly::{Assembly, Message, body};
use super::io::common;
use super::served::{Call, Counted, Serving};
use super::{Connection, lock};
use crate::event::Way;
use crate::policy::Policy;
use crate::proto::v2::{Flags, Frame, Open};
use crate::{Codec, Error, Executed, Functions, Kind};

/// So many casts of one connection run at a time: their numbers are free at once.
const CASTS: usize = 4096;

/// What a server offers, to whom, and how much of it at a time.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) functions: Functions,
    pub(crate) policy: Option<Policy>,
    /// Calls that run, of all connections together.
    pub(crate) places: Arc<Semaphore>,
}

impl Connection {
    /// Takes what a client says; functions run here, in this `task`, as far as they do not wait.
    /// An error is a client that breaks the protocol.
    pub(super) fn serve(
        self: &Arc<Self>,
        task: &mut task::Context<'_>,
        service: &Arc<Service>,
        frame: Frame,
    ) -> Result<(), String> {
        match frame {
            Frame::Open(open) => self.open(task, service, open),
            Frame::Data { stream, flags, block } => self.argument(stream, flags, &block),
            Frame::Cancel { stream } => {
                let mut open = lock(&self.served.open);
                let half_said = self.push(|outbox| outbox.forget(stream)) == Some(true);
                let serving = open.remove(stream);
                drop(open);
                self.room.notify_waiters();
                if half_said || serving.is_some() {
                    serving.into_iter().for_each(Serving::stop);
                    let reason = "the caller does not wait any more";
                    self.fail(stream, &Error::new(Kind::Cancelled, Executed::Maybe, reason));
                }
                Ok(())
            }
            other => match common(self, other)? {
                Some(other) => Err(format!("a client does not say {}", other.name())),
                None => Ok(()),
            },
        }
    }

    /// A call begins.
    fn open(
        self: &Arc<Self>,
        task: &mut task::Context<'_>,
        service: &Arc<Service>,
        open: Open,
    ) -> Result<(), String> {
        let Open { stream, flags, timeout, codec, name, block, extensions } = open;
        if stream % 2 == 0 || stream / 2 >= self.limits.max_streams {
            return Err(format!("a call has the number {stream}"));
        }
        if flags.has(Flags::QUIET) && !flags.has(Flags::CAST) {
            return Err("a call wants no answer and is no cast".to_owned());
        }
        let is_half_said = || lock(&self.out).outbox.has_flow(stream);
        let half_said = self.waits.flows.load(Ordering::Acquire) > 0 && is_half_said();
        if half_said || lock(&self.served.open).all.contains_key(&stream) {
            return Err(format!("two calls have the number {stream}"));
        }
        let refused = |kind, reason: String| {
            let error = Error::new(kind, Executed::Never, reason);
            if !flags.has(Flags::QUIET) {
                self.fail(stream, &error);
            }
            let name = String::from_utf8_lossy(&name);
            self.told(&name, flags, stream, Err(&error));
            Ok(())
        };
        if self.served.draining.load(Ordering::Acquire) {
            return refused(Kind::Draining, "the server stops".to_owned());
        }
        let known = std::str::from_utf8(&name).unwrap_or_default();
        // Before it is looked up: who may not call it does not learn whether it is there.
        if let Some(permits) = &self.permits
            && let Err(denied) = permits.check(known)
        {
            return refused(denied.kind(), denied.reason().to_owned());
        }
        let Some(function) = service.functions.get(known) else {
            return refused(Kind::UnknownFunction, "no such function is offered".to_owned());
        };
        // A long argument gets its place when it is there.
        let place = Arc::clone(&service.places).try_acquire_owned().ok();
        let crowded = flags.has(Flags::CAST) && self.served.casts.load(Ordering::Acquire) >= CASTS;
        let large = self.waits.large.load(Ordering::Acquire);
        let behind = u64::try_from(large).unwrap_or(u64::MAX) > self.limits.large_messages;
        // A client that does not take its large results gets no more of them.
        if place.is_none() || crowded || behind {
            return refused(Kind::Overloaded, "the server has too many calls in flight".to_owned());
        }
        let place = place.filter(|_| !flags.has(Flags::MORE));
        let begun = (!self.observers.is_empty()).then(Instant::now);
        let mut call = Call {
            stream,
            function: function.clone(),
            way: if flags.has(Flags::CAST) { Way::Cast } else { Way::Call },
            quiet: flags.has(Flags::QUIET),
            acknowledged: false,
            deadline: None,
            extensions,
            attempt: 1,
            trace: None,
            begun,
            context: None,
            took: Duration::ZERO,
            place,
            _counted: Counted::new(self),
        };
        if timeout > 0 {
            call.deadline = Instant::now().checked_add(Duration::from_micros(timeout));
        }
        if flags.has(Flags::EXCHANGE) {
            let Some(codec) = Codec::from_number(codec) else {
                return refused(Kind::Value, format!("the codec {codec} is unknown"));
            };
            if !function.is_exchange() {
                return refused(Kind::Value, "the function takes one argument: call it".to_owned());
            }
            call.way = Way::Stream;
            self.begin_exchange(call, codec);
            return Ok(());
        }
        if !flags.has(Flags::MORE) {
            let zip = flags.has(Flags::ZIP);
            let limit = self.limits.max_message;
            return match body(codec, zip, block.bytes, limit, Executed::Never) {
                Ok(body) => {
                    self.run(task, call, Message::small(body, 1));
                    Ok(())
                }
                Err(error) => refused(error.kind(), error.reason().to_owned()),
            };
        }
        let total = block.total.ok_or("a long message without its length")?;
        let total = match self.budget.check(total, Executed::Never) {
            Ok(total) => total,
            Err(error) => return refused(error.kind(), error.reason().to_owned()),
        };
        let mut assembly = Assembly::new(total, flags.has(Flags::ZIP), codec, &self.budget);
        assembly.add(&block)?;
        self.expect_argument(service, call, assembly)
    }
}
