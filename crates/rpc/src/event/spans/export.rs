//! Spans on their way to a collector (OTLP 1.9, "OTLP/HTTP").

use std::fmt;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use meshx_rt::Backoff;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Spans;
use crate::transport::Dial;

/// What was kept goes out this often.
const EVERY: Duration = Duration::from_secs(5);

/// An attempt takes no longer, nor does what is sent at the end; it is OTLP's own default.
const LIMIT: Duration = Duration::from_secs(10);

/// Attempts for the same spans.
const ATTEMPTS: u32 = 5;

/// The pause between them grows up to this, and so does what a collector may ask for.
const PAUSE: Duration = Duration::from_secs(30);

/// Why an attempt failed.
struct Failed {
    reason: String,
    again: Again,
}

/// Whether another attempt may succeed.
enum Again {
    No,
    Yes,
    /// But not before this has passed: the collector says so.
    After(Duration),
}

impl Spans {
    /// Posts what is kept to a collector, every five seconds, until it is told to stop; then once more.
    /// Does not fail: what cannot be delivered is dropped and counted, with a warning. Ends half a minute
    /// after it is told to, at the latest.
    ///
    /// The collector listens for OTLP over HTTP without TLS, usually at `127.0.0.1:4318`.
    pub async fn export(self, collector: impl Dial, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(EVERY) => {}
            }
            while !stop.is_cancelled()
                && let Some((body, count)) = self.take_counted()
            {
                self.deliver(&collector, body.into(), count, &stop, None).await;
            }
        }
        let end = Instant::now() + LIMIT;
        // Others may still be calling: what they add is not waited for.
        for _ in 0..=Self::KEPT / Self::TAKEN {
            let Some((body, count)) = self.take_counted() else { break };
            self.deliver(&collector, body.into(), count, &stop, Some(end)).await;
        }
    }

    async fn deliver(
        &self,
        collector: &impl Dial,
        body: Bytes,
        count: usize,
        stop: &CancellationToken,
        end: Option<Instant>,
    ) {
        let mut backoff = Backoff::new(Duration::from_secs(1), PAUSE);
        for attempt in 1..=ATTEMPTS {
            let left = end.map_or(LIMIT, |end| end.saturating_duration_since(Instant::now()));
            let failed = match timeout(left, post(collector, body.clone())).await {
                Ok(Ok(())) => return,
                Ok(Err(failed)) => failed,
                Err(_) => Failed::maybe_next_time("it does not answer in time"),
            };
            let pause = match failed.again {
                Again::Yes => Some(backoff.step()),
                Again::After(pause) => Some(pause.min(PAUSE)),
                Again::No => None,
            };
            match pause {
                Some(pause) if attempt < ATTEMPTS && !stop.is_cancelled() => {
                    tokio::select! {
                        // Once more at once, and then no more.
                        () = stop.cancelled() => {}
                        () = sleep(pause) => {}
                    }
                }
                _ => {
                    let (collector, reason) = (collector.address(), failed.reason);
                    tracing::warn!(collector, reason, spans = count, "spans are lost");
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    self.0.dropped.fetch_add(count, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

/// Posts one body, on a connection of its own.
async fn post(collector: &impl Dial, body: Bytes) -> Result<(), Failed> {
    let stream = collector.dial().await.map_err(Failed::maybe_next_time)?;
    let stream = TokioIo::new(tokio::io::join(stream.read, stream.write));
    let request = Request::post("/v1/traces")
        .header(HOST, host(collector.address()))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| Failed { reason: error.to_string(), again: Again::No })?;
    let (mut sender, connection) =
        http1::handshake(stream).await.map_err(Failed::maybe_next_time)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may have ended just after the answer.
        _ = &mut connection => answer.await,
    };
    judge(&answer.map_err(Failed::maybe_next_time)?)
}

/// What an answer means ("OTLP/HTTP Response", "Retryable Response Codes").
fn judge<B>(answer: &Response<B>) -> Result<(), Failed> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let asked =
        answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let again = match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            asked.map_or(Again::Yes, |seconds| Again::After(Duration::from_secs(seconds)))
        }
        _ => Again::No,
    };
    Err(Failed { reason: format!("the collector answered {status}"), again })
}

/// An address as the name of a host, where it is one.
fn host(address: String) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte);
    if address.bytes().all(legal) { address } else { "localhost".to_owned() }
}

