//! §2, §6, §8: frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::checksum::Checksum;
use super::hello::field;
use super::{EXTENSIONS_MAX, FAIL_MAX, METADATA_MAX, REASON_MAX};
use crate::context::Metadata;
use crate::{Body, Codec, Error, Executed, Kind, NAME_MAX};

/// The header, with the length.
pub(crate) const HEAD: usize = 12;
const LEN: usize = 4;
/// A frame of this length is a block of a large message, which is not kept as it is.
const LARGE: usize = 64 * 1024;
/// What of an OPEN comes before the name, at most, and a name (§2.2: 16 bytes and the name is among the
/// extensions' bound).
const FIXED_MAX: usize = 16 + NAME_MAX;

/// §2.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Type {
    Hello = 1,
    Auth = 2,
    Open = 16,
    Data = 17,
    Reply = 18,
    Fail = 19,
    Ack = 20,
    Cancel = 21,
    Credit = 22,
    Ping = 32,
    Pong = 33,
    Goaway = 34,
}

/// §2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(crate) u8);

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Type,
    pub(crate) flags: Flags,
    pub(crate) stream: u32,
}

/// What a peer said. Blocks share the memory that they were read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello(Bytes),
    Auth(Bytes),
    Open(Open),
    Data {
        stream: u32,
        flags: Flags,
        block: Block,
    },
    Reply {
        stream: u32,
        flags: Flags,
        codec: u8,
        block: Block,
    },
    /// On stream 0 it is about the connection.
    Fail {
        stream: u32,
        error: Error,
    },
    Ack {
        stream: u32,
    },
    Cancel {
        stream: u32,
    },
    Credit {
        stream: u32,
        bytes: u32,
    },
    Ping([u8; 8]),
    Pong([u8; 8]),
    Goaway {
        grace: u32,
        reason: String,
    },
    /// §2.4.
    Unknown,
}

/// A call that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) stream: u32,
    pub(crate) flags: Flags,
    /// µs; 0 for none.
    pub(crate) timeout: u64,
    pub(crate) codec: u8,
    pub(crate) name: Bytes,
    pub(crate) block: Block,
    pub(crate) extensions: Bytes,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// How long the whole message is, on a first block that says so.
    pub(crate) total: Option<u64>,
    pub(crate) bytes: Bytes,
}

/// §6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) attempt: Option<u8>,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {len} bytes; the limit is {limit}")]
    Long { len: usize, limit: usize },
    #[error("a compressed message; no compression was agreed on")]
    Zip,
    #[error("a frame is too short for what it is")]
    Short,
    #[error("a frame of the unknown type {0}")]
    Type(u8),
    #[error("a frame of the type {kind:?} has the flags {flags:#x}")]
    Flags { kind: Type, flags: u8 },
    #[error("a frame of the type {0:?} on a stream on which there is none")]
    Stream(Type),
    #[error("the extensions of a frame are not as they should be")]
    Extensions,
    #[error("a text is no UTF-8")]
    Text,
    /// §3.5.
    #[error("the checksum of a frame does not match")]
    Checksum,
}

impl Frame {
    /// What it is; nothing of what it says.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::Auth(_) => "AUTH",
            Self::Open(_) => "OPEN",
            Self::Data { .. } => "DATA",
            Self::Reply { .. } => "REPLY",
            Self::Fail { .. } => "FAIL",
            Self::Ack { .. } => "ACK",
            Self::Cancel { .. } => "CANCEL",
            Self::Credit { .. } => "CREDIT",
            Self::Ping(_) => "PING",
            Self::Pong(_) => "PONG",
            Self::Goaway { .. } => "GOAWAY",
            Self::Unknown => "a frame of a later version",
        }
    }
}

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const END: Self = Self(1);
    pub(crate) const MORE: Self = Self(2);
    pub(crate) const LONG: Self = Self(4);
    pub(crate) const CAST: Self = Self(8);
    pub(crate) const QUIET: Self = Self(16);
    pub(crate) const ZIP: Self = Self(32);
    pub(crate) const EXCHANGE: Self = Self(64);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }
}

