//! Whose turn it is among the tasks of a worker.

use std::task::Poll;

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
