//! Requests as raw bytes, so that paths, methods and headers are exactly what a scenario says.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names as they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The index of the result set.
    pub fn index(&self) -> u64 {
        self.header("X-Consul-Index").expect("an index").parse().expect("a number")
    }

    /// The body as JSON, `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The answer of a request that must succeed.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "it judges")]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.body);
        self
    }
}

/// Sends a request and reads the answer.
pub async fn ask(to: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let body = body.map(|body| match body {
        // A string stands for itself: bodies that are not JSON.
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    ask_with(to, method, path, &[], body.as_deref()).await
}

/// The same with more headers.
pub async fn ask_with(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Answer {
    let started = Instant::now();
    let patience = Duration::from_secs(30);
    let mut stream = meshx_rt::net::dial(to, patience).await.expect("a connection");
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    head += body.unwrap_or_default();
    stream.write_all(head.as_bytes()).await.expect("to send a request");
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(patience, stream.read_to_end(&mut bytes)).await;
    read.expect("an answer in time").expect("an answer");
    parse(&bytes, started.elapsed())
}

fn parse(bytes: &[u8], took: Duration) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let status = status.parse().expect("a status");
    let mut answer = Answer { status, headers, body: body.to_owned(), took };
    if answer.header("Transfer-Encoding") == Some("chunked") {
        answer.body = dechunk(body);
    }
    answer
}

fn dechunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).expect("a chunk");
        if length == 0 {
            break;
        }
        whole += &after[..length];
        rest = &after[length + 2..];
    }
    whole
}

/// Tries until it holds, for at most ten seconds: Consul's agent tells its servers in its own time.
pub async fn eventually<T, E, F>(mut check: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < end, "still after ten seconds: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
