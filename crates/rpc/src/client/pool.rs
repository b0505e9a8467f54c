//! The connections of a client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshx_rt::Backoff;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::{self, Connection, Introduction};
use crate::event::Event;
use crate::transport::Dial;
use crate::{Error, Executed, Kind};

/// The first and the longest pause between two attempts to connect.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

/// So many connections to one service.
pub(super) struct Pool {
    dial: Arc<dyn Dial>,
    pub(super) own: Introduction,
    places: Vec<Place>,
    /// A connection was made.
    made: Notify,
    age: Option<Duration>,
}

/// One of them.
#[derive(Debug, Default)]
struct Place {
    up: Mutex<Option<Up>>,
    /// Held by who dials.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Up {
    connection: Arc<Connection>,
    /// From then on it takes no new calls, and another is made.
    until: Option<Instant>,
}

impl Pool {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        own: Introduction,
        connections: usize,
        age: Option<Duration>,
    ) -> Self {
        let places = (0..connections.max(1)).map(|_| Place::default()).collect();
        Self { dial, own, places, made: Notify::new(), age }
    }

    pub(super) fn address(&self) -> String {
        self.dial.address()
    }

    /// A connection for a call: the less busy one of two, not `avoided` if there is another. Waits for
    /// one until `deadline`.
    pub(super) async fn pick(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        avoided: Option<&Arc<Connection>>,
    ) -> Result<Arc<Connection>, Error> {
        let mut up = self.up();
        if let Some(avoided) = avoided
            && up.iter().any(|it| !Arc::ptr_eq(it, avoided))
        {
            up.retain(|it| !Arc::ptr_eq(it, avoided));
        }
        self.fill(up.len());
        match &*up {
            [] => self.wait(deadline).await,
            [one] => Ok(Arc::clone(one)),
            several => {
                let first = meshx_rt::random::below(several.len());
                let step = 1 + meshx_rt::random::below(several.len() - 1);
                let pair = [several.get(first), several.get((first + step) % several.len())];
                let least = pair.into_iter().flatten().min_by_key(|it| it.in_flight());
                least.map(Arc::clone).ok_or_else(|| self.unreachable("there is none"))
            }
        }
    }

    /// Those that take calls.
    pub(super) fn up(&self) -> Vec<Arc<Connection>> {
        let places = self.places.iter();
        places.filter_map(Place::open).collect()
    }

    /// Makes those that are missing, in the background.
    fn fill(self: &Arc<Self>, up: usize) {
        if up == 0 || up >= self.places.len() {
            return;
        }
        for at in 0..self.places.len() {
            let free = |place: &Place| place.open().is_none() && place.dialling.try_lock().is_ok();
            if self.places.get(at).is_some_and(free) {
                let pool = Arc::clone(self);
                tokio::spawn(async move {
                    if let Some(place) = pool.places.get(at) {
                        // Who needs one is told by its own attempt.
                        drop(pool.dial_into(place).await);
                    }
                });
            }
        }
    }

    /// Waits until there is one, or the time is over.
    async fn wait(&self, deadline: Option<Instant>) -> Result<Arc<Connection>, Error> {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut last = None;
        let some = async {
            loop {
                let made = self.made.notified();
                if let Some(connection) = self.up().first() {
                    return Arc::clone(connection);
                }
                // Who waits shares the attempt, and its failure is its own.
                if let Some(place) = self.places.first() {
                    match self.dial_into(place).await {
                        Ok(connection) => return connection,
                        Err(error) => last = Some(error),
                    }
                }
                tokio::select! {
                    () = made => {}
                    () = tokio::time::sleep(backoff.step()) => {}
                }
            }
        };
        match deadline {
            None => Ok(some.await),
            Some(at) => tokio::time::timeout_at(at, some).await.map_err(|_| {
                last.unwrap_or_else(|| self.unreachable("no connection was made in time"))
            }),
        }
    }

    /// The connection of this place, made if need be by one at a time.
    async fn dial_into(&self, place: &Place) -> Result<Arc<Connection>, Error> {
        let _one_at_a_time = place.dialling.lock().await;
        if let Some(connection) = place.open() {
            return Ok(connection);
        }
        let address = self.dial.address();
        let stream = self.dial.dial().await.map_err(|error| {
            let error = self.unreachable(&error.to_string());
            self.own.observers.tell(&Event::Unreachable { address: &address, error: &error });
            error
        })?;
        let connection = connection::connect(stream, &self.own).await?;
        let until = self.age.map(|age| {
            // Not all at once: a tenth earlier or later.
            let permille = 900 + u32::try_from(meshx_rt::random::below(200)).unwrap_or(100);
            Instant::now() + age * permille / 1000
        });
        let old = lock(&place.up).replace(Up { connection: Arc::clone(&connection), until });
        if let Some(old) = old {
            retire(old.connection);
        }
        self.made.notify_waiters();
        Ok(connection)
    }

    fn unreachable(&self, reason: &str) -> Error {
        Error::new(Kind::Transport, Executed::Never, reason).at(&self.dial.address())
    }
}

impl Place {
    /// Its connection, if that takes calls.
    fn open(&self) -> Option<Arc<Connection>> {
        let mut up = lock(&self.up);
        let here = up.as_ref()?;
        let is_old = here.until.is_some_and(|until| until <= Instant::now());
        if here.connection.is_open() && !is_old {
            return Some(Arc::clone(&here.connection));
        }
        if let Some(old) = up.take() {
            retire(old.connection);
        }
        None
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for place in &self.places {
            if let Some(up) = lock(&place.up).take() {
                up.connection.close(Error::new(
                    Kind::Draining,
                    Executed::Maybe,
                    "the client was dropped",
                ));
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("address", &self.dial.address()).finish_non_exhaustive()
    }
}

/// Closes a connection that takes no calls when the last one on it has its answer.
fn retire(connection: Arc<Connection>) {
    /// Calls without a deadline do not keep it for good.
    const LONGEST: Duration = Duration::from_mins(10);
    tokio::spawn(async move {
        let begun = Instant::now();
        while connection.in_flight() > 0 && begun.elapsed() < LONGEST {
            tokio::select! {
                () = connection.closed() => return,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        connection.close(Error::new(Kind::Draining, Executed::Maybe, "it is replaced"));
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
