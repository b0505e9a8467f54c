//! An agent that follows a script: HTTP/1.1 by hand, so that it can misbehave.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meshx_consul::{Client, Config};
use meshx_rt::{net, random};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What nothing on loopback may take longer than, unless it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The connection on which it came, counted from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    /// The path and query, undecoded.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Asked {
    /// The request in one line.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// One parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(n, _)| *n == name)
            .map(|p| p.1)
    }
}

/// What the agent does with a request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    index: Option<String>,
    policy: Option<&'static str>,
    body: String,
    chunked: bool,
    /// Only so many bytes of the answer are sent, then the connection is closed.
    cut: Option<usize>,
    wait: Duration,
}

impl Reply {
    /// This status and text.
    pub(crate) fn status(status: u16, body: impl ToString) -> Self {
        let body = body.to_string();
        let (index, policy, cut, wait) = (None, None, None, Duration::ZERO);
        Self { status, index, policy, body, chunked: false, cut, wait }
    }

    pub(crate) fn ok(body: impl ToString) -> Self {
        Self::status(200, body)
    }

    /// An answer of the blocking kind.
    pub(crate) fn at(index: u64, body: impl ToString) -> Self {
        Self::ok(body).index(index)
    }

    /// Closes the connection without a word.
    pub(crate) fn hang_up() -> Self {
        Self::ok("").cut(0)
    }

    /// Says nothing.
    pub(crate) fn never() -> Self {
        Self::ok("").after(Duration::from_hours(24))
    }

    pub(crate) fn index(mut self, index: impl ToString) -> Self {
        self.index = Some(index.to_string());
        self
    }

    pub(crate) fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Word\r\nVary: Accept-Encoding\r\n", self.status);
        if let Some(index) = &self.index {
            head += &format!("X-Consul-Index: {index}\r\n");
        }
        if let Some(policy) = self.policy {
            head += &format!("X-Consul-Default-Acl-Policy: {policy}\r\n");
        }
        let mut bytes;
        if self.chunked {
            bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            let body = self.body.as_bytes();
            let longest = (body.len() / 16).max(7);
            for chunk in body.chunks(longest) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes = format!("{head}Content-Length: {}\r\n\r\n", self.body.len()).into_bytes();
            bytes.extend_from_slice(self.body.as_bytes());
        }
        bytes.truncate(self.cut.unwrap_or(bytes.len()));
        bytes
    }
}

type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// The agent. When it is dropped it is gone, and every connection with it.
pub(crate) struct Agent {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

impl Agent {
    /// Answers each request as `script` says.
    pub(crate) fn new(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), script)
    }

    /// The same, at an address that may have been another agent's before.
    pub(crate) fn at(
        address: SocketAddr,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = net::listen(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::run(address, script, async move |log, script| {
            serve(&listener, async |stream| Some(stream), log, script).await;
        })
    }

    /// Answers one request after the other with these; what comes then is never answered.
    pub(crate) fn scripted(replies: Vec<Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter());
        Self::new(move |_| replies.lock().unwrap().next().unwrap_or_else(Reply::never))
    }

    /// Behind TLS.
    pub(crate) fn tls(
        acceptor: TlsAcceptor,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = net::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self::run(format!("https://127.0.0.1:{port}"), script, async move |log, script| {
            serve(&listener, async |stream| acceptor.accept(stream).await.ok(), log, script).await;
        })
    }

    /// On a Unix socket.
    pub(crate) fn unix(
        path: &std::path::Path,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::run(format!("unix://{}", path.display()), script, async move |log, script| {
            let mut live = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                live.spawn(converse(stream, connection, Arc::clone(&log), Arc::clone(&script)));
            }
        })
    }

    fn run<F>(
        address: String,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        serve: impl FnOnce(Log, Script) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let asked = Log::default();
        let task = tokio::spawn(serve(Arc::clone(&asked), Arc::new(script)));
        Self { address, asked, task }
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests so far, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.address)
    }

    /// Goes, as a process that is killed.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Log = Arc<Mutex<Vec<Asked>>>;

async fn serve<S: Stream, F: Future<Output = Option<S>>>(
    listener: &TcpListener,
    greet: impl Fn(tokio::net::TcpStream) -> F,
    log: Log,
    script: Script,
) {
    let mut live = JoinSet::new();
    for connection in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        if let Some(stream) = greet(stream).await {
            live.spawn(converse(stream, connection, Arc::clone(&log), Arc::clone(&script)));
        }
    }
}

async fn converse(mut stream: impl Stream, connection: usize, log: Log, script: Script) {
    while let Some(asked) = request(&mut stream, connection).await {
        log.lock().unwrap().push(asked.clone());
        let reply = script(&asked);
        tokio::time::sleep(reply.wait).await;
        if stream.write_all(&reply.bytes()).await.is_err() || reply.cut.is_some() {
            break;
        }
        drop(stream.flush().await);
    }
    drop(stream.shutdown().await);
}

async fn request(stream: &mut impl Stream, connection: usize) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, target) = (first.next().unwrap(), first.next().unwrap());
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some(Asked { connection, method, target, headers, body })
}

pub(crate) fn client(address: &str) -> Client {
    Client::new(Config::at(address).unwrap()).unwrap()
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, net::free_port().unwrap()).into()
}

/// The result, which must come soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it hangs")
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets `time` pass for every timer of this test at once. Nothing may be under way that should
/// happen before.
pub(crate) async fn skip(time: Duration) {
    tokio::time::sleep(Duration::from_millis(150)).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A folder that goes with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("meshx-consul-{}", random::hex(12)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
