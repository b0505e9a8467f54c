//! What a client asks.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::front_door::Lookup;
use super::{EXTRA_MAX, Error, PROTOCOL_TCP, REQUEST_MAX, VERSION_5, VERSION_6};
use crate::name;
use crate::wire::Reader;

const ALIVE2_REQ: u8 = 120;
const PORT_PLEASE2_REQ: u8 = 122;
const NAMES_REQ: u8 = 110;
const DUMP_REQ: u8 = 100;
const KILL_REQ: u8 = 107;
const STOP_REQ: u8 = 115;

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `ALIVE2_REQ`: register a node. The connection stays open as the lease.
    Alive(Alive),
    /// `PORT_PLEASE2_REQ`: which port has this node?
    PortPlease {
        /// To a real daemon the part before the `@`; to our front door a full name, perhaps with an
        /// address family. Always one of the forms that [`Lookup::parse`] takes; whether a form is
        /// welcome is for the receiver to say.
        name: String,
    },
    /// `NAMES_REQ`: all names and ports.
    Names,
    /// `DUMP_REQ`: as NAMES, with old names; for debugging.
    Dump,
    /// `KILL_REQ`: end the daemon.
    Kill,
    /// `STOP_REQ`: drop somebody else's registration.
    Stop {
        /// The part before the `@`.
        name: String,
    },
}

/// A registration: what `ALIVE2_REQ` says and `PORT2_RESP` repeats.
///
/// Type, protocol, versions and extra are the node's own words; a daemon echoes them untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// The node's distribution port. 0 is accepted by a real daemon, too.
    pub port: u16,
    /// Visible or hidden.
    pub node_type: NodeType,
    /// [`PROTOCOL_TCP`].
    pub protocol: u8,
    /// Highest distribution version the node speaks.
    pub highest: u16,
    /// Lowest distribution version the node speaks.
    pub lowest: u16,
    /// The part of the node name before the `@`.
    pub name: String,
    /// Free bytes, empty from a stock VM, at most [`EXTRA_MAX`]. Our own use: [`super::front_door`].
    pub extra: Vec<u8>,
}

/// A node's type as one byte; unknown ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeType(pub u8);

impl Request {
    /// Decodes the request at the start of `buffer`: the request and the bytes it took, or `None` if
    /// more are needed. A caller never needs to hold more than [`REQUEST_MAX`] bytes.
    ///
    /// After an error the connection is of no more use; a real daemon closes it without a word.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let mut reader = Reader::new(buffer);
        let Some(length) = reader.u16().map(usize::from) else { return Ok(None) };
        if length == 0 {
            return Err(Error::Empty);
        }
        let whole = length.saturating_add(2);
        if whole > REQUEST_MAX {
            return Err(Error::TooLong { len: whole });
        }
        let Some(body) = reader.take(length) else { return Ok(None) };
        Self::decode_body(body).map(|request| Some((request, whole)))
    }

    /// Appends the request with its length prefix. On error nothing is appended.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        let mut body = BytesMut::new();
        match self {
            Self::Alive(alive) => {
                body.put_u8(ALIVE2_REQ);
                alive.put("ALIVE2_REQ", &mut body)?;
            }
            Self::PortPlease { name } => {
                Lookup::parse(name).map_err(Error::name("PORT_PLEASE2_REQ"))?;
                body.put_u8(PORT_PLEASE2_REQ);
                body.put_slice(name.as_bytes());
            }
            Self::Names => body.put_u8(NAMES_REQ),
            Self::Dump => body.put_u8(DUMP_REQ),
            Self::Kill => body.put_u8(KILL_REQ),
            Self::Stop { name } => {
                name::node_part(name).map_err(Error::name("STOP_REQ"))?;
                body.put_u8(STOP_REQ);
                body.put_slice(name.as_bytes());
            }
        }
        let length = u16::try_from(body.len()).map_err(|_| Error::TooLong { len: body.len() })?;
        out.put_u16(length);
        out.unsplit(body);
        Ok(())
    }

    fn decode_body(body: &[u8]) -> Result<Self, Error> {
        let (&code, rest) = body.split_first().ok_or(Error::Empty)?;
        match code {
            ALIVE2_REQ => {
                let mut reader = Reader::new(rest);
                let alive = Alive::take("ALIVE2_REQ", &mut reader)?
                    .ok_or(Error::Truncated("ALIVE2_REQ"))?;
                end(reader.rest(), "ALIVE2_REQ")?;
                Ok(Self::Alive(alive))
            }
            PORT_PLEASE2_REQ => {
                // One trailing NUL is tolerated, as the daemon does.
                let name = rest.strip_suffix(&[0]).unwrap_or(rest);
                let checked = name::utf8(name).and_then(|name| Lookup::parse(name).map(|_| name));
                let name = checked.map_err(Error::name("PORT_PLEASE2_REQ"))?;
                Ok(Self::PortPlease { name: name.to_owned() })
            }
            NAMES_REQ => end(rest, "NAMES_REQ").map(|()| Self::Names),
            DUMP_REQ => end(rest, "DUMP_REQ").map(|()| Self::Dump),
            KILL_REQ => end(rest, "KILL_REQ").map(|()| Self::Kill),
            STOP_REQ => {
                let name = name::utf8(rest).and_then(name::node_part);
                let name = name.map_err(Error::name("STOP_REQ"))?;
                Ok(Self::Stop { name: name.to_owned() })
            }
            code => Err(Error::Code { code, expected: "an EPMD request" }),
        }
    }
}

