//! One connection of a client, and the requests on it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::io::{ReadError, Reader, Sender};
use super::lane::{Job, Shared, about};
use super::term;
use super::wire::{Answer, AnswerError, Answers, Fault, Hello, Refusal, Violation, Writer};
use crate::codec::Body;
use crate::context::{Peer, Protocol, Refs};
use crate::error::{Error, Executed, Kind};
use crate::event::{Amount, Called, Event, Side, Times, Way};
use crate::transport::Stream;

/// A connection that is up.
pub(super) struct Connection {
    peer: Arc<Peer>,
    /// What the server calls the connection.
    remote: Bytes,
    writer: Writer,
    reader: Reader,
    sender: Sender,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client is closed.
    Stop,
    /// As it should: after an error, or a long time without a request.
    Again,
    /// The server closed it, or broke the protocol.
    Lost,
}

/// How a request ended.
struct Outcome {
    result: Result<Body, Error>,
    /// Whether the connection can be used for another one.
    keep: bool,
    times: Times,
    sent: Amount,
    received: Amount,
}

impl Connection {
    /// Makes one; tells how that went.
    pub(super) async fn make(shared: &Shared, conn_ref: &[u8]) -> Result<Self, Error> {
        let (options, address) = (&shared.options, shared.dial.address());
        let transport =
            |reason: String| Error::new(Kind::Transport, Executed::Never, reason).at(&address);
        let stream = match timeout(options.connect, shared.dial.dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let error = transport(format!("it cannot be reached: {error}"));
                let unreachable = Event::Unreachable { address: &address, error: &error };
                options.observers.tell(&unreachable);
                return Err(error);
            }
            Err(_) => {
                let error = transport(format!("not connected within {:?}", options.connect));
                let unreachable = Event::Unreachable { address: &address, error: &error };
                options.observers.tell(&unreachable);
                return Err(error);
            }
        };
        let begun = Instant::now();
        let shaken = timeout(options.handshake, Self::handshake(shared, conn_ref, stream)).await;
        let failed = match shaken {
            Ok(Ok(connection)) => {
                let (side, peer) = (Side::Client, &connection.peer);
                let took = begun.elapsed();
                options.observers.tell(&Event::Connected { side, peer, took });
                sleep(options.settle).await;
                return Ok(connection);
            }
            Ok(Err(error)) => error.at(&address),
            Err(_) => transport(format!("no handshake within {:?}", options.handshake)),
        };
        let side = Side::Client;
        let event = Event::HandshakeFailed { side, address: &address, error: &failed };
        options.observers.tell(&event);
        Err(failed)
    }

    async fn handshake(shared: &Shared, conn_ref: &[u8], stream: Stream) -> Result<Self, Error> {
        let common = &shared.options.common;
        let key = common.shared_key.bytes();
        let wrong = |kind, reason: String| Error::new(kind, Executed::Never, reason);
        let lost = |error: &dyn std::fmt::Display| {
            wrong(Kind::Transport, format!("the handshake failed: {error}"))
        };
        let Stream { read, write, address, identity } = stream;
        let mut reader = Reader::new(read, BytesMut::new(), common.frame_max());
        let mut sender = Sender::new(write);
        let hello = common.hello(shared.number(), conn_ref.to_vec());
        // Looked at when the client was made.
        let mut request = hello.request(key).map_err(|error| lost(&error))?;
        sender.write(&mut request).await.map_err(|error| lost(&error))?;
        let message = reader.message().await.map_err(|error| lost(&error))?;
        let quiet = "it closed the connection; a server that is quiet does so to a wrong shared key \
                     or block_size";
        let message = message.ok_or_else(|| lost(&quiet))?;
        let answer = Hello::read_answer(&message, hello.hsk_ref, common.block_size, key);
        let answer = answer.map_err(|error| {
            let key = matches!(&error, AnswerError::Refused(text) if text == "invalid_digest")
                || error == AnswerError::Wrong(Refusal::Digest);
            let hint = match &error {
                AnswerError::Refused(text) if text == "invalid_hsk_params" => {
                    "; its version or block_size is another one"
                }
                _ if key => "; its shared key is another one",
                _ => "",
            };
            let kind = if key { Kind::Denied } else { Kind::Protocol };
            wrong(kind, format!("{error}{hint}"))
        })?;
        reader.shook();
        let remote = Bytes::from(answer.conn_ref.clone());
        let Hello { conn_ref: theirs, svc_ref, node_ref, .. } = answer;
        let peer = Peer {
            address,
            identity,
            remote: Refs { conn_ref: theirs, node_ref, svc_ref },
            local: Refs { conn_ref: conn_ref.to_vec(), ..common.refs.clone() },
            hsk_ref: hello.hsk_ref,
            protocol: Protocol::V1,
        };
        let writer = common.writer(conn_ref.to_vec());
        Ok(Self { peer: Arc::new(peer), remote, writer, reader, sender })
    }

    /// Makes requests until the connection ends.
    pub(super) async fn work(mut self, shared: &Shared, stop: &CancellationToken) -> End {
        let (end, error) = self.requests(shared, stop).await;
        let (side, peer, error) = (Side::Client, &self.peer, error.as_ref());
        shared.options.observers.tell(&Event::Disconnected { side, peer, error });
        end
    }

    async fn requests(
        &mut self,
        shared: &Shared,
        stop: &CancellationToken,
    ) -> (End, Option<Error>) {
        loop {
            let idle = Instant::now();
            let until = async {
                match shared.options.idle {
                    Some(limit) => sleep(about(limit)).await,
                    None => std::future::pending().await,
                }
            };
            let (place, mut job) = tokio::select! {
                biased;
                () = stop.cancelled() => return (End::Stop, None),
                // A connection that is gone gets no request.
                seen = self.reader.message() => {
                    let reason = match seen {
                        Ok(None) => "it closed the connection".to_owned(),
                        Ok(Some(_)) => "it said something without being asked".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let error = Error::new(Kind::Transport, Executed::Never, reason);
                    return (End::Lost, Some(error.at(&self.peer.address)));
                }
                next = shared.next() => match next {
                    Some(next) => next,
                    None => return (End::Stop, None),
                },
                () = until => return (End::Again, None),
            };
            let number = shared.number();
            let mut times = Times { idle: idle.elapsed(), ..Times::default() };
            times.queue = job.queued.elapsed();
            let limit = shared.options.common.message_max;
            let outcome = self.request(&mut job, number, times, limit).await;
            self.told(shared, &job, number, &outcome);
            let Outcome { result, keep, .. } = outcome;
            let lost = result.as_ref().err().filter(|_| !keep).cloned();
            job.done(shared, result);
            // The next one goes to a connection that is up while this one is made anew.
            drop(place);
            if let Some(error) = lost {
                return match error.kind() {
                    Kind::Transport => (End::Lost, Some(error)),
                    Kind::Protocol => (End::Again, Some(error)),
                    // The protocol has no other way to go on.
                    _ => (End::Again, None),
                };
            }
        }
    }

    /// Makes one request.
    async fn request(
        &mut self,
        job: &mut Job,
        number: u64,
        mut times: Times,
        limit: usize,
    ) -> Outcome {
        let began = Instant::now();
        let written = self.writer.request(
            job.way == Way::Cast,
            number,
            &job.function,
            job.flag,
            &job.content,
        );
        times.ser = began.elapsed();
        let (bytes, blocks) = match written {
            Ok(written) => written,
            Err(error) => {
                let reason = format!("the request cannot be sent: {error}");
                let result = Err(Error::new(Kind::Value, Executed::Never, reason));
                let (sent, received) = (Amount::default(), Amount::default());
                return Outcome { result, keep: true, times, sent, received };
            }
        };
        let checksums = self.writer.checksums;
        let mut exchange = Exchange {
            answers: Answers::new(self.remote.clone(), checksums, limit, number),
            left: bytes,
            limit,
            function: Arc::clone(&job.function),
            way: job.way,
            times,
            received: Amount::default(),
        };
        let deadline = job.deadline;
        let (result, keep) = tokio::select! {
            biased;
            done = exchange.run(&mut self.reader, &mut self.sender) => done,
            () = sleep_until(deadline) => {
                let reason = "no answer came in time";
                (Err(Error::new(Kind::Deadline, exchange.executed(), reason)), false)
            }
            () = job.unwanted() => {
                let reason = "who called does not wait any more";
                (Err(Error::new(Kind::Cancelled, exchange.executed(), reason)), false)
            }
        };
        let sent = Amount { bytes: job.content.len() as u64, blocks };
        let Exchange { times, received, .. } = exchange;
        Outcome { result, keep, times, sent, received }
    }

    fn told(&self, shared: &Shared, job: &Job, req_ref: u64, outcome: &Outcome) {
        if shared.options.observers.is_empty() {
            return;
        }
        let error = outcome.result.as_ref().err();
        let error = error.map(|error| error.clone().of(&job.function).at(&self.peer.address));
        shared.options.observers.tell(&Event::Called(&Called {
            side: Side::Client,
            way: job.way,
            function: &job.function,
            peer: Some(&self.peer),
            req_ref,
            trace: None,
            result: error.as_ref().map_or(Ok(()), Err),
            attempt: job.attempt,
            times: outcome.times,
            sent: outcome.sent,
            received: outcome.received,
        }));
    }
}

