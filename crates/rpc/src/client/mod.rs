//! Calls functions elsewhere.

mod pool;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{Connection, Introduction, Limits, Message, Request};
use crate::context::{Context, Metadata, Peer};
use crate::event::{Amount, Called, Event, Observe, Side, Times, Way};
use crate::proto::v2::{Algorithm, Extensions, Key};
use crate::transport::Dial;
use crate::{Body, Codec, Error, Executed, Incoming, Kind, Outgoing, TraceParent};

use pool::Pool;
use retry::Budget;
pub use retry::Retries;

/// A client that is to be made; [`Client::to`] begins.
#[derive(Debug)]
#[must_use = "there is a client once it is started"]
pub struct ClientBuilder {
    dial: DialTo,
    own: Introduction,
    connections: usize,
    age: Option<Duration>,
    in_flight: usize,
    timeout: Duration,
    codec: Codec,
    retries: Retries,
}

struct DialTo(Arc<dyn Dial>);

/// Calls functions of one service. Cheap to clone; all clones share their connections, which are made
/// when they are needed and closed with the last clone.
///
/// A call that is dropped is cancelled: the function is stopped. Inside of a function that is being
/// called itself, calls inherit what is left of its time, and its trace.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    pool: Arc<Pool>,
    queue: Semaphore,
    timeout: Duration,
    codec: Codec,
    retries: Retries,
    budget: Budget,
}

/// A call that is to be made; [`Client::function`] begins.
#[derive(Debug, Clone)]
#[must_use = "it is made by `call`, `cast` or `fire`"]
pub struct Call<'c> {
    client: &'c Client,
    function: &'c str,
    codec: Codec,
    timeout: Duration,
    idempotent: bool,
    metadata: Metadata,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    begun: Instant,
    until: Instant,
}

impl Client {
    /// To the service that this leads to.
    pub fn to(dial: impl Dial) -> ClientBuilder {
        ClientBuilder {
            dial: DialTo(Arc::new(dial)),
            own: Introduction::default(),
            connections: 2,
            age: Some(Duration::from_mins(10)),
            in_flight: 16_384,
            timeout: Duration::from_secs(10),
            codec: Codec::MessagePack,
            retries: Retries::default(),
        }
    }

    /// Calls a function and waits for its result.
    pub async fn call<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        function: &str,
        argument: &A,
    ) -> Result<R, Error> {
        self.function(function).call(argument).await
    }

    /// Asks for a function to be run, and waits until that was accepted; its result is nobody's.
    pub async fn cast<A: Serialize + ?Sized>(
        &self,
        function: &str,
        argument: &A,
    ) -> Result<(), Error> {
        self.function(function).cast(argument).await
    }

    /// A call of this function, with something other than the usual.
    pub fn function<'c>(&'c self, function: &'c str) -> Call<'c> {
        let Inside { codec, timeout, .. } = *self.0;
        Call { client: self, function, codec, timeout, idempotent: false, metadata: Vec::new() }
    }

    /// Calls a function at every instance of the service that this client is connected to, at the same
    /// time. Which these are the service mesh decides; more connections find more.
    pub async fn call_each<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        function: &str,
        argument: &A,
    ) -> Result<Vec<(Peer, Result<R, Error>)>, Error> {
        let call = self.function(function);
        let argument = call.encode(argument)?;
        let patience = call.patience();
        let picked = self.0.pool.pick(patience, None).await;
        picked.map_err(|error| error.of(function))?;
        let mut instances: Vec<Arc<Connection>> = Vec::new();
        for connection in self.0.pool.up() {
            if instances.iter().all(|it| it.instance != connection.instance) {
                instances.push(connection);
            }
        }
        let mut running = Vec::new();
        for connection in instances {
            let until = patience.until;
            let pending = call.send(&connection, &argument, until, (1, call.trace()), Way::Call);
            running.push((connection, pending));
        }
        let mut answers = Vec::new();
        for (connection, pending) in running {
            let answer = match pending {
                Ok(mut pending) => within(patience, pending.answer()).await,
                Err(error) => Err(error),
            };
            let answer = answer.map_err(|error| error.of(function).at(&connection.peer.address));
            let result = answer.and_then(|message| call.decode(&message.body));
            answers.push((Peer::clone(&connection.peer), result));
        }
        Ok(answers)
    }

    /// How many calls wait for answers.
    pub fn in_flight(&self) -> usize {
        self.0.pool.up().iter().map(|connection| connection.in_flight()).sum()
    }
}

