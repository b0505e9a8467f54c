//! Calls functions elsewhere.

mod around;
mod attempts;
mod hedge;
mod pool;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{Connection, Introduction, Limits, Receiving, Request, Sending};
use crate::context::{Context, Metadata, Peer};
use crate::event::{Event, Observe, Way};
use crate::intercept::{self, Chain, Intercept};
use crate::patience::Patience;
use crate::proto::v2::{Algorithm, Key};
use crate::transport::Dial;
use crate::{Body, Codec, Error, Executed, Incoming, Kind, Outgoing};

use around::{Asked, together};
use attempts::Making;
pub use hedge::Hedge;
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
    hedge: Hedge,
    chain: Chain,
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
    hedge: Hedge,
    chain: Chain,
}

/// A call that is to be made; [`Client::function`] begins.
#[derive(Debug, Clone)]
#[must_use = "it is made by `call`, `cast` or `fire`"]
pub struct Call<'c> {
    client: &'c Client,
    function: &'c str,
    codec: Codec,
    /// `None`: the client's.
    timeout: Option<Duration>,
    idempotent: bool,
    /// `None`: the client's.
    hedge: Option<Hedge>,
    metadata: Metadata,
    /// How long its argument was written, if somebody listens.
    wrote: Duration,
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
            hedge: Hedge::NONE,
            chain: Chain::default(),
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
        let codec = self.0.codec;
        Call {
            client: self,
            function,
            codec,
            timeout: None,
            idempotent: false,
            hedge: None,
            metadata: Vec::new(),
            wrote: Duration::ZERO,
        }
    }

    /// Makes a call or cast that was put together before, or that came to an interceptor of a server:
    /// with its metadata, and within its deadline, if it has one. A cast gives an empty result.
    ///
    /// ```
    /// # use meshx_rpc::{Functions, Server, transport::Memory};
    /// use meshx_rpc::{Body, Client, Codec, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let functions = Functions::new().add("add", async |(a, b): (u32, u32)| Ok::<_, String>(a + b));
    /// # let (dial, listener) = Memory::pair();
    /// # let server = Server::new(functions).listen(listener).start();
    /// let client = Client::to(dial).start();
    /// let mut request = Request::new("add", Body::encode(Codec::Json, &(1, 2))?);
    /// request.idempotent = true;
    /// assert_eq!(client.request(request).await?.bytes, "3");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request(&self, request: intercept::Request) -> Result<Body, Error> {
        let (function, body) = (request.function(), request.body.clone());
        if request.way() == Way::Stream {
            let reason = "it is an exchange: `Call::open` begins one";
            return Err(Error::new(Kind::Value, Executed::Never, reason).of(function));
        }
        let mut call = self.function(function).codec(body.codec);
        call.timeout = request.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        call.idempotent = request.idempotent;
        call.metadata.clone_from(&request.metadata);
        call.make(body, request.way()).await.map(|message| message.body)
    }

    /// Calls a function at every instance of the service that this client is connected to, at the same
    /// time. Which these are the service mesh decides; more connections find more.
    pub async fn call_each<A: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        function: &str,
        argument: &A,
    ) -> Result<Vec<(Peer, Result<R, Error>)>, Error> {
        let mut call = self.function(function);
        let argument = call.encode(argument)?;
        let context = Context::current();
        let patience = call.patience(context.as_ref());
        let picked = self.0.pool.pick((patience, patience.begun), None).await;
        picked.map_err(|error| error.of(function))?;
        let mut instances: Vec<Arc<Connection>> = Vec::new();
        for connection in self.0.pool.up() {
            if instances.iter().all(|it| it.instance != connection.instance) {
                instances.push(connection);
            }
        }
        if !self.0.chain.is_empty() {
            let calls = instances.into_iter().map(|connection| {
                let (call, context) = (call.clone(), context.as_ref());
                let (argument, peer) = (argument.clone(), Arc::clone(&connection.peer));
                let asked = Asked::There(connection);
                async move {
                    let answer = call.around(argument, Way::Call, asked, patience, context).await;
                    let result = answer.and_then(|(body, _)| call.decode(&body));
                    (Peer::clone(&peer), result.map_err(|error| error.at(&peer.address)))
                }
            });
            return Ok(together(calls).await);
        }
        let mut running = Vec::new();
        for connection in instances {
            let (now, trace) = (Instant::now(), call.trace(context.as_ref()));
            let making = Making { patience, now, made: 1, way: Way::Call, trace };
            let pending = call.send(&connection, &argument, making, context.as_ref());
            running.push((connection, pending));
        }
        let mut answers = Vec::new();
        for (connection, pending) in running {
            let answer = match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let answer = answer.map_err(|error| error.of(function).at(&connection.peer.address));
            let result = answer.and_then(|message| call.decode(&message.body));
            answers.push((Peer::clone(&connection.peer), result));
        }
        Ok(answers)
    }

    /// Asks whether a server is there, which no function of it is called for, and gives how long its
    /// answer took: §9.1. It waits for a connection, if there is none, as long as a call does.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let patience = Patience::new(self.0.timeout, Context::current().as_ref());
        let connection = self.0.pool.pick((patience, patience.begun), None).await?;
        let begun = Instant::now();
        connection.ping(patience).await.map_err(|error| error.at(&connection.peer.address))?;
        Ok(begun.elapsed())
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

    /// When idempotent calls are made on another connection beside the first (never).
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = hedge;
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

    /// Does something around every call ([`Intercept`]). Several nest in their order.
    pub fn intercept(mut self, interceptor: impl Intercept) -> Self {
        self.chain.add(interceptor);
        self
    }

    /// Is told what happens.
    pub fn observe(mut self, observer: impl Observe) -> Self {
        self.own.observers.add(Arc::new(observer));
        self
    }

    /// The client. Nothing is dialled before the first call.
    pub fn start(self) -> Client {
        let Self { dial, own, connections, age, in_flight, timeout, codec, retries, hedge, chain } =
            self;
        let pool = Arc::new(Pool::new(dial.0, own, connections, age));
        let budget = Budget::new(retries.budget);
        let queue = Semaphore::new(in_flight);
        Client(Arc::new(Inside { pool, queue, timeout, codec, retries, budget, hedge, chain }))
    }
}