impl Alive {
    /// The registration of a visible node of OTP 23 or later, as a stock VM sends it.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self {
            port,
            node_type: NodeType::NORMAL,
            protocol: PROTOCOL_TCP,
            highest: VERSION_6,
            lowest: VERSION_5,
            name: name.into(),
            extra: Vec::new(),
        }
    }

    /// Whether the reply must carry a creation of 32 bits (`ALIVE2_X_RESP`).
    pub fn wants_long_creation(&self) -> bool {
        self.highest >= VERSION_6
    }

    // The fields are the same in ALIVE2_REQ and PORT2_RESP. `None`: more bytes are needed.
    pub(super) fn take(
        message: &'static str,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Self>, Error> {
        let Some([p0, p1, node_type, protocol, h0, h1, l0, l1]) = reader.array() else {
            return Ok(None);
        };
        let Some(name) = reader.counted() else { return Ok(None) };
        let name = name::utf8(name).and_then(name::node_part).map_err(Error::name(message))?;
        let Some(extra) = reader.counted() else { return Ok(None) };
        if extra.len() > EXTRA_MAX {
            return Err(Error::ExtraTooLong { message, len: extra.len() });
        }
        Ok(Some(Self {
            port: u16::from_be_bytes([p0, p1]),
            node_type: NodeType(node_type),
            protocol,
            highest: u16::from_be_bytes([h0, h1]),
            lowest: u16::from_be_bytes([l0, l1]),
            name: name.to_owned(),
            extra: extra.to_vec(),
        }))
    }

    pub(super) fn put(&self, message: &'static str, out: &mut BytesMut) -> Result<(), Error> {
        let name = name::node_part(&self.name).map_err(Error::name(message))?;
        let too_long = || Error::ExtraTooLong { message, len: self.extra.len() };
        if self.extra.len() > EXTRA_MAX {
            return Err(too_long());
        }
        let name_length = u16::try_from(name.len())
            .map_err(|_| Error::name(message)(name::Error::TooLong { len: name.len() }))?;
        let extra_length = u16::try_from(self.extra.len()).map_err(|_| too_long())?;
        out.put_u16(self.port);
        out.put_u8(self.node_type.0);
        out.put_u8(self.protocol);
        out.put_u16(self.highest);
        out.put_u16(self.lowest);
        out.put_u16(name_length);
        out.put_slice(name.as_bytes());
        out.put_u16(extra_length);
        out.put_slice(&self.extra);
        Ok(())
    }
}

impl NodeType {
    /// A hidden node (C nodes, `-hidden`).
    pub const HIDDEN: Self = Self(72);
    /// A visible node.
    pub const NORMAL: Self = Self(77);
}

impl fmt::Display for NodeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NORMAL => f.write_str("normal"),
            Self::HIDDEN => f.write_str("hidden"),
            Self(other) => write!(f, "type {other}"),
        }
    }
}

fn end(rest: &[u8], message: &'static str) -> Result<(), Error> {
    if rest.is_empty() { Ok(()) } else { Err(Error::Trailing(message)) }
}