impl ClientBuilder {
    /// So many connections (2). Behind a mesh they may lead to different instances.
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count.clamp(1, 256);
        self
    }

    /// A connection is replaced after about this long (10 min), so that new instances get their part;
    /// `None`: never.
    pub fn max_age(mut self, age: Option<Duration>) -> Self {
        self.age = age;
        self
    }

    /// So many calls at a time (16 384); others wait for their turn.
    pub fn in_flight(mut self, limit: usize) -> Self {
        self.in_flight = limit.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long a call may take, unless it says otherwise (10 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How arguments are written, unless a call says otherwise (`MessagePack`). With
    /// [`Codec::Postcard`] the types of caller and function must be the same: it does not see that an
    /// `i32` is none, and gives another number.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// When calls are made again.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// What this service and node are called in events and logs, here and at the server.
    pub fn named(mut self, service: &str, node: &str) -> Self {
        service.clone_into(&mut self.own.svc_ref);
        node.clone_into(&mut self.own.node_ref);
        self
    }

    /// The server must have this key: for use outside of a mesh.
    pub fn key(mut self, key: Key) -> Self {
        self.own.key = Some(key);
        self
    }

    /// The checksums that are offered, the preferred one first.
    pub fn checksums(mut self, algorithms: &[Algorithm]) -> Self {
        self.own.checksums = algorithms.to_vec();
        self
    }

    /// Compresses arguments, and takes compressed results.
    pub fn compress(mut self) -> Self {
        self.own.compress = true;
        self
    }

    /// What a connection may hold, and how long it waits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.own.limit(limits);
        self
    }

    /// Is told what happens.
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.own.observers.add(Arc::new(observer));
        self
    }

    /// The client. Nothing is dialled before the first call.
    pub fn start(self) -> Client {
        let Self { dial, own, connections, age, in_flight, timeout, codec, retries } = self;
        let pool = Arc::new(Pool::new(dial.0, own, connections, age));
        let budget = Budget::new(retries.budget);
        let queue = Semaphore::new(in_flight);
        Client(Arc::new(Inside { pool, queue, timeout, codec, retries, budget }))
    }
}

