//! As much HTTP as a control plane wants from a bench.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The JSON of a GET that is answered with 200.
pub(crate) fn get(address: &str, path: &str) -> Result<Value> {
    let body = ask(address, "GET", path, "")?;
    serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
}

/// A PUT that must be answered with 200.
pub(crate) fn put(address: &str, path: &str, body: &Value) -> Result<()> {
    ask(address, "PUT", path, &body.to_string()).map(drop)
}

/// A POST that must be answered with 200.
pub(crate) fn post(address: &str, path: &str, body: &Value) -> Result<()> {
    ask(address, "POST", path, &body.to_string()).map(drop)
}

/// The text of an answer that is a 200. The protocol is 1.0: the answer ends where the stream does.
fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{method} {path}: {}: {body}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
