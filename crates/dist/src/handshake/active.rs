//! What both active roles share.

use std::fmt;

use bytes::{Buf, BytesMut};

use super::{BODY_MAX, Error, Flags, Framing, Peer, Status};

/// Who we are in a handshake.
#[derive(Debug, Clone)]
pub struct Local {
    /// Our full node name; of an initiator whose flags have [`Flags::NAME_ME`], only the host part.
    pub name: String,
    /// What we can do; [`Flags::NODE`] is a hidden node's. Nothing here is checked against what the
    /// caller really implements.
    pub flags: Flags,
    /// Which run of the node this is: 4 or more, and another one after each start.
    pub creation: u32,
    /// The secret that both nodes share.
    pub cookie: Cookie,
}

/// A cookie; not shown by `Debug`.
#[derive(Clone)]
pub struct Cookie(Vec<u8>);

/// A finished handshake: from here on both sides use frames with a length of four bytes.
#[derive(Debug)]
pub struct Link {
    /// The other node, with its flags as it sent them.
    pub peer: Peer,
    /// Our own name; of interest if the acceptor gave it.
    pub local_name: String,
    /// Which run of ours that is; of interest in the same case.
    pub local_creation: u32,
    /// What both sides can do.
    pub flags: Flags,
    /// Bytes that came behind the last handshake message: the beginning of the link.
    pub surplus: BytesMut,
}

/// Why a handshake did not succeed. The caller sends what was written to `out`, and closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The peer's bytes are no handshake.
    #[error("the peer does not speak the handshake: {0}")]
    Peer(#[source] Error),
    /// Our own name cannot be sent.
    #[error("our own part of the handshake cannot be sent: {0}")]
    Local(#[source] Error),
    /// The acceptor's status ends the attempt (or ours, if we accept).
    #[error("the handshake ended with the status {0:?}")]
    Refused(Status),
    /// Another node answered.
    #[error("{wanted} was dialled, but {got} answered")]
    Name {
        /// The node that was dialled.
        wanted: String,
        /// The node that answered.
        got: String,
    },
    /// The peer lacks mandatory flags.
    #[error("the peer lacks {missing}")]
    Flags {
        /// Those of [`Flags::MANDATORY_25`] that it lacks.
        missing: Flags,
    },
    /// We asked for a name and got none.
    #[error("the acceptor gave us no name")]
    NotNamed,
    /// The peer's digest is wrong: the cookies differ.
    #[error("the peer has another cookie")]
    Cookie,
    /// The caller went on after the end, or answered where no answer was due.
    #[error("nothing is to be done at this point of the handshake")]
    Turn,
}

impl Cookie {
    /// A cookie of these bytes. The VM takes it as an atom: at most 255 characters.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Whether anybody could prove that he has it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The bytes of the peer, as frames.
#[derive(Debug)]
pub(super) struct Inbox {
    framing: Framing,
    buffer: BytesMut,
}

impl Inbox {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, buffer: BytesMut::new() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let frame = self.framing.split(&self.buffer).map_err(Failure::Peer)?;
        let Some((body, used)) = frame.map(|(body, used)| (body.to_vec(), used)) else {
            return Ok(None);
        };
        self.buffer.advance(used);
        Ok(Some(body))
    }

    /// While it is our turn the peer has nothing to say; a frame's worth of patience.
    pub(super) fn check_patience(&self) -> Result<(), Failure> {
        if self.buffer.len() > BODY_MAX {
            return Err(Failure::Peer(Error::OutOfTurn));
        }
        Ok(())
    }

    pub(super) fn take(&mut self) -> BytesMut {
        self.buffer.split()
    }
}
