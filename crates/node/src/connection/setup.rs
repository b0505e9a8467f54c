//! From a stream to a connection: the handshake, in both roles.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use meshx_dist::handshake::{
    Accepted, Acceptor, Failure, Flags, Framing, Initiator, Link, Local, Status,
};
use meshx_etf::{Atom, Node as NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peers::{Admission, Answering, Attempt, Awaited, Begin, Dialled, Origin};
use super::{Connection, start};
use crate::builder::Config;
use crate::carrier::{Carrier, Stream};
use crate::error::ConnectError;
use crate::node::Inner;

/// How long a node waits for the one that it was told to wait for (`nok`).
const INCOMING: Duration = Duration::from_secs(7);
/// How long a handshake that the peer began is waited for before this node dials itself, or dials again:
/// whoever says hello in its name can hold up nobody for longer.
const COURTESY: Duration = Duration::from_secs(1);
/// How long a peer that says hello while it is connected waits for the end of that connection, which
/// may be on its way: a C node gives up when it is told `alive`.
const LINGERING: Duration = Duration::from_millis(200);
/// How often an attempt is made again when nothing comes of the peer's that went before it.
const AGAIN: u32 = 2;
/// How often, and with which pauses, a carrier is asked why it closed a stream.
const REASON_LOOKS: u32 = 5;
const REASON_PAUSE: Duration = Duration::from_millis(10);

/// The connection to a node, made if need be. Whoever asks meanwhile shares the attempt.
pub(crate) async fn dial(node: &Arc<Inner>, to: &Atom) -> Dialled {
    let mut alone = false;
    loop {
        match node.peers.begin(to, alone) {
            Begin::Stopping => return Err(ConnectError::Stopping),
            Begin::Up(connection) => return Ok(connection),
            Begin::Gone(gone) => gone.cancelled().await,
            Begin::Wait(mut done) => {
                if let Ok(done) = done.wait_for(Option::is_some).await
                    && let Some(dialled) = &*done
                {
                    return dialled.clone();
                }
            }
            Begin::Incoming => {
                drop(tokio::time::timeout(COURTESY, incoming(node, to, true)).await);
                alone = true;
            }
            Begin::Dial(attempt) => {
                let (node, to) = (Arc::clone(node), to.clone());
                // Whoever gives up waiting does not end it for the others.
                let dialled = tokio::spawn(async move {
                    let dialled = attempts(&node, &to, &attempt).await;
                    attempt.finish(&dialled);
                    dialled
                });
                return dialled.await.unwrap_or(Err(ConnectError::Stopping));
            }
        }
    }
}

/// Dials, unless a handshake that the peer began at the same time counts instead. Anybody can begin one in
/// its name, again and again: if nothing came of it in a moment, that is believed of nobody any more but
/// of who answers at the peer's address.
async fn attempts(node: &Arc<Inner>, to: &Atom, attempt: &Attempt) -> Dialled {
    let mut again = 0;
    let mut firm = false;
    loop {
        let superseded = attempt.superseded();
        let (begun, limit) = tokio::select! {
            biased;
            () = superseded.cancelled(), if !firm => (true, COURTESY),
            () = node.stop.cancelled() => return Err(ConnectError::Stopping),
            connection = connected(node, to), if firm => return Ok(connection),
            done = try_all(node, to) => match done {
                // It begins, or has begun, a handshake.
                Err(ConnectError::Handshake { reason: Failure::Refused(Status::Nok), .. }) => {
                    (false, INCOMING)
                }
                // It was connected meanwhile.
                Err(ConnectError::Handshake { reason: Failure::Refused(Status::Alive), .. }) => {
                    (true, INCOMING)
                }
                done => return done,
            },
        };
        let timeout = ConnectError::Timeout { node: to.clone(), limit };
        match tokio::time::timeout(limit, incoming(node, to, begun)).await {
            Ok(Some(connection)) => return Ok(connection),
            Err(_) if limit == COURTESY => {}
            Ok(None) if again < AGAIN => again += 1,
            _ => return Err(timeout),
        }
        firm = true;
        attempt.again();
    }
}

/// Waits for a connection to the peer, whoever makes it.
async fn connected(node: &Arc<Inner>, to: &Atom) -> Arc<Connection> {
    loop {
        let changed = node.peers.changed();
        if let Awaited::Up(connection) = node.peers.awaited(to) {
            return connection;
        }
        changed.await;
    }
}

/// Waits for the connection that the peer makes; `None` if the handshake that it had begun, or begins
/// now, fails. The caller limits the time.
async fn incoming(node: &Arc<Inner>, to: &Atom, mut begun: bool) -> Option<Arc<Connection>> {
    loop {
        let changed = node.peers.changed();
        match node.peers.awaited(to) {
            Awaited::Up(connection) => return Some(connection),
            Awaited::Nothing if begun => return None,
            Awaited::Nothing => {}
            Awaited::Underway => begun = true,
        }
        changed.await;
    }
}

/// Dials, and takes the connection for ours.
async fn try_all(node: &Arc<Inner>, to: &Atom) -> Dialled {
    // A connection that the peer still has is dead, unless it was made a moment ago.
    let is_new = || matches!(node.peers.awaited(to), Awaited::Up(_));
    let (link, stream) = approach(&node.config, &node.local(to), to, &is_new).await?;
    let origin = Origin { ours: true, takes_over: false };
    let limit = node.config.setup_time;
    let established = establish(node, link, stream, origin, BytesMut::new());
    let timeout = |_| ConnectError::Timeout { node: to.clone(), limit };
    tokio::time::timeout(limit, established).await.map_err(timeout)?
}

/// Dials by each carrier until one gets there, and shakes hands as `local`. If `leaves`, a connection
/// that the peer still has is not taken over.
async fn approach(
    config: &Config,
    local: &Local,
    to: &Atom,
    leaves: &(dyn Fn() -> bool + Sync),
) -> Result<(Link, Stream), ConnectError> {
    if meshx_dist::name::split(to).is_err() {
        return Err(ConnectError::Name(to.to_string()));
    }
    let limit = config.setup_time;
    let timeout = || ConnectError::Timeout { node: to.clone(), limit };
    let mut last = None;
    for carrier in &config.carriers {
        let until = tokio::time::Instant::now() + limit;
        let stream = match tokio::time::timeout_at(until, carrier.dial(to)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(reason)) => {
                let reason = Arc::new(reason);
                last = Some(ConnectError::Reach { node: to.clone(), reason });
                continue;
            }
            Err(_) => {
                last = Some(timeout());
                continue;
            }
        };
        let shaken = initiate(local.clone(), to, carrier.framing(), stream, leaves);
        return match tokio::time::timeout_at(until, shaken).await {
            Ok(Err(closed @ ConnectError::Closed { .. })) => {
                // Its stream is gone by now, which may be what the carrier waits for to tell.
                let reason = reason(carrier.as_ref(), to).await;
                Err(reason.map_or(closed, |reason| ConnectError::Reach {
                    node: to.clone(),
                    reason: Arc::new(reason),
                }))
            }
            Ok(done) => done,
            Err(_) => Err(timeout()),
        };
    }
    let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "this node has no carrier");
    let none = || ConnectError::Reach { node: to.clone(), reason: Arc::new(none()) };
    Err(last.unwrap_or_else(none))
}

