//! Blocks put together again.

use bytes::Bytes;

use super::{Block, Class, Part};

/// A request that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The caller's number for it.
    pub req_ref: u64,
    /// Whether nobody waits for its result.
    pub cast: bool,
    /// Which function; any bytes, as they came.
    pub function: Bytes,
    /// How the argument is serialised: 0 = raw, anything else = a term.
    pub flag: u8,
    /// The argument.
    pub content: Bytes,
    /// How many blocks it came in.
    pub blocks: u32,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A cast is taken.
    Acknowledgement,
    /// The result of a call.
    Result {
        /// How it is serialised.
        flag: u8,
        /// The result.
        content: Bytes,
        /// How many blocks it came in.
        blocks: u32,
    },
    /// The request failed, and the connection ends.
    Error {
        /// How the term is serialised.
        flag: u8,
        /// Why.
        term: Bytes,
    },
}

/// What a peer did wrong. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Violation {
    /// In which request, if that is known.
    pub req_ref: Option<u64>,
    /// What.
    pub fault: Fault,
}

/// What can be wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is none that the protocol knows at this place.
    #[error("a message that is none of the protocol")]
    Malformed,
    /// It belongs to another connection or request, or comes out of its turn.
    #[error("a block of another connection or request, or out of its turn")]
    Reference,
    /// Its checksum is another one, or is missing.
    #[error("a block with a wrong checksum")]
    Checksum,
    /// All blocks together have more bytes than are taken.
    #[error("a message of more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

/// Puts the requests of one client together.
#[derive(Debug)]
pub struct Requests {
    peer: Bytes,
    checksums: bool,
    limit: usize,
    req_ref: Option<u64>,
    pieces: Pieces,
}

/// Puts the answer to one request together.
#[derive(Debug)]
pub struct Answers {
    peer: Bytes,
    checksums: bool,
    limit: usize,
    req_ref: u64,
    pieces: Pieces,
}

impl Requests {
    /// Of a client that announced this `conn_ref`; no argument is longer than `limit`.
    pub fn new(peer: Bytes, checksums: bool, limit: usize) -> Self {
        Self { peer, checksums, limit, req_ref: None, pieces: Pieces::default() }
    }

    /// Whether a request has begun to come.
    pub fn is_between(&self) -> bool {
        self.req_ref.is_some()
    }

    /// Takes a message. After a violation the connection is to be closed.
    pub fn take(&mut self, message: &Bytes) -> Result<Option<Request>, Violation> {
        let known = self.req_ref;
        let wrong = |req_ref, fault| Violation { req_ref, fault };
        let block = Block::read(message, self.checksums);
        let block = block.ok_or(wrong(known, Fault::Malformed))?;
        let Block { req_ref, conn_ref, part, intact } = block;
        // The request is known now; an answer can carry its number.
        let known = known.or(Some(req_ref));
        let request = match part {
            Part::Last { class: Class::Call | Class::Cast, .. }
            | Part::Other { class: Class::Call | Class::Cast, .. } => part,
            _ => return Err(wrong(self.req_ref, Fault::Malformed)),
        };
        if conn_ref != self.peer || known != Some(req_ref) {
            return Err(wrong(known, Fault::Reference));
        }
        if !intact {
            return Err(wrong(known, Fault::Checksum));
        }
        let fault = |fault| wrong(known, fault);
        match request {
            Part::Last { class, flag, function, content } => {
                let (content, blocks) = self.pieces.last(content, self.limit).map_err(fault)?;
                self.req_ref = None;
                let cast = class == Class::Cast;
                Ok(Some(Request { req_ref, cast, function, flag, content, blocks }))
            }
            Part::Other { seq, content, .. } => {
                self.pieces.other(seq, &content, self.limit).map_err(fault)?;
                self.req_ref = known;
                Ok(None)
            }
            Part::Acknowledgement | Part::Error { .. } => Err(fault(Fault::Malformed)),
        }
    }
}

impl Answers {
    /// To the request with this number, of a server that announced this `conn_ref`; no result is
    /// longer than `limit`.
    pub fn new(peer: Bytes, checksums: bool, limit: usize, req_ref: u64) -> Self {
        Self { peer, checksums, limit, req_ref, pieces: Pieces::default() }
    }

