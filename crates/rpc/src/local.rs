//! Calls without a connection, for callers who come by another road.

use crate::codec::Body;
use crate::context::Context;
use crate::error::{Error, Executed, Kind};
use crate::event::Way;
use crate::functions::Functions;

impl Functions {
    /// Calls one of them here, without a connection: for programs that let callers in by a protocol of
    /// their own. The context says which one is called, by whom, and until when.
    ///
    /// It judges and counts nothing: that is for who lets the callers in. A panic is [`Kind::Panic`]; the
    /// deadline ends the function with [`Kind::Deadline`]. When this future is dropped, so is the
    /// function, and [`Context::cancelled`] tells what it has spawned.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use meshx_rpc::{Body, Codec, Context, Functions, Peer, Protocol, Refs};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let functions = Functions::new().add("add", async |(a, b): (i64, i64)| Ok::<_, String>(a + b));
    /// let peer = Arc::new(Peer {
    ///     address: "web@10.0.0.7".into(),
    ///     identity: None,
    ///     remote: Refs::default(),
    ///     local: Refs::default(),
    ///     hsk_ref: 0,
    ///     protocol: Protocol::Erlang,
    /// });
    /// let context = Context::new(peer, "add".into(), 1, None, Vec::new());
    /// let sum = functions.call(context, Body::encode(Codec::Etf, &(40, 2))?).await?;
    /// assert_eq!(sum.decode::<i64>()?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call(&self, context: Context, argument: Body) -> Result<Body, Error> {
        let Some(function) = self.get(context.function()) else {
            let reason = "no such function is offered";
            return Err(Error::new(Kind::UnknownFunction, Executed::Never, reason));
        };
        let deadline = context.deadline();
        let mut waiting = Waiting { context: context.clone(), over: false };
        let running = function.run(Way::Call, context, argument);
        let result = match deadline {
            None => running.await,
            Some(at) => tokio::time::timeout_at(at, running).await.unwrap_or_else(|_| {
                waiting.context.cancel();
                let reason = "the function took longer than it may";
                Err(Error::new(Kind::Deadline, Executed::Yes, reason))
            }),
        };
        waiting.over = true;
        result
    }
}

/// Somebody waits for a call that is not over; nobody any more when this is dropped.
struct Waiting {
    context: Context,
    over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.context.cancel();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::codec::Codec;
    use crate::context::{Peer, Protocol, Refs};

    fn context(function: &str, limit: Option<Duration>) -> Context {
        let peer = Peer {
            address: "web@host".into(),
            identity: None,
            remote: Refs::default(),
            local: Refs::default(),
            hsk_ref: 0,
            protocol: Protocol::Erlang,
        };
        let deadline = limit.map(|limit| Instant::now() + limit);
        Context::new(Arc::new(peer), function.into(), 1, deadline, Vec::new())
    }

    /// Functions of which the first never ends, and the contexts of its calls.
    fn functions() -> (Functions, Arc<Mutex<Vec<Context>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let functions = Functions::new()
            .add("forever", move |()| {
                noted.lock().unwrap().extend(Context::current());
                std::future::pending::<Result<(), String>>()
            })
            .add("who", async |()| {
                Ok::<_, String>(Context::current().map(|it| it.peer().address.clone()))
            });
        (functions, seen)
    }

    fn nothing() -> Body {
        Body::encode(Codec::Etf, &()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_knows_who_calls_and_is_not_cancelled_when_it_is_over() {
        let (functions, _) = functions();
        let context = context("who", Some(Duration::from_secs(1)));
        let who = functions.call(context.clone(), nothing()).await.unwrap();
        assert_eq!(who.decode::<String>().unwrap(), "web@host");
        assert!(!context.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_offered_is_not_called() {
        let (functions, _) = functions();
        let error = functions.call(context("what", None), nothing()).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::UnknownFunction, Executed::Never));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_and_a_caller_who_leaves_end_the_function_and_tell_it() {
        let (functions, seen) = functions();
        let limit = Some(Duration::from_millis(50));
        let error = functions.call(context("forever", limit), nothing()).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (Kind::Deadline, Executed::Yes));
        let left = functions.call(context("forever", None), nothing());
        tokio::time::timeout(Duration::from_millis(50), left).await.unwrap_err();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.iter().map(Context::is_cancelled).collect::<Vec<_>>(), [true, true]);
    }
}
