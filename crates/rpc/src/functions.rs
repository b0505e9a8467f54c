//! What can be called, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Body, Codec};
use crate::connection::{Receiving, Sending};
use crate::context::{Context, Protocol};
use crate::error::{Error, Executed, Kind};
use crate::event::Way;
use crate::exchange::{Incoming, Outgoing};
use crate::intercept::{Chain, End, Intercept, Next, Request};
use crate::v1::unlisted;

/// The longest name of a function, in bytes; both protocols have a byte for the length.
pub const NAME_MAX: usize = 255;

/// The functions that a server offers: the allow-list. What is not in it does not exist for peers,
/// neither to be called nor to be listed.
///
/// ```
/// use meshx_rpc::Functions;
///
/// async fn add((a, b): (i64, i64)) -> Result<i64, String> {
///     a.checked_add(b).ok_or_else(|| "too large".to_owned())
/// }
///
/// let functions = Functions::new().add("add", add).add("ping", async |()| Ok::<_, String>("pong"));
/// assert_eq!(functions.names().collect::<Vec<_>>(), ["add", "ping"]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Functions(BTreeMap<Arc<str>, Function>);

/// One of them.
#[derive(Clone)]
pub struct Function(Arc<Inside>);

#[derive(Clone)]
struct Inside {
    name: Arc<str>,
    about: Arc<str>,
    run: Arc<Run>,
    chain: Chain,
}

/// Both directions of an exchange.
type Ends = (Receiving, Sending);

/// The future of an answer.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Body, Error>> + Send>>;

/// What a function is made of.
enum Run {
    Call(Box<dyn Fn(Body) -> Answer + Send + Sync>),
    Exchange(Box<dyn Fn(Codec, Receiving, Sending) -> Answer + Send + Sync>),
}

/// What a function fails with: anything that can be printed and sent, or an [`Error`] of a call that
/// it made itself.
pub trait Failure {
    /// As it goes to the caller.
    fn into_error(self, codec: Codec) -> Error;
}

impl<E: Serialize + fmt::Display> Failure for E {
    fn into_error(self, codec: Codec) -> Error {
        let error = Error::new(Kind::Application, Executed::Yes, self.to_string());
        match answer(codec, &self) {
            Ok(value) => error.with_value(value),
            Err(_) => error,
        }
    }
}

impl Failure for Error {
    fn into_error(self, _: Codec) -> Error {
        // Whatever became of the call that was made: the function itself ran. And what became of
        // another connection, or of a server behind this one, says nothing of the caller's own.
        let kind = match self.kind() {
            Kind::Transport
            | Kind::Draining
            | Kind::Overloaded
            | Kind::Integrity
            | Kind::Protocol => Kind::Application,
            kind => kind,
        };
        let error = Self::new(kind, Executed::Yes, self.to_string());
        match self.value() {
            Some(value) => error.with_value(value.clone()),
            None => error,
        }
    }
}

