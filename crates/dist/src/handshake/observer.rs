//! What a relay can learn from the handshake that passes through it.

use bytes::{Buf, BytesMut};

use super::outcome::{self, HandshakeOutcome};
use super::{
    BODY_MAX, Challenge, ChallengeAck, ChallengeReply, Complement, Error, Flags, Form, Framing,
    SendName, Side, Status,
};

/// Follows a handshake from the bytes of both directions, without taking part.
///
/// Feed what each side sent with [`Observer::sent`], before it is passed on: then an answer can never
/// be seen before its question. The observer never fails the relay: what it cannot read ends in
/// [`Stage::Malformed`]. From then on, as from [`Stage::Up`] or a refusal on, it looks at nothing and
/// keeps nothing.
///
/// Memory: per direction at most [`Observer::BUFFER_MAX`] bytes until the end of the handshake, none
/// afterwards; besides these, the names.
///
/// ```
/// use bytes::BytesMut;
/// use meshx_dist::handshake::{Flags, Form, Framing, Observer, SendName, Side, Stage, Status};
///
/// let hello = SendName { form: Form::New, flags: Flags::NODE, creation: 7, name: "a@h1".into() };
/// let (mut from_a, mut from_b) = (BytesMut::new(), BytesMut::new());
/// hello.encode(Framing::U16, &mut from_a)?;
/// Status::NotAllowed.encode(Framing::U16, &mut from_b)?;
///
/// let mut observer = Observer::new(Framing::U16).wanting("b@h2");
/// assert_eq!(observer.sent(Side::Initiator, &from_a), &Stage::AwaitStatus);
/// observer.sent(Side::Acceptor, &from_b);
/// let outcome = observer.diagnosis_at_close(Side::Acceptor);
/// assert_eq!(outcome.token(), "not_allowed");
/// # Ok::<(), meshx_dist::handshake::Error>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    framing: Framing,
    stage: Stage,
    from_initiator: BytesMut,
    from_acceptor: BytesMut,
    seen: Seen,
}

/// How far the handshake has come: what is awaited, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The initiator's hello.
    AwaitName,
    /// The acceptor's status.
    AwaitStatus,
    /// The initiator's answer to `alive`.
    AwaitAliveAnswer,
    /// The acceptor's challenge.
    AwaitChallenge,
    /// The initiator's complement (after a hello of the old form) or challenge reply.
    AwaitReply,
    /// The acceptor's challenge ack.
    AwaitAck,
    /// The handshake is over, as far as the acceptor is concerned; the initiator may still find the
    /// ack wrong.
    Up,
    /// `nok`, `not_allowed`, or the initiator's `false` to `alive`.
    Refused(Status),
    /// These bytes are no handshake.
    Malformed {
        /// Who sent them.
        by: Side,
        /// What is wrong with them.
        error: Error,
    },
}

/// What one side said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The full node name. Of an initiator that asks for a name only the host part, until the
    /// acceptor has given it one.
    pub name: String,
    /// What it can do, as sent.
    pub flags: Flags,
    /// Which run of the node it is; unknown in the old form until the complement.
    pub creation: Option<u32>,
}

/// Everything learned; the verdict at the close is drawn from it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) wanted: Option<String>,
    pub(super) initiator: Option<Peer>,
    pub(super) acceptor: Option<Peer>,
    pub(super) status: Option<Status>,
    pub(super) old_form: bool,
    pub(super) dynamic: bool,
    /// The initiator sent something after the ack, so it accepted it.
    pub(super) confirmed: bool,
}

impl Observer {
    /// The most bytes that are kept of each direction: one frame.
    pub const BUFFER_MAX: usize = BODY_MAX + 4;

