//! Blocking queries: what a change is, and what is done when there is none ("Blocking Queries" in
//! Consul's API documentation; Consul 1.8.7, recorded).

use std::time::{Duration, Instant};

use meshx_consul::{ConsulError, Follow};
use meshx_core::{Code, Diagnostic};
use serde_json::{Value, json};

use crate::agent::{Agent, Reply, eventually, nobody, skip, soon};

fn follow(agent: &Agent) -> Follow<Value> {
    Follow::new(agent.client(), "/v1/things")
}

/// The indexes that were asked for; `None` for a question that does not block.
fn indexes(agent: &Agent) -> Vec<Option<u64>> {
    let asked = agent.asked();
    asked.iter().map(|asked| asked.parameter("index").map(|index| index.parse().unwrap())).collect()
}

#[tokio::test]
async fn an_index_that_moves_on_is_news() {
    let agent = Agent::scripted(vec![
        Reply::at(5, json!(["a"])),
        Reply::at(9, json!(["b"])).after(Duration::from_millis(50)),
        Reply::at(10, json!(["c"])),
    ]);
    let mut follow = follow(&agent);
    for (value, index) in [("a", 5), ("b", 9), ("c", 10)] {
        let answer = soon(follow.next()).await.unwrap();
        assert_eq!((answer.value, answer.index), (json!([value]), Some(index)));
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), follow.next()).await.is_err());
    assert_eq!(indexes(&agent), [None, Some(5), Some(9), Some(10)]);
    assert_eq!(agent.asked()[1].parameter("wait"), Some("25s"), "below the 30 s of some releases");
    assert_eq!(agent.lines()[0], "GET /v1/things");
}

#[tokio::test]
async fn a_path_with_a_query_keeps_it() {
    let agent = Agent::scripted(vec![Reply::at(5, "1"), Reply::at(6, "2")]);
    let mut follow: Follow<Value> = Follow::new(agent.client(), "/v1/things?near=_agent");
    soon(follow.next()).await.unwrap();
    soon(follow.next()).await.unwrap();
    assert_eq!(
        agent.lines(),
        ["GET /v1/things?near=_agent", "GET /v1/things?near=_agent&index=5&wait=25s"]
    );
}

/// Answers that come at once, whatever they say, must not make a busy loop: five questions take
/// `least`. Gives how many answers were news.
async fn is_patient(agent: Agent, least: Duration) -> usize {
    let mut follow = follow(&agent);
    let begun = Instant::now();
    let mut news = 0;
    let ask = async {
        loop {
            news += usize::from(follow.next().await.is_ok());
        }
    };
    tokio::select! {
        () = ask => unreachable!(),
        () = eventually("five questions", || agent.asked().len() >= 5) => {}
    }
    assert!(begun.elapsed() >= least, "five questions in {:?}", begun.elapsed());
    news
}

/// Half a second between two questions, once it is known that there is no news.
const PATIENT: Duration = Duration::from_millis(1400);

#[tokio::test]
async fn an_equal_index_is_no_news_and_no_hurry() {
    assert_eq!(is_patient(Agent::new(|_| Reply::at(7, "1")), PATIENT).await, 1);
}

#[tokio::test]
async fn no_index_means_asking_again_and_no_hurry() {
    assert!(
        is_patient(Agent::new(|_| Reply::ok("1")), PATIENT).await >= 2,
        "every answer may be news"
    );
}

#[tokio::test]
async fn an_index_of_zero_is_none() {
    assert!(is_patient(Agent::new(|_| Reply::at(0, "1")), PATIENT).await >= 2);
}

#[tokio::test]
async fn an_index_that_is_no_number_is_none() {
    assert!(is_patient(Agent::new(|_| Reply::ok("1").index("soon")), PATIENT).await >= 2);
}

#[tokio::test]
async fn an_index_that_jumps_back_and_forth_is_no_hurry() {
    let agent = Agent::new(|asked| {
        if asked.parameter("index") == Some("9") { Reply::at(4, "1") } else { Reply::at(9, "1") }
    });
    // Two questions, then a pause.
    is_patient(agent, Duration::from_millis(900)).await;
}

#[tokio::test]
async fn errors_that_come_at_once_are_no_hurry() {
    let agent = Agent::new(|_| Reply::status(500, "No cluster leader"));
    // At least half of 100, 200, 400 and 500 ms.
    assert_eq!(is_patient(agent, Duration::from_millis(600)).await, 0);
}

#[tokio::test]
async fn an_index_that_goes_back_is_forgotten() {
    let agent = Agent::scripted(vec![
        Reply::at(90, json!("old")),
        Reply::at(4, json!("new")),
        Reply::at(5, json!("newer")),
        Reply::at(6, json!("newest")),
    ]);
    let mut follow = follow(&agent);
    assert_eq!(soon(follow.next()).await.unwrap().value, "old");
    assert_eq!(soon(follow.next()).await.unwrap().value, "new", "it is news all the same");
    assert_eq!(soon(follow.next()).await.unwrap().value, "newer");
    assert_eq!(soon(follow.next()).await.unwrap().value, "newest");
    assert_eq!(indexes(&agent), [None, Some(90), None, Some(5)]);
}

