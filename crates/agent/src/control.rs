//! The shell around the registry: time, probes, files, and who waits for what.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use meshx_consul_api::CaConfiguration;
use meshx_rt::random;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::probe;
use crate::refusal::Refusal;
use crate::state::{CaChange, Effect, IntentionChange, State, Topic};
use crate::store::{Saved, Store};

/// The registry and everything that moves it.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// Writes that must survive are made one at a time.
    store: tokio::sync::Mutex<Option<Arc<Store>>>,
    probes: Mutex<HashMap<String, AbortHandle>>,
    pub(crate) probing: Semaphore,
    /// A deadline came nearer.
    deadline: Notify,
    blocking: Semaphore,
    pub(crate) stop: CancellationToken,
    pub(crate) started: Instant,
}

/// How long a blocking query waits, and from which index on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// The index that the client knows; 0 waits for nothing.
    pub(crate) index: u64,
    /// How long at most.
    pub(crate) time: Duration,
}

impl Control {
    pub(crate) fn new(state: State, store: Option<Store>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            store: tokio::sync::Mutex::new(store.map(Arc::new)),
            probes: Mutex::new(HashMap::new()),
            probing: Semaphore::new(limits::PROBES),
            deadline: Notify::new(),
            blocking: Semaphore::new(limits::BLOCKING_QUERIES),
            stop,
            started: now(),
        })
    }

    /// Looks at the registry.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the registry, then starts and stops probes as it wants.
    pub(crate) fn write<R>(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.lock();
        let before = state.next_deadline();
        let result = change(&mut state, now());
        let effects = state.take_effects();
        let after = state.next_deadline();
        // Effects are carried out in the order of the writes that made them.
        if !effects.is_empty() {
            self.carry_out(effects);
        }
        drop(state);
        if after != before {
            self.deadline.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        for effect in effects {
            match effect {
                Effect::Stop { check } => {
                    if let Some(task) = probes.remove(&check) {
                        task.abort();
                    }
                }
                Effect::Start { check, generation, probe } => {
                    let run = probe::run(Arc::clone(self), check.clone(), generation, probe);
                    let task = tokio::spawn(run).abort_handle();
                    if let Some(old) = probes.insert(check, task) {
                        old.abort();
                    }
                }
            }
        }
    }

    /// Expires, reaps and prunes until the agent stops.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut roots = tokio::time::interval(limits::ROOTS_LOOKED_AT);
        loop {
            let next = self.read(State::next_deadline);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.deadline.notified() => {}
                () = due => self.write(State::tick),
                _ = roots.tick() => {
                    // Beside: it waits for the disk.
                    let control = Arc::clone(&self);
                    tokio::spawn(async move { control.prune_roots(SystemTime::now()).await });
                }
            }
        }
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, task) in probes.drain() {
            task.abort();
        }
    }

    /// Waits until one of the topics has an index above the one that the client knows, or time is
    /// up, or the agent stops.
    pub(crate) async fn wait(&self, topics: &[Topic], wait: Wait) -> Result<(), Refusal> {
        if wait.index == 0 {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + wait.time + jitter(wait.time);
        let mut permit = None;
        loop {
            let changed: Vec<Arc<Notify>>;
            let mut waits: Vec<Pin<Box<_>>>;
            {
                let mut state = self.lock();
                if topics.iter().any(|topic| state.topics.index(topic) > wait.index) {
                    return Ok(());
                }
                changed = topics.iter().map(|topic| state.topics.waiter(topic)).collect();
                waits = changed.iter().map(|notify| Box::pin(notify.notified())).collect();
                for wait in &mut waits {
                    // Registered before the lock is released: no change can be missed.
                    wait.as_mut().enable();
                }
            }
            if permit.is_none() {
                permit = Some(self.blocking.try_acquire().map_err(|_| {
                    Refusal::full("waiting blocking queries", limits::BLOCKING_QUERIES)
                })?);
            }
            tokio::select! {
                () = any(&mut waits) => {}
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Waits until the hash of a local service is another one than the client knows.
    pub(crate) async fn wait_hash(
        &self,
        id: &str,
        time: Duration,
        is_same: impl Fn(&State) -> bool,
    ) -> Result<(), Refusal> {
        let deadline = tokio::time::Instant::now() + time + jitter(time);
        let _permit = self
            .blocking
            .try_acquire()
            .map_err(|_| Refusal::full("waiting blocking queries", limits::BLOCKING_QUERIES))?;
        let topic = Topic::AgentService(id.to_owned());
        loop {
            let changed;
            let mut wait;
            {
                let mut state = self.lock();
                if !is_same(&state) {
                    return Ok(());
                }
                changed = state.topics.waiter(&topic);
                wait = Box::pin(changed.notified());
                wait.as_mut().enable();
            }
            tokio::select! {
                () = wait => {}
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Changes the intentions: judged, saved, then put in force. A client that goes away meanwhile
    /// does not stop it half-way.
    pub(crate) async fn change_intentions(
        self: &Arc<Self>,
        changes: Vec<IntentionChange>,
    ) -> Result<(), Refusal> {
        let control = Arc::clone(self);
        to_the_end(async move { control.save_intentions(changes).await }).await
    }

    async fn save_intentions(
        self: &Arc<Self>,
        changes: Vec<IntentionChange>,
    ) -> Result<(), Refusal> {
        let store = self.store.lock().await;
        let (index, mut next) =
            self.write(|state, _| (state.topics.next(), state.intentions.clone()));
        for change in changes {
            next.apply(change, index, SystemTime::now())?;
        }
        if let Some(store) = store.as_ref() {
            let saved = self.read(|state| Saved {
                node_id: state.identity.node_id.clone(),
                index,
                authority: state.authority.save(None),
                intentions: next.list().cloned().collect(),
            });
            save(store, saved).await?;
        }
        self.write(|state, _| {
            state.intentions = next;
            state.topics.touch(Topic::Intentions, index);
        });
        Ok(())
    }

    /// Changes the configuration of the certificate authority in the same way.
    pub(crate) async fn change_authority(
        self: &Arc<Self>,
        request: CaConfiguration,
    ) -> Result<(), Refusal> {
        let control = Arc::clone(self);
        to_the_end(async move { control.save_authority(request).await }).await
    }

    async fn save_authority(self: &Arc<Self>, request: CaConfiguration) -> Result<(), Refusal> {
        let store = self.store.lock().await;
        let (index, change) = self.write(|state, _| {
            let index = state.topics.next();
            (index, state.authority.prepare(request, index, SystemTime::now()))
        });
        self.put_authority(store.as_ref(), change?, index).await
    }

    /// Ends the trust in roots that were retired long enough ago.
    async fn prune_roots(self: &Arc<Self>, now: SystemTime) {
        let store = self.store.lock().await;
        let Some(change) = self.read(|state| state.authority.prune(now)) else { return };
        let index = self.write(|state, _| state.topics.next());
        match self.put_authority(store.as_ref(), change, index).await {
            Ok(()) => tracing::info!("a retired root is trusted no longer"),
            Err(refusal) => tracing::error!(text = refusal.text, "a retired root is still trusted"),
        }
    }

    async fn put_authority(
        self: &Arc<Self>,
        store: Option<&Arc<Store>>,
        change: CaChange,
        index: u64,
    ) -> Result<(), Refusal> {
        if let Some(store) = store {
            let saved = self.read(|state| Saved {
                node_id: state.identity.node_id.clone(),
                index,
                authority: state.authority.save(Some(&change)),
                intentions: state.intentions.list().cloned().collect(),
            });
            save(store, saved).await?;
        }
        self.write(|state, _| {
            let State { authority, topics, .. } = state;
            authority.commit(change, topics, index);
        });
        Ok(())
    }
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn new_uuid() -> String {
    let hex = random::hex(32);
    let [low, middle, high, clock] = [&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20]];
    format!("{low}-{middle}-4{high}-8{clock}-{}", &hex[20..])
}

/// Runs a write in a task of its own.
async fn to_the_end(
    write: impl Future<Output = Result<(), Refusal>> + Send + 'static,
) -> Result<(), Refusal> {
    let done = tokio::spawn(write).await;
    done.unwrap_or_else(|_| Err(Refusal::internal("the write was interrupted")))
}

async fn save(store: &Arc<Store>, saved: Saved) -> Result<(), Refusal> {
    let store = Arc::clone(store);
    let written = tokio::task::spawn_blocking(move || store.save(&saved)).await;
    let written = written.unwrap_or_else(|_| Err(std::io::Error::other("the writer ended")));
    written.map_err(|error| {
        tracing::error!(%error, "cannot save the state");
        Refusal::internal(format!("nothing was changed: the state cannot be saved: {error}"))
    })
}

/// The clock of TTLs and intervals: monotonic, and tokio's, so that tests can hold it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Up to a sixteenth of the wait.
fn jitter(wait: Duration) -> Duration {
    let most = u64::try_from((wait / limits::WAIT_JITTER).as_millis()).unwrap_or(u64::MAX);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Duration::from_millis(random::below(most.saturating_add(1)) as u64)
}

/// Ready when one of the waits is.
async fn any<F: Future<Output = ()>>(waits: &mut [Pin<Box<F>>]) {
    std::future::poll_fn(|context| {
        let mut is_ready = false;
        for wait in &mut *waits {
            is_ready |= wait.as_mut().poll(context).is_ready();
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::Authority;
    use crate::state::test_world::World;

    #[tokio::test]
    async fn a_retired_root_goes_in_its_time_from_memory_and_disk() {
        let long_ago = SystemTime::now() - Duration::from_hours(200);
        let mut state = World::new().state;
        let request = json!({"Provider": "consul", "Config": {"PrivateKey": ""}});
        let request = serde_json::from_value(request).unwrap();
        let change = state.authority.prepare(request, 9, long_ago).unwrap();
        let State { authority, topics, .. } = &mut state;
        authority.commit(change, topics, 9);
        assert_eq!(authority.roots().roots.len(), 2);
        let index = topics.index(&Topic::Roots);

        let name = format!("meshx-agent-control-{}", random::hex(12));
        let dir = std::env::temp_dir().join(name);
        let store = Store::open(&dir).unwrap();
        let control = Control::new(state, Some(store), CancellationToken::new());
        let time = tokio::spawn(Arc::clone(&control).keep_time());
        let wait = Wait { index, time: Duration::from_secs(20) };
        control.wait(&[Topic::Roots], wait).await.unwrap();
        assert_eq!(control.read(|state| state.authority.roots().roots.len()), 1);
        let saved = control.store.lock().await.as_ref().unwrap().load().unwrap().unwrap();
        let restored = Authority::restore(saved.authority, "dc1", long_ago).unwrap();
        assert_eq!(restored.roots().roots.len(), 1);
        control.stop.cancel();
        time.await.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