impl Call<'_> {
    /// How long it may take, all attempts together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// It may run more than once: then it is made again also if it perhaps ran already, and by
    /// [`Hedge`] while it runs.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// When it is made on another connection beside the first, if it is idempotent.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
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
        mut self,
        argument: &A,
    ) -> Result<R, Error> {
        let argument = self.encode(argument)?;
        let result = self.make(argument, Way::Call).await?;
        self.decode(&result.body)
    }

    /// Calls with bytes, and gives the result as it came.
    pub async fn call_raw(self, argument: Body) -> Result<Body, Error> {
        self.make(argument, Way::Call).await.map(|message| message.body)
    }

    /// Asks for the function to be run, and waits until that was accepted.
    pub async fn cast<A: Serialize + ?Sized>(mut self, argument: &A) -> Result<(), Error> {
        let argument = self.encode(argument)?;
        self.make(argument, Way::Cast).await.map(drop)
    }

    /// Asks for the function to be run, and waits for nothing but a connection that is not behind with
    /// writing. Whether it was, nobody says; what surely did not get out is an error here, and an
    /// event. Up to 32 KiB.
    pub async fn fire<A: Serialize + ?Sized>(mut self, argument: &A) -> Result<(), Error> {
        let argument = self.encode(argument)?;
        let context = Context::current();
        let (context, patience) = (context.as_ref(), self.patience(context.as_ref()));
        let fired = match self.client.0.chain.is_empty() {
            true => self.fired(&argument, patience, context).await,
            false => {
                let around = self.around(argument, Way::Cast, Asked::Fire, patience, context);
                Box::pin(around).await.map(drop)
            }
        };
        let fired = fired.map_err(|error| error.of(self.function));
        fired.inspect_err(|error| {
            let observers = &self.client.0.pool.own.observers;
            observers.tell(&Event::CastLost { function: self.function, error });
        })
    }

    /// Begins an exchange of messages both ways; the time limit is that of the whole of it, and there is
    /// none unless one was set here. It ends with both sides' ends, or when [`Incoming`] is dropped.
    pub async fn open<O: Serialize + ?Sized, I: DeserializeOwned>(
        self,
    ) -> Result<(Outgoing<O>, Incoming<I>), Error> {
        let context = Context::current();
        let (context, patience) = (context.as_ref(), self.patience(context.as_ref()));
        let opened = match self.client.0.chain.is_empty() {
            true => {
                let inherited = context.and_then(Context::remaining);
                let limit = self.timeout.into_iter().chain(inherited).min();
                self.opened(limit, patience, context).await
            }
            false => {
                let nothing = Body { codec: self.codec, bytes: bytes::Bytes::new() };
                let around = self.around(nothing, Way::Stream, Asked::Open, patience, context);
                Box::pin(around).await.and_then(|(_, ends)| {
                    ends.ok_or_else(|| {
                        let reason = "an interceptor of the client gave a result of its own";
                        Error::new(Kind::Value, Executed::Never, reason)
                    })
                })
            }
        };
        let (receiving, sending) = opened.map_err(|error| error.of(self.function))?;
        Ok((Outgoing::new(self.codec, sending, true), Incoming::new(self.codec, receiving, true)))
    }

    async fn fired(
        &self,
        argument: &Body,
        patience: Patience,
        context: Option<&Context>,
    ) -> Result<(), Error> {
        let Inside { pool, queue, .. } = &*self.client.0;
        let fired = async {
            let _turn = queue.acquire().await;
            let connection = pool.pick((patience, patience.begun), None).await?;
            // What nobody answers is not more than the connection writes.
            connection.drained().await;
            let trace = self.trace(context);
            let request = Request {
                function: self.function,
                argument,
                timeout: None,
                way: Way::Cast,
                extensions: &self.extensions(1, trace, context)?,
            };
            connection.fire(&request).map(drop)
        };
        tokio::time::timeout_at(patience.until, fired).await.unwrap_or_else(|_| {
            let reason = format!("it could not be written within {:?}", patience.whole());
            Err(Error::new(Kind::Overloaded, Executed::Never, reason).at(&pool.address()))
        })
    }

    async fn opened(
        &self,
        limit: Option<Duration>,
        patience: Patience,
        context: Option<&Context>,
    ) -> Result<(Receiving, Sending), Error> {
        let pool = &self.client.0.pool;
        let connection = pool.pick((patience, patience.begun), None).await?;
        connection.open_exchange(&Request {
            function: self.function,
            argument: &Body { codec: self.codec, bytes: bytes::Bytes::new() },
            timeout: limit,
            way: Way::Stream,
            extensions: &self.extensions(1, self.trace(context), context)?,
        })
    }

    fn patience(&self, context: Option<&Context>) -> Patience {
        Patience::new(self.timeout.unwrap_or(self.client.0.timeout), context)
    }

    fn encode<A: Serialize + ?Sized>(&mut self, argument: &A) -> Result<Body, Error> {
        let begun = (!self.client.0.pool.own.observers.is_empty()).then(Instant::now);
        let body = Body::encode(self.codec, argument);
        self.wrote = begun.map(|begun| begun.elapsed()).unwrap_or_default();
        body.map_err(|error| {
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
}

impl std::fmt::Debug for DialTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DialTo").field(&self.0.address()).finish()
    }
}
