//! A blocking query as a stream of changes.

use std::marker::PhantomData;
use std::time::Duration;

use meshx_rt::Backoff;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{Answer, Client, ConsulError};

/// Least time between two questions when the agent answers at once without news: an agent that
/// sends no index, or a proxy that does not block.
const PAUSE: Duration = Duration::from_millis(500);

/// The first and the longest wait after a failure.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// Follows one blocking query. Each [`next`](Self::next) waits for a change.
///
/// Rules of the API that are kept (Consul, "Blocking Queries"): an index that went backwards is
/// forgotten; an equal index is no news; after a failure the question is asked without an index,
/// so that an agent which restarted answers at once and is not waited for.
#[derive(Debug)]
pub struct Follow<T> {
    client: Client,
    path: String,
    index: u64,
    asked: Option<Instant>,
    backoff: Backoff,
    /// After a failure: when to ask again.
    retry: Option<Instant>,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Follow<T> {
    /// Follows `GET path`.
    pub fn new(client: Client, path: impl Into<String>) -> Self {
        let backoff = Backoff::new(RETRY[0], RETRY[1]);
        let path = path.into();
        Self { client, path, index: 0, asked: None, backoff, retry: None, kind: PhantomData }
    }

    /// The next answer: the first one at once, later ones when the index moved.
    ///
    /// After an error, the next call waits (100 ms, doubling to half a second) and asks afresh; its
    /// answer is returned whether or not anything changed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Answer<T>, ConsulError> {
        loop {
            if let Some(retry) = self.retry {
                // A point in time, not a length: a caller that drops this future and asks again
                // does not wait longer for it.
                tokio::time::sleep_until(retry).await;
                (self.retry, self.index, self.asked) = (None, 0, None);
            }
            if let Some(asked) = self.asked
                && asked.elapsed() < PAUSE
            {
                tokio::time::sleep_until(asked + PAUSE).await;
            }
            let before = Instant::now();
            let answer = if self.index == 0 {
                self.client.get(&self.path).await
            } else {
                self.client.get_blocking(&self.path, self.index).await
            };
            match answer {
                Ok(answer) => {
                    self.backoff.reset();
                    let (old, new) = (self.index, answer.index.unwrap_or(0));
                    let news = old == 0 || new != old;
                    // An answer that came at once for another reason than news must not make a
                    // busy loop: the next question keeps its distance.
                    self.asked = (!news || new == 0 || new < old).then_some(before);
                    self.index = if new < old { 0 } else { new };
                    if news {
                        return Ok(answer);
                    }
                }
                Err(error) => {
                    self.retry = Some(Instant::now() + self.backoff.step());
                    return Err(error);
                }
            }
        }
    }

    /// Makes [`next`](Self::next) ask afresh after a while, as after a failure.
    pub(crate) fn ask_again(&mut self) {
        self.retry = Some(Instant::now() + RETRY[1]);
    }
}