impl Functions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an async function of one argument; several are a tuple. Its argument and result are read
    /// and written by the codec that the caller chose. One of the same name is replaced.
    ///
    /// It runs in the task of its connection until it first waits: one that computes for more than a
    /// moment, or blocks, holds up the answers to other calls of that connection, and belongs on
    /// `tokio::task::spawn_blocking`.
    ///
    /// [`Context::current`] tells it who calls.
    #[must_use]
    pub fn add<A, R, E, F, T>(self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned + Send,
        R: Serialize + Send,
        E: Failure + Send,
        F: Fn(A) -> T + Send + Sync + 'static,
        T: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.insert(
            name,
            Run::Call(Box::new(move |body: Body| {
                let codec = body.codec;
                let argument = match Context::reading(|| body.decode::<A>()) {
                    Ok(argument) => argument,
                    Err(error) => {
                        let reason = format!("the argument cannot be read: {error}");
                        return ready(Err(Error::new(Kind::Value, Executed::Never, reason)));
                    }
                };
                let running = function(argument);
                Box::pin(async move {
                    let result = running.await.map_err(|failure| failure.into_error(codec))?;
                    Context::writing(|| answer(codec, &result)).map_err(|error| {
                        let reason = format!("the result cannot be written: {error}");
                        Error::new(Kind::Value, Executed::Yes, reason)
                    })
                })
            })),
        )
    }

    /// Adds an async function that takes and gives bytes with their codec. Its error is that of a
    /// function that ran ([`Failure`]).
    #[must_use]
    pub fn add_raw<F, T>(self, name: &str, function: F) -> Self
    where
        F: Fn(Body) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Body, Error>> + Send + 'static,
    {
        self.insert(
            name,
            Run::Call(Box::new(move |body: Body| {
                let codec = body.codec;
                let running = function(body);
                Box::pin(async move { running.await.map_err(|error| error.into_error(codec)) })
            })),
        )
    }

    /// Adds an async function of messages both ways: it takes what the caller says, and says what it
    /// wants, until it returns. Its error ends the exchange as that of a call does.
    ///
    /// ```
    /// use meshx_rpc::{Error, Functions, Incoming, Outgoing};
    ///
    /// async fn sums(mut numbers: Incoming<i64>, mut sums: Outgoing<i64>) -> Result<(), Error> {
    ///     let mut sum = 0;
    ///     while let Some(number) = numbers.next().await {
    ///         sum += number?;
    ///         sums.send(&sum).await?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let functions = Functions::new().add_exchange("sums", sums);
    /// ```
    #[must_use]
    pub fn add_exchange<I, O, E, F, T>(self, name: &str, function: F) -> Self
    where
        I: DeserializeOwned,
        O: Serialize + ?Sized,
        E: Failure + Send,
        F: Fn(Incoming<I>, Outgoing<O>) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.insert(
            name,
            Run::Exchange(Box::new(move |codec, receiving, sending| {
                let incoming = Incoming::new(codec, receiving, false);
                let running = function(incoming, Outgoing::new(codec, sending, false));
                Box::pin(async move {
                    let done = running.await.map_err(|failure| failure.into_error(codec));
                    done.map(|()| Body::raw(bytes::Bytes::new()))
                })
            })),
        )
    }

    /// Says what the function of that name is for; shown where listing is allowed.
    #[must_use]
    pub fn about(mut self, name: &str, about: &str) -> Self {
        if let Some(function) = self.0.get_mut(name) {
            Arc::make_mut(&mut function.0).about = about.into();
        }
        self
    }

    /// Does something around each of those that are there by now ([`Intercept`]), inside of what is
    /// around them already and of what a server does around all ([`Server::intercept`]).
    ///
    /// ```
    /// use meshx_rpc::{Functions, Next, Request};
    ///
    /// let functions = Functions::new()
    ///     .add("slow", async |()| Ok::<_, String>(1))
    ///     .intercept(async |request: Request, next: Next| {
    ///         let begun = std::time::Instant::now();
    ///         let (function, result) = (request.function().to_owned(), next.run(request).await);
    ///         println!("{function}: {:?}", begun.elapsed());
    ///         result
    ///     })
    ///     .add("quick", async |()| Ok::<_, String>(2)); // not this one
    /// ```
    ///
    /// [`Server::intercept`]: crate::Server::intercept
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Intercept) -> Self {
        let mut inner = Chain::default();
        inner.add(interceptor);
        for function in self.0.values_mut() {
            let inside = Arc::make_mut(&mut function.0);
            inside.chain = inside.chain.around(&inner);
        }
        self
    }

    /// With these around all that is around them already.
    pub(crate) fn inside(mut self, outer: &Chain) -> Self {
        if outer.is_empty() {
            return self;
        }
        for function in self.0.values_mut() {
            let inside = Arc::make_mut(&mut function.0);
            inside.chain = outer.around(&inside.chain);
        }
        self
    }

    /// Both together; of the same name, the other's counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Only those of them that have one of these names.
    #[must_use]
    pub fn only(mut self, names: &[&str]) -> Self {
        self.0.retain(|name, _| names.contains(&&**name));
        self
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.0.get(name)
    }

    fn insert(mut self, name: &str, run: Run) -> Self {
        let name: Arc<str> = name.into();
        let (about, run, chain) = ("".into(), Arc::new(run), Chain::default());
        let inside = Inside { name: Arc::clone(&name), about, run, chain };
        self.0.insert(name, Function(Arc::new(inside)));
        self
    }
}

impl Function {
    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// What it is for.
    pub fn about(&self) -> &str {
        &self.0.about
    }

    /// Whether it is one of messages both ways.
    pub fn is_exchange(&self) -> bool {
        matches!(*self.0.run, Run::Exchange(_))
    }

    /// Runs it, once this is polled. A panic is the error of this call, and of no other.
    pub(crate) fn run(&self, way: Way, context: Context, argument: Body) -> Running {
        Running { state: State::Call(self.clone(), way, argument), context }
    }

    /// The same, of one that is an exchange.
    pub(crate) fn run_exchange(
        &self,
        context: Context,
        codec: Codec,
        receiving: Receiving,
        sending: Sending,
    ) -> Running {
        let ends = Box::new((receiving, sending));
        Running { state: State::Exchange(self.clone(), codec, ends), context }
    }
}

