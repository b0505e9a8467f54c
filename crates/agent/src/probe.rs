//! Probes of tcp and http checks.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use meshx_consul_api::CheckStatus;
use meshx_rt::net;
use tokio::time::Instant;

use crate::control::Control;
use crate::limits;
use crate::state::{Probe, Target};

/// Probes at once, soon again while the check is critical, then at the interval, until the check is gone or the agent stops.
pub(crate) async fn run(control: Arc<Control>, check: String, generation: u64, probe: Probe) {
    let mut again = limits::PROBE_AGAIN;
    loop {
        let started = Instant::now();
        let Ok(permit) = control.probing.acquire().await else { return };
        let (status, output) = once(&probe).await;
        drop(permit);
        let state =
            control.write(|state, now| state.report(&check, generation, status, &output, now));
        let due = match state {
            None => return,
            Some(CheckStatus::Critical) => {
                let pause = again.min(probe.interval);
                again = pause * 2;
                started + pause
            }
            Some(_) => {
                again = limits::PROBE_AGAIN;
                started + probe.interval
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = control.stop.cancelled() => return,
        }
    }
}

async fn once(probe: &Probe) -> (CheckStatus, String) {
    let limit = probe.timeout;
    match &probe.target {
        Target::Tcp(target) => match dial(target, limit).await {
            Ok(_connection) => (CheckStatus::Passing, format!("TCP connect {target}: Success")),
            Err(error) => (CheckStatus::Critical, format!("dial tcp {target}: {error}")),
        },
        Target::Http { url, method, header, body } => {
            let asked = ask(url, method, header, body, limit);
            let answer = tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
            });
            match answer {
                Ok((status, text)) => {
                    let health = match status.as_u16() {
                        200..=299 => CheckStatus::Passing,
                        429 => CheckStatus::Warning,
                        _ => CheckStatus::Critical,
                    };
                    (health, format!("HTTP {method} {url}: {status} Output: {text}"))
                }
                Err(error) => (CheckStatus::Critical, format!("{method} \"{url}\": {error}")),
            }
        }
    }
}

/// Opens a connection to the first address of `host:port` that takes one.
async fn dial(target: &str, limit: Duration) -> io::Result<tokio::net::TcpStream> {
    let connect = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
        let addresses: Vec<SocketAddr> = match target.parse() {
            Ok(address) => vec![address],
            Err(_) => tokio::net::lookup_host(target).await?.collect(),
        };
        for address in addresses {
            match net::dial(address, limit).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    // Consul's words.
                    last = io::Error::new(error.kind(), "connect: connection refused");
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    tokio::time::timeout(limit, connect).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
    })
}

async fn ask(
    url: &str,
    method: &str,
    header: &BTreeMap<String, Vec<String>>,
    body: &str,
    limit: Duration,
) -> io::Result<(hyper::StatusCode, String)> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let uri: Uri = url.parse().map_err(|_| invalid("not a URL"))?;
    let authority = uri.authority().ok_or_else(|| invalid("no host in the URL"))?;
    let host = authority.host();
    let port = authority.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).map_err(|_| invalid("not a method"))?)
        .uri(path)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .map_err(|_| invalid("not a request"))?;
    let headers = request.headers_mut();
    let host_value =
        HeaderValue::from_str(authority.as_str()).map_err(|_| invalid("not a host"))?;
    headers.insert(HOST, host_value);
    headers.insert(USER_AGENT, HeaderValue::from_static("meshx agent health check"));
    for (name, values) in header {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("not a header"))?;
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|_| invalid("not a header"))?;
            headers.append(&name, value);
        }
    }
    let stream = dial(&format!("{host}:{port}"), limit).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), 16 * limits::CHECK_OUTPUT);
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        // A body that is too long, or cut, does not change what the status says.
        Ok((status, String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()))
    };
    // The connection is driven beside; when it ends first, what came is still to be read.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ended = connection => exchange.await,
    }
}