/// Why the carrier closed a stream to that node, if it was the carrier.
async fn reason(carrier: &dyn Carrier, to: &Atom) -> Option<std::io::Error> {
    for _ in 0..REASON_LOOKS {
        if let Some(reason) = carrier.why_closed(to) {
            return Some(reason);
        }
        tokio::time::sleep(REASON_PAUSE).await;
    }
    None
}

async fn initiate(
    local: Local,
    to: &Atom,
    framing: Framing,
    mut stream: Stream,
    leaves: &(dyn Fn() -> bool + Sync),
) -> Result<(Link, Stream), ConnectError> {
    let failed = |reason| ConnectError::Handshake { node: to.clone(), reason };
    let mut out = BytesMut::new();
    let mut initiator =
        Initiator::new(framing, local, to.as_str(), challenge()?, &mut out).map_err(failed)?;
    let mut answered = false;
    loop {
        let closed = || {
            let stage = if answered { "last step" } else { "beginning" };
            ConnectError::Closed { node: to.clone(), stage }
        };
        stream.write.write_all_buf(&mut out).await.map_err(|_| closed())?;
        stream.write.flush().await.map_err(|_| closed())?;
        let mut bytes = BytesMut::with_capacity(256);
        match stream.read.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(closed()),
            Ok(_) => {}
        }
        initiator = initiator.taking_over(!leaves());
        match initiator.received(&bytes, &mut out) {
            Ok(Some(link)) => return Ok((link, stream)),
            Ok(None) => {}
            Err(failure) => {
                // That we do not take over, if that is it.
                drop(stream.write.write_all_buf(&mut out).await);
                return Err(failed(failure));
            }
        }
        // What follows the challenge is the proof that we have the cookie.
        answered |= !out.is_empty();
    }
}