impl Type {
    fn of(number: u8) -> Option<Self> {
        const ALL: [Type; 12] = [
            Type::Hello,
            Type::Auth,
            Type::Open,
            Type::Data,
            Type::Reply,
            Type::Fail,
            Type::Ack,
            Type::Cancel,
            Type::Credit,
            Type::Ping,
            Type::Pong,
            Type::Goaway,
        ];
        ALL.into_iter().find(|kind| kind.number() == number)
    }

    #[expect(clippy::as_conversions, reason = "the number is what the enum is made of")]
    const fn number(self) -> u8 {
        self as u8
    }

    /// Which flags it may have.
    const fn flags(self) -> Flags {
        let block = Flags(1 | 2 | 4);
        match self {
            Self::Open => block.and(Flags(8 | 16 | 32 | 64)),
            Self::Reply => block.and(Flags::ZIP),
            // What is compressed says so with what it begins with, and exchanges are not.
            Self::Data => block,
            _ => Flags::NONE,
        }
    }
}

impl Head {
    /// The frame itself, in front of `payload` and `block` bytes that follow.
    pub(crate) fn write(
        self,
        out: &mut BytesMut,
        checksum: &Checksum,
        extensions: &[u8],
        payload: &[u8],
        block: usize,
    ) {
        let body = HEAD.saturating_sub(LEN).saturating_add(extensions.len());
        let body = body.saturating_add(payload.len()).saturating_add(block);
        let len = body.saturating_add(checksum.size());
        out.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
        out.put_u8(self.kind.number());
        out.put_u8(self.flags.0);
        out.put_u16_le(u16::try_from(extensions.len()).unwrap_or(u16::MAX));
        out.put_u32_le(self.stream);
        out.put_slice(extensions);
        out.put_slice(payload);
    }

    /// A whole frame.
    pub(crate) fn whole(
        self,
        out: &mut BytesMut,
        checksum: &Checksum,
        extensions: &[u8],
        payload: &[u8],
        block: &[u8],
    ) {
        let at = out.len();
        self.write(out, checksum, extensions, payload, block.len());
        out.put_slice(block);
        let trailer = checksum.of(out.get(at..).unwrap_or_default(), &[]);
        out.put_slice(trailer.as_ref());
    }
}

/// Cuts the bytes of a peer into frames.
#[derive(Debug)]
pub(crate) struct Frames {
    checksum: Checksum,
    limit: usize,
    zip: bool,
    /// Smaller frames than blocks are copied: they do not hold the memory that they came in.
    pub(crate) apart: bool,
}

impl Frames {
    /// With blocks of up to `max_block` bytes.
    pub(crate) fn new(checksum: Checksum, max_block: usize) -> Self {
        // §2.2; a FAIL may be longer than a small block.
        let payload = max_block.max(FAIL_MAX).max(super::HELLO_MAX);
        let limit = HEAD.saturating_sub(LEN).saturating_add(EXTENSIONS_MAX);
        let limit = limit.saturating_add(FIXED_MAX).saturating_add(payload);
        let limit = limit.saturating_add(checksum.size());
        Self { checksum, limit, zip: false, apart: false }
    }

    /// Takes compressed messages, if that was agreed on (§4.6).
    pub(crate) fn zipped(self, zip: bool) -> Self {
        Self { zip, ..self }
    }

    /// How many bytes the first frame still lacks, if its length is there.
    pub(crate) fn missing(&self, bytes: &[u8]) -> Option<usize> {
        let len = bytes.first_chunk::<LEN>().map(|len| u32::from_le_bytes(*len))?;
        let len = usize::try_from(len).ok()?.min(self.limit).saturating_add(LEN);
        len.checked_sub(bytes.len()).filter(|&missing| missing > 0)
    }

    /// The next frame, if all of it is there.
    pub(crate) fn next(&self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(len) = bytes.first_chunk::<LEN>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        if len > self.limit {
            return Err(FrameError::Long { len, limit: self.limit });
        }
        if len < HEAD.saturating_sub(LEN).saturating_add(self.checksum.size()) {
            return Err(FrameError::Short);
        }
        let whole = len.saturating_add(LEN);
        if bytes.len() < whole {
            return Ok(None);
        }
        let mut frame = if self.apart && whole < LARGE {
            let frame = Bytes::copy_from_slice(bytes.get(..whole).unwrap_or_default());
            bytes.advance(whole);
            frame
        } else {
            bytes.split_to(whole).freeze()
        };
        let body = self.checksum.check(&frame).ok_or(FrameError::Checksum)?;
        frame.truncate(body);
        parse(frame, self.zip).map(Some)
    }
}

