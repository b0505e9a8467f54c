//! §1, §4, §5: from a stream to a connection.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::assembly::Budget;
use super::outbox::{Outbox, Taken};
use super::{Connection, Limits, Out, Service, client, io, served};
use crate::context::{Peer, Protocol, Refs};
use crate::event::{Event, Observers, Side};
use crate::policy::Permits;
use crate::proto::v2::{
    Algorithm, BLOCKS, Binding, Checksum, Flags, Frame, Frames, HELLO_MAX, Head, Hello, HelloError,
    KEEP_ALIVE_MIN, Key, PREFACE, SMALL, Type, WINDOW_MIN, fail_payload, is_same,
};
use crate::transport::Stream;
use crate::{Error, Executed, Kind};

/// §4.6: LZ4.
const LZ4: u8 = 1;

/// What one side says of itself, and insists on.
#[derive(Debug, Clone)]
pub(crate) struct Introduction {
    pub(crate) limits: Limits,
    pub(crate) node_ref: String,
    pub(crate) svc_ref: String,
    /// Random if there is none.
    pub(crate) conn_ref: Option<Vec<u8>>,
    pub(crate) instance: [u8; 16],
    pub(crate) checksums: Vec<Algorithm>,
    pub(crate) compress: bool,
    pub(crate) key: Option<Key>,
    pub(crate) observers: Observers,
}

impl Default for Introduction {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            node_ref: String::new(),
            svc_ref: String::new(),
            conn_ref: None,
            instance: instance(),
            checksums: vec![Algorithm::Crc32c, Algorithm::Xxh3, Algorithm::Blake3],
            compress: false,
            key: None,
            observers: Observers::default(),
        }
    }
}

/// §4.1, 6: of this run of the program; zeros where there are no random numbers.
fn instance() -> [u8; 16] {
    static INSTANCE: OnceLock<[u8; 16]> = OnceLock::new();
    *INSTANCE.get_or_init(|| {
        let mut instance = [0; 16];
        match random(&mut instance) {
            Ok(()) => instance,
            Err(_) => [0; 16],
        }
    })
}

type Read = Box<dyn AsyncRead + Send + Unpin>;
type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// What both have said.
struct Agreed {
    ours: Hello,
    theirs: Hello,
    algorithm: Algorithm,
}

/// Shakes hands as the client.
pub(crate) async fn connect(stream: Stream, own: &Introduction) -> Result<Arc<Connection>, Error> {
    let begun = tokio::time::Instant::now();
    let Stream { mut read, mut write, address, identity } = stream;
    let mut buffer = BytesMut::new();
    let shaken = initiate(&mut read, &mut write, &mut buffer, own);
    let agreed = within(own, shaken).await.map_err(|error| {
        let error = error.at(&address);
        let side = Side::Client;
        own.observers.tell(&Event::HandshakeFailed { side, address: &address, error: &error });
        error
    })?;
    let connection = establish(Side::Client, own, &agreed, (address, identity), None);
    own.observers.tell(&Event::Connected {
        side: Side::Client,
        peer: &connection.peer,
        took: begun.elapsed(),
    });
    start(&connection, None, read, buffer, write);
    Ok(connection)
}

