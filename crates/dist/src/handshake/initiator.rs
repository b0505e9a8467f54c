//! The side that dials.

use bytes::BytesMut;

use super::active::{Failure, Inbox, Link, Local};
use super::{
    Challenge, ChallengeAck, ChallengeReply, Flags, Form, Framing, Peer, SendName, Status, digest,
    verify,
};

/// The initiator's part of a handshake, without a socket.
///
/// Call [`Initiator::new`], send what it wrote, then feed what the peer sends to
/// [`Initiator::received`] and send what that writes, until it gives a [`Link`] or an error. The
/// caller sets the time limit (a stock VM allows 7 s) and draws the challenge from a
/// cryptographically secure source: it must not repeat.
#[derive(Debug)]
pub struct Initiator {
    local: Local,
    wanted: String,
    challenge: u32,
    framing: Framing,
    inbox: Inbox,
    stage: InitiatorStage,
    take_over: bool,
}

#[derive(Debug)]
enum InitiatorStage {
    Status,
    Challenge,
    Ack(Peer),
    Over,
}

impl Initiator {
    /// Starts a handshake with the node `wanted` and writes the hello.
    pub fn new(
        framing: Framing,
        local: Local,
        wanted: impl Into<String>,
        challenge: u32,
        out: &mut BytesMut,
    ) -> Result<Self, Failure> {
        let (name, flags) = (local.name.clone(), local.flags);
        let creation = if flags.contains(Flags::NAME_ME) { 0 } else { local.creation };
        let hello = SendName { form: Form::New, flags, creation, name };
        hello.encode(framing, out).map_err(Failure::Local)?;
        Ok(Self {
            local,
            wanted: wanted.into(),
            challenge,
            framing,
            inbox: Inbox::new(framing),
            stage: InitiatorStage::Status,
            take_over: true,
        })
    }

    /// What to do if the acceptor believes that it still has a connection to us: take it over (the
    /// default: after a restart that connection is dead), or leave it.
    #[must_use]
    pub fn taking_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Takes the next bytes of the acceptor and writes what is to be sent. `None`: more is to come.
    pub fn received(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<Option<Link>, Failure> {
        self.inbox.push(bytes);
        loop {
            if matches!(self.stage, InitiatorStage::Over) {
                return Err(Failure::Turn);
            }
            let Some(body) =
                self.inbox.next().inspect_err(|_| self.stage = InitiatorStage::Over)?
            else {
                return Ok(None);
            };
            // Any early return by `?` leaves the stage at its end.
            match std::mem::replace(&mut self.stage, InitiatorStage::Over) {
                InitiatorStage::Status => self.stage = self.status(&body, out)?,
                InitiatorStage::Challenge => self.stage = self.challenge(&body, out)?,
                InitiatorStage::Ack(peer) => return self.ack(&body, peer).map(Some),
                InitiatorStage::Over => return Err(Failure::Turn),
            }
        }
    }

    fn status(&mut self, body: &[u8], out: &mut BytesMut) -> Result<InitiatorStage, Failure> {
        let dynamic = self.local.flags.contains(Flags::NAME_ME);
        match Status::decode(body).map_err(Failure::Peer)? {
            Status::Named { name, creation } if dynamic => {
                self.local.name = name;
                self.local.creation = creation;
            }
            refusal @ (Status::NotAllowed | Status::Nok) => return Err(Failure::Refused(refusal)),
            _ if dynamic => return Err(Failure::NotNamed),
            Status::Ok | Status::OkSimultaneous => {}
            Status::Alive => {
                let answer = Status::AliveAnswer(self.take_over);
                answer.encode(self.framing, out).map_err(Failure::Local)?;
                if !self.take_over {
                    return Err(Failure::Refused(Status::Alive));
                }
            }
            Status::Named { .. } | Status::AliveAnswer(_) => {
                return Err(Failure::Peer(super::Error::Status));
            }
        }
        Ok(InitiatorStage::Challenge)
    }

    fn challenge(&mut self, body: &[u8], out: &mut BytesMut) -> Result<InitiatorStage, Failure> {
        let theirs = Challenge::decode(body).map_err(Failure::Peer)?;
        if theirs.name != self.wanted {
            return Err(Failure::Name { wanted: self.wanted.clone(), got: theirs.name });
        }
        let missing = theirs.flags.missing(Flags::MANDATORY_25);
        if !missing.is_empty() {
            return Err(Failure::Flags { missing });
        }
        let digest = digest(self.local.cookie.bytes(), theirs.challenge);
        let reply = ChallengeReply { challenge: self.challenge, digest };
        reply.encode(self.framing, out).map_err(Failure::Local)?;
        let creation = (theirs.form == Form::New).then_some(theirs.creation);
        Ok(InitiatorStage::Ack(Peer { name: theirs.name, flags: theirs.flags, creation }))
    }

    fn ack(&mut self, body: &[u8], peer: Peer) -> Result<Link, Failure> {
        let ack = ChallengeAck::decode(body).map_err(Failure::Peer)?;
        if !verify(self.local.cookie.bytes(), self.challenge, &ack.digest) {
            return Err(Failure::Cookie);
        }
        Ok(Link {
            flags: self.local.flags.negotiated(peer.flags),
            local_name: self.local.name.clone(),
            local_creation: self.local.creation,
            peer,
            surplus: self.inbox.take(),
        })
    }
}
