//! What Prometheus asks a server for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshx_rpc::event::Metrics;
use meshx_rt::net;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How many may ask at a time; others are closed.
const PEERS: usize = 16;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a question may be.
const LONGEST: usize = 8 << 10;
/// After an error the listener is asked again after this long.
const AGAIN: Duration = Duration::from_millis(50);

/// Answers there until the program ends; and where that is.
pub(super) fn listen(address: SocketAddr, metrics: Metrics) -> io::Result<SocketAddr> {
    let listener = net::listen(address)?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, metrics));
    Ok(address)
}

async fn serve(listener: TcpListener, metrics: Metrics) {
    let seats = Arc::new(Semaphore::new(PEERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else { continue };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _seat = seat;
            // Who asks has gone, or takes too long: it is asked again.
            drop(tokio::time::timeout(LIMIT, answer(stream, &metrics)).await);
        });
    }
}

/// One question on each connection (RFC 9112, section 9.6: it is closed).
async fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut asked = Vec::with_capacity(1024);
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        if asked.len() >= LONGEST || stream.read_buf(&mut asked).await? == 0 {
            return Ok(());
        }
    }
    let (status, text) = match is_metrics(&asked) {
        true => ("200 OK", metrics.render()),
        false => ("404 Not Found", "GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn is_metrics(asked: &[u8]) -> bool {
    [&b"GET /metrics "[..], b"GET /metrics?"].iter().any(|begin| asked.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_there() {
        assert!(is_metrics(b"GET /metrics HTTP/1.1\r\n\r\n"));
        assert!(is_metrics(b"GET /metrics?all HTTP/1.1\r\n\r\n"));
        assert!(!is_metrics(b"GET /metrics2 HTTP/1.1\r\n\r\n"));
        assert!(!is_metrics(b"POST /metrics HTTP/1.1\r\n\r\n"));
    }
}