    /// The next request has this number.
    #[cfg(test)]
    pub(super) fn req_ref_for_tests(&mut self, req_ref: u64) {
        self.req_ref = req_ref;
    }

    /// Takes a message. After a violation, an error or an answer there is none.
    pub fn take(&mut self, message: &Bytes) -> Result<Option<Answer>, Violation> {
        let wrong = |fault| Violation { req_ref: Some(self.req_ref), fault };
        let block = Block::read(message, self.checksums).ok_or(wrong(Fault::Malformed))?;
        if block.conn_ref != self.peer || block.req_ref != self.req_ref {
            return Err(wrong(Fault::Reference));
        }
        if !block.intact {
            return Err(wrong(Fault::Checksum));
        }
        match block.part {
            // In the middle of a result it is said that it will not come.
            Part::Error { flag, term } => Ok(Some(Answer::Error { flag, term })),
            Part::Acknowledgement if self.pieces.next.is_none() => {
                Ok(Some(Answer::Acknowledgement))
            }
            Part::Last { class: Class::Result, flag, content, .. } => {
                let (content, blocks) = self.pieces.last(content, self.limit).map_err(wrong)?;
                Ok(Some(Answer::Result { flag, content, blocks }))
            }
            Part::Other { class: Class::Result, seq, content } => {
                self.pieces.other(seq, &content, self.limit).map_err(wrong)?;
                Ok(None)
            }
            _ => Err(wrong(Fault::Malformed)),
        }
    }
}

/// The end of a message, which grows towards its beginning.
#[derive(Debug, Default)]
struct Pieces {
    /// The bytes are at the end of it.
    room: Vec<u8>,
    /// Where they begin.
    begin: usize,
    /// The number of the block that must be next; 1: the last one.
    next: Option<u64>,
    blocks: u32,
}

/// More memory than twice of what came is taken for so much at most.
const AHEAD: usize = 256 * 1024;

impl Pieces {
    fn other(&mut self, seq: u64, content: &[u8], limit: usize) -> Result<(), Fault> {
        if seq < 2 || self.next.is_some_and(|next| next != seq) {
            return Err(Fault::Reference);
        }
        self.prepend(content, seq, limit)?;
        self.next = seq.checked_sub(1);
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    fn last(&mut self, content: Bytes, limit: usize) -> Result<(Bytes, u32), Fault> {
        match self.next.take() {
            None if content.len() > limit => Err(Fault::TooLong { limit }),
            None => Ok((content, 1)),
            Some(1) => {
                self.prepend(&content, 1, limit)?;
                let blocks = std::mem::take(&mut self.blocks).saturating_add(1);
                let mut whole = Bytes::from(std::mem::take(&mut self.room));
                let begin = std::mem::take(&mut self.begin).min(whole.len());
                Ok((whole.split_off(begin), blocks))
            }
            Some(_) => Err(Fault::Reference),
        }
    }

    fn prepend(&mut self, content: &[u8], left: u64, limit: usize) -> Result<(), Fault> {
        let have = self.room.len().saturating_sub(self.begin);
        let len = have.saturating_add(content.len());
        if len > limit {
            return Err(Fault::TooLong { limit });
        }
        if content.len() > self.begin {
            // As much as the blocks to come will have, if they are like this one and say so rightly.
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let expected =
                have.saturating_add(content.len().saturating_add(16).saturating_mul(left));
            let most = len.saturating_mul(2).max(AHEAD).min(limit);
            let mut room = vec![0; expected.min(most).max(len)];
            let begin = room.len().saturating_sub(have);
            let old = self.room.get(self.begin..).unwrap_or_default();
            if let Some(place) = room.get_mut(begin..) {
                place.copy_from_slice(old);
            }
            (self.room, self.begin) = (room, begin);
        }
        let begin = self.begin.saturating_sub(content.len());
        if let Some(place) = self.room.get_mut(begin..self.begin) {
            place.copy_from_slice(content);
        }
        self.begin = begin;
        Ok(())
    }
}
