//! Calls that are answered.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::assembly::{Assembly, Message, Room, body};
use super::exchange::Inbox;
use super::io::common;
use super::slots::Place;
use super::{Connection, lock, reply_payload};
use crate::context::Context;
use crate::event::{Amount, Called, Event, Side, Times, Way};
use crate::functions::{Function, Running};
use crate::policy::Policy;
use crate::proto::v2::{Block, Extensions, Flags, Frame, Open, Type, fail_payload};
use crate::{Body, Codec, Error, Executed, Functions, Kind, TraceParent};

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

/// The calls of one connection that are not answered yet, by the numbers of their streams. Its lock may
/// be held while something is put into the outbox, never the other way round.
#[derive(Debug, Default)]
pub(super) struct Served {
    open: Mutex<Table>,
    /// Calls and casts that run, or are about to.
    count: AtomicUsize,
    casts: AtomicUsize,
    idle: Notify,
    draining: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    all: HashMap<u32, (u64, Serving)>,
    generation: u64,
    /// What came of arguments for which there is no room yet.
    unasked: u64,
}

#[derive(Debug)]
enum Serving {
    /// The argument is on its way.
    Argument(Box<Coming>),
    Running {
        task: AbortHandle,
        context: Context,
    },
    /// Messages both ways; `None`: the client says no more.
    Exchange {
        inbox: Option<Inbox>,
        task: AbortHandle,
        context: Context,
    },
}

/// A call of which the argument is on its way.
#[derive(Debug)]
struct Coming {
    assembly: Assembly,
    call: Call,
    service: Arc<Service>,
    /// Makes room, and gives up when that takes too long.
    receiving: Option<AbortOnDropHandle<()>>,
}

/// What is known of a call before it runs.
#[derive(Debug)]
struct Call {
    stream: u32,
    function: Function,
    way: Way,
    quiet: bool,
    acknowledged: bool,
    deadline: Option<Instant>,
    extensions: Bytes,
    attempt: u32,
    trace: Option<TraceParent>,
    begun: Option<Instant>,
    place: Option<OwnedSemaphorePermit>,
    /// It counts as long as it lives.
    _counted: Counted,
}

/// A call that a server that stops waits for.
#[derive(Debug)]
struct Counted(Arc<Connection>);

impl Counted {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.served.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.served.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.served.idle.notify_waiters();
        }
    }
}

/// A cast that runs.
#[derive(Debug)]
struct Casting(Arc<Connection>);

