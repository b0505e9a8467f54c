//! The story E4: one of two servers is killed among many calls, and none of them fails.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use super::e4_load::{Load, Tally};
use super::e4_squares::{Square, SquaresClient};
use super::member::{Caller, millis};
use super::stage::Stage;
use crate::failure::Failure;
use crate::output::table;

const WORKERS: u32 = 20;
/// So that both servers are called.
const CONNECTIONS: usize = 4;
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);
/// The longest until a server that starts again is called.
const BACK: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// The instances; the first one is killed.
const INSTANCES: [&str; 2] = ["squares-1", "squares-2"];

pub(super) async fn tell(stage: &mut Stage) -> Result<Vec<String>, Failure> {
    stage.step("two servers join the mesh as instances of one service; each has its own process");
    let begun = Instant::now();
    let [killed, lives] = INSTANCES;
    let first = start(stage, killed).await?;
    start(stage, lives).await?;
    stage.tell(&format!("both are registered after {}", millis(begun.elapsed())));

    stage.step("a service joins that calls them; its sidecar leads each connection to one of both");
    let caller = Caller::join(&stage.client, "web", "squares", stage.teller.output).await?;
    let client = client(&caller, CONNECTIONS);
    stage.act("web", "squares.square(12)");
    let begun = Instant::now();
    let Square { value, instance } = ask(&client).await?;
    stage.tell(&format!("{value}   by {instance}, in {} with connecting", millis(begun.elapsed())));
    stage.act("web", &format!("{WORKERS} workers call squares.square(n) as fast as they can"));
    let load = Load::start(&client, WORKERS);
    tokio::time::sleep(BEFORE).await;

    stage.step("a server is killed, with its sidecar: nobody says goodbye to anybody");
    let begun = Instant::now();
    stage.kill(first).await?;
    load.is_after();
    stage.tell(&format!("{killed} is dead after {}; the calls go on", millis(begun.elapsed())));
    tokio::time::sleep(AFTER).await;
    let tally = load.stop().await?;
    let retries = caller.seen.retries.load(Ordering::Relaxed);

    stage.step("what came of the calls");
    show(stage, &tally, retries);
    let verdict = tally.verdict(killed, lives).map_err(|what| Stage::failed(&what));
    drop(client);
    let back = match &verdict {
        Ok(()) => come_back(stage, &caller).await,
        Err(_) => Err(Stage::failed("calls failed")),
    };
    stage.report(&json!({
        "schema": "meshx.demo.e4/1",
        "ok": back.is_ok(),
        "workers": WORKERS,
        "killed": killed,
        "calls": tally.calls(),
        "before": tally.before,
        "after": tally.after,
        "failed": tally.failed,
        "failures": tally.failures,
        "longest_seconds": tally.longest.as_secs_f64(),
        "retries": retries,
        "seconds": tally.took.as_secs_f64(),
        "back_seconds": back.as_ref().ok().map(Duration::as_secs_f64),
    }));
    verdict?;
    back?;
    caller.leave().await?;
    Ok(vec![
        "   meshx services show squares".to_owned(),
        "   meshx rpc call squares squares.square '[12]'".to_owned(),
        "   meshx rpc bench squares squares.square '[12]'".to_owned(),
    ])
}

/// The killed one starts again, and is called; says how long that took.
async fn come_back(stage: &mut Stage, caller: &Caller) -> Result<Duration, Failure> {
    let [killed, _] = INSTANCES;
    stage.step("it starts again, in the place of the dead one");
    let begun = Instant::now();
    start(stage, killed).await?;
    stage.act("web", "squares.square(12)        # on new connections, until it answers");
    let answered = async {
        loop {
            // Connections that are there stay where they are. The sidecar passes an address over for
            // seconds after it refused.
            let square = ask(&client(caller, 1)).await?;
            if square.instance == killed {
                return Ok::<_, Failure>(square);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(BACK, answered).await {
        Ok(square) => {
            let (Square { value, instance }, took) = (square?, begun.elapsed());
            stage.tell(&format!("{value}   by {instance}, {} after its start", millis(took)));
            stage.tell("an address that refused is passed over for 5 s, where there is another");
            Ok(took)
        }
        Err(_) => Err(Stage::failed(&format!("{killed} came back, and was not called"))),
    }
}

/// Starts a server.
async fn start(stage: &mut Stage, id: &str) -> Result<usize, Failure> {
    let words = ["demo-peer", "--rpc", "e4", "--id", id];
    stage.start(id, &words, &format!("./squares --id {id}        # a program in Rust")).await
}

fn client(caller: &Caller, connections: usize) -> SquaresClient {
    let client = caller.client().named("web", "demo").connections(connections);
    SquaresClient::new(client.start())
}

async fn ask(client: &SquaresClient) -> Result<Square, Failure> {
    client.square(12).await.map_err(|error| Stage::failed(&error.to_string()))
}

fn show(stage: &Stage, tally: &Tally, retries: u64) {
    let [killed, lives] = INSTANCES;
    let count = |of: &std::collections::BTreeMap<String, u64>, name| {
        of.get(name).copied().unwrap_or(0).to_string()
    };
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let text = table(&[
        row(["answered by", killed, lives]),
        row(["before the kill", &count(&tally.before, killed), &count(&tally.before, lives)]),
        row(["after it", &count(&tally.after, killed), &count(&tally.after, lives)]),
        row(["calls made", &tally.calls().to_string(), ""]),
        row(["failed calls", &tally.failed.to_string(), ""]),
        row(["retries", &retries.to_string(), ""]),
        row(["longest call", &millis(tally.longest), ""]),
    ]);
    text.lines().for_each(|line| stage.tell(line));
}