/// A request on its way.
struct Exchange {
    answers: Answers,
    /// What of it is not written yet.
    left: Bytes,
    /// The longest result.
    limit: usize,
    function: Arc<str>,
    way: Way,
    times: Times,
    received: Amount,
}

impl Exchange {
    /// What can be said while nothing is known from the server: of a request that has not gone out as
    /// a whole, the last block is missing, and without that it cannot run.
    fn executed(&self) -> Executed {
        if self.left.is_empty() { Executed::Maybe } else { Executed::Never }
    }

    /// Gives the result, and whether the connection can be used again.
    async fn run(
        &mut self,
        reader: &mut Reader,
        sender: &mut Sender,
    ) -> (Result<Body, Error>, bool) {
        let began = Instant::now();
        let early = tokio::select! {
            biased;
            sent = sender.write(&mut self.left) => match sent {
                Ok(()) => None,
                Err(error) => {
                    self.times.send = began.elapsed();
                    return (Err(self.unsent(reader, &error).await), false);
                }
            },
            // Before it has the whole request, the server can only refuse it.
            message = reader.message() => Some(message),
        };
        self.times.send = began.elapsed();
        let mut waiting = Instant::now();
        let mut message = match early {
            Some(message) => message,
            None => reader.message().await,
        };
        self.times.exec = waiting.elapsed();
        waiting = Instant::now();
        loop {
            let done = self.take(message);
            self.times.recv = waiting.elapsed();
            if let Some(done) = done {
                return done;
            }
            message = reader.message().await;
        }
    }

