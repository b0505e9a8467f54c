//! Requests and answers as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Class, TooSmall, checksum, command, count, split};

/// Writes what one side of one connection says. All blocks of a message are one buffer: where they are
/// written one by one, Nagle's algorithm holds the second one back for 40 ms.
#[derive(Debug, Clone)]
pub struct Writer {
    /// What we call the connection; at most 255 bytes.
    pub conn_ref: Bytes,
    /// The largest block.
    pub block_size: u64,
    /// Whether blocks get a checksum.
    pub checksums: bool,
}

/// Why something cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The name of the function or of the connection leaves no room in a block.
    #[error(transparent)]
    Blocks(#[from] TooSmall),
    /// Something is longer than a count on the wire can say.
    #[error("{what} of {len} bytes is longer than the protocol can say")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it is.
        len: usize,
    },
}

/// Bytes of a header up to the length of the content, without the names in it.
const REQUEST_1: u64 = 21;
const RESULT_1: u64 = 19;
const OTHER: u64 = 26;
/// Of an error, up to its term.
const ERROR: u64 = 11;

impl Writer {
    /// A request, and in how many blocks.
    pub fn request(
        &self,
        cast: bool,
        req_ref: u64,
        function: &str,
        flag: u8,
        content: &[u8],
    ) -> Result<(Bytes, u32), WriteError> {
        let class = if cast { Class::Cast } else { Class::Call };
        self.message(class, req_ref, function.as_bytes(), flag, content)
    }

    /// A result, and in how many blocks.
    pub fn result(
        &self,
        req_ref: u64,
        flag: u8,
        content: &[u8],
    ) -> Result<(Bytes, u32), WriteError> {
        self.message(Class::Result, req_ref, &[], flag, content)
    }

    /// Says that a cast is taken.
    pub fn acknowledgement(&self, req_ref: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        self.framed(&mut out, command::CAST_ACK, req_ref, |_| {});
        out.freeze()
    }

    /// Whether an error with a term of this length fits into a block; it is never cut.
    pub fn fits(&self, term: &[u8]) -> bool {
        let header = ERROR.saturating_add(count(&self.conn_ref));
        header.saturating_add(count(term)) <= self.block_size
    }

    /// Says why a request failed.
    pub fn error(&self, req_ref: u64, flag: u8, term: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(term.len().saturating_add(64));
        self.framed(&mut out, command::ERR, req_ref, |out| {
            out.put_u8(flag);
            out.put_slice(term);
        });
        out.freeze()
    }

    fn message(
        &self,
        class: Class,
        req_ref: u64,
        function: &[u8],
        flag: u8,
        content: &[u8],
    ) -> Result<(Bytes, u32), WriteError> {
        let too_long = |what, len| WriteError::TooLong { what, len };
        let name = u16::try_from(function.len()).map_err(|_| too_long("a name", function.len()))?;
        if content.len() > usize::try_from(u32::MAX / 2).unwrap_or(usize::MAX) {
            return Err(too_long("a message", content.len()));
        }
        let (one, other, first) = match class {
            Class::Call => (command::CALL_1, command::CALL_N, REQUEST_1),
            Class::Cast => (command::CAST_1, command::CAST_N, REQUEST_1),
            Class::Result => (command::RSP_1, command::RSP_N, RESULT_1),
        };
        let conn_ref = count(&self.conn_ref);
        let first = first.saturating_add(conn_ref).saturating_add(name.into());
        let later = OTHER.saturating_add(conn_ref);
        let pieces = split(content.len(), first, later, self.block_size)?;
        // Nothing is longer than a few hundred bytes, but for the content and the name.
        let around = pieces.count().saturating_mul(self.conn_ref.len().saturating_add(40));
        let around = around.saturating_add(function.len());
        let mut out = BytesMut::with_capacity(content.len().saturating_add(around));
        for (number, piece) in pieces.pieces() {
            let piece = content.get(piece).unwrap_or_default();
            if number > 1 {
                self.framed(&mut out, other, req_ref, |out| {
                    out.put_u64(u64::try_from(number).unwrap_or(u64::MAX));
                    out.put_u64(count(piece));
                    out.put_slice(piece);
                });
            } else {
                self.framed(&mut out, one, req_ref, |out| {
                    out.put_u8(flag);
                    if class != Class::Result {
                        out.put_u16(name);
                        out.put_slice(function);
                    }
                    out.put_u64(count(piece));
                    out.put_slice(piece);
                });
            }
        }
        let blocks = u32::try_from(pieces.count()).unwrap_or(u32::MAX);
        Ok((out.freeze(), blocks))
    }

    /// One block with its length, and the checksum that belongs to its kind.
    fn framed(
        &self,
        out: &mut BytesMut,
        command: u8,
        req_ref: u64,
        rest: impl FnOnce(&mut BytesMut),
    ) {
        let begin = out.len();
        out.put_u32(0);
        out.put_u8(command);
        out.put_u64(req_ref);
        out.put_u8(u8::try_from(self.conn_ref.len()).unwrap_or(u8::MAX));
        out.put_slice(self.conn_ref.get(..255).unwrap_or(&self.conn_ref));
        rest(out);
        let block = begin.saturating_add(4);
        if self.checksums && !matches!(command, command::CAST_ACK | command::ERR) {
            let sum = checksum(&[out.get(block..).unwrap_or_default()]).to_vec();
            if matches!(command, command::CALL_N | command::CAST_N | command::RSP_N) {
                out.put_u32(u32::try_from(sum.len()).unwrap_or(u32::MAX));
            }
            out.put_slice(&sum);
        }
        let len = u32::try_from(out.len().saturating_sub(block)).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(begin..).and_then(<[u8]>::first_chunk_mut) {
            *place = len.to_be_bytes();
        }
    }
}
