//! How long a run may take, and the wish to end it sooner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// A whole run with the default number of repetitions ends within this.
const WHOLE: Duration = Duration::from_mins(5);

/// What each repetition of more adds.
const EACH: Duration = Duration::from_mins(1);

/// Kept for the last repetition, and for the ends of the children.
const RESERVE: Duration = Duration::from_secs(40);

/// The time that is left. Repetitions stop when it is spent; what was measured is reported.
#[derive(Debug)]
pub(crate) struct Budget {
    end: Instant,
    interrupted: Arc<AtomicBool>,
}

impl Budget {
    /// A budget for so many repetitions. From now on SIGINT and SIGTERM end the run in order.
    pub(crate) fn of(runs: u32) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                let (Ok(mut int), Ok(mut term)) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
                else {
                    return;
                };
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                flag.store(true, Ordering::Relaxed);
            });
        })?;
        let allowed = WHOLE.max(EACH * runs).saturating_sub(RESERVE);
        Ok(Self { end: Instant::now() + allowed, interrupted })
    }

    /// Whether to stop repeating; an error when somebody wants the run to end.
    pub(crate) fn is_spent(&self) -> Result<bool> {
        if self.is_interrupted() {
            bail!("interrupted");
        }
        Ok(Instant::now() > self.end)
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits until `look` gives a value, looking every `pause`.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        within: Duration,
        pause: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(value) = look() {
                return Ok(value);
            }
            if self.is_interrupted() {
                bail!("interrupted");
            }
            if begun.elapsed() > within {
                bail!("not within {within:?}: {what}");
            }
            thread::sleep(pause);
        }
    }
}