impl Call<'_> {
    /// How long it may take, all attempts together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// It may run more than once: then it is made again also if it perhaps ran already.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// How the argument is written, and with it the result.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Something that travels with it.
    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Calls, and waits for the result.
    pub async fn call<A: Serialize + ?Sized, R: DeserializeOwned>(
        self,
        argument: &A,
    ) -> Result<R, Error> {
        let argument = self.encode(argument)?;
        let result = self.attempts(&argument, Way::Call).await?;
        self.decode(&result.body)
    }

    /// Calls with bytes, and gives the result as it came.
    pub async fn call_raw(self, argument: Body) -> Result<Body, Error> {
        self.attempts(&argument, Way::Call).await.map(|message| message.body)
    }

    /// Asks for the function to be run, and waits until that was accepted.
    pub async fn cast<A: Serialize + ?Sized>(self, argument: &A) -> Result<(), Error> {
        let argument = self.encode(argument)?;
        self.attempts(&argument, Way::Cast).await.map(drop)
    }

    /// Asks for the function to be run, and waits for nothing but a connection that is not behind with
    /// writing. Whether it was, nobody says; what surely did not get out is an error here, and an
    /// event. Up to 32 KiB.
    pub async fn fire<A: Serialize + ?Sized>(self, argument: &A) -> Result<(), Error> {
        let argument = self.encode(argument)?;
        let Inside { pool, queue, .. } = &*self.client.0;
        let patience = self.patience();
        let fired = async {
            let _turn = queue.acquire().await;
            let connection = pool.pick(patience, None).await?;
            // What nobody answers is not more than the connection writes.
            connection.drained().await;
            let extensions = self.extensions(1, self.trace())?;
            let request = Request {
                function: self.function,
                argument: &argument,
                timeout: None,
                way: Way::Cast,
                extensions: &extensions,
            };
            connection.fire(&request)
        };
        let fired = tokio::time::timeout_at(patience.until, fired).await.unwrap_or_else(|_| {
            let reason = format!("it could not be written within {:?}", patience.whole());
            Err(Error::new(Kind::Overloaded, Executed::Never, reason).at(&pool.address()))
        });
        let fired = fired.map_err(|error| error.of(self.function));
        fired.map(drop).inspect_err(|error| {
            pool.own.observers.tell(&Event::CastLost { function: self.function, error });
        })
    }

    /// Begins an exchange of messages both ways; the time limit is that of the whole of it, and there is
    /// none unless one was set here. It ends with both sides' ends, or when [`Incoming`] is dropped.
    pub async fn open<O: Serialize + ?Sized, I: DeserializeOwned>(
        self,
    ) -> Result<(Outgoing<O>, Incoming<I>), Error> {
        let pool = &self.client.0.pool;
        let picked = pool.pick(self.patience(), None).await;
        let connection = picked.map_err(|error| error.of(self.function))?;
        let nothing = Body { codec: self.codec, bytes: bytes::Bytes::new() };
        let inherited = Context::current().and_then(|context| context.remaining());
        let own = (self.timeout != self.client.0.timeout).then_some(self.timeout);
        let request = Request {
            function: self.function,
            argument: &nothing,
            timeout: own.into_iter().chain(inherited).min(),
            way: Way::Stream,
            extensions: &self.extensions(1, self.trace())?,
        };
        let begun = connection.open_exchange(&request).map_err(|error| error.of(self.function));
        let (receiving, sending) = begun?;
        Ok((Outgoing::new(self.codec, sending, true), Incoming::new(self.codec, receiving, true)))
    }

    fn encode<A: Serialize + ?Sized>(&self, argument: &A) -> Result<Body, Error> {
        Body::encode(self.codec, argument).map_err(|error| {
            let reason = format!("the argument cannot be written: {error}");
            Error::new(Kind::Value, Executed::Never, reason).of(self.function)
        })
    }

    fn decode<R: DeserializeOwned>(&self, result: &Body) -> Result<R, Error> {
        result.decode().map_err(|error| {
            let reason = format!("the result cannot be read: {error}");
            Error::new(Kind::Value, Executed::Yes, reason).of(self.function)
        })
    }

    /// §7.8: no longer than what is left of the call that this is a part of.
    fn patience(&self) -> Patience {
        let begun = Instant::now();
        let own = begun.checked_add(self.timeout).unwrap_or(begun + Duration::from_hours(24));
        let inherited = Context::current().and_then(|context| context.deadline());
        Patience { begun, until: inherited.map_or(own, |inherited| own.min(inherited)) }
    }

    /// Its place in the trace of the call that this is a part of, or in that of its metadata.
    fn trace(&self) -> Option<TraceParent> {
        let above = TraceParent::of(&self.metadata);
        let above = above.or_else(|| TraceParent::of(Context::current()?.metadata()));
        above.map(|above| above.child())
    }

    fn extensions(
        &self,
        attempt: u32,
        trace: Option<TraceParent>,
    ) -> Result<bytes::BytesMut, Error> {
        let current = Context::current();
        let extensions = Extensions {
            traceparent: trace.map(|trace| trace.to_string()),
            tracestate: current.as_ref().and_then(|it| it.value("tracestate")).map(str::to_owned),
            metadata: self.metadata.clone(),
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

    fn send(
        &self,
        connection: &Arc<Connection>,
        argument: &Body,
        deadline: Instant,
        (attempt, trace): (u32, Option<TraceParent>),
        way: Way,
    ) -> Result<crate::connection::Pending, Error> {
        connection.call(&Request {
            function: self.function,
            argument,
            timeout: Some(deadline.saturating_duration_since(Instant::now())),
            way,
            extensions: &self.extensions(attempt, trace)?,
        })
    }

    /// Makes the call, again where that is right (§8.3).
    async fn attempts(&self, argument: &Body, way: Way) -> Result<Message, Error> {
        let Inside { pool, queue, retries, budget, .. } = &*self.client.0;
        let patience = self.patience();
        let deadline = patience.until;
        budget.earn();
        let mut made = 0;
        let mut avoided = None;
        loop {
            made += 1;
            let begun = Instant::now();
            let mut times = Times::default();
            let mut used = None;
            let mut sent = Amount::default();
            let trace = self.trace();
            let attempt = async {
                let _turn = queue.acquire().await;
                let _leaves = Leaves(pool);
                let mut pending = loop {
                    let connection = pool.pick(patience, avoided.as_ref()).await?;
                    times.queue = begun.elapsed();
                    used = Some(Arc::clone(&connection));
                    match self.send(&connection, argument, deadline, (made, trace), way) {
                        // Another call was faster, or it was replaced just now: there is a place
                        // elsewhere, or will be.
                        Err(error) if error.kind() == Kind::Overloaded || !connection.is_open() => {
                            tokio::task::yield_now().await;
                        }
                        sent => break sent?,
                    }
                };
                sent = pending.sent;
                pending.answer().await
            };
            let result = within(patience, attempt).await;
            let result = result.map_err(|error| error.of(self.function));
            if !pool.own.observers.is_empty() {
                times.exec = begun.elapsed().saturating_sub(times.queue);
                self.tell((way, trace), used.as_ref(), &result, (made, times, sent));
            }
            let error = match result {
                Ok(message) => return Ok(message),
                Err(error) => error,
            };
            if !retries.may(&error, self.idempotent, made) || !budget.spend() {
                return Err(error.at(&pool.address()));
            }
            let pause = retries.pause(&error, made);
            if deadline.saturating_duration_since(Instant::now()) <= pause {
                return Err(error.at(&pool.address()));
            }
            tokio::time::sleep(pause).await;
            avoided = used;
        }
    }

    fn tell(
        &self,
        (way, trace): (Way, Option<TraceParent>),
        used: Option<&Arc<Connection>>,
        result: &Result<Message, Error>,
        (attempt, times, sent): (u32, Times, Amount),
    ) {
        let received = result.as_ref().map_or(Amount::default(), |message| Amount {
            bytes: message.body.bytes.len() as u64,
            blocks: message.blocks,
        });
        self.client.0.pool.own.observers.tell(&Event::Called(&Called {
            side: Side::Client,
            way,
            function: self.function,
            peer: used.map(|connection| &*connection.peer),
            req_ref: 0,
            trace,
            result: result.as_ref().map(|_| ()),
            attempt,
            times,
            sent,
            received,
        }));
    }
}

impl Patience {
    /// All of it, in whole milliseconds.
    fn whole(self) -> Duration {
        let whole = self.until.saturating_duration_since(self.begun).as_millis();
        Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX))
    }
}

/// §7.8, at the caller.
async fn within<T>(
    patience: Patience,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout_at(patience.until, work).await.unwrap_or_else(|_| {
        let reason = format!("no answer came within {:?}", patience.whole());
        Err(Error::new(Kind::Deadline, Executed::Maybe, reason))
    })
}

/// A call that ends, however it does, leaves its place to another.
struct Leaves<'p>(&'p Pool);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.freed();
    }
}

impl std::fmt::Debug for DialTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DialTo").field(&self.0.address()).finish()
    }
}
