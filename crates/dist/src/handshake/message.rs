//! The messages, one type each.

use bytes::{BufMut, BytesMut};

use super::{Digest, Error, Flags, Framing};
use crate::name;
use crate::wire::Reader;

const OLD_VERSION: u16 = 5;

/// Which layout a name or challenge has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// Tag `N`: flags of 64 bits, a creation. OTP 23 and later.
    #[default]
    New,
    /// Tag `n`: version 5, flags of 32 bits, no creation. To be accepted, not to be sent: OTP 25.0 to
    /// 25.2 close the connection.
    Old,
}

/// `send_name`, the hello: the initiator's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendName {
    /// The layout; [`Form::Old`] carries the low 32 flags and no creation.
    pub form: Form,
    /// What the initiator can do; with [`Flags::NAME_ME`] it asks for a name.
    pub flags: Flags,
    /// Which run of the node this is; 0 in the old form and with [`Flags::NAME_ME`].
    pub creation: u32,
    /// The full node name, or with [`Flags::NAME_ME`] only its host part.
    pub name: String,
}

/// `send_status`: the acceptor's first answer, and the initiator's answer to `alive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Go on.
    Ok,
    /// Go on; the acceptor gives up its own attempt in the other direction.
    OkSimultaneous,
    /// The acceptor's own attempt in the other direction goes on instead.
    Nok,
    /// The acceptor's allow list, or mandatory flags that the initiator lacks.
    NotAllowed,
    /// The acceptor believes that it has a connection to this node; it waits for
    /// [`Status::AliveAnswer`].
    Alive,
    /// Go on under this name; the answer to [`Flags::NAME_ME`].
    Named {
        /// The full node name that the acceptor chose.
        name: String,
        /// The creation that goes with it.
        creation: u32,
    },
    /// From the initiator, after `alive`: `true` to go on, `false` to give up.
    AliveAnswer(bool),
}

/// `send_challenge`: the acceptor says who it is and asks for a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The layout; [`Form::Old`] carries the low 32 flags and no creation.
    pub form: Form,
    /// What the acceptor can do.
    pub flags: Flags,
    /// The number to prove the cookie with.
    pub challenge: u32,
    /// Which run of the node this is; 0 in the old form.
    pub creation: u32,
    /// The acceptor's full node name, which the initiator compares with the one it wanted.
    pub name: String,
}

/// `send_complement`: what the old form of [`SendName`] could not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complement {
    /// Flags 32 to 63 in their own places.
    pub flags: Flags,
    /// The initiator's creation.
    pub creation: u32,
}

/// `send_challenge_reply`: the initiator proves its cookie and asks for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeReply {
    /// The number that the acceptor must prove its cookie with.
    pub challenge: u32,
    /// The digest of the cookie and the acceptor's number.
    pub digest: Digest,
}

/// `send_challenge_ack`: the acceptor proves its cookie; the connection is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeAck {
    /// The digest of the cookie and the initiator's number.
    pub digest: Digest,
}

// Every type has the same two functions. `decode` takes the body of a frame, as `Framing::split`
// gives it; `encode` appends a whole frame, or on error nothing.

impl SendName {
    const NAME: &str = "name message";

    /// Decodes the body of a frame.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let (form, mut reader) = form(body, Self::NAME)?;
        let short = || Error::Truncated(Self::NAME);
        let (flags, creation, name) = match form {
            Form::New => {
                let flags = Flags::from_bits(reader.u64().ok_or_else(short)?);
                let creation = reader.u32().ok_or_else(short)?;
                (flags, creation, reader.counted().ok_or_else(short)?)
            }
            Form::Old => {
                let flags = Flags::from_bits(reader.u32().ok_or_else(short)?.into());
                (flags, 0, reader.rest())
            }
        };
        let name = name::utf8(name).map_err(Error::name(Self::NAME))?;
        check_own_name(form, flags, name)?;
        Ok(Self { form, flags, creation, name: name.to_owned() })
    }

    /// Appends the message as one frame.
    pub fn encode(&self, framing: Framing, out: &mut BytesMut) -> Result<(), Error> {
        check_own_name(self.form, self.flags, &self.name)?;
        let mut body = BytesMut::new();
        put_form(self.form, &mut body);
        match self.form {
            Form::New => {
                body.put_u64(self.flags.bits());
                body.put_u32(self.creation);
                put_counted(&self.name, Self::NAME, &mut body)?;
            }
            Form::Old => {
                body.put_u32(low(self.flags));
                body.put_slice(self.name.as_bytes());
            }
        }
        framing.join(&body, out)
    }

    /// Whether the initiator asks for a name ([`Flags::NAME_ME`]).
    pub fn is_dynamic(&self) -> bool {
        self.form == Form::New && self.flags.contains(Flags::NAME_ME)
    }
}

