//! The other way of putting things around calls: `tower`'s layers and services.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::client::Client;
use crate::intercept::{Intercept, Next, Request};
use crate::{Body, Error, Executed, Kind};

/// What the services of layers fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a layer fails with, as an error of the call.
type Told = dyn Fn(&BoxError, Error) -> Error + Send + Sync;

/// A layer of `tower` as an [interceptor](Intercept), at a client or a server.
///
/// It is applied once: what its service shares with its clones (a limit, a buffer) is shared by all calls.
/// Each call takes a clone, and waits until that is ready, within its own time.
///
/// What the layer fails with itself becomes an [`Error`]: [`Kind::Overloaded`] that surely never ran if the call
/// did not get past the layer, [`Kind::Deadline`] if the layer gave up waiting for it, and
/// [`Kind::Application`] if it did not like what came of it. [`Layered::errors`] chooses others, for a layer
/// that refuses for good. An [`Error`] stays what it is.
///
/// ```
/// use meshx_rpc::tower::layer;
/// use meshx_rpc::{Client, Functions, Server, transport::Memory};
/// use tower::ServiceBuilder;
/// use tower::limit::ConcurrencyLimitLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let functions = Functions::new().add("add", async |(a, b): (u32, u32)| Ok::<_, String>(a + b));
/// let (dial, listener) = Memory::pair();
/// // No more than 64 of them run at a time; more are refused, and made elsewhere.
/// let limit = ServiceBuilder::new().load_shed().layer(ConcurrencyLimitLayer::new(64));
/// let server = Server::new(functions).intercept(layer(limit)).listen(listener).start();
/// let client = Client::to(dial).start();
/// assert_eq!(client.call::<_, u32>("add", &(1, 2)).await?, 3);
/// # server.stop().await;
/// # Ok(())
/// # }
/// ```
pub fn layer<L>(layer: L) -> Layered<L::Service>
where
    L: Layer<Rest>,
    L::Service: Service<Request, Response = Body> + Clone + Send + 'static,
{
    Layered { service: Mutex::new(layer.layer(Rest(()))), told: Box::new(|_, error| error) }
}

/// See [`layer`].
pub struct Layered<S> {
    service: Mutex<S>,
    told: Box<Told>,
}

/// The innermost service: what comes after the layer.
#[derive(Debug, Clone)]
pub struct Rest(());

/// What a request that passes through layers goes on with.
#[derive(Debug, Clone)]
pub(crate) struct Onward {
    next: Next,
    came: Arc<AtomicU8>,
}

/// How far a call came.
const AT_THE_LAYER: u8 = 0;
const PAST_IT: u8 = 1;
const BACK: u8 = 2;

impl<S> Layered<S> {
    /// Chooses the error of a call that the layer failed: by the layer's own, and what it becomes
    /// otherwise.
    ///
    /// ```
    /// use meshx_rpc::{Error, Executed, Kind, tower::layer};
    /// use tower::filter::FilterLayer;
    ///
    /// let named = |request: meshx_rpc::Request| match request.value("who") {
    ///     Some(_) => Ok(request),
    ///     None => Err("who are you?"),
    /// };
    /// let named = layer(FilterLayer::new(named))
    ///     .errors(|error, _| Error::new(Kind::Denied, Executed::Never, error.to_string()));
    /// ```
    #[must_use]
    pub fn errors(
        mut self,
        told: impl Fn(&BoxError, Error) -> Error + Send + Sync + 'static,
    ) -> Self {
        self.told = Box::new(told);
        self
    }
}

impl<S> Intercept for Layered<S>
where
    S: Service<Request, Response = Body> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn intercept(&self, mut request: Request, next: Next) -> Result<Body, Error> {
        let came = Arc::new(AtomicU8::new(AT_THE_LAYER));
        request.onward = Some(Onward { next, came: Arc::clone(&came) });
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let made = async {
            poll_fn(|task| service.poll_ready(task)).await?;
            service.call(request).await
        };
        made.await.map_err(|error| match error.into().downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => {
                let (kind, executed) = match came.load(Ordering::Relaxed) {
                    AT_THE_LAYER => (Kind::Overloaded, Executed::Never),
                    PAST_IT => (Kind::Deadline, Executed::Maybe),
                    _ => (Kind::Application, Executed::Yes),
                };
                (self.told)(&error, Error::new(kind, executed, format!("a layer: {error}")))
            }
        })
    }
}

impl Service<Request> for Rest {
    type Response = Body;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Body, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // Where the layer calls may be another task; the call is made where its answer is awaited.
        Box::pin(async move {
            let Some(Onward { next, came }) = request.onward.take() else {
                let reason =
                    "a layer made a request of its own; it can only go on with the one it got";
                return Err(Error::new(Kind::Value, Executed::Never, reason));
            };
            came.store(PAST_IT, Ordering::Relaxed);
            let result = next.run(request).await;
            came.store(BACK, Ordering::Relaxed);
            result
        })
    }
}

/// Each call is made as [`Client::request`] makes it. It is always ready: who waits for a place waits within
/// the time of the call.
///
/// ```
/// use std::time::Duration;
///
/// use meshx_rpc::{Body, Client, Codec, Functions, Request, Server, transport::Memory};
/// use tower::{Service, ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let functions = Functions::new().add("add", async |(a, b): (u32, u32)| Ok::<_, String>(a + b));
/// let (dial, listener) = Memory::pair();
/// let server = Server::new(functions).listen(listener).start();
/// let mut service = ServiceBuilder::new()
///     .rate_limit(100, Duration::from_secs(1))
///     .service(Client::to(dial).start());
/// let request = Request::new("add", Body::encode(Codec::Json, &(1, 2))?);
/// let sum = service.ready().await?.call(request).await?;
/// assert_eq!(sum.decode::<u32>()?, 3);
/// # server.stop().await;
/// # Ok(())
/// # }
/// ```
impl Service<Request> for Client {
    type Response = Body;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Body, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.request(request).await })
    }
}

impl<S> fmt::Debug for Layered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").finish_non_exhaustive()
    }
}