impl Failed {
    fn maybe_next_time(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), again: Again::Yes }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::super::{Called, Event, Observe};
    use super::*;
    use crate::TraceParent;
    use crate::event::samples::called;
    use crate::transport::{Listen, Memory, MemoryListening};

    /// Spans that are being exported, and the collector's end.
    struct Exported {
        spans: Spans,
        collector: MemoryListening,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    fn exported() -> Exported {
        let (dial, collector) = Memory::pair();
        let (spans, stop) = (Spans::new("orders"), CancellationToken::new());
        let task = tokio::spawn(spans.clone().export(dial, stop.clone()));
        Exported { spans, collector, stop, task }
    }

    impl Exported {
        fn call(&self, function: &str) {
            let trace = Some(TraceParent::root(true));
            self.spans.event(&Event::Called(&Called { trace, ..called(function, Ok(())) }));
        }

        /// Takes one request, and gives this answer; the head and the body of the request.
        async fn answer(&mut self, answer: &str) -> (String, String) {
            let mut stream = self.collector.accept().await.unwrap();
            let mut request = Vec::new();
            let (head, body) = loop {
                let text = String::from_utf8(request.clone()).unwrap();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() == length.unwrap().parse::<usize>().unwrap() {
                        break (head.to_owned(), body.to_owned());
                    }
                }
                assert!(stream.read.read_buf(&mut request).await.unwrap() > 0);
            };
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            stream.write.write_all(answer.as_bytes()).await.unwrap();
            (head, body)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spans_are_posted_to_the_collector() {
        let mut exported = exported();
        exported.call("one");
        let (head, body) = exported.answer("200 OK").await;
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("host: memory"), "{head}");
        assert!(body.contains(r#""name":"one""#), "{body}");
        exported.call("two");
        let (_, body) = exported.answer("200 OK").await;
        assert!(body.contains(r#""name":"two""#) && !body.contains(r#""name":"one""#), "{body}");
        exported.stop.cancel();
        exported.task.await.unwrap();
        assert_eq!(exported.spans.dropped(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_collector_is_asked_again_when_it_says() {
        let mut exported = exported();
        exported.call("one");
        let (_, first) = exported.answer("503 Busy\r\nretry-after: 17").await;
        let begun = Instant::now();
        let (_, second) = exported.answer("429 Slow down").await;
        assert!((17..18).contains(&begun.elapsed().as_secs()));
        let (_, third) = exported.answer("200 OK").await;
        assert_eq!((&first, &second), (&third, &third));
        exported.stop.cancel();
        exported.task.await.unwrap();
        assert_eq!(exported.spans.dropped(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_collector_does_not_take_is_dropped_and_counted() {
        let mut exported = exported();
        exported.call("one");
        exported.answer("400 Bad").await;
        exported.call("two");
        exported.call("three");
        for _ in 0..ATTEMPTS {
            let (_, body) = exported.answer("502 Bad").await;
            assert!(body.contains(r#""name":"two""#) && body.contains(r#""name":"three""#));
        }
        exported.call("four");
        let (_, body) = exported.answer("200 OK").await;
        assert!(body.contains(r#""name":"four""#) && !body.contains(r#""name":"two""#));
        assert_eq!(exported.spans.dropped(), 3);
        exported.stop.cancel();
        exported.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_goes_out_at_the_end() {
        let mut exported = exported();
        for _ in 0..=Spans::TAKEN {
            exported.call("last");
        }
        exported.stop.cancel();
        exported.answer("200 OK").await;
        exported.answer("200 OK").await;
        exported.task.await.unwrap();
        assert_eq!((exported.spans.take(), exported.spans.dropped()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_no_collector_for_long() {
        let exported = exported();
        exported.call("lost");
        let begun = Instant::now();
        exported.stop.cancel();
        // It takes the connection and says nothing.
        exported.task.await.unwrap();
        assert!(begun.elapsed() <= LIMIT + Duration::from_millis(1));
        assert_eq!(exported.spans.dropped(), 1);
    }

    #[test]
    fn a_path_is_no_host() {
        assert_eq!(host("127.0.0.1:4318".to_owned()), "127.0.0.1:4318");
        assert_eq!(host("/run/otlp".to_owned()), "localhost");
    }
}
