//! The direction towards us.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use meshx_etf::dist::{FRAGMENT, Form, Frame, InCache};
use meshx_etf::{Atom, Node};

use super::{Limits, LinkError, form};
use crate::control::{Control, Nodes, Read};
use crate::handshake::Flags;
use crate::payload::Payload;

/// How much is read at a time; of a longer frame exactly what is missing, so that it becomes the only
/// owner of its memory.
const READ: usize = 64 * 1024;
/// How much is read at a time of a peer that says little: most connections are idle most of the time.
const READ_LITTLE: usize = 1024;
/// How much is read at a time while fragments come, so that most of each is read to its place.
const READ_BETWEEN_FRAGMENTS: usize = 4 * 1024;
/// Of a shorter frame no part is read to its place directly.
const DIRECT: usize = 16 * 1024;
/// The most by which a buffer grows at once, and never to more than twice of what came.
const GROWTH: usize = 16 * 1024 * 1024;
/// Room is made beforehand for so many fragments like the first one: for 2 MiB of a VM's.
const EXPECTED: usize = 32;
/// Memory of messages in fragments is used again, if it is neither less nor more than this: the
/// operating system takes such back when it is freed, and filling new takes as long as reading.
const REUSED: std::ops::RangeInclusive<usize> = 128 * 1024..=4 * 1024 * 1024;
/// Of so many messages.
const SPARES: usize = 4;
/// A fragment's version, tag and numbers.
const FRAGMENT_HEAD: usize = 18;
const LENGTH: usize = 4;
const VERSION: u8 = 131;

/// What a peer sent.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "ticks are rare; a box for each message would not be"
)]
pub enum Event {
    /// An empty frame: it is there.
    Tick,
    /// A message.
    Message(Message),
}

/// A message of a peer.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it is.
    pub control: Control,
    /// Its payload, if one belongs to it ([`Control::has_payload`]).
    pub payload: Option<Payload>,
    /// Whether the sender marked it as urgent.
    pub priority: bool,
}

/// Turns the bytes of a peer into events.
///
/// The caller reads into [`Receiver::space`] and then asks [`Receiver::event`] until it gives `None`.
/// Fragments are put together in place: of a message in fragments most bytes are read to where they
/// stay.
#[derive(Debug)]
pub struct Receiver {
    buffer: BytesMut,
    cache: InCache,
    nodes: Nodes,
    limits: Limits,
    flags: Flags,
    form: Form,
    fragments: bool,
    incomplete: HashMap<u64, Incomplete>,
    held: usize,
    /// Memory of messages that were given out: ours again when these are dropped.
    spares: Vec<BytesMut>,
    /// The fragment that is being read to its place.
    direct: Option<Direct>,
    /// What came last is a fragment, and not the last one of its message.
    between: bool,
    /// The peer says little.
    quiet: bool,
    /// How long the buffer is if all of the space that was given is filled.
    filled: usize,
}

#[derive(Debug)]
struct Incomplete {
    bytes: BytesMut,
    atoms: Arc<[Atom]>,
    /// How many fragments are to come.
    left: u64,
}

/// The bytes of a message, and the atoms of its header.
struct Whole {
    bytes: Bytes,
    atoms: Arc<[Atom]>,
}

#[derive(Debug, Clone, Copy)]
struct Direct {
    sequence: u64,
    /// How long the incomplete message is after this fragment.
    end: usize,
}

impl Receiver {
    /// Of a connection between `own` and `peer` with these negotiated flags; `surplus` came behind
    /// the handshake.
    pub fn new(flags: Flags, own: Node, peer: Node, limits: Limits, surplus: BytesMut) -> Self {
        Self {
            buffer: surplus,
            cache: InCache::new(),
            nodes: Nodes::new(own, peer),
            limits,
            flags,
            form: form(flags),
            fragments: flags.contains(Flags::FRAGMENTS),
            incomplete: HashMap::new(),
            held: 0,
            spares: Vec::new(),
            direct: None,
            between: false,
            quiet: true,
            filled: usize::MAX,
        }
    }

