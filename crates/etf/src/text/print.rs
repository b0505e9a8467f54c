//! Terms to text.

use std::fmt::{self, Write};

use super::float;
use crate::{BitString, Map, Node, Pid, Port, Reference, Term};

/// Which characters a list or a binary may hold to be shown as text (the VM's flag `+pc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Printable {
    /// Those of Latin-1: the VM's default.
    #[default]
    Latin1,
    /// All that are printable.
    Unicode,
}

/// Prints a term on one line, as `io:format("~0p")` of OTP 25 does.
///
/// Four things differ, because they cannot be the same or should not: a pid, port or reference shows the name of
/// its node where a VM shows a number that means nothing elsewhere; more than 32 pairs of a map come
/// in the order of the VM that encoded them, or sorted with [`Print::sorted`]; an integer of more than 32 KiB is in base 16; and the names in
/// `fun M:F/A` are printed as other atoms, where a VM shows their UTF-8 as Latin-1.
///
/// ```
/// use meshx_etf::text::Print;
/// use meshx_etf::term;
/// let term = term!({"ä", '中', [104, 105], 1.0e22});
/// assert_eq!(term.to_string(), r#"{<<"Ã¤">>,'\x{4E2D}',"hi",1.0e22}"#);
/// assert_eq!(Print::new(&term).unicode().to_string(), r#"{<<"ä"/utf8>>,'中',"hi",1.0e22}"#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Print<'t> {
    term: &'t Term,
    style: Style,
}

#[derive(Debug, Clone, Copy, Default)]
struct Style {
    unicode: bool,
    printable: Printable,
    sorted: bool,
    creations: bool,
}

impl<'t> Print<'t> {
    /// As `~0p`.
    pub fn new(term: &'t Term) -> Self {
        Self { term, style: Style::default() }
    }

    /// As `~0tp`: characters above 255 are not escaped, UTF-8 in binaries is text.
    #[must_use]
    pub fn unicode(mut self) -> Self {
        self.style.unicode = true;
        self
    }

    /// What counts as text with [`Print::unicode`].
    #[must_use]
    pub fn printable(mut self, printable: Printable) -> Self {
        self.style.printable = printable;
        self
    }

    /// Maps by the order of their keys.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.style.sorted = true;
        self
    }

    /// With the creation of a node behind a `!` in what belongs to it, so that nothing but funs is
    /// lost in the text. `{:#}` of a term does the same.
    #[must_use]
    pub fn creations(mut self) -> Self {
        self.style.creations = true;
        self
    }
}

impl fmt::Display for Print<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.style.term(f, self.term)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = Print::new(self);
        if f.alternate() { print.creations().fmt(f) } else { print.fmt(f) }
    }
}

/// As the term: `<shop@host.9.0>`; `{:#}` with the creation of the node.
impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Style::of(f).pid(f, self)
    }
}

/// As the term: `#Port<shop@host.7>`; `{:#}` with the creation of the node.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Style::of(f).port(f, self)
    }
}

/// As the term: `#Ref<shop@host.3.2.1>`; `{:#}` with the creation of the node.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Style::of(f).reference(f, self)
    }
}

/// As `{:#}`: two that differ look different.
impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Style::EXACT.pid(f, self)
    }
}

/// As `{:#}`: two that differ look different.
impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Style::EXACT.port(f, self)
    }
}

/// As `{:#}`: two that differ look different.
impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Style::EXACT.reference(f, self)
    }
}

impl Style {
    const EXACT: Self =
        Self { unicode: false, printable: Printable::Latin1, sorted: false, creations: true };

    fn of(f: &fmt::Formatter<'_>) -> Self {
        Self { creations: f.alternate(), ..Self::default() }
    }