#[tokio::test]
async fn a_long_wait_is_not_cut_short() {
    let agent = Agent::scripted(vec![
        Reply::at(5, "1"),
        // 25 s and a sixteenth of jitter.
        Reply::at(6, "2").after(Duration::from_millis(26_500)),
    ]);
    let mut follow = follow(&agent);
    soon(follow.next()).await.unwrap();
    let waiting = tokio::spawn(async move { follow.next().await });
    eventually("the question", || agent.asked().len() == 2).await;
    skip(Duration::from_millis(26_400)).await;
    assert!(!waiting.is_finished());
    skip(Duration::from_millis(200)).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap().value, 2);
}

#[tokio::test]
async fn an_agent_that_never_answers_is_given_up() {
    let agent = Agent::scripted(vec![Reply::at(5, "1")]);
    let mut follow = follow(&agent);
    soon(follow.next()).await.unwrap();
    let waiting = tokio::spawn(async move { follow.next().await });
    eventually("the question", || agent.asked().len() == 2).await;
    skip(Duration::from_secs(40)).await;
    let error = soon(waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, ConsulError::Broken { .. }), "{error}");
    assert!(error.is_retryable());
}

/// After any failure the question is asked without an index: whoever answers then may be another
/// agent, or the same with another memory.
async fn asks_afresh_after(failure: Reply, code: u16) {
    let agent =
        Agent::scripted(vec![Reply::at(50, "1"), failure, Reply::at(50, "1"), Reply::at(51, "2")]);
    let mut follow = follow(&agent);
    soon(follow.next()).await.unwrap();
    let error = soon(follow.next()).await.unwrap_err();
    assert_eq!(error.code(), Code(code), "{error}");
    let begun = Instant::now();
    assert_eq!(soon(follow.next()).await.unwrap().value, 1, "said even though it is the same");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(soon(follow.next()).await.unwrap().value, 2);
    assert_eq!(indexes(&agent), [None, Some(50), None, Some(50)]);
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_an_answer() {
    asks_afresh_after(Reply::at(51, json!("x".repeat(500))).cut(300), 101).await;
}

#[tokio::test]
async fn a_chunked_answer_that_is_cut() {
    asks_afresh_after(Reply::at(51, json!("x".repeat(500))).chunked().cut(300), 101).await;
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_the_head() {
    asks_afresh_after(Reply::at(51, "1").cut(20), 101).await;
}

#[tokio::test]
async fn a_connection_cut_while_it_waits() {
    asks_afresh_after(Reply::hang_up().after(Duration::from_millis(100)), 101).await;
}

#[tokio::test]
async fn an_error_of_the_agent() {
    asks_afresh_after(Reply::status(500, "No cluster leader"), 109).await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense() {
    asks_afresh_after(Reply::at(51, "<html>"), 110).await;
}

#[tokio::test]
async fn an_agent_that_restarts_with_another_index() {
    let address = nobody();
    let agent = Agent::at(address, |asked| match asked.parameter("index") {
        None => Reply::at(400, json!("before")),
        Some(_) => Reply::never(),
    });
    let mut follow = follow(&agent);
    assert_eq!(soon(follow.next()).await.unwrap().value, "before");
    let waiting = tokio::spawn(async move {
        let mut errors = Vec::new();
        loop {
            match follow.next().await {
                Ok(answer) => return (errors, answer.value),
                Err(error) => errors.push(error),
            }
        }
    });
    eventually("the question", || agent.asked().len() == 2).await;
    agent.kill().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    // A new agent, whose index is far below: who asked it for 400 would wait in vain.
    let agent = Agent::at(address, |asked| match asked.parameter("index") {
        None => Reply::at(3, json!("after")),
        Some(_) => Reply::never(),
    });
    let back = Instant::now();
    let (errors, value) = soon(waiting).await.unwrap();
    assert_eq!(value, "after");
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    assert!((1..20).contains(&errors.len()), "{} errors in 0.7 s", errors.len());
    assert!(errors.iter().all(|e| e.code() == Code(101) && e.is_retryable()), "{errors:?}");
    assert_eq!(indexes(&agent), [None]);
}

#[tokio::test]
async fn a_caller_that_looks_away_misses_nothing() {
    let agent = Agent::new(|asked| match asked.parameter("index") {
        None => Reply::at(5, json!("first")),
        Some("5") => Reply::at(6, json!("second")).after(Duration::from_millis(80)),
        Some(_) => Reply::never(),
    });
    let mut follow = follow(&agent);
    assert_eq!(soon(follow.next()).await.unwrap().value, "first");
    for _ in 0..3 {
        let brief = tokio::time::timeout(Duration::from_millis(30), follow.next()).await;
        assert!(brief.is_err());
    }
    assert_eq!(soon(follow.next()).await.unwrap().value, "second");
    assert_eq!(indexes(&agent), [None, Some(5), Some(5), Some(5), Some(5)]);
}

#[tokio::test]
async fn a_large_answer_in_chunks_arrives_whole() {
    let words: Vec<String> = (0..50_000).map(|number| format!("word {number}")).collect();
    let agent = Agent::scripted(vec![Reply::at(5, json!(words)).chunked()]);
    let answer = soon(follow(&agent).next()).await.unwrap();
    assert_eq!(answer.value, json!(words));
}

#[tokio::test]
async fn an_answer_without_an_end_is_refused() {
    let agent = Agent::scripted(vec![Reply::ok(" ".repeat(65 * 1024 * 1024)).chunked()]);
    let limit = Duration::from_secs(30);
    let error = tokio::time::timeout(limit, follow(&agent).next()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
}
