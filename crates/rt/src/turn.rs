//! Whose turn it is among the tasks of a worker.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Lets the tasks run that are ready now: a writer that waits for them writes once for all of them.
/// `tokio::task::yield_now` would wait for the machine, too: it goes by way of the poll for I/O.
pub async fn after_others() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Wakes many tasks at once, and returns when they, and what was ready before them, have had their turn;
/// some may not have, where a runtime has several threads, or looks for I/O in between.
///
/// Woken one after the other, each may call up another thread of the runtime, which takes a part of
/// them, and sleeps again before the next is woken: that costs more than the tasks do. Here they are
/// woken while the thread looks for I/O, and others are called up once. Whoever drops this wakes them.
/// Their wakers must not run what they wake there and then; those of a runtime do not.
pub async fn wake_together(wakers: &mut Vec<Waker>) {
    let all = Arc::new(All(Mutex::new(std::mem::take(wakers))));
    let mut turn = pin!(tokio::task::yield_now());
    std::future::poll_fn(|context| {
        // Before them, so that it is behind them in the queue that they go to.
        all.lock().push(context.waker().clone());
        let waker = Waker::from(Arc::clone(&all));
        let turn = turn.as_mut().poll(&mut Context::from_waker(&waker));
        if turn.is_ready() {
            all.lock().clear();
        }
        turn
    })
    .await;
    tokio::task::yield_now().await;
}

/// Wakers that are used when this is, or when it is gone.
struct All(Mutex<Vec<Waker>>);

impl All {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for All {
    fn wake(self: Arc<Self>) {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().for_each(Waker::wake);
    }
}

impl Drop for All {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    /// Starts tasks that count once they are woken, and gives what wakes them.
    async fn sleepers(counted: &Arc<AtomicUsize>) -> Vec<Waker> {
        let (sender, mut wakers) = mpsc::unbounded_channel();
        for _ in 0..100 {
            let (sender, counted) = (sender.clone(), Arc::clone(counted));
            tokio::spawn(async move {
                let mut asleep = false;
                poll_fn(|context| {
                    if std::mem::replace(&mut asleep, true) {
                        return Poll::Ready(());
                    }
                    drop(sender.send(context.waker().clone()));
                    Poll::Pending
                })
                .await;
                counted.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut all = Vec::new();
        while all.len() < 100 {
            all.extend(wakers.recv().await);
        }
        all
    }

    #[tokio::test]
    async fn who_is_woken_has_had_its_turn() {
        let counted = Arc::new(AtomicUsize::new(0));
        let mut wakers = sleepers(&counted).await;
        assert_eq!(counted.load(Ordering::SeqCst), 0);
        let waking = tokio::spawn(async move {
            wake_together(&mut wakers).await;
            (wakers.len(), counted.load(Ordering::SeqCst))
        });
        assert_eq!(waking.await.unwrap(), (0, 100));
    }

    #[tokio::test]
    async fn a_waker_that_gives_up_wakes_them_all_the_same() {
        let counted = Arc::new(AtomicUsize::new(0));
        let mut wakers = sleepers(&counted).await;
        {
            let mut waking = pin!(wake_together(&mut wakers));
            poll_fn(|context| Poll::Ready(waking.as_mut().poll(context).is_pending())).await;
        }
        while counted.load(Ordering::SeqCst) < 100 {
            tokio::task::yield_now().await;
        }
    }
}