    fn term(self, f: &mut fmt::Formatter<'_>, term: &Term) -> fmt::Result {
        match term {
            Term::Integer(value) => write!(f, "{value}"),
            Term::Big(value) => write!(f, "{value}"),
            Term::Float(value) => f.write_str(&float::short(*value)),
            Term::Atom(name) => atom(f, name, self.unicode),
            Term::Tuple(elements) => self.sequence(f, "{", elements, "}"),
            Term::List(elements) => match self.text(elements) {
                Some(text) => quoted(f, '"', &text, self.unicode),
                None => self.sequence(f, "[", elements, "]"),
            },
            Term::Improper(list) => {
                self.sequence(f, "[", list.elements(), "|")?;
                self.term(f, list.tail())?;
                f.write_str("]")
            }
            Term::Map(map) => {
                f.write_str("#{")?;
                let pairs = if self.sorted { map.sorted() } else { as_printed(map) };
                for (number, (key, value)) in pairs.into_iter().enumerate() {
                    f.write_str(if number == 0 { "" } else { "," })?;
                    self.term(f, key)?;
                    f.write_str(" => ")?;
                    self.term(f, value)?;
                }
                f.write_str("}")
            }
            Term::Binary(bytes) => self.binary(f, bytes),
            Term::Bits(bits) => bit_string(f, bits),
            Term::Pid(pid) => self.pid(f, pid),
            Term::Port(port) => self.port(f, port),
            Term::Reference(reference) => self.reference(f, reference),
            Term::Fun(fun) => {
                f.write_str("#Fun<")?;
                if fun.module.chars().any(char::is_control) {
                    atom(f, &fun.module, self.unicode)?;
                } else {
                    f.write_str(&fun.module)?;
                }
                write!(f, ".{}.{}>", fun.old_index, fun.old_uniq)
            }
            Term::Export(export) => {
                f.write_str("fun ")?;
                atom(f, &export.module, self.unicode)?;
                f.write_str(":")?;
                atom(f, &export.function, self.unicode)?;
                write!(f, "/{}", export.arity)
            }
            Term::Record(record) => {
                f.write_str("#")?;
                atom(f, &record.module, self.unicode)?;
                f.write_str(":")?;
                atom(f, &record.name, self.unicode)?;
                f.write_str("{")?;
                for (number, (name, value)) in record.fields.iter().enumerate() {
                    f.write_str(if number == 0 { "" } else { "," })?;
                    atom(f, name, self.unicode)?;
                    f.write_str(" = ")?;
                    self.term(f, value)?;
                }
                f.write_str("}")
            }
        }
    }

    fn sequence(
        self,
        f: &mut fmt::Formatter<'_>,
        open: &str,
        terms: &[Term],
        close: &str,
    ) -> fmt::Result {
        f.write_str(open)?;
        for (number, term) in terms.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "," })?;
            self.term(f, term)?;
        }
        f.write_str(close)
    }

    fn pid(self, f: &mut fmt::Formatter<'_>, pid: &Pid) -> fmt::Result {
        f.write_str("<")?;
        self.node(f, &pid.node)?;
        write!(f, ".{}.{}", pid.id, pid.serial)?;
        self.creation(f, &pid.node)
    }

    fn port(self, f: &mut fmt::Formatter<'_>, port: &Port) -> fmt::Result {
        f.write_str("#Port<")?;
        self.node(f, &port.node)?;
        write!(f, ".{}", port.id)?;
        self.creation(f, &port.node)
    }

    fn reference(self, f: &mut fmt::Formatter<'_>, reference: &Reference) -> fmt::Result {
        f.write_str("#Ref<")?;
        self.node(f, reference.node())?;
        for word in reference.words().iter().rev() {
            write!(f, ".{word}")?;
        }
        self.creation(f, reference.node())
    }

    fn node(self, f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
        atom(f, node.name(), self.unicode)
    }

    fn creation(self, f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
        if self.creations {
            write!(f, "!{}", node.creation())?;
        }
        f.write_str(">")
    }

    /// The list as text, if it is not empty and all of it is printable.
    fn text(self, elements: &[Term]) -> Option<String> {
        if elements.is_empty() {
            return None;
        }
        let character = |term: &Term| {
            let value = u32::try_from(term.as_i64()?).ok()?;
            char::from_u32(value).filter(|&character| self.is_printable(character))
        };
        elements.iter().map(character).collect()
    }

    fn is_printable(self, character: char) -> bool {
        match character {
            ' '..='~'
            | '\u{a0}'..='\u{ff}'
            | '\n'
            | '\r'
            | '\t'
            | '\u{b}'
            | '\u{8}'
            | '\u{c}'
            | '\u{1b}' => true,
            '\u{100}'.. if self.unicode && self.printable == Printable::Unicode => {
                !matches!(character, '\u{fffe}' | '\u{ffff}')
            }
            _ => false,
        }
    }

    fn binary(self, f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
        f.write_str("<<")?;
        // With unicode, a VM does not look at bytes as Latin-1 that are UTF-8.
        let utf8 = std::str::from_utf8(bytes).ok().filter(|_| self.unicode);
        let latin1 = || bytes.iter().copied().map(char::from);
        if bytes.is_empty() {
        } else if let Some(text) = utf8 {
            if text.chars().all(|character| self.is_printable(character)) {
                quoted(f, '"', text, true)?;
                f.write_str(if text.is_ascii() { "" } else { "/utf8" })?;
            } else {
                numbers(f, bytes)?;
            }
        } else if latin1().all(|character| Self::default().is_printable(character)) {
            quoted(f, '"', &latin1().collect::<String>(), self.unicode)?;
        } else {
            numbers(f, bytes)?;
        }
        f.write_str(">>")
    }
}

