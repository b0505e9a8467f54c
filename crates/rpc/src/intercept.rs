//! What is done around calls, at both sides.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use crate::context::{Context, Metadata, Peer};
use crate::event::Way;
use crate::functions::Answer;
use crate::{Body, Error};

/// Does something around calls: looks at them, changes or refuses them, waits, measures.
///
/// Several nest in their order: the first one's `next` is the second. An async function of a
/// [`Request`] and [`Next`] is one; without any, calls cost nothing more.
///
/// * [`ClientBuilder::intercept`](crate::ClientBuilder::intercept): around all attempts of a call or cast
///   together, and within its time; around the opening of an exchange, and the writing of what is
///   fired. A ping is not intercepted. What never gets to the end of `next` was not sent, and is
///   no event.
/// * [`Server::intercept`](crate::Server::intercept) and
///   [`Functions::intercept`](crate::Functions::intercept): around a function that was found and may be
///   called, of an exchange until its end, for callers of all protocols. [`Context::current`] is the
///   call's. The caller's deadline ends it, cancelling drops it. A cast is accepted by then: who
///   refuses it tells its own side only, by an event.
///
/// An error is that of the call, and says itself whether the function ran. But one of a call that was made
/// inside of a server's interceptor is [`Kind::Application`](crate::Kind::Application) and ran
/// ([`Failure`](crate::Failure)): what happened to that call says nothing of this one. A panic is an error
/// of this call, and of no other.
///
/// ```
/// use meshx_rpc::transport::Memory;
/// use meshx_rpc::{Body, Client, Error, Executed, Functions, Intercept, Kind, Next, Request, Server};
///
/// /// Lets in who says the word.
/// struct Word(&'static str);
///
/// impl Intercept for Word {
///     async fn intercept(&self, request: Request, next: Next) -> Result<Body, Error> {
///         if request.value("word") != Some(self.0) {
///             return Err(Error::new(Kind::Denied, Executed::Never, "say the word"));
///         }
///         next.run(request).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let functions = Functions::new().add("add", async |(a, b): (u32, u32)| Ok::<_, String>(a + b));
/// let (dial, listener) = Memory::pair();
/// let server = Server::new(functions).intercept(Word("sesame")).listen(listener).start();
///
/// let rude = Client::to(dial.clone()).start();
/// assert_eq!(rude.call::<_, u32>("add", &(1, 2)).await.unwrap_err().kind(), Kind::Denied);
///
/// let polite = Client::to(dial)
///     .intercept(async |mut request: Request, next: Next| {
///         request.metadata.push(("word".into(), "sesame".into()));
///         next.run(request).await
///     })
///     .start();
/// assert_eq!(polite.call::<_, u32>("add", &(1, 2)).await?, 3);
/// # server.stop().await;
/// # Ok(())
/// # }
/// ```
pub trait Intercept: Send + Sync + 'static {
    /// Gives the result of `next`, or another one.
    fn intercept(
        &self,
        request: Request,
        next: Next,
    ) -> impl Future<Output = Result<Body, Error>> + Send;
}

impl<F, T> Intercept for F
where
    F: Fn(Request, Next) -> T + Send + Sync + 'static,
    T: Future<Output = Result<Body, Error>> + Send,
{
    fn intercept(
        &self,
        request: Request,
        next: Next,
    ) -> impl Future<Output = Result<Body, Error>> + Send {
        self(request, next)
    }
}

/// A call, as who intercepts it gets it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The argument; empty for an exchange.
    pub body: Body,
    /// What travels with it. At a server, what came: the function sees that, too, whatever becomes of
    /// this.
    pub metadata: Metadata,
    /// When nobody waits any more. At a client an earlier time may be set, which is then that of the
    /// server, too; at a server it is what it is.
    pub deadline: Option<Instant>,
    /// At a client: it may run more than once. At a server nothing is known of that.
    pub idempotent: bool,
    function: Arc<str>,
    way: Way,
    context: Option<Context>,
    /// What layers go on with.
    #[cfg(feature = "tower")]
    pub(crate) onward: Option<crate::tower::Onward>,
}

impl Request {
    /// A call of this function with this argument, without anything else, for
    /// [`Client::request`](crate::Client::request).
    pub fn new(function: &str, body: Body) -> Self {
        Self::of(function.into(), Way::Call, body, None)
    }

    pub(crate) fn of(function: Arc<str>, way: Way, body: Body, context: Option<Context>) -> Self {
        Self {
            body,
            metadata: Metadata::new(),
            deadline: None,
            idempotent: false,
            function,
            way,
            context,
            #[cfg(feature = "tower")]
            onward: None,
        }
    }

    /// Which function.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// With an answer, without one, or with messages both ways.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The first value of that name in the metadata.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// At a server, this call; at a client, the one that this call is a part of, if it is made inside
    /// of a function.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// At a server, who calls; at a client, who calls the function that this call is a part of.
    pub fn peer(&self) -> Option<&Peer> {
        self.context.as_ref().map(Context::peer)
    }
}

/// What comes after an interceptor: the others, and then the call itself.
///
/// A clone does the same again. At a client each run is a call of its own; a server's function runs
/// once for each, and an exchange is begun once only.
#[derive(Clone)]
pub struct Next {
    chain: Chain,
    at: usize,
    end: Arc<dyn End>,
}

impl Next {
    pub(crate) fn new(chain: &Chain, end: Arc<dyn End>) -> Self {
        Self { chain: chain.clone(), at: 0, end }
    }

    /// Goes on with the call, and gives what comes of it. Dropping it cancels what it does.
    pub async fn run(mut self, request: Request) -> Result<Body, Error> {
        match self.chain.0.get(self.at).map(Arc::clone) {
            Some(interceptor) => {
                self.at = self.at.saturating_add(1);
                interceptor.begin(request, self).await
            }
            None => self.end.run(request).await,
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The call itself, after all interceptors.
pub(crate) trait End: Send + Sync {
    fn run(self: Arc<Self>, request: Request) -> Answer;
}

/// Interceptors, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Chain(Arc<[Arc<dyn Begin>]>);

/// An interceptor without its type.
pub(crate) trait Begin: Send + Sync {
    fn begin(self: Arc<Self>, request: Request, next: Next) -> Answer;
}

impl<I: Intercept> Begin for I {
    fn begin(self: Arc<Self>, request: Request, next: Next) -> Answer {
        Box::pin(async move { self.intercept(request, next).await })
    }
}

impl Chain {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more, inside of the others.
    pub(crate) fn add(&mut self, interceptor: impl Intercept) {
        let one: Arc<dyn Begin> = Arc::new(interceptor);
        *self = self.around(&Self(Arc::new([one])));
    }

    /// These, and those inside of them.
    pub(crate) fn around(&self, inner: &Self) -> Self {
        Self(self.0.iter().chain(&*inner.0).map(Arc::clone).collect())
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.0.len()).finish()
    }
}