fn parse(mut frame: Bytes, zip: bool) -> Result<Frame, FrameError> {
    let Some(&[_, _, _, _, kind, flags, e0, e1, s0, s1, s2, s3]) = frame.first_chunk::<HEAD>()
    else {
        return Err(FrameError::Short);
    };
    let Some(kind) = Type::of(kind) else {
        return if kind < 128 { Err(FrameError::Type(kind)) } else { Ok(Frame::Unknown) };
    };
    if !kind.flags().has(Flags(flags)) {
        return Err(FrameError::Flags { kind, flags });
    }
    let flags = Flags(flags);
    if flags.has(Flags::ZIP) && !zip {
        return Err(FrameError::Zip);
    }
    let stream = u32::from_le_bytes([s0, s1, s2, s3]);
    frame.advance(HEAD);
    let ext = usize::from(u16::from_le_bytes([e0, e1]));
    if ext > EXTENSIONS_MAX || ext > frame.len() {
        return Err(FrameError::Extensions);
    }
    let extensions = frame.split_to(ext);
    let on_a_stream = match kind {
        Type::Open | Type::Data | Type::Reply | Type::Ack | Type::Cancel | Type::Credit => {
            Some(true)
        }
        Type::Fail => None,
        _ => Some(false),
    };
    if on_a_stream.is_some_and(|on| on == (stream == 0)) {
        return Err(FrameError::Stream(kind));
    }
    let eight = |frame: &[u8]| frame.try_into().map_err(|_| FrameError::Short);
    Ok(match kind {
        Type::Hello => Frame::Hello(frame),
        Type::Auth => Frame::Auth(frame),
        Type::Open => {
            let timeout = frame.try_get_u64_le().map_err(|_| FrameError::Short)?;
            let codec = frame.try_get_u8().map_err(|_| FrameError::Short)?;
            let name = usize::from(frame.try_get_u8().map_err(|_| FrameError::Short)?);
            if frame.len() < name {
                return Err(FrameError::Short);
            }
            let name = frame.split_to(name);
            let block = block(kind, flags, frame)?;
            Frame::Open(Open { stream, flags, timeout, codec, name, block, extensions })
        }
        Type::Data => Frame::Data { stream, flags, block: block(kind, flags, frame)? },
        Type::Reply => {
            let codec = frame.try_get_u8().map_err(|_| FrameError::Short)?;
            Frame::Reply { stream, flags, codec, block: block(kind, flags, frame)? }
        }
        Type::Fail => Frame::Fail { stream, error: fail(frame)? },
        Type::Ack => Frame::Ack { stream },
        Type::Cancel => Frame::Cancel { stream },
        Type::Credit => {
            Frame::Credit { stream, bytes: frame.try_get_u32_le().map_err(|_| FrameError::Short)? }
        }
        Type::Ping => Frame::Ping(eight(&frame)?),
        Type::Pong => Frame::Pong(eight(&frame)?),
        Type::Goaway => {
            let grace = frame.try_get_u32_le().map_err(|_| FrameError::Short)?;
            Frame::Goaway { grace, reason: text(&frame)? }
        }
    })
}

fn block(kind: Type, flags: Flags, mut bytes: Bytes) -> Result<Block, FrameError> {
    let wrong = FrameError::Flags { kind, flags: flags.0 };
    // More of a message cannot follow what was the end.
    if flags.has(Flags::MORE) && flags.has(Flags::END) {
        return Err(wrong);
    }
    let total = match flags.has(Flags::LONG) {
        true => Some(bytes.try_get_u64_le().map_err(|_| FrameError::Short)?),
        false => None,
    };
    Ok(Block { total, bytes })
}

