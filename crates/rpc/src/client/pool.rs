//! The connections of a client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use meshx_rt::Backoff;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::{self, Connection, Introduction};
use crate::event::Event;
use crate::patience::Patience;
use crate::transport::Dial;
use crate::{Error, Executed, Kind};

/// The first and the longest pause between two attempts to connect, of each place.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);
/// A connection that ends before, and on which no call was answered, counts as an attempt that failed.
const STEADY: Duration = Duration::from_secs(1);
/// A transport that is not done by then is given up; the handshake has a limit of its own.
const DIALLING: Duration = Duration::from_secs(30);
/// Who waits for a place among the calls of a connection looks again after this long: the peer may have
/// ended one that was cancelled.
const LOOK: Duration = Duration::from_millis(5);

/// So many connections to one service.
pub(super) struct Pool {
    dial: Arc<dyn Dial>,
    pub(super) own: Arc<Introduction>,
    places: Vec<Place>,
    /// Where the next call looks first.
    next: AtomicUsize,
    age: Option<Duration>,
    /// A connection was made, or could not be.
    changed: Notify,
    /// A call has ended, and somebody waited for that.
    freed: Notify,
    /// Held by the first of those who wait; the others follow in their order.
    turn: tokio::sync::Mutex<()>,
    /// How many wait because all connections have as many calls as they take.
    crowd: AtomicUsize,
    /// The client is gone: what is dialled or was replaced is, too.
    ended: CancellationToken,
}

