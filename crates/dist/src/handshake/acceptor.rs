//! The side that listens.

use bytes::BytesMut;

use super::active::{Cookie, Failure, Inbox, Link, Local};
use super::{
    Challenge, ChallengeAck, ChallengeReply, Complement, Error, Flags, Form, Framing, Peer,
    SendName, Status, digest, verify,
};

/// The acceptor's part of a handshake, without a socket.
///
/// Feed what the peer sends to [`Acceptor::received`] and send what it writes. Once it gives
/// [`Accepted::Hello`], decide and call [`Acceptor::answer`]; then go on until [`Accepted::Up`] or an
/// error. The caller sets the time limit (a stock VM allows 7 s) and draws the challenge from a
/// cryptographically secure source: it must not repeat.
#[derive(Debug)]
pub struct Acceptor {
    local: Local,
    challenge: u32,
    framing: Framing,
    inbox: Inbox,
    stage: AcceptorStage,
}

/// How far an [`Acceptor`] came.
#[derive(Debug)]
pub enum Accepted {
    /// More bytes of the peer are needed.
    Pending,
    /// The initiator said who it is; [`Acceptor::answer`] is due. Its name is only the host part if
    /// its flags have [`Flags::NAME_ME`]; its creation is unknown then, and in the old form.
    Hello(Peer),
    /// The handshake is finished.
    Up(Link),
}

#[derive(Debug)]
enum AcceptorStage {
    Name,
    Answer { peer: Peer, old: bool },
    Alive { peer: Peer, old: bool },
    Complement { peer: Peer },
    Reply { peer: Peer },
    Over,
}

impl Acceptor {
    /// Waits for a hello.
    pub fn new(framing: Framing, local: Local, challenge: u32) -> Self {
        let inbox = Inbox::new(framing);
        Self { local, challenge, framing, inbox, stage: AcceptorStage::Name }
    }