/// §8.1.
fn fail(mut frame: Bytes) -> Result<Error, FrameError> {
    let short = |_| FrameError::Short;
    let kind = frame.try_get_u8().map_err(short)?;
    let executed = Executed::from_number(frame.try_get_u8().map_err(short)?);
    let retry_after = frame.try_get_u32_le().map_err(short)?;
    let codec = Codec::from_number(frame.try_get_u8().map_err(short)?);
    let value = usize::try_from(frame.try_get_u32_le().map_err(short)?).unwrap_or(usize::MAX);
    if value > frame.len() {
        return Err(FrameError::Short);
    }
    let value = frame.split_to(value);
    let reason = text(frame.get(..frame.len().min(REASON_MAX)).unwrap_or_default())?;
    let error = Error::new(Kind::from_number(kind).unwrap_or(Kind::Protocol), executed, reason);
    let error = match codec {
        Some(codec) if !value.is_empty() => error.with_value(Body { codec, bytes: value }),
        _ => error,
    };
    Ok(match retry_after {
        0 => error,
        ms => error.retry_after(std::time::Duration::from_millis(ms.into())),
    })
}

/// The payload of a FAIL (§8.1).
pub(crate) fn fail_payload(error: &Error) -> BytesMut {
    const FIXED: usize = 11;
    let reason = error.reason();
    let reason = reason.get(..reason.floor_char_boundary(REASON_MAX)).unwrap_or_default();
    let room = FAIL_MAX.saturating_sub(FIXED).saturating_sub(reason.len());
    let value = error.value().filter(|value| value.bytes.len() <= room);
    let pause =
        error.pause().map_or(0, |pause| u32::try_from(pause.as_millis()).unwrap_or(u32::MAX));
    let mut out = BytesMut::with_capacity(FIXED.saturating_add(reason.len()));
    out.put_u8(error.kind().number());
    out.put_u8(error.executed().number());
    out.put_u32_le(pause);
    out.put_u8(value.map_or(0, |value| value.codec.number()));
    let bytes = value.map_or(&[][..], |value| &value.bytes);
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(0));
    out.put_slice(bytes);
    out.put_slice(reason.as_bytes());
    out
}

impl Extensions {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As they are in a frame; `None` if they are too many or too long (§2.2, §6.1).
    pub(crate) fn encode(&self) -> Option<BytesMut> {
        let mut out = BytesMut::new();
        let mut field = |tag: u8, parts: &[&[u8]]| {
            let len = parts.iter().map(|part| part.len()).sum::<usize>();
            out.put_u8(tag);
            out.put_u16_le(u16::try_from(len).ok()?);
            for part in parts {
                out.put_slice(part);
            }
            Some(())
        };
        if let Some(text) = &self.traceparent {
            field(1, &[text.as_bytes()])?;
        }
        if let Some(text) = &self.tracestate {
            field(2, &[text.as_bytes()])?;
        }
        if self.metadata.len() > METADATA_MAX {
            return None;
        }
        for (name, value) in &self.metadata {
            let len = u8::try_from(name.len()).ok()?;
            field(3, &[&[len], name.as_bytes(), value.as_bytes()])?;
        }
        if let Some(attempt) = self.attempt {
            field(4, &[&[attempt]])?;
        }
        (out.len() <= EXTENSIONS_MAX).then_some(out)
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, FrameError> {
        let mut all = Self::default();
        while !bytes.is_empty() {
            let (tag, value) = field(&mut bytes).ok_or(FrameError::Extensions)?;
            match (tag, value) {
                (1, _) => _ = all.traceparent.get_or_insert(text(value)?),
                (2, _) => _ = all.tracestate.get_or_insert(text(value)?),
                (3, [len, rest @ ..]) if all.metadata.len() < METADATA_MAX => {
                    let split = rest.split_at_checked(usize::from(*len));
                    let (name, value) = split.ok_or(FrameError::Extensions)?;
                    all.metadata.push((text(name)?, text(value)?));
                }
                (3, _) => return Err(FrameError::Extensions),
                (4, [attempt]) => _ = all.attempt.get_or_insert(*attempt),
                _ => {}
            }
        }
        Ok(all)
    }
}

fn text(bytes: &[u8]) -> Result<String, FrameError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::Text)
}