/// Shakes hands as the server, of a client whose preface has been read; `buffer` is what came behind.
pub(crate) async fn accept(
    stream: Stream,
    mut buffer: BytesMut,
    own: &Introduction,
    service: Arc<Service>,
) -> Result<Arc<Connection>, Error> {
    let begun = tokio::time::Instant::now();
    let Stream { mut read, mut write, address, identity } = stream;
    // Of what this side says: another one once its HELLO is out (§3.4).
    let mut checksum = Checksum::HELLO;
    let answered = answer(&mut read, &mut write, &mut buffer, own, &mut checksum);
    let shaken = within(own, answered).await;
    let agreed = match shaken {
        Ok(agreed) => agreed,
        Err(error) => {
            let error = error.at(&address);
            let side = Side::Server;
            own.observers.tell(&Event::HandshakeFailed { side, address: &address, error: &error });
            // What is wrong, if the peer still listens (§2.7, §4.2).
            let mut out = BytesMut::new();
            let head = Head { kind: Type::Fail, flags: Flags::NONE, stream: 0 };
            head.whole(&mut out, &checksum, &[], &fail_payload(&error), &[]);
            let said = async {
                drop(write.write_all(&out).await);
                drop(write.shutdown().await);
            };
            drop(tokio::time::timeout(own.limits.handshake, said).await);
            return Err(error);
        }
    };
    let permits = service.policy.as_ref().map(|policy| policy.permits(identity.as_deref()));
    let connection = establish(Side::Server, own, &agreed, (address, identity), permits);
    own.observers.tell(&Event::Connected {
        side: Side::Server,
        peer: &connection.peer,
        took: begun.elapsed(),
    });
    start(&connection, Some(service), read, buffer, write);
    Ok(connection)
}

async fn within<T>(
    own: &Introduction,
    shaken: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let limit = own.limits.handshake;
    tokio::time::timeout(limit, shaken).await.unwrap_or_else(|_| {
        let reason = format!("no handshake within {limit:?}; does it speak this protocol?");
        Err(Error::new(Kind::Transport, Executed::Never, reason))
    })
}

async fn initiate(
    read: &mut Read,
    write: &mut Write,
    buffer: &mut BytesMut,
    own: &Introduction,
) -> Result<Agreed, Error> {
    let ours = own.hello(random_u64()?)?;
    let said = ours.encode();
    let mut out = BytesMut::from(&PREFACE[..]);
    hello_frame(&mut out, &said);
    write.write_all(&out).await.map_err(lost)?;
    write.flush().await.map_err(lost)?;
    let payload = match frame(read, buffer, &Frames::new(Checksum::HELLO, HELLO_MAX)).await? {
        Frame::Hello(payload) => payload,
        Frame::Fail { error, .. } => {
            return Err(Error::new(error.kind(), Executed::Never, error.reason()));
        }
        _ => return Err(broken("it did not begin with its HELLO")),
    };
    let (theirs, proof, without) = Hello::decode(&payload).map_err(wrong)?;
    if theirs.hsk_ref != ours.hsk_ref {
        return Err(wrong(HelloError::Reference));
    }
    theirs.check_version().map_err(wrong)?;
    let algorithm = theirs.choose_checksum(&own.checksums).map_err(wrong)?;
    if own.key.is_none() && proof.is_some() {
        return Err(wrong(HelloError::NoKey));
    }
    if let Some(key) = &own.key {
        let server = payload.get(..without).unwrap_or_default();
        let proof = proof.ok_or_else(|| wrong(HelloError::NoProof))?;
        if !is_same(&key.server_proof(&said, server), &proof) {
            return Err(wrong(HelloError::Proof));
        }
        let agreed = Agreed { ours, theirs, algorithm };
        let mut out = BytesMut::new();
        let head = Head { kind: Type::Auth, flags: Flags::NONE, stream: 0 };
        let proof = key.client_proof(&said, server);
        head.whole(&mut out, &agreed.checksum(Side::Client, Side::Client), &[], &proof, &[]);
        write.write_all(&out).await.map_err(lost)?;
        write.flush().await.map_err(lost)?;
        return Ok(agreed);
    }
    Ok(Agreed { ours, theirs, algorithm })
}