impl Status {
    const NAME: &str = "status";

    /// Decodes the body of a frame. The words of both sides are accepted; the caller knows who
    /// spoke.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let text = tagged(body, b's', Self::NAME)?;
        Ok(match text {
            b"ok" => Self::Ok,
            b"ok_simultaneous" => Self::OkSimultaneous,
            b"nok" => Self::Nok,
            b"not_allowed" => Self::NotAllowed,
            b"alive" => Self::Alive,
            b"true" => Self::AliveAnswer(true),
            b"false" => Self::AliveAnswer(false),
            other => {
                let named = other.strip_prefix(b"named:").ok_or(Error::Status)?;
                let mut reader = Reader::new(named);
                let name = reader.counted().ok_or(Error::Truncated(Self::NAME))?;
                let creation = reader.u32().ok_or(Error::Truncated(Self::NAME))?;
                Self::Named { name: full_name(name, Self::NAME)?, creation }
            }
        })
    }

    /// Appends the message as one frame.
    pub fn encode(&self, framing: Framing, out: &mut BytesMut) -> Result<(), Error> {
        let mut body = BytesMut::new();
        body.put_u8(b's');
        match self {
            Self::Ok => body.put_slice(b"ok"),
            Self::OkSimultaneous => body.put_slice(b"ok_simultaneous"),
            Self::Nok => body.put_slice(b"nok"),
            Self::NotAllowed => body.put_slice(b"not_allowed"),
            Self::Alive => body.put_slice(b"alive"),
            Self::AliveAnswer(true) => body.put_slice(b"true"),
            Self::AliveAnswer(false) => body.put_slice(b"false"),
            Self::Named { name, creation } => {
                name::split(name).map_err(Error::name(Self::NAME))?;
                body.put_slice(b"named:");
                put_counted(name, Self::NAME, &mut body)?;
                body.put_u32(*creation);
            }
        }
        framing.join(&body, out)
    }
}

impl Challenge {
    const NAME: &str = "challenge";

    /// Decodes the body of a frame.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let (form, mut reader) = form(body, Self::NAME)?;
        let short = || Error::Truncated(Self::NAME);
        let (flags, challenge, creation, name) = match form {
            Form::New => {
                let flags = Flags::from_bits(reader.u64().ok_or_else(short)?);
                let challenge = reader.u32().ok_or_else(short)?;
                let creation = reader.u32().ok_or_else(short)?;
                (flags, challenge, creation, reader.counted().ok_or_else(short)?)
            }
            Form::Old => {
                let flags = Flags::from_bits(reader.u32().ok_or_else(short)?.into());
                (flags, reader.u32().ok_or_else(short)?, 0, reader.rest())
            }
        };
        Ok(Self { form, flags, challenge, creation, name: full_name(name, Self::NAME)? })
    }

    /// Appends the message as one frame.
    pub fn encode(&self, framing: Framing, out: &mut BytesMut) -> Result<(), Error> {
        name::split(&self.name).map_err(Error::name(Self::NAME))?;
        let mut body = BytesMut::new();
        put_form(self.form, &mut body);
        match self.form {
            Form::New => {
                body.put_u64(self.flags.bits());
                body.put_u32(self.challenge);
                body.put_u32(self.creation);
                put_counted(&self.name, Self::NAME, &mut body)?;
            }
            Form::Old => {
                body.put_u32(low(self.flags));
                body.put_u32(self.challenge);
                body.put_slice(self.name.as_bytes());
            }
        }
        framing.join(&body, out)
    }
}

impl Complement {
    const NAME: &str = "complement";
    /// The first byte of the message.
    pub(super) const TAG: u8 = b'c';

