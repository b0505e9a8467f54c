//! One message after the handshake.

use bytes::Bytes;

use super::{Fields, checksum, command, count};

/// One message after the handshake, of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The number of the request that it belongs to.
    pub req_ref: u64,
    /// What its sender calls the connection.
    pub conn_ref: Bytes,
    /// The rest of it.
    pub part: Part,
    /// Whether it ends in its own checksum; of what has no checksum: `true`.
    pub intact: bool,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The only block of a request or a result, or the last one on the wire, which has the beginning
    /// of the bytes.
    Last {
        /// Of what.
        class: Class,
        /// How the whole is serialised: 0 = raw, anything else = a term.
        flag: u8,
        /// Which function; empty in a result.
        function: Bytes,
        /// The bytes.
        content: Bytes,
    },
    /// Another block.
    Other {
        /// Of what.
        class: Class,
        /// Its number; the next one has the number below.
        seq: u64,
        /// The bytes.
        content: Bytes,
    },
    /// A cast is taken.
    Acknowledgement,
    /// The request failed.
    Error {
        /// How the term is serialised.
        flag: u8,
        /// Why.
        term: Bytes,
    },
}

/// What a block is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A request that wants a result.
    Call,
    /// A request that does not.
    Cast,
    /// A result.
    Result,
}

impl Block {
    /// Reads a message; `checked`: whether its checksum is looked at. `None`: it is none.
    pub fn read(message: &Bytes, checked: bool) -> Option<Self> {
        let mut rest = message.clone();
        let command = rest.byte()?;
        let req_ref = rest.number()?;
        let conn_ref = rest.byte()?;
        let conn_ref = rest.bytes(conn_ref.into())?;
        let (class, last) = match command {
            command::CALL_1 => (Class::Call, true),
            command::CALL_N => (Class::Call, false),
            command::CAST_1 => (Class::Cast, true),
            command::CAST_N => (Class::Cast, false),
            command::RSP_1 => (Class::Result, true),
            command::RSP_N => (Class::Result, false),
            command::CAST_ACK => {
                let part = Part::Acknowledgement;
                return rest.is_empty().then_some(Self { req_ref, conn_ref, part, intact: true });
            }
            command::ERR => {
                let part = Part::Error { flag: rest.byte()?, term: rest };
                return Some(Self { req_ref, conn_ref, part, intact: true });
            }
            _ => return None,
        };
        let mut intact = true;
        let part = if last {
            let flag = rest.byte()?;
            let function = if class == Class::Result { Bytes::new() } else { name(&mut rest)? };
            let content = counted(&mut rest)?;
            // Without checksums, what is behind is nobody's business.
            if checked {
                intact = matches(message, rest.len(), &rest);
            }
            Part::Last { class, flag, function, content }
        } else {
            let seq = rest.number()?;
            let content = counted(&mut rest)?;
            let behind = rest.len();
            let mut sum = rest.clone();
            if !rest.is_empty() {
                // The length of the checksum is right, or this is no block.
                let len = sum.bytes(4)?;
                let len = u32::from_be_bytes(*len.first_chunk()?);
                if u64::from(len) != count(&sum) {
                    return None;
                }
            }
            if checked {
                intact = matches(message, behind, &sum);
            }
            Part::Other { class, seq, content }
        };
        Some(Self { req_ref, conn_ref, part, intact })
    }
}

/// Whether this is the checksum of the message without the bytes behind.
fn matches(message: &[u8], behind: usize, sum: &[u8]) -> bool {
    let covered = message.get(..message.len().saturating_sub(behind)).unwrap_or_default();
    checksum(&[covered]).to_vec() == sum
}

fn name(rest: &mut Bytes) -> Option<Bytes> {
    let len = u16::from_be_bytes([rest.byte()?, rest.byte()?]);
    rest.bytes(len.into())
}

fn counted(rest: &mut Bytes) -> Option<Bytes> {
    let len = rest.number()?;
    rest.bytes(len)
}