impl Casting {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.served.casts.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Casting {
    fn drop(&mut self) {
        self.0.served.casts.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Served {
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Waits until nothing runs.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// The connection is gone: nobody waits for what runs.
    pub(super) fn end(&self) {
        let all = std::mem::take(&mut lock(&self.open).all);
        for (_, (_, serving)) in all {
            serving.stop();
        }
    }
}

impl Table {
    fn insert(&mut self, stream: u32, serving: Serving) -> Place {
        let place = self.next(stream);
        self.all.insert(stream, (place.generation, serving));
        place
    }

    /// A place for what is about to be inserted.
    fn next(&mut self, stream: u32) -> Place {
        self.generation = self.generation.wrapping_add(1);
        Place { stream, generation: self.generation }
    }

    fn remove(&mut self, stream: u32) -> Option<Serving> {
        let (_, serving) = self.all.remove(&stream)?;
        if let Serving::Argument(coming) = &serving
            && !coming.assembly.has_room()
        {
            let received = u64::try_from(coming.assembly.received()).unwrap_or(u64::MAX);
            self.unasked = self.unasked.saturating_sub(received);
        }
        Some(serving)
    }

    /// Removes that call, and not another one with its number.
    fn take(&mut self, place: Place) -> Option<Serving> {
        let (generation, _) = self.all.get(&place.stream)?;
        if *generation == place.generation { self.remove(place.stream) } else { None }
    }
}

impl Serving {
    fn stop(self) {
        match self {
            Self::Running { task, context } | Self::Exchange { task, context, .. } => {
                context.cancel();
                task.abort();
            }
            Self::Argument(_) => {}
        }
    }
}

impl Connection {
    /// Takes what a client says. An error is a client that breaks the protocol.
    pub(super) async fn serve(
        self: &Arc<Self>,
        service: &Arc<Service>,
        frame: Frame,
    ) -> Result<(), String> {
        let Some(frame) = common(self, frame)? else { return Ok(()) };
        match frame {
            Frame::Open(open) => self.open(service, open).await,
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
            other => Err(format!("a client does not say {}", other.name())),
        }
    }

    /// A call begins.
    async fn open(self: &Arc<Self>, service: &Arc<Service>, open: Open) -> Result<(), String> {
        let Open { stream, flags, timeout, codec, ref name, ref block, ref extensions } = open;
        if stream % 2 == 0 || stream / 2 >= self.limits.max_streams {
            return Err(format!("a call has the number {stream}"));
        }
        if flags.has(Flags::QUIET) && !flags.has(Flags::CAST) {
            return Err("a call wants no answer and is no cast".to_owned());
        }
        let (large, half_said) = lock(&self.out).outbox.large(stream);
        if half_said || lock(&self.served.open).all.contains_key(&stream) {
            return Err(format!("two calls have the number {stream}"));
        }
        let refused = |kind, reason: String| {
            let error = Error::new(kind, Executed::Never, reason);
            if !flags.has(Flags::QUIET) {
                self.fail(stream, &error);
            }
            let name = String::from_utf8_lossy(name);
            self.told(&name, flags, stream, Err(&error));
            Ok(())
        };
        if self.served.draining.load(Ordering::Acquire) {
            return refused(Kind::Draining, "the server stops".to_owned());
        }
        let name = std::str::from_utf8(name).unwrap_or_default();
        // Before it is looked up: who may not call it does not learn whether it is there.
        if let Some(permits) = &self.permits
            && let Err(denied) = permits.check(name)
        {
            return refused(denied.kind(), denied.reason().to_owned());
        }
        let Some(function) = service.functions.get(name) else {
            return refused(Kind::UnknownFunction, "no such function is offered".to_owned());
        };
        // A long argument gets its place when it is there.
        let place = Arc::clone(&service.places).try_acquire_owned().ok();
        let crowded = flags.has(Flags::CAST) && self.served.casts.load(Ordering::Acquire) >= CASTS;
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
            extensions: extensions.clone(),
            attempt: 1,
            trace: None,
            begun,
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
            match body(codec, zip, block.bytes.clone(), limit, Executed::Never) {
                Ok(body) => self.run(call, Message { body, room: None, blocks: 1 }).await,
                Err(error) => return refused(error.kind(), error.reason().to_owned()),
            }
            return Ok(());
        }
        let total = block.total.ok_or("a long message without its length")?;
        let total = match self.budget.check(total, Executed::Never) {
            Ok(total) => total,
            Err(error) => return refused(error.kind(), error.reason().to_owned()),
        };
        let mut assembly = Assembly::new(total, flags.has(Flags::ZIP), codec);
        assembly.add(block)?;
        self.check_windows(assembly.received(), 0)?;
        let patience = call.deadline.unwrap_or_else(|| Instant::now() + self.limits.frame * 4);
        let mut open = lock(&self.served.open);
        let received = u64::try_from(assembly.received()).unwrap_or(u64::MAX);
        open.unasked = open.unasked.saturating_add(received);
        let unasked = open.unasked;
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
    fn argument(self: &Arc<Self>, stream: u32, flags: Flags, block: &Block) -> Result<(), String> {
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
            match assembly.message(connection.limits.max_message, Executed::Never) {
                Ok(message) => connection.run(call, message).await,
                Err(error) => connection.finish(&call, Amount::default(), Err(error)),
            }
        });
    }

    /// Runs a function of messages both ways.
    fn begin_exchange(self: &Arc<Self>, mut call: Call, codec: Codec) {
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
        Some(Context::new(peer, name, call.stream.into(), call.deadline, metadata))
    }

    /// Runs a function: here, as far as it does not wait, and then in a task of its own.
    async fn run(self: &Arc<Self>, mut call: Call, argument: Message) {
        let Some(context) = self.context(&mut call) else { return };
        let Message { body, room, blocks } = argument;
        let received = Amount { bytes: body.bytes.len() as u64, blocks };
        let mut running = call.function.run(context, body);
        if call.deadline.is_some_and(|at| at <= Instant::now()) {
            let reason = "the time was over before it began";
            let error = Error::new(Kind::Deadline, Executed::Never, reason);
            return self.finish(&call, received, Err(error));
        }
        if call.way == Way::Cast {
            // From here on it is nobody's any more, and runs to its end.
            call.acknowledged = true;
            call.deadline = None;
            if !call.quiet {
                self.frame(Type::Ack, Flags::NONE, call.stream, &[], &Bytes::new());
            }
        }
        let first = poll_fn(|waker| Poll::Ready(Pin::new(&mut running).poll(waker))).await;
        match first {
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
        open.all.insert(stream, (place.generation, serving));
    }

    /// Answers.
    fn finish(&self, call: &Call, received: Amount, result: Result<Body, Error>) {
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
                    let payload = reply_payload(body);
                    let said = self.message(
                        Type::Reply,
                        Flags::NONE,
                        call.stream,
                        (&[], &payload),
                        &body.bytes,
                    );
                    sent = said.unwrap_or_default();
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
        let times = Times { exec: begun.elapsed(), ..Times::default() };
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

    fn fail(&self, stream: u32, error: &Error) {
        self.frame(Type::Fail, Flags::NONE, stream, &fail_payload(error), &Bytes::new());
    }

    /// A call that was refused.
    fn told(&self, name: &str, flags: Flags, stream: u32, result: Result<(), &Error>) {
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