    /// An observer of a connection that has not said anything yet.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            stage: Stage::AwaitName,
            from_initiator: BytesMut::new(),
            from_acceptor: BytesMut::new(),
            seen: Seen::default(),
        }
    }

    /// Adds the full name of the node that the initiator dialled, if the relay knows it: then a
    /// wrong node at the other end is told from other reasons to give up.
    #[must_use]
    pub fn wanting(mut self, node: impl Into<String>) -> Self {
        self.seen.wanted = Some(node.into());
        self
    }

    /// Takes note of the next bytes that `side` sent, and says where the handshake is.
    pub fn sent(&mut self, side: Side, mut bytes: &[u8]) -> &Stage {
        if self.is_finished() {
            self.seen.confirmed |= side == Side::Initiator && !bytes.is_empty();
            return &self.stage;
        }
        while !bytes.is_empty() && !self.is_finished() {
            let buffer = self.buffer(side);
            let room = Self::BUFFER_MAX.saturating_sub(buffer.len());
            if room == 0 {
                // A full buffer holds a whole frame, so it would have been read in its turn.
                self.finish(Stage::Malformed { by: side, error: Error::OutOfTurn });
                break;
            }
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            buffer.extend_from_slice(now);
            bytes = later;
            self.advance();
        }
        &self.stage
    }

    /// Where the handshake is.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether the handshake is up, refused or unreadable: nothing that follows is looked at.
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Up | Stage::Refused(_) | Stage::Malformed { .. })
    }

    /// What the initiator said of itself, once it did.
    pub fn initiator(&self) -> Option<&Peer> {
        self.seen.initiator.as_ref()
    }

    /// What the acceptor said of itself, once it did.
    pub fn acceptor(&self) -> Option<&Peer> {
        self.seen.acceptor.as_ref()
    }

    /// The acceptor's status, once it was sent: `ok_simultaneous` and `alive` are found here.
    pub fn status(&self) -> Option<&Status> {
        self.seen.status.as_ref()
    }

    /// Whether the initiator asked for a name (a remote shell with `-sname undefined`, for example).
    pub fn is_dynamic(&self) -> bool {
        self.seen.dynamic
    }

    /// What it means that `who_closed` closes the connection now. With a close that comes from the
    /// relay itself, the answer is that of the side it came for.
    pub fn diagnosis_at_close(&self, who_closed: Side) -> HandshakeOutcome {
        outcome::judge(&self.stage, &self.seen, who_closed)
    }

    /// Bytes held at the moment, both directions together.
    pub fn buffered(&self) -> usize {
        self.from_initiator.len().saturating_add(self.from_acceptor.len())
    }

    fn buffer(&mut self, side: Side) -> &mut BytesMut {
        match side {
            Side::Initiator => &mut self.from_initiator,
            Side::Acceptor => &mut self.from_acceptor,
        }
    }

    // Reads frames for as long as the side whose turn it is has one.
    fn advance(&mut self) {
        while let Some(by) = self.stage.turn() {
            let framing = self.framing;
            let buffer = self.buffer(by);
            let (body, used) = match framing.split(buffer) {
                Ok(None) => return,
                Ok(Some((body, used))) => (body.to_vec(), used),
                Err(error) => return self.finish(Stage::Malformed { by, error }),
            };
            buffer.advance(used);
            match self.seen.next(&self.stage, &body) {
                Ok(stage) => match stage.turn() {
                    Some(next) if next != by && !self.buffer(next).is_empty() => {
                        // It answered what it cannot have seen.
                        self.finish(Stage::Malformed { by: next, error: Error::OutOfTurn });
                    }
                    Some(_) => self.stage = stage,
                    // What the initiator sent behind its reply is out of its turn, and no proof.
                    None => self.finish(stage),
                },
                Err(error) => self.finish(Stage::Malformed { by, error }),
            }
        }
    }

    fn finish(&mut self, stage: Stage) {
        self.stage = stage;
        self.from_initiator = BytesMut::new();
        self.from_acceptor = BytesMut::new();
    }
}

impl Stage {
    /// Who is to speak, or `None` at the end.
    pub fn turn(&self) -> Option<Side> {
        match self {
            Self::AwaitName | Self::AwaitAliveAnswer | Self::AwaitReply => Some(Side::Initiator),
            Self::AwaitStatus | Self::AwaitChallenge | Self::AwaitAck => Some(Side::Acceptor),
            Self::Up | Self::Refused(_) | Self::Malformed { .. } => None,
        }
    }
}

impl Seen {
    fn next(&mut self, stage: &Stage, body: &[u8]) -> Result<Stage, Error> {
        match stage {
            Stage::AwaitName => SendName::decode(body).map(|hello| self.hello(hello)),
            Stage::AwaitStatus => Status::decode(body).and_then(|status| self.status(status)),
            Stage::AwaitAliveAnswer => match Status::decode(body)? {
                Status::AliveAnswer(true) => Ok(Stage::AwaitChallenge),
                answer @ Status::AliveAnswer(false) => Ok(Stage::Refused(answer)),
                _ => Err(Error::Status),
            },
            Stage::AwaitChallenge => Challenge::decode(body).map(|challenge| {
                let creation = (challenge.form == Form::New).then_some(challenge.creation);
                let Challenge { flags, name, .. } = challenge;
                self.acceptor = Some(Peer { name, flags, creation });
                Stage::AwaitReply
            }),
            Stage::AwaitReply if self.old_form && body.first() == Some(&Complement::TAG) => {
                let complement = Complement::decode(body)?;
                self.old_form = false; // one is enough
                if let Some(peer) = &mut self.initiator {
                    peer.flags = peer.flags | complement.flags;
                    peer.creation = Some(complement.creation);
                }
                Ok(Stage::AwaitReply)
            }
            Stage::AwaitReply => ChallengeReply::decode(body).map(|_| Stage::AwaitAck),
            // The acceptor looks at the flags again once it has the complement.
            Stage::AwaitAck if Status::decode(body) == Ok(Status::NotAllowed) => {
                self.status(Status::NotAllowed)
            }
            Stage::AwaitAck => ChallengeAck::decode(body).map(|_| Stage::Up),
            end => Ok(end.clone()),
        }
    }

    fn hello(&mut self, hello: SendName) -> Stage {
        self.dynamic = hello.is_dynamic();
        self.old_form = hello.form == Form::Old;
        let creation = (!self.dynamic && !self.old_form).then_some(hello.creation);
        self.initiator = Some(Peer { name: hello.name, flags: hello.flags, creation });
        Stage::AwaitStatus
    }

    fn status(&mut self, status: Status) -> Result<Stage, Error> {
        self.status = Some(status.clone());
        match status {
            Status::Ok | Status::OkSimultaneous => Ok(Stage::AwaitChallenge),
            Status::Alive => Ok(Stage::AwaitAliveAnswer),
            Status::Nok | Status::NotAllowed => Ok(Stage::Refused(status)),
            Status::Named { name, creation } => {
                if let Some(peer) = &mut self.initiator {
                    peer.name = name;
                    peer.creation = Some(creation);
                }
                Ok(Stage::AwaitChallenge)
            }
            Status::AliveAnswer(_) => Err(Error::Status),
        }
    }
}