impl Function {
    fn begin(&self, way: Way, argument: Body, context: &Context) -> Answer {
        match &*self.0.run {
            Run::Call(_) if self.0.chain.is_empty() => self.0.run.begin(argument, context),
            Run::Call(_) => {
                let end = Ending { run: Arc::clone(&self.0.run), context: context.clone() };
                self.intercepted(way, argument, context, Arc::new(end))
            }
            Run::Exchange(_) => other_way("takes and gives messages: open it"),
        }
    }

    fn begin_exchange(&self, codec: Codec, ends: Box<Ends>, context: &Context) -> Answer {
        match &*self.0.run {
            Run::Exchange(run) if self.0.chain.is_empty() => run(codec, ends.0, ends.1),
            Run::Exchange(_) => {
                let nothing = Body { codec, bytes: bytes::Bytes::new() };
                let (run, ends) = (Arc::clone(&self.0.run), Mutex::new(Some(ends)));
                let end = Arc::new(Exchanging { run, codec, ends });
                self.intercepted(Way::Stream, nothing, context, end)
            }
            Run::Call(_) => other_way("takes one argument: call it"),
        }
    }

    /// With what is around it.
    fn intercepted(&self, way: Way, body: Body, context: &Context, end: Arc<dyn End>) -> Answer {
        let codec = body.codec;
        let mut request = Request::of(Arc::clone(&self.0.name), way, body, Some(context.clone()));
        request.metadata = context.metadata().to_vec();
        request.deadline = context.deadline();
        let next = Next::new(&self.0.chain, end);
        Box::pin(async move {
            next.run(request).await.map_err(|error| {
                // One that names a function or a peer is that of another call, made on the way.
                let is_of_another = error.function().is_some() || error.peer().is_some();
                if is_of_another { error.into_error(codec) } else { error }
            })
        })
    }
}

impl Run {
    fn begin(self: &Arc<Self>, argument: Body, context: &Context) -> Answer {
        let Self::Call(run) = &**self else {
            return other_way("takes and gives messages: open it");
        };
        if context.peer().protocol != Protocol::V1 || argument.codec != Codec::Etf {
            return run(argument);
        }
        // An Elixir program calls with a list where others do with a tuple.
        let (this, listed) = (Arc::clone(self), argument.clone());
        let first = run(argument);
        Box::pin(async move {
            let error = match first.await {
                Err(error) if error.kind() == Kind::Value && error.is_surely_not_executed() => {
                    error
                }
                done => return done,
            };
            match (&*this, unlisted(&listed)) {
                (Self::Call(run), Some(tuple)) => run(tuple).await.map_err(|_| error),
                _ => Err(error),
            }
        })
    }
}

/// A function that is to be run, after what is around it.
struct Ending {
    run: Arc<Run>,
    context: Context,
}

impl End for Ending {
    fn run(self: Arc<Self>, request: Request) -> Answer {
        self.run.begin(request.body, &self.context)
    }
}

/// An exchange that is to be begun, after what is around it.
struct Exchanging {
    run: Arc<Run>,
    codec: Codec,
    ends: Mutex<Option<Box<Ends>>>,
}

impl End for Exchanging {
    fn run(self: Arc<Self>, _: Request) -> Answer {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (&*self.run, ends) {
            (Run::Exchange(run), Some(ends)) => run(self.codec, ends.0, ends.1),
            _ => {
                let reason = "an interceptor ran an exchange twice; it is begun once";
                ready(Err(Error::new(Kind::Value, Executed::Yes, reason)))
            }
        }
    }
}

/// A call that runs.
pub(crate) struct Running {
    state: State,
    context: Context,
}

/// The first part of a function runs before there is a future.
enum State {
    Call(Function, Way, Body),
    Exchange(Function, Codec, Box<Ends>),
    Going(Answer),
    Over,
}

/// A call that is none, or an exchange that is one.
fn other_way(what: &str) -> Answer {
    ready(Err(Error::new(Kind::Value, Executed::Never, format!("the function {what}"))))
}

impl Running {
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }
}

impl Future for Running {
    type Output = Result<Body, Error>;