async fn answer(
    read: &mut Read,
    write: &mut Write,
    buffer: &mut BytesMut,
    own: &Introduction,
    ours_now: &mut Checksum,
) -> Result<Agreed, Error> {
    let frames = Frames::new(Checksum::HELLO, HELLO_MAX);
    let Frame::Hello(said) = frame(read, buffer, &frames).await? else {
        return Err(broken("it did not begin with its HELLO"));
    };
    let (theirs, ..) = Hello::decode(&said).map_err(wrong)?;
    theirs.check_version().map_err(wrong)?;
    let algorithm = theirs.choose_checksum(&own.checksums).map_err(wrong)?;
    let mut ours = own.hello(theirs.hsk_ref)?;
    ours.checksums = vec![algorithm.number()];
    let mut payload = ours.encode();
    let server = payload.clone().freeze();
    if let Some(key) = &own.key {
        Hello::add_proof(&mut payload, &key.server_proof(&said, &server));
    }
    let mut out = BytesMut::new();
    hello_frame(&mut out, &payload);
    write.write_all(&out).await.map_err(lost)?;
    write.flush().await.map_err(lost)?;
    let agreed = Agreed { ours, theirs, algorithm };
    *ours_now = agreed.checksum(Side::Server, Side::Server);
    if let Some(key) = &own.key {
        let checksum = agreed.checksum(Side::Server, Side::Client);
        // §5.3: nothing is taken before.
        let frames = Frames::new(checksum, HELLO_MAX);
        let Frame::Auth(proof) = frame(read, buffer, &frames).await? else {
            return Err(wrong(HelloError::NoProof));
        };
        if agreed.theirs.nonce.is_none() || !is_same(&key.client_proof(&said, &server), &proof) {
            return Err(wrong(HelloError::Proof));
        }
    }
    Ok(agreed)
}

/// The next frame.
async fn frame(read: &mut Read, buffer: &mut BytesMut, frames: &Frames) -> Result<Frame, Error> {
    loop {
        if let Some(frame) = frames.next(buffer).map_err(|error| broken(&error.to_string()))? {
            return Ok(frame);
        }
        buffer.reserve(1024);
        if read.read_buf(buffer).await.map_err(lost)? == 0 {
            return Err(lost("it closed during the handshake"));
        }
    }
}

fn hello_frame(out: &mut BytesMut, payload: &[u8]) {
    let head = Head { kind: Type::Hello, flags: Flags::NONE, stream: 0 };
    let mut frame = BytesMut::new();
    head.whole(&mut frame, &Checksum::HELLO, &[], payload, &[]);
    out.extend_from_slice(&frame);
}

impl Introduction {
    /// Takes these limits, within the bounds of what can be said and waited for (§4.3).
    pub(crate) fn limit(&mut self, limits: Limits) {
        /// About seven weeks, the most that a HELLO can say.
        const LONGEST: Duration = Duration::from_millis(0xFFFF_FFFF);
        let small = u64::try_from(SMALL).unwrap_or(u64::MAX);
        self.limits = Limits {
            max_block: limits.max_block.clamp(*BLOCKS.start(), *BLOCKS.end()),
            stream_window: limits.stream_window.max(WINDOW_MIN),
            connection_window: limits.connection_window.max(WINDOW_MIN),
            // What there is never room for is not taken.
            max_message: limits.max_message.min(limits.large_messages.max(small)),
            handshake: limits.handshake.min(LONGEST),
            frame: limits.frame.min(LONGEST),
            keep_alive: limits.keep_alive.clamp(KEEP_ALIVE_MIN, LONGEST),
            ..limits
        };
    }

    fn hello(&self, hsk_ref: u64) -> Result<Hello, Error> {
        let mut conn_ref = [0; 8];
        random(&mut conn_ref)?;
        let mut nonce = [0; 32];
        random(&mut nonce)?;
        let Limits { max_block, stream_window, connection_window, max_streams, .. } = self.limits;
        let keep_alive = self.limits.keep_alive.as_millis();
        Ok(Hello {
            hsk_ref,
            conn_ref: self.conn_ref.clone().unwrap_or_else(|| conn_ref.to_vec()),
            node_ref: self.node_ref.clone(),
            svc_ref: self.svc_ref.clone(),
            instance: self.instance,
            max_block,
            stream_window,
            connection_window,
            max_streams,
            max_message: self.limits.max_message,
            checksums: self.checksums.iter().map(|it| it.number()).collect(),
            compressors: if self.compress { vec![LZ4] } else { Vec::new() },
            keep_alive: u32::try_from(keep_alive).unwrap_or(u32::MAX),
            nonce: Some(nonce),
            ..Hello::default()
        })
    }
}

