//! One connection of a server: handshake, then one request after another.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::io::{ReadError, Reader, Sender};
use super::server::Service;
use super::term;
use super::wire::{self, Fault, Hello, Refusal, Request, Requests, Violation, Writer};
use crate::codec::Body;
use crate::context::{Context, Peer, Protocol, Refs};
use crate::error::{Error, Executed, Kind};
use crate::event::{Amount, Called, Event, Side, Times, Way};
use crate::functions::{Function, NAME_MAX};
use crate::transport::Stream;

/// Serves a connection until it ends.
pub(super) async fn serve(
    service: &Arc<Service>,
    stream: Stream,
    first: BytesMut,
    stop: CancellationToken,
) {
    let begun = Instant::now();
    let Stream { read, write, address, identity } = stream;
    let mut reader = Reader::new(read, first, service.options.common.frame_max());
    let mut sender = Sender::new(write);
    let shaken = tokio::select! {
        shaken = timeout(
            service.options.handshake,
            handshake(service, &mut reader, &mut sender, &address),
        ) => shaken,
        () = stop.cancelled() => return,
    };
    let failed = |error: &Error| {
        let side = Side::Server;
        service.observers().tell(&Event::HandshakeFailed { side, address: &address, error });
    };
    let hello = match shaken {
        Ok(Ok(hello)) => hello,
        Ok(Err((error, said))) => {
            failed(&error);
            if said {
                reader.linger(sender).await;
            }
            return;
        }
        Err(_) => {
            let limit = service.options.handshake;
            let reason = format!("no handshake came within {limit:?}");
            return failed(&Error::new(Kind::Transport, Executed::Never, reason).at(&address));
        }
    };
    reader.shook();
    let conn_ref = Bytes::from(hello.conn_ref.clone());
    let Hello { hsk_ref, conn_ref: remote, svc_ref, node_ref, .. } = hello;
    let peer = Arc::new(Peer {
        address,
        identity,
        remote: Refs { conn_ref: remote, node_ref, svc_ref },
        local: service.local.clone(),
        hsk_ref,
        protocol: Protocol::V1,
    });
    let took = begun.elapsed();
    service.observers().tell(&Event::Connected { side: Side::Server, peer: &peer, took });
    let common = &service.options.common;
    let mut connection = Connection {
        service,
        requests: Requests::new(conn_ref, common.checksums, common.message_max),
        writer: common.writer(service.local.conn_ref.clone()),
        peer: &peer,
        reader,
        sender,
    };
    let end = connection.run(&stop).await;
    let Connection { reader, sender, .. } = connection;
    let (error, linger) = match &end {
        End::Orderly => (None, false),
        End::Told => (None, true),
        End::Violation(error, told) => (Some(error), *told),
    };
    let ended = Event::Disconnected { side: Side::Server, peer: &peer, error };
    service.observers().tell(&ended);
    if linger {
        reader.linger(sender).await;
    }
}

/// How a connection ends.
enum End {
    /// The peer closed it, or we stop.
    Orderly,
    /// An error was told, after which the protocol wants it to end.
    Told,
    /// Something went wrong; whether the peer was told so.
    Violation(Error, bool),
}

/// Gives what the client said; or why not, and whether it was told that.
async fn handshake(
    service: &Service,
    reader: &mut Reader,
    sender: &mut Sender,
    address: &str,
) -> Result<Hello, (Error, bool)> {
    let common = &service.options.common;
    let lost = |error: &dyn std::fmt::Display| {
        let reason = format!("the handshake failed: {error}");
        (Error::new(Kind::Transport, Executed::Never, reason).at(address), false)
    };
    let message = match reader.message().await {
        Ok(Some(message)) => message,
        Ok(None) => return Err(lost(&"it closed the connection without a word")),
        Err(error) => return Err(lost(&error)),
    };
    let refused = match Hello::read_request(&message, common.block_size, common.shared_key.bytes())
    {
        Ok(hello) => {
            let answer = common.hello(hello.hsk_ref, service.local.conn_ref.clone());
            let answer = answer.acknowledgement(common.shared_key.bytes());
            // Looked at when the service was made.
            let answer = answer.map_err(|error| lost(&error))?;
            let sent = sender.write_within(answer, service.options.send).await;
            return sent.map(|()| hello).map_err(|error| lost(&error));
        }
        Err(refused) => refused,
    };
    let (kind, reason) = match refused {
        Refusal::Digest => {
            (Kind::Denied, "the digest of its handshake is wrong: it has another shared key")
        }
        Refusal::Parameters => (
            Kind::Protocol,
            "its handshake is none of version 1 with our block_size; it must be the same at both ends",
        ),
        Refusal::Reference => (Kind::Protocol, "it does not begin with the request of a handshake"),
    };
    let told = !service.options.quiet
        && sender.write_within(wire::refuse(refused), service.options.send).await.is_ok();
    Err((Error::new(kind, Executed::Never, reason).at(address), told))
}

