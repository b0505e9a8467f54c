//! Terms to bytes.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::dist::Refs;
use crate::pieces::LARGE;
use crate::{
    Atom, BigInt, Binary, BitString, Export, Fun, Pid, Port, Record, Reference, Term, tag,
};

/// Encodes a term as OTP 26 and later do, with its version byte.
pub fn encode(term: &Term) -> Result<Vec<u8>, EncodeError> {
    Encoder::new().term(term)
}

/// How atoms are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtomForm {
    /// As UTF-8: OTP 26 and later, and every distribution connection.
    #[default]
    Utf8,
    /// As Latin-1 wherever the characters allow it: `term_to_binary/1` up to OTP 25.
    Latin1,
}

/// Encodes terms in a chosen form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encoder {
    atoms: AtomForm,
    sorted: bool,
    old_floats: bool,
    compression: Option<u8>,
}

/// Why a term has no encoding. The fault is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// NaN or infinite.
    #[error("a float that is not a number or not finite")]
    Float,
    /// More elements or bytes than a count on the wire can say.
    #[error("more elements or bytes than the format can count")]
    TooLarge,
}

impl Encoder {
    /// As OTP 26 and later do.
    pub fn new() -> Self {
        Self::default()
    }

    /// `minor_version` of `term_to_binary/2`: 0 has floats as text, 0 and 1 have Latin-1 atoms, 2
    /// (and more) is the default.
    #[must_use]
    pub fn minor_version(mut self, version: u8) -> Self {
        self.old_floats = version == 0;
        self.atoms = if version < 2 { AtomForm::Latin1 } else { AtomForm::Utf8 };
        self
    }

    /// The form of atoms.
    #[must_use]
    pub fn atoms(mut self, form: AtomForm) -> Self {
        self.atoms = form;
        self
    }

    /// Pairs of a map by the order of their keys, in place of the order in which they came: as
    /// OTP's option `deterministic`.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.sorted = true;
        self
    }

    /// Compressed where that is shorter, with this effort (0 to 9; OTP's default is 6). Never for
    /// the distribution.
    #[must_use]
    pub fn compressed(mut self, level: u8) -> Self {
        self.compression = Some(level.min(9));
        self
    }

    /// Encodes a term with its version byte.
    pub fn term(&self, term: &Term) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(128);
        out.push(tag::VERSION);
        self.writer(&mut out).term(term)?;
        match self.compression {
            Some(level) if level > 0 => compress(out, level),
            _ => Ok(out),
        }
    }

    /// Appends the term without a version byte.
    pub fn bare(&self, term: &Term, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.writer(out).term(term)
    }

    pub(crate) fn writer(self, out: &mut Vec<u8>) -> Writer<'_> {
        Writer { out, form: self, refs: None, large: None, wide: None }
    }
}

/// `131, 80, size, zlib`, if that is shorter.
fn compress(plain: Vec<u8>, level: u8) -> Result<Vec<u8>, EncodeError> {
    let body = plain.get(1..).unwrap_or_default();
    let size = u32::try_from(body.len()).map_err(|_| EncodeError::TooLarge)?;
    let mut out = vec![tag::VERSION, tag::COMPRESSED];
    out.extend_from_slice(&size.to_be_bytes());
    let mut zlib = ZlibEncoder::new(out, Compression::new(level.into()));
    // Writing to memory does not fail; if it did, the plain form is right as well.
    let packed = zlib.write_all(body).and_then(|()| zlib.finish());
    match packed {
        Ok(packed) if packed.len() < plain.len() => Ok(packed),
        _ => Ok(plain),
    }
}

/// Appends terms to a buffer; the one place that knows the layout of what we write.
pub(crate) struct Writer<'o> {
    pub(crate) out: &'o mut Vec<u8>,
    pub(crate) form: Encoder,
    /// The atoms of the message, inside of the distribution.
    pub(crate) refs: Option<&'o mut Refs>,
    /// Where large binaries go that are not copied, each with its place in `out`.
    pub(crate) large: Option<(&'o mut Vec<(usize, Binary)>, &'o mut usize)>,
    /// Set by an identifier that needs `DFLAG_V4_NC`.
    pub(crate) wide: Option<&'o mut bool>,
}