/// A name that another node has given, and the connection by which it did.
pub(crate) struct Named {
    pub(crate) id: NodeId,
    link: Link,
    stream: Stream,
}

/// Asks that node for a name at this host (`erl_dist_protocol`, "Distribution Handshake", `NAME_ME`).
pub(crate) async fn ask_name(
    config: &Config,
    host: &str,
    from: &Atom,
) -> Result<Named, ConnectError> {
    let local = Local {
        name: host.to_owned(),
        flags: config.flags() | Flags::NAME_ME,
        creation: 0,
        cookie: config.cookies.of(from),
    };
    let (mut link, stream) = approach(config, &local, from, &|| false).await?;
    link.flags = link.flags.without(Flags::NAME_ME);
    let none = || ConnectError::Handshake { node: from.clone(), reason: Failure::NotNamed };
    meshx_dist::name::split(&link.local_name).map_err(|_| none())?;
    let name = Atom::new(&link.local_name).map_err(|_| none())?;
    Ok(Named { id: NodeId::new(name, link.local_creation), link, stream })
}

/// The connection by which the node got its name is its first.
pub(crate) async fn begin_with(node: &Arc<Inner>, named: Named) -> Dialled {
    let origin = Origin { ours: true, takes_over: false };
    establish(node, named.link, named.stream, origin, BytesMut::new()).await
}

/// Answers the handshake on a stream that came in.
pub(crate) async fn accept(node: Arc<Inner>, carrier: Arc<dyn Carrier>, stream: Stream) {
    let address = stream.address.clone();
    let limit = node.config.setup_time;
    let answered = tokio::time::timeout(limit, answer(&node, carrier.as_ref(), stream));
    let done = tokio::select! {
        done = answered => done,
        () = node.stop.cancelled() => return,
    };
    let refusal = match done {
        Ok(Ok(connection)) => {
            tracing::debug!(peer = %connection.name(), %address, "accepted a connection");
            return;
        }
        Ok(Err(refusal)) => format!("a connection was not accepted: {refusal}"),
        Err(_) => format!("no handshake within {limit:?}"),
    };
    match node.config.refusals.occurs() {
        Some(unsaid) => tracing::warn!(%address, unsaid, "{refusal}"),
        None => tracing::debug!(%address, "{refusal}"),
    }
}