struct Connection<'s> {
    service: &'s Arc<Service>,
    peer: &'s Arc<Peer>,
    requests: Requests,
    writer: Writer,
    reader: Reader,
    sender: Sender,
}

/// A request, its function, and where the time went until it was whole.
struct Taken {
    request: Request,
    name: String,
    times: Times,
}

impl Connection<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> End {
        loop {
            let waiting = Instant::now();
            let begun = tokio::select! {
                biased;
                begun = self.reader.begun() => begun,
                () = stop.cancelled() => return End::Orderly,
            };
            match begun {
                Ok(true) => {}
                Ok(false) => return End::Orderly,
                Err(error) => return self.broken(&error),
            }
            let begun = Instant::now();
            let limit = self.service.options.receive;
            let request = match timeout(limit, self.request()).await {
                Ok(Ok(request)) => request,
                Ok(Err(end)) => return end,
                Err(_) => {
                    let reason = format!("a request was not whole within {limit:?}");
                    return self.violated(Kind::Protocol, reason, false);
                }
            };
            let name = String::from_utf8_lossy(&request.function).into_owned();
            let mut times = Times { idle: begun - waiting, ..Times::default() };
            times.recv = begun.elapsed();
            let taken = Taken { request, name, times };
            let end =
                if taken.request.cast { self.cast(taken).await } else { self.call(taken).await };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The next whole request.
    async fn request(&mut self) -> Result<Request, End> {
        loop {
            let message = match self.reader.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(self.broken(&ReadError::Cut)),
                Err(error) => return Err(self.broken(&error)),
            };
            match self.requests.take(&message) {
                Ok(Some(request)) => return Ok(request),
                Ok(None) => {}
                Err(Violation { req_ref, fault }) => {
                    let kind = match fault {
                        Fault::Checksum => Kind::Integrity,
                        Fault::TooLong { .. } => Kind::Value,
                        Fault::Malformed | Fault::Reference => Kind::Protocol,
                    };
                    // Without a number nothing can be answered.
                    let told = match req_ref {
                        Some(req_ref) => self.tell(req_ref, &term::atom(term::fault(fault))).await,
                        None => false,
                    };
                    return Err(self.violated(kind, fault.to_string(), told));
                }
            }
        }
    }

    /// Acknowledges a cast and starts it.
    async fn cast(&mut self, taken: Taken) -> Option<End> {
        let Taken { request, name, mut times } = taken;
        let queued = Instant::now();
        // It is never closed.
        let place = tokio::select! {
            place = Arc::clone(&self.service.casts).acquire_owned() => place.ok(),
            () = self.service.killed.cancelled() => return Some(End::Orderly),
        };
        times.queue = queued.elapsed();
        let acknowledgement = self.writer.acknowledgement(request.req_ref);
        let (service, peer) = (Arc::clone(self.service), Arc::clone(self.peer));
        self.service.tasks.spawn(run_cast(service, peer, request, name, times, place));
        let sent = self.sender.write_within(acknowledgement, self.service.options.send).await;
        sent.err().map(|error| self.broken(&ReadError::Io(error)))
    }