impl Agreed {
    /// The checksum of what `from` says, where `we` are one of both.
    fn checksum(&self, we: Side, from: Side) -> Checksum {
        let (client, server) = match we {
            Side::Client => (&self.ours, &self.theirs),
            Side::Server => (&self.theirs, &self.ours),
        };
        Checksum::new(
            self.algorithm,
            Binding {
                client_ref: &client.conn_ref,
                server_ref: &server.conn_ref,
                hsk_ref: client.hsk_ref,
                from_server: from == Side::Server,
            },
        )
    }
}

fn establish(
    side: Side,
    own: &Introduction,
    agreed: &Agreed,
    (address, identity): (String, Option<String>),
    permits: Option<Permits>,
) -> Arc<Connection> {
    let refs = |hello: &Hello| Refs {
        conn_ref: hello.conn_ref.clone(),
        node_ref: hello.node_ref.clone(),
        svc_ref: hello.svc_ref.clone(),
    };
    let Agreed { ours, theirs, .. } = agreed;
    let peer = Peer {
        address,
        identity,
        remote: refs(theirs),
        local: refs(ours),
        hsk_ref: ours.hsk_ref,
        protocol: Protocol::V2,
    };
    let taken = Taken {
        max_block: theirs.max_block,
        stream_window: theirs.stream_window,
        connection_window: theirs.connection_window,
    };
    let limits = own.limits;
    let zip = own.compress && theirs.has_compressor(LZ4);
    Arc::new(Connection {
        side,
        peer: Arc::new(peer),
        instance: theirs.instance,
        limits,
        budget: Budget::new(limits.large_messages, limits.max_message, zip),
        max_message: theirs.max_message,
        max_streams: theirs.max_streams,
        peer_keep_alive: Duration::from_millis(theirs.keep_alive.into()),
        zip,
        out: Mutex::new(Out {
            outbox: Outbox::new(agreed.checksum(side, side), taken),
            writing: false,
            puts: 0,
            gathering: false,
            closed: false,
        }),
        incoming: agreed.checksum(side, side.other()),
        work: Notify::new(),
        room: Notify::new(),
        flushed: Notify::new(),
        written: AtomicU64::new(0),
        heard: AtomicU64::new(0),
        draining: AtomicBool::new(false),
        waits: super::Waits::default(),
        closing: CancellationToken::new(),
        is_closed: AtomicBool::new(false),
        why: Mutex::default(),
        calls: client::Calls::default(),
        pings: super::pings::Pings::default(),
        pen: super::writing::Pen::default(),
        permits,
        served: served::Served::default(),
        observers: own.observers.clone(),
    })
}

fn start(
    connection: &Arc<Connection>,
    service: Option<Arc<Service>>,
    read: Read,
    surplus: BytesMut,
    write: Write,
) {
    let max_block = usize::try_from(connection.limits.max_block).unwrap_or(usize::MAX);
    let frames = Frames::new(connection.incoming.clone(), max_block).zipped(connection.zip);
    io::start(connection, service, (read, frames, surplus), write);
}

fn lost(reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Transport, Executed::Never, reason.to_string())
}

fn broken(reason: &str) -> Error {
    Error::new(Kind::Protocol, Executed::Never, reason)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn wrong(error: HelloError) -> Error {
    let kind = match error {
        HelloError::NoProof | HelloError::NoKey | HelloError::Proof => Kind::Denied,
        _ => Kind::Protocol,
    };
    Error::new(kind, Executed::Never, error.to_string())
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| lost(format_args!("no random numbers: {error}")))
}

fn random_u64() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