    /// Takes the next bytes of the initiator and writes what is to be sent. A hello without the
    /// mandatory flags is refused here (the refusal is written).
    pub fn received(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<Accepted, Failure> {
        self.inbox.push(bytes);
        loop {
            match self.stage {
                AcceptorStage::Over => return Err(Failure::Turn),
                AcceptorStage::Answer { .. } => {
                    return self.inbox.check_patience().map(|()| Accepted::Pending);
                }
                _ => {}
            }
            let Some(body) = self.inbox.next().inspect_err(|_| self.stage = AcceptorStage::Over)?
            else {
                return Ok(Accepted::Pending);
            };
            // Any early return by `?` leaves the stage at its end.
            match std::mem::replace(&mut self.stage, AcceptorStage::Over) {
                AcceptorStage::Name => return self.hello(&body, out).map(Accepted::Hello),
                AcceptorStage::Alive { peer, old } => self.alive_answer(&body, peer, old, out)?,
                AcceptorStage::Complement { peer } => self.complement(&body, peer)?,
                AcceptorStage::Reply { peer } => {
                    return self.reply(&body, peer, out).map(Accepted::Up);
                }
                AcceptorStage::Answer { .. } | AcceptorStage::Over => return Err(Failure::Turn),
            }
        }
    }

    /// The cookie from here on: of the node that the hello named, if it has one of its own.
    pub fn use_cookie(&mut self, cookie: Cookie) {
        self.local.cookie = cookie;
    }

    /// Answers the hello. [`Status::Named`] is the answer to [`Flags::NAME_ME`], and only to that;
    /// [`Status::Nok`] and [`Status::NotAllowed`] end the handshake with [`Failure::Refused`].
    pub fn answer(&mut self, status: Status, out: &mut BytesMut) -> Result<(), Failure> {
        let AcceptorStage::Answer { mut peer, old } =
            std::mem::replace(&mut self.stage, AcceptorStage::Over)
        else {
            return Err(Failure::Turn);
        };
        let dynamic = peer.flags.contains(Flags::NAME_ME);
        let fits = match status {
            Status::AliveAnswer(_) => false,
            Status::Nok | Status::NotAllowed => true,
            Status::Named { .. } => dynamic,
            Status::Ok | Status::OkSimultaneous | Status::Alive => !dynamic,
        };
        if !fits {
            return Err(Failure::Turn);
        }
        status.encode(self.framing, out).map_err(Failure::Local)?;
        match status {
            Status::Nok | Status::NotAllowed => return Err(Failure::Refused(status)),
            Status::Alive => {
                self.stage = AcceptorStage::Alive { peer, old };
                return Ok(());
            }
            Status::Named { name, creation } => {
                peer.name = name;
                peer.creation = Some(creation);
            }
            _ => {}
        }
        self.send_challenge(peer, old, out)
    }

    fn hello(&mut self, body: &[u8], out: &mut BytesMut) -> Result<Peer, Failure> {
        let hello = SendName::decode(body).map_err(Failure::Peer)?;
        let old = hello.form == Form::Old;
        // The high half of an old hello's flags comes with the complement; nothing of it is mandatory.
        self.check_flags(hello.flags, out)?;
        let creation = (!old && !hello.is_dynamic()).then_some(hello.creation);
        let peer = Peer { name: hello.name, flags: hello.flags, creation };
        self.stage = AcceptorStage::Answer { peer: peer.clone(), old };
        Ok(peer)
    }

    fn alive_answer(
        &mut self,
        body: &[u8],
        peer: Peer,
        old: bool,
        out: &mut BytesMut,
    ) -> Result<(), Failure> {
        match Status::decode(body).map_err(Failure::Peer)? {
            Status::AliveAnswer(true) => self.send_challenge(peer, old, out),
            Status::AliveAnswer(false) => Err(Failure::Refused(Status::Alive)),
            _ => Err(Failure::Peer(Error::Status)),
        }
    }

    fn send_challenge(&mut self, peer: Peer, old: bool, out: &mut BytesMut) -> Result<(), Failure> {
        // Without this a VM forgets that it asked for a name.
        let named = peer.flags & Flags::NAME_ME;
        let challenge = Challenge {
            form: Form::New,
            flags: self.local.flags | named,
            challenge: self.challenge,
            creation: self.local.creation,
            name: self.local.name.clone(),
        };
        challenge.encode(self.framing, out).map_err(Failure::Local)?;
        self.stage =
            if old { AcceptorStage::Complement { peer } } else { AcceptorStage::Reply { peer } };
        Ok(())
    }

    fn complement(&mut self, body: &[u8], mut peer: Peer) -> Result<(), Failure> {
        let complement = Complement::decode(body).map_err(Failure::Peer)?;
        peer.flags = peer.flags | complement.flags;
        peer.creation = Some(complement.creation);
        self.stage = AcceptorStage::Reply { peer };
        Ok(())
    }

    fn reply(&mut self, body: &[u8], peer: Peer, out: &mut BytesMut) -> Result<Link, Failure> {
        let reply = ChallengeReply::decode(body).map_err(Failure::Peer)?;
        let cookie = self.local.cookie.bytes();
        if !verify(cookie, self.challenge, &reply.digest) {
            return Err(Failure::Cookie);
        }
        let ack = ChallengeAck { digest: digest(cookie, reply.challenge) };
        ack.encode(self.framing, out).map_err(Failure::Local)?;
        Ok(Link {
            flags: self.local.flags.negotiated(peer.flags),
            local_name: self.local.name.clone(),
            local_creation: self.local.creation,
            peer,
            surplus: self.inbox.take(),
        })
    }

    fn check_flags(&self, flags: Flags, out: &mut BytesMut) -> Result<(), Failure> {
        let missing = flags.missing(Flags::MANDATORY_25);
        if missing.is_empty() {
            return Ok(());
        }
        Status::NotAllowed.encode(self.framing, out).map_err(Failure::Local)?;
        Err(Failure::Flags { missing })
    }
}