    /// Runs a call and answers it.
    async fn call(&mut self, taken: Taken) -> Option<End> {
        let Taken { request, name, mut times } = taken;
        let argument = argument(self.service, &request);
        let began = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = execute(self.service, self.peer, &request, &name, argument) => outcome,
            seen = self.reader.message() => {
                let error = match seen {
                    Ok(Some(_)) => {
                        let reason = "it sent another request before the answer to the last one";
                        Error::new(Kind::Protocol, Executed::Maybe, reason)
                    }
                    Ok(None) => {
                        let reason = "the caller closed the connection before the answer";
                        Error::new(Kind::Cancelled, Executed::Maybe, reason)
                    }
                    Err(error) => {
                        Error::new(Kind::Transport, Executed::Maybe, error.to_string())
                    }
                };
                times.exec = began.elapsed();
                self.called(&request, &name, Err(&error), times, Amount::default());
                return Some(match error.kind() {
                    Kind::Cancelled => End::Orderly,
                    _ => End::Violation(error.at(&self.peer.address), false),
                });
            }
            () = self.service.killed.cancelled() => {
                times.exec = began.elapsed();
                let error = stopped();
                self.called(&request, &name, Err(&error), times, Amount::default());
                return Some(End::Orderly);
            }
        };
        times.exec = began.elapsed();
        let (bytes, sent, failed) = self.answer(&request, outcome);
        let began = Instant::now();
        let written = self.sender.write_within(bytes, self.service.options.send).await;
        times.send = began.elapsed();
        let broken = written.err().map(|error| {
            let reason = format!("the answer could not be sent: {error}");
            Error::new(Kind::Transport, Executed::Yes, reason).at(&self.peer.address)
        });
        let result = failed.as_ref().or(broken.as_ref()).map_or(Ok(()), Err);
        self.called(&request, &name, result, times, sent);
        match broken {
            Some(broken) => Some(End::Violation(broken, false)),
            None => failed.map(|_| End::Told),
        }
    }

    /// What is said, how much of it is the result, and the error if it is one.
    fn answer(
        &self,
        request: &Request,
        outcome: Result<Body, Failed>,
    ) -> (Bytes, Amount, Option<Error>) {
        let failed = match outcome {
            Ok(body) => match term::to_wire(&body) {
                Ok((flag, content)) => match self.writer.result(request.req_ref, flag, &content) {
                    Ok((bytes, blocks)) => return (bytes, amount(&content, blocks), None),
                    Err(error) => Failed {
                        error: Error::new(Kind::Value, Executed::Yes, error.to_string()),
                        told: vec![term::atom("invalid_pkt_size")],
                    },
                },
                Err(error) => {
                    let reason = format!("the result cannot be sent: {error}");
                    Failed::from(Error::new(Kind::Value, Executed::Yes, reason))
                }
            },
            Err(failed) => failed,
        };
        let Failed { error, told } = failed;
        let told = told.into_iter().find(|term| self.writer.fits(term));
        let told = told.unwrap_or_else(|| term::atom("error_too_long"));
        let bytes = self.error(request.req_ref, &told);
        (bytes, Amount::default(), Some(error))
    }

    /// An error with this term.
    fn error(&self, req_ref: u64, told: &Bytes) -> Bytes {
        self.writer.error(req_ref, 1, told)
    }

    /// Tells an error if that is still possible.
    async fn tell(&mut self, req_ref: u64, told: &Bytes) -> bool {
        let bytes = self.error(req_ref, told);
        self.sender.write_within(bytes, self.service.options.send).await.is_ok()
    }

    fn broken(&self, error: &ReadError) -> End {
        let kind = match error {
            ReadError::TooLong(_) => Kind::Protocol,
            ReadError::Io(_) | ReadError::Cut => Kind::Transport,
        };
        self.violated(kind, error.to_string(), false)
    }

    fn violated(&self, kind: Kind, reason: String, told: bool) -> End {
        End::Violation(Error::new(kind, Executed::Never, reason).at(&self.peer.address), told)
    }

    fn called(
        &self,
        request: &Request,
        name: &str,
        result: Result<(), &Error>,
        times: Times,
        sent: Amount,
    ) {
        called(self.service, self.peer, request, name, result, times, sent);
    }
}

fn argument(service: &Service, request: &Request) -> Body {
    let limit = service.options.common.message_max;
    term::from_wire(request.flag, request.content.clone(), limit)
}

