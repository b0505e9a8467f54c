//! `meshx rpc bench`.

mod report;
mod tally;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meshx_rpc::{Body, Client, Error, Kind, Retries};
use tokio::task::JoinSet;

use self::report::Report;
use self::tally::Tally;
use super::asking::Asking;
use super::json;
use crate::args::rpc::Bench;
use crate::environment::variable;
use crate::failure::{Failure, exit};
use crate::output::Output;

/// Between two lines of progress.
const TICK: Duration = Duration::from_secs(1);

/// What each caller does again and again.
#[derive(Clone)]
struct Calling {
    function: Arc<str>,
    argument: Body,
    tally: Arc<Tally>,
    /// Calls that are still to be made.
    left: Arc<AtomicU64>,
}

pub(super) async fn run(arguments: &Bench, output: Output) -> Result<u8, Failure> {
    let argument = json::body(&json::argument(arguments.what.argument.as_deref())?);
    let connections = usize::from(arguments.connections);
    let asking = Asking::start_with(&arguments.address, &arguments.reach, output, |builder| {
        builder.connections(connections).max_age(None).retries(Retries::NONE)
    })
    .await?;
    let calling = Calling {
        function: (&*arguments.what.function).into(),
        argument,
        tally: Arc::new(Tally::new()),
        left: Arc::new(AtomicU64::new(arguments.calls.unwrap_or(u64::MAX))),
    };
    if let Err(failure) = warm_up(&calling, &asking, connections).await {
        asking.end().await;
        return Err(failure);
    }
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..arguments.concurrency {
        callers.spawn(calling.clone().call(asking.client.clone()));
    }
    let progress = tell(&calling.tally, arguments.duration, begun, output);
    let is_whole = tokio::select! {
        () = async { while callers.join_next().await.is_some() {} } => true,
        () = tokio::time::sleep(arguments.duration) => true,
        () = progress => true,
        () = asking.interrupted() => false,
    };
    // Calls that are on their way count for nothing.
    callers.shutdown().await;
    let report = Report::new(arguments, begun.elapsed(), &calling.argument, &calling.tally);
    output.data(&report, Report::text);
    asking.end().await;
    Ok(match (is_whole, report.is_clean()) {
        (false, _) => exit::INTERRUPTED,
        (true, true) => exit::SUCCESS,
        (true, false) => exit::NEGATIVE,
    })
}

impl Calling {
    /// One after the other, until as many were made as are to be.
    async fn call(self, client: Client) {
        let one_less = |left: u64| left.checked_sub(1);
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            let begun = Instant::now();
            match self.once(&client).await {
                Ok(result) => self.tally.answered(begun.elapsed(), result.bytes.len()),
                Err(error) => {
                    self.tally.failed(&error);
                    // What is refused without a wait would leave nobody else a turn.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn once(&self, client: &Client) -> Result<Body, Error> {
        client.function(&self.function).call_raw(self.argument.clone()).await
    }
}

/// Calls until all connections are there. A function that fails can be called, too.
async fn warm_up(calling: &Calling, asking: &Asking, connections: usize) -> Result<(), Failure> {
    /// More connections than the server takes are not waited for.
    const TRIES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(5);
    let dialled = asking.dialled.clone();
    let warm = asking.wait(async |client| {
        for _ in 0..TRIES {
            match calling.once(&client).await {
                Err(error) if error.kind() != Kind::Application => return Err(error),
                _ if dialled.borrow().connections >= connections => break,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        Ok(())
    });
    Box::pin(warm).await
}

/// Says each second how it goes, to people; never ends.
async fn tell(tally: &Tally, duration: Duration, begun: Instant, output: Output) {
    let wanted = std::io::stderr().is_terminal()
        && variable("CI").is_none()
        && variable("MESHX_NO_PROGRESS").is_none();
    if !wanted {
        std::future::pending::<()>().await;
    }
    let mut before = 0;
    loop {
        tokio::time::sleep(TICK).await;
        let calls = tally.calls();
        let failed: u64 = tally.failures().map(|(_, count)| count).sum();
        output.say(&format!(
            "{:>4} of {} s  {:>9} calls/s  {failed} failed",
            begun.elapsed().as_secs(),
            duration.as_secs(),
            calls.saturating_sub(before),
        ));
        before = calls;
    }
}
