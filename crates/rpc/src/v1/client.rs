//! Calls functions of servers that speak version 1.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use meshx_rt::Backoff;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::FAR;
use super::lane::{self, Job, Shared};
use super::options::ClientOptions;
use super::term;
use crate::codec::{Body, Codec, CodecError};
use crate::context::Context;
use crate::error::{Error, Executed, Kind};
use crate::event::{Amount, Called, Event, Side, Times, Way};
use crate::transport::Dial;

/// Calls functions of an Elixir program with `meshx_rpc`, or of a [`Server`](super::Server).
///
/// A pool of connections to one server, each with one request at a time. They are made at once and
/// made again when they are lost, with pauses that grow. A clone is the same client; when all are gone,
/// the connections are closed.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
    /// Casts that nobody waits for.
    casts: Arc<Semaphore>,
    lanes: TaskTracker,
    stop: CancellationToken,
    _guard: DropGuard,
}

/// A request that is about to be made.
#[derive(Debug, Clone)]
#[must_use = "it is made by `call` or `cast`"]
pub struct Request<'c> {
    client: &'c Client,
    function: &'c str,
    timeout: Duration,
    idempotent: bool,
}

/// The pauses between attempts at one request.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

impl Client {
    /// A client of the server there. Fails if the options contradict the protocol; whether the server
    /// is there shows at the first request. Must be called within a tokio runtime.
    pub fn new(dial: impl Dial, options: ClientOptions) -> Result<Self, Error> {
        options.common.check()?;
        let stop = CancellationToken::new();
        let (queue, jobs) = mpsc::channel(options.queue.max(1));
        let casts = Arc::new(Semaphore::new(options.queue.clamp(1, Semaphore::MAX_PERMITS)));
        let connections = options.connections.max(1);
        let lanes = TaskTracker::new();
        let all = connections.saturating_add(options.spares);
        let shared = Arc::new(Shared::new(Arc::new(dial), options, jobs, connections));
        for _ in 0..all {
            lanes.spawn(lane::run(Arc::clone(&shared), stop.clone()));
        }
        lanes.close();
        let guard = stop.clone().drop_guard();
        Ok(Self(Arc::new(Inner { shared, queue, casts, lanes, stop, _guard: guard })))
    }

    /// Calls a function and waits for its result.
    pub async fn call<A, R>(&self, function: &str, argument: &A) -> Result<R, Error>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.request(function).call(argument).await
    }

    /// Calls a function and waits until the server says that it has the request. How it ends, nobody
    /// learns, as the protocol has no word for it.
    pub async fn cast<A: Serialize + ?Sized>(
        &self,
        function: &str,
        argument: &A,
    ) -> Result<(), Error> {
        self.request(function).cast(argument).await
    }

    /// A request with more to say about it.
    pub fn request<'c>(&'c self, function: &'c str) -> Request<'c> {
        let timeout = self.0.shared.options.timeout;
        Request { client: self, function, timeout, idempotent: false }
    }

    /// How many connections are up.
    pub fn connected(&self) -> usize {
        self.0.shared.up()
    }

    /// Closes the connections, when the requests that are under way are over. Those that wait fail.
    pub async fn close(self) {
        self.0.stop.cancel();
        self.0.lanes.wait().await;
        self.0.shared.close().await;
    }
}