    fn poll(mut self: Pin<&mut Self>, waker: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let poll = || {
            let mut going = match std::mem::replace(&mut this.state, State::Over) {
                State::Call(function, way, argument) => {
                    function.begin(way, argument, &this.context)
                }
                State::Exchange(function, codec, ends) => {
                    function.begin_exchange(codec, ends, &this.context)
                }
                State::Going(answer) => answer,
                State::Over => return Poll::Pending,
            };
            let poll = going.as_mut().poll(waker);
            if poll.is_pending() {
                this.state = State::Going(going);
            }
            poll
        };
        let caught = || std::panic::catch_unwind(AssertUnwindSafe(poll));
        this.context.sync_scope(caught).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let text = text.unwrap_or("without a word");
            // For who runs the server; a caller has no use for it, and it may say what is not theirs.
            let (function, peer) = (this.context.function(), &*this.context.peer().address);
            tracing::error!(target: "meshx_rpc", function, peer, "the function panicked: {text}");
            Poll::Ready(Err(Error::new(Kind::Panic, Executed::Yes, "the function panicked")))
        })
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.0.name).finish_non_exhaustive()
    }
}

fn ready(answer: Result<Body, Error>) -> Answer {
    Box::pin(std::future::ready(answer))
}

/// A result in the codec of the argument; as a term if that was raw and the result is not.
fn answer<T: Serialize + ?Sized>(
    codec: Codec,
    value: &T,
) -> Result<Body, crate::codec::CodecError> {
    match Body::encode(codec, value) {
        Err(_) if codec == Codec::Raw => Body::encode(Codec::Etf, value),
        done => done,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::context::{Peer, Refs};

    fn context() -> Context {
        let peer = Peer {
            address: "here".into(),
            identity: None,
            remote: Refs::default(),
            local: Refs::default(),
            hsk_ref: 1,
            protocol: Protocol::V2,
        };
        Context::new(Arc::new(peer), "f".into(), 7, None, Vec::new())
    }

    async fn run<A: Serialize>(
        functions: &Functions,
        name: &str,
        argument: &A,
    ) -> Result<Body, Error> {
        let body = Body::encode(Codec::Json, argument).unwrap();
        functions.get(name).unwrap().run(Way::Call, context(), body).await
    }

    #[tokio::test]
    async fn functions_get_their_arguments_and_who_calls() {
        let functions = Functions::new()
            .add("add", async |(a, b): (u8, u8)| a.checked_add(b).ok_or("too large"))
            .add("who", async |()| {
                Ok::<_, String>(
                    Context::current().map(|it| (it.req_ref(), it.peer().address.clone())),
                )
            })
            .add_raw("len", async |body: Body| {
                Body::encode(Codec::Json, &body.bytes.len())
                    .map_err(|error| error.to_string().into_error(Codec::Json))
            });
        assert_eq!(run(&functions, "add", &(1, 2)).await.unwrap().bytes, "3");
        assert_eq!(run(&functions, "who", &()).await.unwrap().bytes, r#"[7,"here"]"#);
        assert_eq!(run(&functions, "len", &"four").await.unwrap().bytes, "6");
        let error = run(&functions, "add", &(200, 100)).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Application, Executed::Yes));
        assert_eq!(error.application::<String>().as_deref(), Some("too large"));
        let error = run(&functions, "add", &"no").await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Value, Executed::Never));
        assert_eq!(Context::current().map(|_| ()), None);
        let only = functions.only(&["add"]);
        assert_eq!(only.names().collect::<Vec<_>>(), ["add"]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_caller() {
        let functions = Functions::new().add("p", async |late: bool| {
            if late {
                tokio::task::yield_now().await;
            }
            assert!(!black_box(true), "as it should");
            Ok::<(), String>(())
        });
        for late in [true, false] {
            let error = run(&functions, "p", &late).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Panic);
            // What it said is for the server's log.
            assert_eq!(error.reason(), "the function panicked");
        }
    }

    /// A call of a call: what did not run there says nothing of what ran here, nor whom to ask again.
    #[tokio::test]
    async fn what_a_function_calls_does_not_make_its_own_call_one_that_never_ran() {
        for kind in Kind::ALL {
            let nested = move || -> Error {
                let value = Body::encode(Codec::Json, &7).unwrap();
                Error::new(kind, Executed::Never, "no").of("inner").at("there").with_value(value)
            };
            let functions = Functions::new()
                .add("typed", move |()| async move { Err::<(), _>(nested()) })
                .add_raw("raw", move |_| async move { Err(nested()) });
            for name in ["typed", "raw"] {
                let error = run(&functions, name, &()).await.unwrap_err();
                assert_eq!(error.executed(), Executed::Yes, "{name} {kind:?}");
                assert_eq!(error.reason(), "inner at there: no");
                assert!(error.value().is_some());
                assert!(!crate::Retries::default().may(&error, true, 1), "{name} {kind:?}");
            }
        }
    }
}