/// A VM holds up to 32 pairs sorted; more it walks in one direction to print them, and in the other
/// to encode them.
fn as_printed(map: &Map) -> Vec<&(Term, Term)> {
    if map.len() > Map::SMALL { map.iter().rev().collect() } else { map.sorted() }
}

fn bit_string(f: &mut fmt::Formatter<'_>, bits: &BitString) -> fmt::Result {
    f.write_str("<<")?;
    if let Some((last, bytes)) = bits.as_slice().split_last() {
        numbers(f, bytes)?;
        let unused = 8_u32.saturating_sub(bits.last_bits().into());
        let value = last.checked_shr(unused).unwrap_or_default();
        let comma = if bytes.is_empty() { "" } else { "," };
        write!(f, "{comma}{value}:{}", bits.last_bits())?;
    }
    f.write_str(">>")
}

fn numbers(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for (number, byte) in bytes.iter().enumerate() {
        f.write_str(if number == 0 { "" } else { "," })?;
        write!(f, "{byte}")?;
    }
    Ok(())
}

/// Words that are no atoms without quotes.
const RESERVED: [&str; 27] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case",
    "catch", "cond", "div", "end", "fun", "if", "let", "not", "of", "or", "orelse", "receive",
    "rem", "try", "when", "xor",
];

/// An atom, in quotes where it needs them.
pub(crate) fn atom(f: &mut fmt::Formatter<'_>, text: &str, unicode: bool) -> fmt::Result {
    let lower = |c: char| matches!(c, 'a'..='z' | 'ß'..='ö' | 'ø'..='ÿ');
    let inner = |c: char| {
        lower(c) || c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | 'À'..='Ö' | 'Ø'..='Þ')
    };
    let plain = text.starts_with(lower) && text.chars().all(inner) && !RESERVED.contains(&text);
    if plain { f.write_str(text) } else { quoted(f, '\'', text, unicode) }
}

fn quoted(f: &mut fmt::Formatter<'_>, quote: char, text: &str, unicode: bool) -> fmt::Result {
    f.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => f.write_str("\\\\")?,
            c if c == quote => write!(f, "\\{c}")?,
            ' '..='~' | '\u{a0}'..='\u{ff}' => f.write_char(character)?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{b}' => f.write_str("\\v")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{c}' => f.write_str("\\f")?,
            '\u{1b}' => f.write_str("\\e")?,
            '\u{7f}' => f.write_str("\\d")?,
            '\0'..'\u{a0}' => write!(f, "\\{:03o}", u32::from(character))?,
            _ if unicode => f.write_char(character)?,
            _ => write!(f, "\\x{{{:X}}}", u32::from(character))?,
        }
    }
    f.write_char(quote)
}