async fn answer(
    node: &Arc<Inner>,
    carrier: &dyn Carrier,
    mut stream: Stream,
) -> Result<Arc<Connection>, ConnectError> {
    let unknown = Atom::cut("a peer without a name");
    let mut peer = unknown;
    let mut takes_over = false;
    // While this lives, our own attempts to dial that peer know of it.
    let mut _underway: Option<Answering> = None;
    let mut out = BytesMut::new();
    let mut acceptor = Acceptor::new(carrier.framing(), node.local(""), challenge()?);
    loop {
        let mut bytes = BytesMut::with_capacity(256);
        let closed = |peer: &Atom| ConnectError::Closed { node: peer.clone(), stage: "handshake" };
        match stream.read.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(closed(&peer)),
            Ok(_) => {}
        }
        let mut result = acceptor.received(&bytes, &mut out);
        if let Ok(Accepted::Hello(hello)) = &result {
            let dynamic = hello.flags.contains(Flags::NAME_ME);
            let status = if dynamic && carrier.proves_names() {
                Status::NotAllowed
            } else if dynamic {
                node.name_for(&hello.name, stream.identity.as_deref())
            } else {
                peer = Atom::new(&hello.name).unwrap_or(peer);
                if let Some(old) = node.peers.up_to(&peer) {
                    drop(tokio::time::timeout(LINGERING, old.closed()).await);
                }
                let (status, answering) = node.admits(&hello.name, stream.identity.as_deref());
                _underway = answering;
                status
            };
            if let Status::Named { name, .. } = &status {
                peer = Atom::new(name).unwrap_or(peer);
            }
            takes_over = status == Status::Alive;
            acceptor.use_cookie(node.config.cookies.of(&peer));
            let answered = acceptor.answer(status, &mut out);
            // What came behind the hello was kept.
            result = answered.and_then(|()| acceptor.received(&[], &mut out));
        }
        let failed = |reason| ConnectError::Handshake { node: peer.clone(), reason };
        match result {
            Ok(Accepted::Up(link)) => {
                let origin = Origin { ours: false, takes_over };
                return establish(node, link, stream, origin, out).await;
            }
            Ok(_) => {
                let written = stream.write.write_all_buf(&mut out).await;
                written.map_err(|_| closed(&peer))?;
                stream.write.flush().await.map_err(|_| closed(&peer))?;
            }
            Err(failure) => {
                // The refusal, if there is one.
                drop(stream.write.write_all_buf(&mut out).await);
                drop(stream.write.shutdown().await);
                return Err(failed(failure));
            }
        }
    }
}

/// The handshake is right: the connection takes its place, after the one before it, and `last` is
/// said.
async fn establish(
    node: &Arc<Inner>,
    link: Link,
    stream: Stream,
    origin: Origin,
    last: BytesMut,
) -> Result<Arc<Connection>, ConnectError> {
    let name =
        Atom::new(&link.peer.name).map_err(|_| ConnectError::Name(link.peer.name.clone()))?;
    let peer = NodeId::new(name.clone(), link.peer.creation.unwrap_or_default());
    let number = node.peers.number();
    // A node that was given its name by us is hidden, whatever it says.
    let dynamic = link.peer.flags.contains(Flags::NAME_ME);
    let flags = if dynamic { link.flags.without(Flags::PUBLISHED) } else { link.flags };
    let connection =
        Arc::new(Connection::new(number, peer, (flags, link.peer.flags), node.config.ticktime));
    loop {
        match node.peers.admit(&connection, origin, node.id.name()) {
            Admission::Up => break,
            Admission::Replace(old, gone) => {
                old.close("it connected again");
                gone.cancelled().await;
            }
            Admission::Duplicate => {
                let reason = Failure::Refused(Status::Alive);
                return Err(ConnectError::Handshake { node: name, reason });
            }
            Admission::Stopping => return Err(ConnectError::Stopping),
        }
    }
    // Nothing is waited for from here on: who gives up now must not leave a connection that nobody
    // reads.
    start(node, &connection, stream, link.surplus, last);
    Ok(connection)
}

/// From the operating system; without it there is no handshake: who can guess the challenge can have
/// asked somebody else for the answer before.
fn challenge() -> Result<u32, ConnectError> {
    getrandom::u32().map_err(|error| ConnectError::Random(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use meshx_dist::handshake::Cookie;
    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;
    use crate::carrier::{Memory, Switchboard};
    use crate::node::Node;

    /// Counts warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    /// Strangers cannot fill the log.
    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_now_and_then() {
        let warnings = Warnings::default();
        let _counting = tracing::subscriber::set_default(warnings.clone());
        let board = Switchboard::new();
        let node = |name: &str, cookie: &str| {
            let builder = Node::builder(name).cookie(Cookie::new(cookie));
            builder.carrier(Memory::new(&board)).start()
        };
        let (a, b) = (node("a@h", "secret").await.unwrap(), node("b@h", "other").await.unwrap());
        let told = async |count: usize| {
            for _ in 0..count {
                b.connect(a.name()).await.unwrap_err();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            warnings.0.swap(0, Ordering::SeqCst)
        };
        assert_eq!(told(3).await, 3);
        assert_eq!(told(100).await, 7, "ten in a minute");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(told(1).await, 1);
    }
}
