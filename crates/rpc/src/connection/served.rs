//! Which calls of a connection are not answered yet (§7.1, §7.2).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::assembly::Assembly;
use super::exchange::Inbox;
use super::server::Service;
use super::slots::Place;
use super::{Connection, lock};
use crate::TraceParent;
use crate::context::Context;
use crate::event::Way;
use crate::functions::Function;

/// The calls of one connection that are not answered yet, by the numbers of their streams. Its lock may
/// be held while something is put into the outbox, never the other way round.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) open: Mutex<Table>,
    /// Calls and casts that run, or are about to.
    count: AtomicUsize,
    pub(super) casts: AtomicUsize,
    idle: Notify,
    pub(super) draining: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) all: HashMap<u32, (u64, Serving)>,
    generation: u64,
    /// What came of arguments for which there is no room yet.
    pub(super) unasked: u64,
    /// The connection is gone: what would run now is stopped.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) enum Serving {
    /// The argument is on its way.
    Argument(Box<Coming>),
    Running {
        task: AbortHandle,
        context: Context,
    },
    /// Messages both ways; `None`: the client says no more.
    Exchange {
        inbox: Option<Inbox>,
        task: AbortHandle,
        context: Context,
    },
}

/// A call of which the argument is on its way.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) assembly: Assembly,
    pub(super) call: Call,
    pub(super) service: Arc<Service>,
    /// Makes room, and gives up when that takes too long.
    pub(super) receiving: Option<AbortOnDropHandle<()>>,
}

/// What is known of a call before it runs.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) stream: u32,
    pub(super) function: Function,
    pub(super) way: Way,
    pub(super) quiet: bool,
    pub(super) acknowledged: bool,
    pub(super) deadline: Option<Instant>,
    pub(super) extensions: Bytes,
    pub(super) attempt: u32,
    pub(super) trace: Option<TraceParent>,
    /// If somebody listens.
    pub(super) begun: Option<Instant>,
    /// The same.
    pub(super) context: Option<Context>,
    /// How long its argument came.
    pub(super) took: Duration,
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// It counts as long as it lives.
    pub(super) _counted: Counted,
}

/// A call that a server that stops waits for.
#[derive(Debug)]
pub(super) struct Counted(Arc<Connection>);

impl Counted {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        connection.served.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.served.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.served.idle.notify_waiters();
        }
    }
}

/// A cast that runs.
#[derive(Debug)]
pub(super) struct Casting(Arc<Connection>);

impl Casting {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        connection.served.casts.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for Casting {
    fn drop(&mut self) {
        self.0.served.casts.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Served {
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Waits until nothing runs.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// The connection is gone: nobody waits for what runs.
    pub(super) fn end(&self) {
        let mut open = lock(&self.open);
        open.ended = true;
        let all = std::mem::take(&mut open.all);
        drop(open);
        for (_, (_, serving)) in all {
            serving.stop();
        }
    }
}

impl Table {
    pub(super) fn insert(&mut self, stream: u32, serving: Serving) -> Place {
        let place = self.next(stream);
        self.all.insert(stream, (place.generation, serving));
        place
    }

    /// A place for what is about to be inserted.
    pub(super) fn next(&mut self, stream: u32) -> Place {
        self.generation = self.generation.wrapping_add(1);
        Place { stream, generation: self.generation }
    }

    pub(super) fn remove(&mut self, stream: u32) -> Option<Serving> {
        let (_, serving) = self.all.remove(&stream)?;
        if let Serving::Argument(coming) = &serving
            && !coming.assembly.has_room()
        {
            let received = u64::try_from(coming.assembly.received()).unwrap_or(u64::MAX);
            self.unasked = self.unasked.saturating_sub(received);
        }
        Some(serving)
    }

    /// Removes that call, and not another one with its number.
    pub(super) fn take(&mut self, place: Place) -> Option<Serving> {
        let (generation, _) = self.all.get(&place.stream)?;
        if *generation == place.generation { self.remove(place.stream) } else { None }
    }
}

impl Serving {
    pub(super) fn stop(self) {
        match self {
            Self::Running { task, context } | Self::Exchange { task, context, .. } => {
                context.cancel();
                task.abort();
            }
            Self::Argument(_) => {}
        }
    }
}