impl Request<'_> {
    /// How long it may take, retries included. A call that is made while one of our own functions runs
    /// takes no longer than that one has.
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// It may be executed more than once: so it is made again also if nobody knows whether it was.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Makes it, and waits for its result.
    pub async fn call<A, R>(self, argument: &A) -> Result<R, Error>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let (function, client) = (self.function, self.client);
        let argument = Body::encode(Codec::Etf, argument);
        let argument = argument.map_err(|error| self.unwritten(&error))?;
        self.call_raw(argument).await?.decode().map_err(|error| {
            let reason = format!("the result cannot be read: {error}");
            Error::new(Kind::Value, Executed::Yes, reason).of(function).at(&client.address())
        })
    }

    /// The same with bytes, or a term as bytes.
    pub async fn call_raw(self, argument: Body) -> Result<Body, Error> {
        self.client.make(&self, Way::Call, &argument).await
    }

    /// Makes it, and waits until the server has it. If this is dropped before, it is made
    /// nevertheless if it is under way, and if that fails, [`Event::CastLost`] tells it.
    pub async fn cast<A: Serialize + ?Sized>(self, argument: &A) -> Result<(), Error> {
        let argument = Body::encode(Codec::Etf, argument);
        let argument = argument.map_err(|error| self.unwritten(&error))?;
        self.cast_raw(argument).await
    }

    /// The same with bytes, or a term as bytes.
    pub async fn cast_raw(self, argument: Body) -> Result<(), Error> {
        self.client.make(&self, Way::Cast, &argument).await.map(drop)
    }

    /// Makes it in the background. What becomes of it is told as [`Event::Called`], and a failure as
    /// [`Event::CastLost`], too. Fails if so many already wait as may ([`ClientOptions::queue`]).
    pub fn cast_detached<A: Serialize + ?Sized>(self, argument: &A) -> Result<(), Error> {
        let argument = Body::encode(Codec::Etf, argument);
        let argument = argument.map_err(|error| self.unwritten(&error))?;
        let client = self.client.clone();
        let place = Arc::clone(&client.0.casts).try_acquire_owned().map_err(|_| {
            let reason = "too many casts wait already";
            let error = Error::new(Kind::Overloaded, Executed::Never, reason);
            error.of(self.function).at(&client.address())
        })?;
        let (function, timeout) = (self.function.to_owned(), self.timeout);
        let idempotent = self.idempotent;
        tokio::spawn(async move {
            let request = Request { client: &client, function: &function, timeout, idempotent };
            if let Err(error) = client.make(&request, Way::Cast, &argument).await {
                client.0.shared.cast_lost(&function, &error);
            }
            drop(place);
        });
        Ok(())
    }

    fn unwritten(&self, error: &CodecError) -> Error {
        let reason = format!("the argument cannot be sent: {error}");
        let error = Error::new(Kind::Value, Executed::Never, reason);
        error.of(self.function).at(&self.client.address())
    }
}

impl Client {
    fn address(&self) -> String {
        self.0.shared.dial.address()
    }

    /// Attempts a request until it succeeds, or may not be attempted again.
    async fn make(&self, request: &Request<'_>, way: Way, argument: &Body) -> Result<Body, Error> {
        let (flag, content) = term::to_wire(argument).map_err(|error| request.unwritten(&error))?;
        let common = &self.0.shared.options.common;
        if content.len() > common.message_max {
            let reason = format!(
                "the argument has {} bytes; the limit is {}",
                content.len(),
                common.message_max
            );
            let error = Error::new(Kind::Value, Executed::Never, reason);
            return Err(error.of(request.function).at(&self.address()));
        }
        let deadline = Instant::now() + request.timeout.min(FAR);
        let inherited = Context::current().and_then(|context| context.deadline());
        let deadline = inherited.map_or(deadline, |inherited| deadline.min(inherited));
        let function: Arc<str> = request.function.into();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut attempt = 1;
        loop {
            let (job, waiting) = Job::new(way, &function, flag, content.clone(), deadline, attempt);
            let error = match self.attempt(job, waiting, deadline).await {
                Ok(body) => return Ok(body),
                Err(error) => error.of(&function).at(&self.address()),
            };
            let again = error.kind() == Kind::Transport
                && (error.is_surely_not_executed() || request.idempotent);
            let pause = backoff.step();
            let late = deadline.saturating_duration_since(Instant::now()) <= pause;
            if !again || late || attempt > self.0.shared.options.retries {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        job: Job,
        mut waiting: lane::Waiting,
        deadline: Instant,
    ) -> Result<Body, Error> {
        let queued = Instant::now();
        let error = match timeout_at(deadline, self.0.queue.reserve()).await {
            Ok(Ok(place)) => {
                place.send(job);
                match timeout_at(deadline, waiting.answer()).await {
                    Ok(Some(answer)) => return answer,
                    Ok(None) => closed(),
                    // Whoever has it by now knows the deadline as well.
                    Err(_) if !waiting.take_back() => match waiting.answer().await {
                        Some(answer) => return answer,
                        None => closed(),
                    },
                    Err(_) => self.0.shared.nothing_free(queued.elapsed()),
                }
            }
            Ok(Err(_)) => closed(),
            Err(_) => self.0.shared.nothing_free(queued.elapsed()),
        };
        // It never got onto a connection, so nobody else tells of it.
        let (function, way, attempt) = waiting.of();
        let told = error.clone().of(function).at(&self.address());
        self.0.shared.options.observers.tell(&Event::Called(&Called {
            side: Side::Client,
            way,
            function,
            peer: None,
            req_ref: 0,
            trace: None,
            result: Err(&told),
            attempt,
            times: Times { queue: queued.elapsed(), ..Times::default() },
            sent: Amount::default(),
            received: Amount::default(),
        }));
        Err(error)
    }
}

fn closed() -> Error {
    Error::new(Kind::Draining, Executed::Never, "the client is closed")
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address())
            .field("connected", &self.connected())
            .finish_non_exhaustive()
    }
}
