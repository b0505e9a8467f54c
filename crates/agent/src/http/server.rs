//! The listener: bounded connections, bounded requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::reply::Reply;
use super::request::{Query, Request, decode_path};
use super::{Facts, answer, too_large};
use crate::control::Control;
use crate::limits;
use crate::refusal::Refusal;

/// Accepts connections until the agent stops. Beyond the bound they wait in the listener's queue.
pub(crate) async fn serve(
    listener: TcpListener,
    control: Arc<Control>,
    facts: Arc<Facts>,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = control.stop.cancelled() => return,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else { continue };
        let (control, facts) = (Arc::clone(&control), Arc::clone(&facts));
        tasks.spawn(async move {
            connection(stream, control, facts).await;
            drop(slot);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _peer)) => Some((stream, slot)),
        Err(error) => {
            // No more file descriptors, perhaps: those in use must come back first.
            tracing::warn!(%error, "cannot accept an HTTP connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, control: Arc<Control>, facts: Arc<Facts>) {
    let mut first = [0];
    let spoke = tokio::time::timeout(limits::FIRST_BYTE, stream.peek(&mut first)).await;
    if !matches!(spoke, Ok(Ok(1))) || meshx_rt::net::tune(&stream).is_err() {
        return;
    }
    let stop = control.stop.clone();
    let service = service_fn(move |request| {
        let (control, facts) = (Arc::clone(&control), Arc::clone(&facts));
        async move { Ok::<_, Infallible>(respond(&control, &facts, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::IDLE)
        .max_buf_size(limits::HEADERS)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits::DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

async fn respond(
    control: &Arc<Control>,
    facts: &Facts,
    request: hyper::Request<Incoming>,
) -> Response<Full<Bytes>> {
    let reply = match receive(facts, request).await {
        Ok(request) => {
            let (method, path) = (request.method.clone(), request.path.clone());
            let reply = answer(control, facts, request).await;
            tracing::trace!(%method, path, status = reply.status.as_u16(), "HTTP");
            reply
        }
        Err(refusal) => Reply::from(refusal).header("connection", "close"),
    };
    reply.into_response()
}

async fn receive(facts: &Facts, request: hyper::Request<Incoming>) -> Result<Request, Refusal> {
    let (head, body) = request.into_parts();
    facts.site.check(&head.uri, &head.headers)?;
    let path = decode_path(head.uri.path())?;
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let body = tokio::time::timeout(limits::BODY_TIME, Limited::new(body, limits::BODY).collect());
    let body = match body.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => {
            return Err(Refusal::bad(format!("Request body cannot be read: {error}")));
        }
        Err(_) => {
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request body did not come"));
        }
    };
    Ok(Request { method: head.method, path, query, headers: head.headers, body })
}