impl Writer<'_> {
    pub(crate) fn term(&mut self, term: &Term) -> Result<(), EncodeError> {
        match term {
            Term::Integer(value) => self.integer(*value),
            Term::Big(value) => self.big(value)?,
            Term::Float(value) => self.float(*value)?,
            Term::Atom(atom) => self.atom(atom),
            Term::Tuple(elements) => {
                self.tuple_head(elements.len())?;
                self.terms(elements)?;
            }
            Term::List(elements) => self.list(elements)?,
            Term::Improper(list) => {
                self.list_head(list.elements().len())?;
                self.terms(list.elements())?;
                self.term(list.tail())?;
            }
            Term::Map(map) => {
                self.map_head(map.len())?;
                if self.form.sorted {
                    for (key, value) in map.sorted() {
                        self.term(key)?;
                        self.term(value)?;
                    }
                } else {
                    for (key, value) in map {
                        self.term(key)?;
                        self.term(value)?;
                    }
                }
            }
            Term::Binary(bytes) => self.shared(bytes)?,
            Term::Bits(bits) => self.bits(bits)?,
            Term::Pid(pid) => self.pid(pid),
            Term::Port(port) => self.port(port),
            Term::Reference(reference) => self.reference(reference)?,
            Term::Fun(fun) => self.fun(fun)?,
            Term::Export(export) => self.export(export),
            Term::Record(record) => self.record(record)?,
        }
        Ok(())
    }

    fn terms(&mut self, terms: &[Term]) -> Result<(), EncodeError> {
        for term in terms {
            // The commonest kind without a call.
            match term {
                Term::Integer(value) => self.integer(*value),
                other => self.term(other)?,
            }
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn integer(&mut self, value: i64) {
        if let Ok(byte) = u8::try_from(value) {
            self.out.extend_from_slice(&[tag::SMALL_INTEGER, byte]);
        } else if let Ok(word) = i32::try_from(value) {
            let [a, b, c, d] = word.to_be_bytes();
            self.out.extend_from_slice(&[tag::INTEGER, a, b, c, d]);
        } else {
            let magnitude = value.unsigned_abs().to_le_bytes();
            let len =
                magnitude.iter().rposition(|&byte| byte != 0).map_or(0, |at| at.saturating_add(1));
            self.small_big(value < 0, magnitude.get(..len).unwrap_or_default());
        }
    }

    pub(crate) fn big(&mut self, value: &BigInt) -> Result<(), EncodeError> {
        let magnitude = value.magnitude();
        if let Some(value) = value.to_i64() {
            self.integer(value);
        } else if magnitude.len() <= 255 {
            self.small_big(value.is_negative(), magnitude);
        } else {
            self.out.push(tag::LARGE_BIG);
            self.count(magnitude.len())?;
            self.out.push(value.is_negative().into());
            self.out.extend_from_slice(magnitude);
        }
        Ok(())
    }

    /// At most 255 bytes.
    fn small_big(&mut self, negative: bool, magnitude: &[u8]) {
        let len = u8::try_from(magnitude.len()).unwrap_or(u8::MAX);
        self.out.extend_from_slice(&[tag::SMALL_BIG, len, negative.into()]);
        self.out.extend_from_slice(magnitude);
    }

    #[inline]
    pub(crate) fn float(&mut self, value: f64) -> Result<(), EncodeError> {
        if !value.is_finite() {
            return Err(EncodeError::Float);
        }
        if self.form.old_floats {
            self.text_float(value);
            return Ok(());
        }
        self.out.push(tag::NEW_FLOAT);
        self.out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    /// `%.20e` of C in 31 bytes.
    fn text_float(&mut self, value: f64) {
        let text = format!("{value:.20e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        let mut text = format!("{mantissa}e{sign}{digits:0>2}").into_bytes();
        text.resize(31, 0);
        self.out.push(tag::FLOAT);
        self.out.extend_from_slice(&text);
    }

    #[inline]
    pub(crate) fn atom(&mut self, atom: &Atom) {
        self.short_atom(atom.as_str());
    }

    /// An atom of this text, cut after 255 characters.
    #[inline]
    pub(crate) fn atom_named(&mut self, text: &str) {
        if text.len() > Atom::MAX {
            self.short_atom(Atom::cut(text).as_str());
        } else {
            self.short_atom(text);
        }
    }

    /// An atom of at most 255 characters, as UTF-8.
    #[inline]
    fn short_atom(&mut self, text: &str) {
        if let Some(index) = self.refs.as_mut().and_then(|refs| refs.index(text)) {
            self.out.extend_from_slice(&[tag::ATOM_CACHE_REF, index]);
            return;
        }
        if self.form.atoms == AtomForm::Latin1
            && let Some(characters) = latin1(text)
        {
            let len = u16::try_from(characters.len()).unwrap_or(u16::MAX);
            self.out.push(tag::ATOM);
            self.out.extend_from_slice(&len.to_be_bytes());
            self.out.extend_from_slice(&characters);
            return;
        }
        if let Ok(len) = u8::try_from(text.len()) {
            self.out.reserve(text.len().saturating_add(2));
            self.out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, len]);
        } else {
            let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
            self.out.push(tag::ATOM_UTF8);
            self.out.extend_from_slice(&len.to_be_bytes());
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(crate) fn tuple_head(&mut self, len: usize) -> Result<(), EncodeError> {
        if let Ok(len) = u8::try_from(len) {
            self.out.extend_from_slice(&[tag::SMALL_TUPLE, len]);
            return Ok(());
        }
        self.out.push(tag::LARGE_TUPLE);
        self.count(len)
    }

    #[inline]
    pub(crate) fn list_head(&mut self, len: usize) -> Result<(), EncodeError> {
        self.out.push(tag::LIST);
        self.count(len)
    }

    #[inline]
    pub(crate) fn map_head(&mut self, len: usize) -> Result<(), EncodeError> {
        self.out.push(tag::MAP);
        self.count(len)
    }

    pub(crate) fn nil(&mut self) {
        self.out.push(tag::NIL);
    }

    /// A proper list; as `STRING_EXT` when all of it are bytes and there are not too many, which
    /// is what a VM does.
    fn list(&mut self, elements: &[Term]) -> Result<(), EncodeError> {
        if elements.is_empty() {
            self.nil();
            return Ok(());
        }
        if self.string(elements) {
            return Ok(());
        }
        self.list_head(elements.len())?;
        self.terms(elements)?;
        self.nil();
        Ok(())
    }

    fn string(&mut self, elements: &[Term]) -> bool {
        let Ok(len) = u16::try_from(elements.len()) else { return false };
        let byte = |term: &Term| match term {
            Term::Integer(value) => u8::try_from(*value).ok(),
            _ => None,
        };
        let before = self.out.len();
        self.out.push(tag::STRING);
        self.out.extend_from_slice(&len.to_be_bytes());
        for element in elements {
            match byte(element) {
                Some(byte) => self.out.push(byte),
                None => {
                    self.out.truncate(before);
                    return false;
                }
            }
        }
        true
    }

    #[inline]
    pub(crate) fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let count = u32::try_from(bytes.len()).map_err(|_| EncodeError::TooLarge)?;
        let [a, b, c, d] = count.to_be_bytes();
        self.out.reserve(bytes.len().saturating_add(5));
        self.out.extend_from_slice(&[tag::BINARY, a, b, c, d]);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn shared(&mut self, bytes: &Binary) -> Result<(), EncodeError> {
        if bytes.len() < LARGE || self.large.is_none() {
            return self.binary(bytes);
        }
        self.out.push(tag::BINARY);
        self.count(bytes.len())?;
        if let Some((large, sum)) = &mut self.large {
            large.push((self.out.len(), bytes.clone()));
            **sum = sum.saturating_add(bytes.len());
        }
        Ok(())
    }

    fn bits(&mut self, bits: &BitString) -> Result<(), EncodeError> {
        self.out.push(tag::BIT_BINARY);
        self.count(bits.as_slice().len())?;
        self.out.push(bits.last_bits());
        self.out.extend_from_slice(bits.as_slice());
        Ok(())
    }

    pub(crate) fn pid(&mut self, pid: &Pid) {
        self.widen(!pid.is_narrow());
        self.out.push(tag::NEW_PID);
        self.atom(pid.node.name());
        for word in [pid.id, pid.serial, pid.node.creation()] {
            self.out.extend_from_slice(&word.to_be_bytes());
        }
    }

    pub(crate) fn port(&mut self, port: &Port) {
        self.widen(!port.is_narrow());
        match u32::try_from(port.id) {
            Ok(id) if id < 1 << 28 => {
                self.out.push(tag::NEW_PORT);
                self.atom(port.node.name());
                self.out.extend_from_slice(&id.to_be_bytes());
            }
            _ => {
                self.out.push(tag::V4_PORT);
                self.atom(port.node.name());
                self.out.extend_from_slice(&port.id.to_be_bytes());
            }
        }
        self.out.extend_from_slice(&port.node.creation().to_be_bytes());
    }

    pub(crate) fn reference(&mut self, reference: &Reference) -> Result<(), EncodeError> {
        let len = u16::try_from(reference.words().len()).map_err(|_| EncodeError::TooLarge)?;
        self.widen(!reference.is_narrow());
        self.out.push(tag::NEWER_REFERENCE);
        self.out.extend_from_slice(&len.to_be_bytes());
        self.atom(reference.node().name());
        self.out.extend_from_slice(&reference.node().creation().to_be_bytes());
        for word in reference.words() {
            self.out.extend_from_slice(&word.to_be_bytes());
        }
        Ok(())
    }

    pub(crate) fn widen(&mut self, wide: bool) {
        if wide && let Some(seen) = &mut self.wide {
            **seen = true;
        }
    }

    fn export(&mut self, export: &Export) {
        self.out.push(tag::EXPORT);
        self.atom(&export.module);
        self.atom(&export.function);
        self.integer(export.arity.into());
    }

    fn fun(&mut self, fun: &Fun) -> Result<(), EncodeError> {
        self.out.push(tag::NEW_FUN);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.out.push(fun.arity);
        self.out.extend_from_slice(&fun.uniq);
        self.out.extend_from_slice(&fun.index.to_be_bytes());
        self.count(fun.free.len())?;
        self.atom(&fun.module);
        self.integer(fun.old_index.into());
        self.integer(fun.old_uniq.into());
        self.pid(&fun.pid);
        // The size counts all bytes, so that none may be elsewhere.
        let large = self.large.take();
        self.terms(&fun.free)?;
        self.large = large;
        let size = self.out.len().saturating_sub(start);
        let size = u32::try_from(size).map_err(|_| EncodeError::TooLarge)?.to_be_bytes();
        if let Some(field) = self.out.get_mut(start..start.saturating_add(4)) {
            field.copy_from_slice(&size);
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), EncodeError> {
        self.out.push(tag::RECORD);
        self.count(record.fields.len())?;
        self.out.push(record.exported.into());
        self.atom(&record.module);
        self.atom(&record.name);
        for (name, _) in &record.fields {
            self.atom(name);
        }
        record.fields.iter().try_for_each(|(_, value)| self.term(value))
    }

    #[inline]
    fn count(&mut self, count: usize) -> Result<(), EncodeError> {
        let count = u32::try_from(count).map_err(|_| EncodeError::TooLarge)?;
        self.out.extend_from_slice(&count.to_be_bytes());
        Ok(())
    }
}

/// The text in Latin-1, if that is possible.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(character).ok()).collect()
}