    /// Looks at what came; `None`: there is more to come.
    fn take(
        &mut self,
        message: Result<Option<Bytes>, ReadError>,
    ) -> Option<(Result<Body, Error>, bool)> {
        let lost = |reason: String| {
            let error = Error::new(Kind::Transport, self.executed(), reason);
            Some((Err(error), false))
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return lost("it closed the connection before it answered".to_owned()),
            Err(error @ ReadError::TooLong(_)) => {
                let error = Error::new(Kind::Protocol, self.executed(), error.to_string());
                return Some((Err(error), false));
            }
            Err(error) => return lost(error.to_string()),
        };
        let answer = match self.answers.take(&message) {
            Ok(None) => return None,
            Ok(Some(answer)) => answer,
            Err(violation) => return Some((Err(self.violated(violation)), false)),
        };
        match (answer, self.way) {
            (Answer::Error { flag, term }, _) => {
                self.received = Amount { bytes: term.len() as u64, blocks: 1 };
                Some((Err(term::read_error(flag, term, &self.function)), false))
            }
            _ if !self.left.is_empty() => {
                let reason = "it answered before it had the whole request";
                Some((Err(Error::new(Kind::Protocol, Executed::Maybe, reason)), false))
            }
            (Answer::Acknowledgement, Way::Cast) => Some((Ok(Body::raw(Bytes::new())), true)),
            (Answer::Result { flag, content, blocks }, Way::Call | Way::Stream) => {
                self.received = Amount { bytes: content.len() as u64, blocks };
                Some((Ok(term::from_wire(flag, content, self.limit)), true))
            }
            (Answer::Acknowledgement, _) => {
                let reason = "it answered a call as if it were a cast";
                Some((Err(Error::new(Kind::Protocol, Executed::Maybe, reason)), false))
            }
            (Answer::Result { .. }, _) => {
                let reason = "it answered a cast as if it were a call";
                Some((Err(Error::new(Kind::Protocol, Executed::Maybe, reason)), false))
            }
        }
    }

    /// The request could not be written: the server may have said why.
    async fn unsent(&mut self, reader: &mut Reader, error: &std::io::Error) -> Error {
        let read = async {
            loop {
                let Ok(Some(message)) = reader.message().await else { return None };
                match self.answers.take(&message) {
                    Ok(Some(Answer::Error { flag, term })) => {
                        return Some(term::read_error(flag, term, &self.function));
                    }
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) => return None,
                }
            }
        };
        let said = timeout(LAST_WORD, read).await.ok().flatten();
        said.unwrap_or_else(|| {
            let reason = format!("the request could not be sent: {error}");
            Error::new(Kind::Transport, self.executed(), reason)
        })
    }

    fn violated(&self, violation: Violation) -> Error {
        match violation.fault {
            // It is the checksum of a result: the function ran.
            Fault::Checksum => {
                let reason = "a checksum of the answer is wrong or missing; are checksums \
                              configured alike at both ends?";
                Error::new(Kind::Integrity, Executed::Yes, reason)
            }
            Fault::TooLong { .. } => {
                let reason = format!("the result is too large: {violation}");
                Error::new(Kind::Value, Executed::Yes, reason)
            }
            Fault::Malformed | Fault::Reference => {
                let reason = format!("it answered with {violation}");
                Error::new(Kind::Protocol, self.executed(), reason)
            }
        }
    }
}

/// So long a server may take to be heard when it cannot be written to any more.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(1);