/// Why a call failed, and what its caller is told: the first of these that fits into a block.
struct Failed {
    error: Error,
    told: Vec<Bytes>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { told: vec![term::told(&error)], error }
    }
}

/// Finds the function and runs it, within the limit of time.
async fn execute(
    service: &Service,
    peer: &Arc<Peer>,
    request: &Request,
    name: &str,
    argument: Body,
) -> Result<Body, Failed> {
    if let Some(policy) = &service.policy {
        policy.check(peer.identity.as_deref(), name)?;
    }
    // What is no name of a function here is none of an atom either; nothing is made of it.
    let Some(function) = service.functions.get(name) else {
        let error = Error::new(Kind::UnknownFunction, Executed::Never, "there is no such function");
        let told = term::undefined(&service.local.svc_ref, name, &argument).to_vec();
        return Err(Failed { error, told });
    };
    let limit = service.options.execute;
    let run = run(function, peer, request, limit, argument);
    match limit {
        None => run.await.map_err(Failed::from),
        Some(limit) => match timeout(limit, run).await {
            Ok(done) => done.map_err(Failed::from),
            Err(_) => {
                let reason = format!("it ran for longer than {limit:?}");
                let error = Error::new(Kind::Deadline, Executed::Yes, reason);
                Err(Failed { error, told: vec![term::atom("killed")] })
            }
        },
    }
}

/// Runs the function.
async fn run(
    function: &Function,
    peer: &Arc<Peer>,
    request: &Request,
    limit: Option<std::time::Duration>,
    argument: Body,
) -> Result<Body, Error> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let (peer, name) = (Arc::clone(peer), Arc::clone(function.name()));
    let context = Context::new(peer, name, request.req_ref, deadline, Vec::new());
    // Who asked may not wait for the end.
    let cancel = Cancel(context.clone());
    let way = if request.cast { Way::Cast } else { Way::Call };
    let done = function.run(way, context, argument).await;
    drop(cancel);
    done
}

/// Tells what a function has spawned that nobody waits any more.
struct Cancel(Context);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A cast, after its acknowledgement.
async fn run_cast(
    service: Arc<Service>,
    peer: Arc<Peer>,
    request: Request,
    name: String,
    mut times: Times,
    place: Option<OwnedSemaphorePermit>,
) {
    let argument = argument(&service, &request);
    let began = Instant::now();
    let result = tokio::select! {
        done = execute(&service, &peer, &request, &name, argument) => match done {
            Ok(_) => Ok(()),
            Err(Failed { error, .. }) => Err(error),
        },
        () = service.killed.cancelled() => {
            Err(stopped())
        }
    };
    times.exec = began.elapsed();
    drop(place);
    let none = Amount::default();
    called(&service, &peer, &request, &name, result.as_ref().map(|&()| ()), times, none);
    if let Err(error) = result {
        service.cast_lost(known(&service, &name), &error.of(&shown(&name)).at(&peer.address));
    }
}

fn stopped() -> Error {
    Error::new(Kind::Draining, Executed::Maybe, "the server stopped before it was done")
}

fn called(
    service: &Service,
    peer: &Peer,
    request: &Request,
    name: &str,
    result: Result<(), &Error>,
    times: Times,
    sent: Amount,
) {
    if service.observers().is_empty() {
        return;
    }
    let error = result.err().map(|error| error.clone().of(&shown(name)));
    service.observers().tell(&Event::Called(&Called {
        side: Side::Server,
        way: if request.cast { Way::Cast } else { Way::Call },
        function: known(service, name),
        peer: Some(peer),
        req_ref: request.req_ref,
        trace: None,
        result: error.as_ref().map_or(Ok(()), Err),
        attempt: 1,
        times,
        sent,
        received: amount(&request.content, request.blocks),
    }));
}

/// A name that is offered; one that is not might be anything, and makes no series of its own in
/// metrics. The error has it.
fn known<'n>(service: &Service, name: &'n str) -> &'n str {
    if service.functions.get(name).is_some() { name } else { "(unknown)" }
}

/// As much of a name as a function's can have.
fn shown(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

fn amount(content: &[u8], blocks: u32) -> Amount {
    Amount { bytes: content.len() as u64, blocks }
}