    /// Decodes the body of a frame.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(tagged(body, Self::TAG, Self::NAME)?);
        let [a, b, c, d] = reader.array().ok_or(Error::Truncated(Self::NAME))?;
        let creation = reader.u32().ok_or(Error::Truncated(Self::NAME))?;
        end(reader, Self::NAME)?;
        let flags = Flags::from_bits(u64::from_be_bytes([a, b, c, d, 0, 0, 0, 0]));
        Ok(Self { flags, creation })
    }

    /// Appends the message as one frame.
    pub fn encode(&self, framing: Framing, out: &mut BytesMut) -> Result<(), Error> {
        let [a, b, c, d, ..] = self.flags.bits().to_be_bytes();
        let mut body = BytesMut::new();
        body.put_slice(&[Self::TAG, a, b, c, d]);
        body.put_u32(self.creation);
        framing.join(&body, out)
    }
}

impl ChallengeReply {
    const NAME: &str = "challenge reply";

    /// Decodes the body of a frame.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(tagged(body, b'r', Self::NAME)?);
        let challenge = reader.u32().ok_or(Error::Truncated(Self::NAME))?;
        let digest: [u8; 16] = reader.array().ok_or(Error::Truncated(Self::NAME))?;
        end(reader, Self::NAME)?;
        Ok(Self { challenge, digest: digest.into() })
    }

    /// Appends the message as one frame.
    pub fn encode(&self, framing: Framing, out: &mut BytesMut) -> Result<(), Error> {
        let mut body = BytesMut::new();
        body.put_u8(b'r');
        body.put_u32(self.challenge);
        body.put_slice(self.digest.as_bytes());
        framing.join(&body, out)
    }
}

impl ChallengeAck {
    const NAME: &str = "challenge ack";

    /// Decodes the body of a frame.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(tagged(body, b'a', Self::NAME)?);
        let digest: [u8; 16] = reader.array().ok_or(Error::Truncated(Self::NAME))?;
        end(reader, Self::NAME)?;
        Ok(Self { digest: digest.into() })
    }

    /// Appends the message as one frame.
    pub fn encode(&self, framing: Framing, out: &mut BytesMut) -> Result<(), Error> {
        let mut body = BytesMut::new();
        body.put_u8(b'a');
        body.put_slice(self.digest.as_bytes());
        framing.join(&body, out)
    }
}

fn tagged<'a>(body: &'a [u8], tag: u8, expected: &'static str) -> Result<&'a [u8], Error> {
    match body.split_first() {
        Some((&found, rest)) if found == tag => Ok(rest),
        Some((&found, _)) => Err(Error::Tag { found, expected }),
        None => Err(Error::Empty(expected)),
    }
}

fn form<'a>(body: &'a [u8], message: &'static str) -> Result<(Form, Reader<'a>), Error> {
    if let Some(rest) = body.strip_prefix(b"n") {
        let mut reader = Reader::new(rest);
        let version = reader.u16().ok_or(Error::Truncated(message))?;
        if version != OLD_VERSION {
            return Err(Error::Version { message, version });
        }
        return Ok((Form::Old, reader));
    }
    Ok((Form::New, Reader::new(tagged(body, b'N', message)?)))
}

fn put_form(form: Form, body: &mut BytesMut) {
    match form {
        Form::New => body.put_u8(b'N'),
        Form::Old => {
            body.put_u8(b'n');
            body.put_u16(OLD_VERSION);
        }
    }
}

fn put_counted(text: &str, message: &'static str, body: &mut BytesMut) -> Result<(), Error> {
    let too_long = |_| Error::name(message)(name::Error::TooLong { len: text.len() });
    body.put_u16(u16::try_from(text.len()).map_err(too_long)?);
    body.put_slice(text.as_bytes());
    Ok(())
}

// NAME_ME is one of the flags that the old form cannot carry.
fn check_own_name(form: Form, flags: Flags, name: &str) -> Result<(), Error> {
    let checked = if form == Form::New && flags.contains(Flags::NAME_ME) {
        name::host_part(name).map(|_| ())
    } else {
        name::split(name).map(|_| ())
    };
    checked.map_err(Error::name(SendName::NAME))
}

fn full_name(bytes: &[u8], message: &'static str) -> Result<String, Error> {
    let name = name::utf8(bytes).map_err(Error::name(message))?;
    name::split(name).map_err(Error::name(message))?;
    Ok(name.to_owned())
}

// The low 32 flags.
fn low(flags: Flags) -> u32 {
    let [_, _, _, _, a, b, c, d] = flags.bits().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn end(reader: Reader<'_>, message: &'static str) -> Result<(), Error> {
    if reader.rest().is_empty() { Ok(()) } else { Err(Error::Trailing(message)) }
}
