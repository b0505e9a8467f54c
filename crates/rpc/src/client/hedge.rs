//! The same call on another connection, while the first has no answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::attempts::{Leaves, Making, Seen};
use super::retry::passes;
use super::{Call, Inside};
use crate::connection::{Connection, Message, Pending};
use crate::context::Context;
use crate::{Body, Error, Executed, Kind};

/// When an idempotent call is made once more because the answer takes long, beside the first time: one
/// slow server, or one slow connection, is then not what callers wait for.
///
/// It is made on another connection, to another instance of the service if there is one; where all
/// connections are in use for this call already, it is not. The first answer counts, the other attempts
/// are cancelled. Each such attempt is paid from the budget of [`Retries`](crate::Retries): it is a small part
/// of the calls, also where everything is slow. Casts and exchanges are never made twice at a time,
/// nor calls that are not said to be idempotent ([`Call::idempotent`]).
///
/// In events each attempt has its number, and those that were given up are
/// [`Kind::Cancelled`](crate::Kind::Cancelled).
///
/// ```
/// use std::time::Duration;
///
/// use meshx_rpc::{Client, Functions, Hedge, Server, transport::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let functions = Functions::new().add("price", async |_: u32| Ok::<_, String>(7));
/// # let (dial, listener) = Memory::pair();
/// # let server = Server::new(functions).listen(listener).start();
/// // Longer than 95 of 100 calls take.
/// let hedge = Hedge::after(Duration::from_millis(40));
/// let client = Client::to(dial).connections(4).hedge(hedge).start();
/// let price: u32 = client.function("price").idempotent().call(&123).await?;
/// # assert_eq!(price, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hedge {
    /// After so long without an answer; at least a millisecond.
    pub after: Duration,
    /// So often at most for one call (1), each time after the same pause.
    pub most: u32,
}

impl Hedge {
    /// Never.
    pub const NONE: Self = Self { after: Duration::MAX, most: 0 };

    /// Once, after so long without an answer.
    pub const fn after(after: Duration) -> Self {
        Self { after, most: 1 }
    }

    /// So often at most for one call.
    #[must_use]
    pub const fn most(mut self, most: u32) -> Self {
        self.most = most;
        self
    }

    fn next(self) -> Option<Instant> {
        Instant::now().checked_add(self.after.max(Duration::from_millis(1)))
    }
}

/// One of the attempts that run.
struct Running<'c> {
    pending: Pending,
    seen: Seen,
    /// Its place in the client's queue; the first one's is its caller's.
    _held: Option<(Leaves<'c>, SemaphorePermit<'c>)>,
}

impl Call<'_> {
    /// Waits for an answer to what was sent, or to the same elsewhere. In `seen` is then what belongs to
    /// the answer.
    pub(super) async fn hedged(
        &self,
        hedge: Hedge,
        pending: Pending,
        argument: &Body,
        context: Option<&Context>,
        seen: &mut Seen,
    ) -> Result<Message, Error> {
        let mut used: Vec<Arc<Connection>> = seen.used.iter().map(Arc::clone).collect();
        let mut running = vec![Running { pending, seen: seen.clone(), _held: None }];
        let (mut made, mut most, mut next) = (seen.making.made, hedge.most, hedge.next());
        loop {
            let ended = poll_fn(|task| {
                for (at, it) in running.iter_mut().enumerate() {
                    if let Poll::Ready(result) = Pin::new(&mut it.pending).poll(task) {
                        return Poll::Ready((at, result));
                    }
                }
                Poll::Pending
            });
            let late = async {
                match next.filter(|_| most > 0) {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            let (at, result) = tokio::select! {
                biased;
                ended = ended => ended,
                () = late => {
                    let now = Instant::now();
                    let making = Making { now, made: made.saturating_add(1), ..seen.making };
                    if let Some(another) = self.another(&mut used, argument, making, context) {
                        (made, most) = (making.made, most.saturating_sub(1));
                        running.push(another);
                    }
                    next = hedge.next();
                    continue;
                }
            };
            let Running { seen: its, .. } = running.swap_remove(at);
            let result = result.map_err(|error| error.of(self.function));
            let failed = result.as_ref().is_err_and(|error| passes(error.kind()));
            if failed && !running.is_empty() {
                // The others may get an answer.
                self.tell(&result, &its);
                continue;
            }
            for Running { pending, seen: lost, _held: held } in running {
                drop((pending, held));
                let reason = format!("attempt {} was answered before", its.making.made);
                let error = Error::new(Kind::Cancelled, Executed::Maybe, reason);
                self.tell(&Err(error.of(self.function)), &lost);
            }
            *seen = Seen { made, ..its };
            return result;
        }
    }

    /// The same on a connection that was not used for it, if there is one and it can be afforded.
    fn another(
        &self,
        used: &mut Vec<Arc<Connection>>,
        argument: &Body,
        making: Making,
        context: Option<&Context>,
    ) -> Option<Running<'_>> {
        let Inside { pool, queue, budget, .. } = &*self.client.0;
        let turn = queue.try_acquire().ok()?;
        let others = pool.up().into_iter().filter(|it| {
            !it.is_full(it.in_flight()) && used.iter().all(|used| !Arc::ptr_eq(used, it))
        });
        let connection = others.min_by_key(|it| {
            let is_same = used.iter().any(|used| used.instance == it.instance);
            (is_same, it.in_flight())
        })?;
        if !budget.spend() {
            return None;
        }
        let making = Making { trace: self.trace(context), ..making };
        let pending = self.send(&connection, argument, making, context).ok()?;
        used.push(Arc::clone(&connection));
        let mut seen = Seen::new(making);
        (seen.used, seen.sent) = (Some(connection), pending.sent);
        Some(Running { pending, seen, _held: Some((Leaves(pool), turn)) })
    }
}
