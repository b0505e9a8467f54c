//! One place of a client's pool: makes its connection again and again, and takes requests from the
//! queue while it has one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use meshx_rt::{Backoff, random};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::FAR;
use super::exchange::{Connection, End};
use super::options::ClientOptions;
use crate::codec::Body;
use crate::error::{Error, Executed, Kind};
use crate::event::{Event, Way};
use crate::transport::Dial;

/// A connection that lived for so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(1);

/// What the lanes of a client have in common.
pub(super) struct Shared {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) options: ClientOptions,
    jobs: Mutex<mpsc::Receiver<Job>>,
    /// As many requests at a time; there are more lanes than that.
    places: Arc<Semaphore>,
    up: AtomicUsize,
    numbers: AtomicU64,
    /// Why the last attempt to connect failed.
    trouble: Lock<Option<Error>>,
}

/// An attempt at a request, on its way to a lane.
pub(super) struct Job {
    pub(super) way: Way,
    pub(super) function: Arc<str>,
    pub(super) flag: u8,
    pub(super) content: Bytes,
    pub(super) deadline: Instant,
    pub(super) attempt: u32,
    pub(super) queued: Instant,
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Body, Error>>,
}

/// Its other end.
pub(super) struct Waiting {
    way: Way,
    function: Arc<str>,
    attempt: u32,
    taken: Arc<AtomicBool>,
    answer: oneshot::Receiver<Result<Body, Error>>,
}

/// Runs one lane until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let conn_ref = shared.options.common.conn_ref();
    let (first, limit) = shared.options.reconnect;
    let mut backoff = Backoff::new(first.min(FAR), limit.min(FAR));
    loop {
        let connection = tokio::select! {
            connection = Connection::make(&shared, &conn_ref) => connection,
            () = stop.cancelled() => return,
        };
        let pause = match connection {
            Ok(connection) => {
                let up = Up::new(&shared);
                let since = Instant::now();
                let end = connection.work(&shared, &stop).await;
                drop(up);
                if since.elapsed() >= GOOD {
                    backoff.reset();
                }
                match end {
                    End::Stop => return,
                    End::Again => continue,
                    End::Lost => backoff.step(),
                }
            }
            Err(error) => {
                let pause = backoff.step();
                // It will not be better soon: nobody need wait for that.
                let refused = error.kind() != Kind::Transport;
                *shared.trouble() = Some(error);
                if refused && !shared.refuse(pause, &stop).await {
                    return;
                }
                if refused { Duration::ZERO } else { pause }
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl Shared {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        options: ClientOptions,
        jobs: mpsc::Receiver<Job>,
        places: usize,
    ) -> Self {
        Self {
            dial,
            options,
            jobs: Mutex::new(jobs),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            up: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            trouble: Lock::default(),
        }
    }

    /// The next request that somebody still waits for; `None`: there will be none.
    pub(super) async fn next(&self) -> Option<(OwnedSemaphorePermit, Job)> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let mut jobs = self.jobs.lock().await;
        loop {
            let job = jobs.recv().await?;
            if job.take() {
                return Some((place, job));
            }
        }
    }

    /// Nothing is taken any more, and what waits is dropped: who waits for it learns that.
    pub(super) async fn close(&self) {
        let mut jobs = self.jobs.lock().await;
        jobs.close();
        while jobs.recv().await.is_some() {}
    }

    /// A number for a handshake or a request.
    pub(super) fn number(&self) -> u64 {
        match &self.options.numbers {
            Some(numbers) => numbers(),
            None => self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
        }
    }

    pub(super) fn up(&self) -> usize {
        self.up.load(Ordering::Relaxed)
    }

    /// A request has waited for so long that its time is over.
    pub(super) fn nothing_free(&self, waited: Duration) -> Error {
        let trouble = self.trouble().clone();
        match trouble.filter(|_| self.up() == 0) {
            Some(error) => error,
            None => {
                let reason = format!("no connection was free for {waited:?}");
                Error::new(Kind::Deadline, Executed::Never, reason)
            }
        }
    }

    /// A cast that nobody waits for failed.
    pub(super) fn cast_lost(&self, function: &str, error: &Error) {
        self.options.observers.tell(&Event::CastLost { function, error });
    }

    /// For a while, tells those who wait that the server refuses us, unless another lane is up. `false`:
    /// the client is closed.
    async fn refuse(&self, pause: Duration, stop: &CancellationToken) -> bool {
        let mut over = std::pin::pin!(sleep(pause));
        loop {
            tokio::select! {
                () = &mut over => return true,
                () = stop.cancelled() => return false,
                next = self.next(), if self.up() == 0 => {
                    let Some((_, job)) = next else { return false };
                    let trouble = self.trouble().clone();
                    let error = trouble.unwrap_or_else(|| self.nothing_free(Duration::ZERO));
                    job.done(self, Err(error));
                }
            }
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection while it lives.
struct Up<'s>(&'s Shared);

impl<'s> Up<'s> {
    fn new(shared: &'s Shared) -> Self {
        shared.up.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.up.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Job {
    pub(super) fn new(
        way: Way,
        function: &Arc<str>,
        flag: u8,
        content: Bytes,
        deadline: Instant,
        attempt: u32,
    ) -> (Self, Waiting) {
        let (answer, waiting) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let (function, queued) = (Arc::clone(function), Instant::now());
        let waiting = Waiting {
            way,
            function: Arc::clone(&function),
            attempt,
            taken: Arc::clone(&taken),
            answer: waiting,
        };
        (Self { way, function, flag, content, deadline, attempt, queued, taken, answer }, waiting)
    }

    /// Whether somebody waits for it; from now on he gets an answer.
    fn take(&self) -> bool {
        !self.answer.is_closed() && !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Resolves when nobody waits for the answer any more; of a cast never, as it is made all the same.
    pub(super) async fn unwanted(&mut self) {
        match self.way {
            Way::Cast => std::future::pending().await,
            Way::Call | Way::Stream => self.answer.closed().await,
        }
    }

    /// Gives the answer.
    pub(super) fn done(self, shared: &Shared, answer: Result<Body, Error>) {
        // Who called may be gone.
        if let Err(Err(error)) = self.answer.send(answer)
            && self.way == Way::Cast
        {
            shared.cast_lost(&self.function, &error.of(&self.function));
        }
    }
}

impl Waiting {
    /// `None`: it got lost with the client.
    pub(super) async fn answer(&mut self) -> Option<Result<Body, Error>> {
        (&mut self.answer).await.ok()
    }

    /// Whether no lane has it; then none will.
    pub(super) fn take_back(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    pub(super) fn of(&self) -> (&str, Way, u32) {
        (&self.function, self.way, self.attempt)
    }
}

/// About as long, so that not all do it at once.
pub(super) fn about(time: Duration) -> Duration {
    let share = f64::from(random::u32()) / f64::from(u32::MAX);
    time.min(FAR).mul_f64(0.9 + share / 5.0)
}