    /// Nothing came for a while: memory that is not in use is given back.
    pub fn rest(&mut self) {
        self.spares.clear();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.quiet = true;
        }
    }

    /// Where the next bytes of the peer belong, and at most how many; never none, once
    /// [`Receiver::event`] has given `None`.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        if let Some(direct) = self.direct
            && let Some(incomplete) = self.incomplete.get_mut(&direct.sequence)
        {
            let missing = direct.end.saturating_sub(incomplete.bytes.len());
            incomplete.bytes.reserve(missing.min(READ));
            return (&mut incomplete.bytes).limit(missing);
        }
        let (held, spare) = (self.buffer.len(), self.buffer.spare_capacity_mut().len());
        let missing = missing(&self.buffer).filter(|it| held.saturating_add(*it) > READ);
        if let Some(missing) = missing {
            // A long frame gets as much again as came of it: what is only announced costs nothing.
            if spare < missing.min(READ / 4) {
                self.buffer.reserve(missing.min(held.clamp(READ, GROWTH)));
            }
            return (&mut self.buffer).limit(missing);
        }
        if held == 0 && self.quiet {
            if spare < READ_LITTLE / 4 {
                self.buffer.reserve(READ_LITTLE);
            }
            self.filled = READ_LITTLE.min(self.buffer.spare_capacity_mut().len());
            return (&mut self.buffer).limit(READ_LITTLE);
        }
        if held == 0 {
            // To the front again if nobody holds what was there: that memory is warm.
            _ = self.buffer.try_reclaim(READ);
        }
        let size = if self.between { READ_BETWEEN_FRAGMENTS } else { READ };
        if self.buffer.spare_capacity_mut().len() < size / 4 {
            self.buffer.reserve(READ);
        }
        (&mut self.buffer).limit(size)
    }

    /// The next event, or `None` if more bytes are needed. After an error there is no next one.
    pub fn event(&mut self) -> Result<Option<Event>, LinkError> {
        if self.quiet && self.buffer.len() >= self.filled {
            self.quiet = false;
        }
        loop {
            if let Some(direct) = self.direct {
                let len = self.incomplete.get(&direct.sequence).map_or(0, |it| it.bytes.len());
                if len < direct.end {
                    return Ok(None);
                }
                self.direct = None;
                match self.complete(direct.sequence)? {
                    Some(whole) => return self.read(whole),
                    None => continue,
                }
            }
            let Some(&head) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
            let size = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
            if size == 0 {
                self.buffer.advance(LENGTH);
                return Ok(Some(Event::Tick));
            }
            if size > self.limits.message {
                return Err(LinkError::TooLong { size, limit: self.limits.message });
            }
            if self.buffer.len().saturating_sub(LENGTH) < size {
                if size < DIRECT || !self.begin_direct(size)? {
                    return Ok(None);
                }
                continue;
            }
            self.buffer.advance(LENGTH);
            let frame = self.buffer.split_to(size);
            if size > READ && self.buffer.is_empty() {
                // Not to hold the memory of a long frame for longer than its message.
                self.buffer = BytesMut::new();
            }
            self.between = false;
            if let Some(whole) = self.frame(frame)? {
                return self.read(whole);
            }
        }
    }

    /// What a frame is for: a message, unless others of its message are missing.
    fn frame(&mut self, mut frame: BytesMut) -> Result<Option<Whole>, LinkError> {
        let parsed = Frame::parse(&frame, &mut self.cache)?;
        let body = match (parsed, self.form) {
            (Frame::PassThrough { body }, Form::PassThrough) => {
                let [VERSION, rest @ ..] = body else { return Err(LinkError::Form) };
                rest
            }
            (Frame::Whole { body }, Form::Cached | Form::Plain) => body,
            (Frame::First { sequence, fragments, body }, _) if self.fragments => {
                return self.first(sequence, fragments, body);
            }
            (Frame::Next { sequence, left, body }, _) if self.fragments => {
                self.expect(sequence, left, body.len())?;
                if let Some(incomplete) = self.incomplete.get_mut(&sequence) {
                    incomplete.bytes.extend_from_slice(body);
                }
                return self.complete(sequence);
            }
            _ => return Err(LinkError::Form),
        };
        let skipped = frame.len().saturating_sub(body.len());
        frame.advance(skipped);
        Ok(Some(Whole { bytes: frame.freeze(), atoms: Arc::clone(self.cache.atoms()) }))
    }

    fn first(
        &mut self,
        sequence: u64,
        fragments: u64,
        body: &[u8],
    ) -> Result<Option<Whole>, LinkError> {
        if self.incomplete.contains_key(&sequence) {
            return Err(LinkError::Fragment { sequence });
        }
        if self.incomplete.len() >= self.limits.incomplete {
            return Err(LinkError::TooMany { limit: self.limits.incomplete });
        }
        self.hold(body.len())?;
        // In proportion to what came, as anybody may announce anything.
        let expected = usize::try_from(fragments).unwrap_or(EXPECTED).min(EXPECTED);
        let most = body.len().max(EXPECTED.saturating_mul(FRAGMENT));
        let room = body.len().saturating_mul(expected).min(most);
        let mut bytes = self.reused(room).unwrap_or_else(|| BytesMut::with_capacity(room));
        bytes.extend_from_slice(body);
        let atoms = Arc::clone(self.cache.atoms());
        self.incomplete.insert(sequence, Incomplete { bytes, atoms, left: fragments });
        self.complete(sequence)
    }

    /// The fragment with this number is the next one of its message, and may be so long.
    fn expect(&mut self, sequence: u64, left: u64, len: usize) -> Result<(), LinkError> {
        let incomplete = self.incomplete.get(&sequence).filter(|it| it.left == left);
        let incomplete = incomplete.ok_or(LinkError::Fragment { sequence })?;
        let (size, limit) = (incomplete.bytes.len().saturating_add(len), self.limits.message);
        if size > limit {
            return Err(LinkError::TooLong { size, limit });
        }
        self.hold(len)
    }

    /// Counts what incomplete messages have.
    fn hold(&mut self, len: usize) -> Result<(), LinkError> {
        self.held = self.held.saturating_add(len);
        if self.held > self.limits.held {
            return Err(LinkError::TooMuch { limit: self.limits.held });
        }
        Ok(())
    }

    /// A fragment is in its place: gives the message if it was the last one.
    fn complete(&mut self, sequence: u64) -> Result<Option<Whole>, LinkError> {
        let incomplete = self.incomplete.get_mut(&sequence);
        let incomplete = incomplete.ok_or(LinkError::Fragment { sequence })?;
        incomplete.left = incomplete.left.saturating_sub(1);
        self.between = incomplete.left > 0;
        if self.between {
            return Ok(None);
        }
        let whole = self.incomplete.remove(&sequence);
        Ok(whole.map(|mut whole| {
            self.held = self.held.saturating_sub(whole.bytes.len());
            if REUSED.contains(&whole.bytes.capacity()) && self.spares.len() < SPARES {
                // Nothing but a hold on the same memory.
                self.spares.push(whole.bytes.split_off(whole.bytes.len()));
            }
            Whole { bytes: whole.bytes.freeze(), atoms: whole.atoms }
        }))
    }

    /// Memory of a message before, if nobody has that any more.
    fn reused(&mut self, room: usize) -> Option<BytesMut> {
        if !REUSED.contains(&room) {
            return None;
        }
        let free = self.spares.iter_mut().position(|spare| spare.try_reclaim(room))?;
        Some(self.spares.swap_remove(free))
    }

    /// If the frame in the buffer is a later fragment, goes on reading it to its place.
    fn begin_direct(&mut self, size: usize) -> Result<bool, LinkError> {
        let come = self.buffer.get(LENGTH..).unwrap_or_default();
        let Some(head) = come.first_chunk::<FRAGMENT_HEAD>().filter(|_| self.fragments) else {
            return Ok(false);
        };
        let Ok(Frame::Next { sequence, left, .. }) = Frame::parse(head, &mut InCache::new()) else {
            return Ok(false);
        };
        let len = size.saturating_sub(FRAGMENT_HEAD);
        self.expect(sequence, left, len)?;
        self.buffer.advance(LENGTH.saturating_add(FRAGMENT_HEAD));
        let part = self.buffer.split();
        if let Some(incomplete) = self.incomplete.get_mut(&sequence) {
            let end = incomplete.bytes.len().saturating_add(len);
            incomplete.bytes.extend_from_slice(&part);
            self.direct = Some(Direct { sequence, end });
        }
        Ok(true)
    }

    fn read(&mut self, whole: Whole) -> Result<Option<Event>, LinkError> {
        let Whole { mut bytes, atoms } = whole;
        let Read { control, payload, inside, priority } =
            Control::read(&bytes, &atoms, &mut self.nodes, self.flags)?;
        if !control.has_payload() {
            return Ok(Some(Event::Message(Message { control, payload: None, priority })));
        }
        // A reason inside of the control message has nothing behind it, as any other payload.
        let mut rest = payload;
        if self.form == Form::PassThrough && !inside {
            let [VERSION, term @ ..] = rest else { return Err(LinkError::Form) };
            rest = term;
        }
        let skipped = bytes.len().saturating_sub(rest.len());
        bytes.advance(skipped);
        let payload = Some(Payload::new(bytes, atoms));
        Ok(Some(Event::Message(Message { control, payload, priority })))
    }
}

/// How many bytes of the first frame are missing, if its length is known.
fn missing(buffer: &[u8]) -> Option<usize> {
    let head = buffer.first_chunk::<LENGTH>()?;
    let size = usize::try_from(u32::from_be_bytes(*head)).ok()?.saturating_add(LENGTH);
    size.checked_sub(buffer.len()).filter(|&missing| missing > 0)
}
