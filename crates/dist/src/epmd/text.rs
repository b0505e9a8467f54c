//! What the daemon answers in text. These replies end with the connection, so a client decodes
//! them after the daemon closed, having collected at most [`TEXT_MAX`] bytes.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

use super::{Error, TEXT_MAX};
use crate::name;
use crate::wire::Reader;

/// The answer to [`super::Request::Names`]: the port of the daemon and a line for each node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamesReply {
    /// The very port that the client dialled: a stock VM compares it, and reports
    /// `{error, address}` if it differs.
    pub port: u32,
    /// Names and their ports.
    pub nodes: Vec<(String, u16)>,
    /// Lines that are not of EPMD's form or whose name is not allowed here; never sent.
    pub ignored: usize,
}

/// The answer to [`super::Request::Dump`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpReply {
    /// The port of the daemon.
    pub port: u32,
    /// Registered nodes.
    pub active: Vec<DumpEntry>,
    /// Names that were registered before.
    pub old: Vec<DumpEntry>,
}

/// A line of [`DumpReply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpEntry {
    /// The part of the node name before the `@`.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// The descriptor that its lease has, or had, in the daemon.
    pub fd: i32,
}

/// The answer to [`super::Request::Kill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReply {
    /// The daemon ends.
    Ok,
    /// Nodes are registered, and the daemon was not started with relaxed checks.
    No,
}

/// The answer to [`super::Request::Stop`], which only a daemon with relaxed checks gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReply {
    /// The lease was dropped.
    Stopped,
    /// There is no such name.
    NoExist,
}

impl NamesReply {
    /// Decodes everything the daemon sent before it closed.
    ///
    /// Lines that are not `name N at port P`, or whose name [`crate::name`] does not allow, are
    /// counted, not believed.
    pub fn decode(whole: &[u8]) -> Result<Self, Error> {
        let (port, text) = port_and_text(whole, "NAMES reply")?;
        let mut reply = Self { port, ..Self::default() };
        for line in text.lines() {
            match names_line(line) {
                Some((name, port)) => reply.nodes.push((name.to_owned(), port)),
                None => reply.ignored = reply.ignored.saturating_add(1),
            }
        }
        Ok(reply)
    }

    /// Appends the reply. On error (a name that is not allowed) nothing is appended.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        let mut text = String::new();
        for (name, port) in &self.nodes {
            let name = name::node_part(name).map_err(Error::name("NAMES reply"))?;
            writeln!(text, "name {name} at port {port}").map_err(|_| Error::Text("NAMES reply"))?;
        }
        out.put_u32(self.port);
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

impl DumpReply {
    /// Decodes everything the daemon sent before it closed; strict, as it is for tests and tools.
    pub fn decode(whole: &[u8]) -> Result<Self, Error> {
        let (port, text) = port_and_text(whole, "DUMP reply")?;
        let mut reply = Self { port, ..Self::default() };
        for line in text.split_terminator('\0') {
            if let Some(entry) = dump_line(line, "active name     <", "> at port ") {
                reply.active.push(entry);
            } else if let Some(entry) = dump_line(line, "old/unused name <", ">, port = ") {
                reply.old.push(entry);
            } else {
                return Err(Error::Text("DUMP reply"));
            }
        }
        Ok(reply)
    }

    /// Appends the reply. On error (a name that is not allowed) nothing is appended.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        let mut text = String::new();
        for DumpEntry { name, port, fd } in &self.active {
            let name = name::node_part(name).map_err(Error::name("DUMP reply"))?;
            write!(text, "active name     <{name}> at port {port}, fd = {fd}\n\0")
                .map_err(|_| Error::Text("DUMP reply"))?;
        }
        for DumpEntry { name, port, fd } in &self.old {
            let name = name::node_part(name).map_err(Error::name("DUMP reply"))?;
            write!(text, "old/unused name <{name}>, port = {port}, fd = {fd} \n\0")
                .map_err(|_| Error::Text("DUMP reply"))?;
        }
        out.put_u32(self.port);
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

impl KillReply {
    /// Decodes the two letters; `None` if more bytes are needed.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        match buffer {
            [b'O', b'K', ..] => Ok(Some((Self::Ok, 2))),
            [b'N', b'O', ..] => Ok(Some((Self::No, 2))),
            [] | [b'O' | b'N'] => Ok(None),
            _ => Err(Error::Text("KILL reply")),
        }
    }

    /// Appends the two letters.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_slice(match self {
            Self::Ok => b"OK",
            Self::No => b"NO",
        });
    }
}

impl StopReply {
    /// Decodes everything the daemon sent before it closed.
    pub fn decode(whole: &[u8]) -> Result<Self, Error> {
        match whole {
            b"STOPPED" => Ok(Self::Stopped),
            // The daemon sends its second word in this case, too.
            b"NOEXIST" | b"NOEXISTSTOPPED" => Ok(Self::NoExist),
            _ => Err(Error::Text("STOP reply")),
        }
    }

    /// Appends the reply as the daemon words it.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_slice(match self {
            Self::Stopped => b"STOPPED".as_slice(),
            Self::NoExist => b"NOEXISTSTOPPED",
        });
    }
}

fn port_and_text<'a>(whole: &'a [u8], message: &'static str) -> Result<(u32, &'a str), Error> {
    if whole.len() > TEXT_MAX {
        return Err(Error::Text(message));
    }
    let mut reader = Reader::new(whole);
    let port = reader.u32().ok_or(Error::Truncated(message))?;
    let text = std::str::from_utf8(reader.rest()).map_err(|_| Error::Text(message))?;
    Ok((port, text))
}

fn names_line(line: &str) -> Option<(&str, u16)> {
    let (name, port) = line.strip_prefix("name ")?.split_once(" at port ")?;
    Some((name::node_part(name).ok()?, port.parse().ok()?))
}

fn dump_line(line: &str, before: &str, between: &str) -> Option<DumpEntry> {
    let (name, rest) = line.strip_prefix(before)?.split_once(between)?;
    let (port, fd) = rest.split_once(", fd = ")?;
    Some(DumpEntry {
        name: name::node_part(name).ok()?.to_owned(),
        port: port.parse().ok()?,
        fd: fd.trim_end_matches([' ', '\n']).parse().ok()?,
    })
}