/// One of them.
#[derive(Debug, Default)]
struct Place(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    up: Option<Up>,
    /// A task is making one. It belongs to no call, so that none that gives up takes it along.
    dialling: bool,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Up {
    connection: Arc<Connection>,
    since: Instant,
    /// The pauses go on from there if it does not last.
    backoff: Option<Backoff>,
    /// From then on another is made, which takes its place.
    until: Option<Instant>,
}

/// The last attempt came to nothing, or to a connection that did not last.
#[derive(Debug)]
struct Failed {
    why: Error,
    backoff: Backoff,
    not_before: Instant,
}

/// Why there is no connection for a call right now.
enum Lack {
    /// None is up.
    Connection,
    /// Each has as many calls as its peer takes.
    Room(u32),
}

impl Pool {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        own: Introduction,
        connections: usize,
        age: Option<Duration>,
    ) -> Self {
        Self {
            dial,
            own: Arc::new(own),
            places: (0..connections.max(1)).map(|_| Place::default()).collect(),
            next: AtomicUsize::new(0),
            age,
            changed: Notify::new(),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            crowd: AtomicUsize::new(0),
            ended: CancellationToken::new(),
        }
    }

    pub(super) fn address(&self) -> String {
        self.dial.address()
    }

    /// A connection for a call: the less busy one of two, not `avoided` if there is another. Waits for
    /// one, and for a place among its calls, as long as the caller does.
    pub(super) async fn pick(
        self: &Arc<Self>,
        (patience, now): (Patience, Instant),
        avoided: Option<&Arc<Connection>>,
    ) -> Result<Arc<Connection>, Error> {
        let lack = match self.choose(now, avoided) {
            Ok(connection) if !self.is_crowded() => return Ok(connection),
            Ok(connection) => Lack::Room(connection.most_calls()),
            Err(lack) => lack,
        };
        let _crowded = matches!(lack, Lack::Room(_)).then(|| Crowded::new(&self.crowd));
        let mut last = lack;
        let found = async {
            let _turn = self.turn.lock().await;
            loop {
                let (changed, freed) = (self.changed.notified(), self.freed.notified());
                let next = match self.choose(Instant::now(), avoided) {
                    Ok(connection) => return connection,
                    Err(Lack::Connection) => self.next_attempt(),
                    Err(Lack::Room(_)) => Some(Instant::now() + LOOK),
                };
                let looks_again = async {
                    match next {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = changed => {}
                    () = freed => {}
                    () = looks_again => {}
                }
            }
        };
        // Apart, so that calls which find one at once are small.
        let found = Box::pin(tokio::time::timeout_at(patience.until, found)).await;
        found.map_err(|_| {
            // As it is now, for the words.
            if let Err(lack) = self.choose(Instant::now(), avoided) {
                last = lack;
            }
            self.lacking(&last, patience)
        })
    }

    /// The same, if it need not wait.
    pub(super) fn at_once(
        self: &Arc<Self>,
        now: Instant,
        avoided: Option<&Arc<Connection>>,
    ) -> Option<Arc<Connection>> {
        self.choose(now, avoided).ok().filter(|_| !self.is_crowded())
    }

    /// Who waits for a place already goes first.
    fn is_crowded(&self) -> bool {
        self.crowd.load(Ordering::Relaxed) > 0
    }

    /// A call has ended.
    pub(super) fn freed(&self) {
        if self.is_crowded() {
            self.freed.notify_one();
        }
    }

    /// Those that take calls.
    pub(super) fn up(&self) -> Vec<Arc<Connection>> {
        self.places.iter().filter_map(|place| place.open(Instant::now())).map(|it| it.0).collect()
    }

    /// One that takes a call at once: of two, each time others, the less busy one. Those that are missing,
    /// or too old, are made in the background.
    fn choose(
        self: &Arc<Self>,
        now: Instant,
        avoided: Option<&Arc<Connection>>,
    ) -> Result<Arc<Connection>, Lack> {
        let (mut most, mut missing, mut fallback) = (None, false, None);
        let mut best: Option<(usize, Arc<Connection>)> = None;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.places.len() {
            let at = first.wrapping_add(step) % self.places.len();
            let Some(place) = self.places.get(at) else { break };
            let Some((connection, is_new)) = place.open(now) else {
                missing = true;
                continue;
            };
            missing |= !is_new;
            most = Some(connection.most_calls());
            let calls = connection.in_flight();
            if connection.is_full(calls) {
                continue;
            }
            if avoided.is_some_and(|avoided| Arc::ptr_eq(&connection, avoided)) {
                fallback = Some(connection);
                continue;
            }
            match &best {
                None => best = Some((calls, connection)),
                Some((fewest, _)) => {
                    if calls < *fewest {
                        best = Some((calls, connection));
                    }
                    break;
                }
            }
        }
        if missing {
            self.fill(most.is_none(), now);
        }
        let quiet = best.map(|(_, connection)| connection).or(fallback);
        quiet.ok_or_else(|| most.map_or(Lack::Connection, Lack::Room))
    }

    /// Begins to make what is missing. Where there is none at all, one is made first: it tells
    /// whether it is worth it.
    fn fill(self: &Arc<Self>, one: bool, now: Instant) {
        let places = if one { 1 } else { self.places.len() };
        for (at, place) in self.places.iter().enumerate().take(places) {
            let mut state = place.lock();
            let gone = state.up.take_if(|up| !up.connection.is_open());
            if let Some(Up { connection, since, backoff, .. }) = gone {
                // Else who takes connections and ends them is dialled without a pause.
                if now.saturating_duration_since(since) < STEADY && !connection.has_answered() {
                    state.failed = Some(Failed::new(short_lived(&connection), backoff));
                }
                self.retire(connection);
            }
            let is_early = state.failed.as_ref().is_some_and(|it| now < it.not_before);
            let is_good = state.up.as_ref().is_some_and(|up| !up.is_old(now));
            if is_good || is_early || state.dialling {
                continue;
            }
            state.dialling = true;
            drop(state);
            self.dial(at);
        }
    }

    /// Makes one, in a task of its own.
    fn dial(self: &Arc<Self>, at: usize) {
        let attempt = Attempt { pool: Arc::downgrade(self), at, is_over: false };
        let (dial, own, ended) =
            (Arc::clone(&self.dial), Arc::clone(&self.own), self.ended.clone());
        tokio::spawn(async move {
            let made = async {
                let address = dial.address();
                let dialled = tokio::time::timeout(DIALLING, dial.dial()).await;
                let stream = match dialled {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no connection within {DIALLING:?}")),
                };
                let stream = stream.map_err(|reason| {
                    let error = unreachable(&reason, &address);
                    own.observers.tell(&Event::Unreachable { address: &address, error: &error });
                    error
                })?;
                connection::connect(stream, &own).await
            };
            tokio::select! {
                made = made => attempt.ends(made),
                () = ended.cancelled() => {}
            }
        });
    }

    /// What came of an attempt.
    fn dialled(self: &Arc<Self>, at: usize, made: Result<Arc<Connection>, Error>) {
        let Some(place) = self.places.get(at) else { return };
        let mut state = place.lock();
        state.dialling = false;
        let old = match made {
            Ok(connection) => {
                let backoff = state.failed.take().map(|it| it.backoff);
                let until = self.age.and_then(until);
                state.up.replace(Up { connection, since: Instant::now(), backoff, until })
            }
            Err(why) => {
                let backoff = state.failed.take().map(|it| it.backoff);
                state.failed = Some(Failed::new(why, backoff));
                None
            }
        };
        drop(state);
        if let Some(old) = old {
            self.retire(old.connection);
        }
        self.changed.notify_waiters();
    }

    /// When the first place may be tried again; `None`: that is told.
    fn next_attempt(&self) -> Option<Instant> {
        let state = self.places.first()?.lock();
        if state.dialling {
            return None;
        }
        Some(state.failed.as_ref().map_or_else(Instant::now, |it| it.not_before))
    }

    /// Why a call could not even be sent.
    fn lacking(&self, lack: &Lack, patience: Patience) -> Error {
        let whole = patience.whole();
        match lack {
            Lack::Room(most) => {
                let reason = format!(
                    "no place for the call within {whole:?}: the server takes {most} at a time on \
                     a connection"
                );
                Error::new(Kind::Overloaded, Executed::Never, reason).at(&self.address())
            }
            Lack::Connection => {
                let failed = self.places.iter().find_map(|place| {
                    place.lock().failed.as_ref().map(|failed| failed.why.clone())
                });
                let reason = format!("no connection was made within {whole:?}");
                failed.unwrap_or_else(|| unreachable(&reason, &self.address()))
            }
        }
    }

    /// Closes a connection that takes no calls when the last one on it has its answer, and the last
    /// exchange has ended: calls have their deadlines, and exchanges last as long as they want.
    fn retire(&self, connection: Arc<Connection>) {
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let replaced = || Error::new(Kind::Draining, Executed::Maybe, "it is replaced");
            while !connection.close_if_idle(replaced()) {
                tokio::select! {
                    () = connection.closed() => return,
                    () = ended.cancelled() => return connection.close(dropped()),
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        });
    }
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its connection, if that takes calls, and whether it is not too old.
    fn open(&self, now: Instant) -> Option<(Arc<Connection>, bool)> {
        let state = self.lock();
        let up = state.up.as_ref().filter(|up| up.connection.is_open())?;
        Some((Arc::clone(&up.connection), !up.is_old(now)))
    }
}

impl Up {
    fn is_old(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Failed {
    fn new(why: Error, backoff: Option<Backoff>) -> Self {
        let mut backoff = backoff.unwrap_or_else(|| Backoff::new(FIRST, LONGEST));
        let not_before = Instant::now() + backoff.step();
        Self { why, backoff, not_before }
    }
}

/// One that is being made; whatever ends the task, its place is free for another attempt.
struct Attempt {
    pool: Weak<Pool>,
    at: usize,
    is_over: bool,
}

impl Attempt {
    fn ends(mut self, made: Result<Arc<Connection>, Error>) {
        self.is_over = true;
        match (self.pool.upgrade(), made) {
            (Some(pool), made) => pool.dialled(self.at, made),
            (None, Ok(connection)) => connection.close(dropped()),
            (None, Err(_)) => {}
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade().filter(|_| !self.is_over) {
            let why = unreachable("the attempt to connect was given up", &pool.address());
            pool.dialled(self.at, Err(why));
        }
    }
}

/// Counts who waits for a place.
struct Crowded<'p>(&'p AtomicUsize);

impl<'p> Crowded<'p> {
    fn new(crowd: &'p AtomicUsize) -> Self {
        crowd.fetch_add(1, Ordering::Relaxed);
        Self(crowd)
    }
}

impl Drop for Crowded<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.ended.cancel();
        for place in &self.places {
            if let Some(up) = place.lock().up.take() {
                up.connection.close(dropped());
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("address", &self.dial.address()).finish_non_exhaustive()
    }
}

/// When a connection of now is too old; `None`: never.
fn until(age: Duration) -> Option<Instant> {
    // Not all at once: a tenth earlier or later.
    let permille = 900 + u32::try_from(meshx_rt::random::below(200)).unwrap_or(100);
    Instant::now().checked_add((age / 1000).checked_mul(permille)?)
}

fn unreachable(reason: &str, address: &str) -> Error {
    Error::new(Kind::Transport, Executed::Never, reason).at(address)
}

fn short_lived(connection: &Connection) -> Error {
    let why = connection.why();
    let why = why.as_ref().map_or("it takes no calls", Error::reason);
    let reason = format!("the server takes connections, and they do not last: {why}");
    unreachable(&reason, &connection.peer.address)
}

fn dropped() -> Error {
    Error::new(Kind::Draining, Executed::Maybe, "the client was dropped")
}
