//! Text to terms.

use crate::{Atom, BigInt, Binary, BitString, Export, Map, Node, Pid, Port, Reference, Term};

/// How deep text may nest.
const DEPTH: usize = 512;

/// Why text is not a term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: expected {what}")]
pub struct ParseError {
    /// Where, in bytes from the beginning.
    pub at: usize,
    /// What was wanted there.
    pub what: &'static str,
}

/// Reads one term in Erlang's syntax, with or without a dot at its end.
///
/// Reads what `Display` prints (`{:#}` without any loss), except funs; and what Erlang's parser
/// reads where it is a constant: `16#ff`, `$a`, `1_000`, comments, strings side by side,
/// `<<1:4, "ä"/utf8>>`, `fun lists:map/2`. Pids name their node: `<shop@host.9.0!creation>`, the
/// creation being 0 when it is left out. Nests at most 512 deep.
///
/// ```
/// use meshx_etf::{term, text};
/// let parsed = text::parse("{ok, [1, 16#ff, $a], #{name => <<\"x\">>}}.")?;
/// assert_eq!(parsed, term!({ok, [1, 255, 97], #{name => "x"}}));
/// # Ok::<(), text::ParseError>(())
/// ```
pub fn parse(text: &str) -> Result<Term, ParseError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let term = parser.term()?;
    parser.eat(".");
    parser.space();
    if parser.rest().is_empty() { Ok(term) } else { Err(parser.wanted("the end of the term")) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wanted(&self, what: &'static str) -> ParseError {
        ParseError { at: self.at, what }
    }

    fn space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.skip(rest.len().saturating_sub(trimmed.len()));
            if !trimmed.starts_with('%') {
                return;
            }
            self.skip(trimmed.find('\n').unwrap_or(trimmed.len()));
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    /// Reads over a mark and the space before it, if it is there.
    fn eat(&mut self, mark: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(mark);
        if found {
            self.skip(mark.len());
        }
        found
    }

    fn expect(&mut self, mark: &str, what: &'static str) -> Result<(), ParseError> {
        if self.eat(mark) { Ok(()) } else { Err(self.wanted(what)) }
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.skip(next.len_utf8());
        Some(next)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.skip(end);
        rest.get(..end).unwrap_or_default()
    }

    fn term(&mut self) -> Result<Term, ParseError> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > DEPTH {
            return Err(self.wanted("less nesting"));
        }
        self.space();
        let term = match self.peek().ok_or(self.wanted("a term"))? {
            '{' => {
                self.skip(1);
                Term::Tuple(self.terms("}")?)
            }
            '[' => self.list()?,
            '"' => self.string()?,
            '#' => self.hash()?,
            '<' if self.rest().starts_with("<<") => self.binary()?,
            '<' => self.pid()?,
            '-' | '+' | '$' | '0'..='9' => self.number()?,
            _ => {
                let atom = self.atom("a term")?;
                let follows = |c: char| c.is_alphabetic() || c == '\'';
                if atom == "fun" && self.rest().trim_start().starts_with(follows) {
                    self.export()?
                } else {
                    Term::Atom(atom)
                }
            }
        };
        self.depth = self.depth.saturating_sub(1);
        Ok(term)
    }

    /// Terms up to a mark.
    fn terms(&mut self, close: &str) -> Result<Vec<Term>, ParseError> {
        let mut terms = Vec::new();
        if self.eat(close) {
            return Ok(terms);
        }
        loop {
            terms.push(self.term()?);
            if self.eat(close) {
                return Ok(terms);
            }
            self.expect(",", "a comma or the end of the tuple")?;
        }
    }

    fn list(&mut self) -> Result<Term, ParseError> {
        self.skip(1);
        let mut elements = Vec::new();
        if self.eat("]") {
            return Ok(Term::nil());
        }
        loop {
            elements.push(self.term()?);
            if self.eat("]") {
                return Ok(Term::List(elements));
            }
            if self.eat("|") {
                let tail = self.term()?;
                self.expect("]", "the end of the list")?;
                return Ok(Term::list_ending(elements, tail));
            }
            self.expect(",", "a comma, a bar or the end of the list")?;
        }
    }

    /// One or more strings side by side.
    fn string(&mut self) -> Result<Term, ParseError> {
        let mut text = String::new();
        while self.eat("\"") {
            text.push_str(&self.quoted('"')?);
        }
        Ok(Term::charlist(&text))
    }

    /// Text up to a quote, which is read too.
    fn quoted(&mut self, quote: char) -> Result<String, ParseError> {
        let mut text = String::new();
        loop {
            match self.next().ok_or(self.wanted("the closing quote"))? {
                c if c == quote => return Ok(text),
                '\\' => text.extend(self.escape()?),
                c => text.push(c),
            }
        }
    }

    /// What follows a backslash; `None` for the end of a line.
    fn escape(&mut self) -> Result<Option<char>, ParseError> {
        let wrong = self.wanted("an escape sequence of Erlang");
        Ok(Some(match self.next().ok_or(wrong.clone())? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'e' => '\u{1b}',
            's' => ' ',
            'd' => '\u{7f}',
            '^' => {
                let control = self.next().and_then(|c| u8::try_from(c).ok()).ok_or(wrong)?;
                char::from(control & 31)
            }
            'x' => {
                let digits = if self.peek() == Some('{') {
                    self.skip(1);
                    let digits = self.take_while(|c| c.is_ascii_hexdigit());
                    self.expect("}", "the end of the escape sequence")?;
                    digits
                } else {
                    let digits = self.rest().get(..2).ok_or(wrong.clone())?;
                    self.skip(2);
                    digits
                };
                let value = u32::from_str_radix(digits, 16).ok();
                value.and_then(char::from_u32).ok_or(wrong)?
            }
            first @ '0'..='7' => {
                let mut value = first.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.skip(1);
                    value = value.saturating_mul(8).saturating_add(digit);
                }
                char::from_u32(value).ok_or(wrong)?
            }
            '\n' => return Ok(None),
            other => other,
        }))
    }

    fn atom(&mut self, what: &'static str) -> Result<Atom, ParseError> {
        self.space();
        let start = self.at;
        let too_long = ParseError { at: start, what: "an atom of at most 255 characters" };
        if self.eat("'") {
            return Atom::new(&self.quoted('\'')?).map_err(|_| too_long);
        }
        if !self.peek().is_some_and(char::is_lowercase) {
            return Err(self.wanted(what));
        }
        let text = self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '@'));
        Atom::new(text).map_err(|_| too_long)
    }

    fn number(&mut self) -> Result<Term, ParseError> {
        let negative = match self.peek() {
            Some('-') => {
                self.skip(1);
                true
            }
            Some('+') => {
                self.skip(1);
                false
            }
            _ => false,
        };
        if self.eat("$") {
            let character = match self.next().ok_or(self.wanted("a character"))? {
                '\\' => self.escape()?.unwrap_or('\n'),
                character => character,
            };
            let value = i64::from(u32::from(character));
            return Ok(Term::Integer(if negative { value.saturating_neg() } else { value }));
        }
        let start = self.at;
        let digits = self.digits(10)?;
        let wrong = ParseError { at: start, what: "a number" };
        if self.rest().starts_with('#') {
            let base: u32 = digits.parse().map_err(|_| wrong.clone())?;
            if !(2..=36).contains(&base) {
                return Err(wrong);
            }
            self.skip(1);
            let digits = self.digits(base)?;
            return Ok(BigInt::parse(negative, digits, base).ok_or(wrong)?.into());
        }
        let mut rest = self.rest().chars();
        if rest.next() == Some('.') && rest.next().is_some_and(|c| c.is_ascii_digit()) {
            self.skip(1);
            self.digits(10)?;
            if self.rest().starts_with(['e', 'E']) {
                self.skip(1);
                if self.rest().starts_with(['-', '+']) {
                    self.skip(1);
                }
                self.digits(10)?;
            }
            let text = self.text.get(start..self.at).unwrap_or_default().replace('_', "");
            let value: f64 = text.parse().map_err(|_| wrong.clone())?;
            if !value.is_finite() {
                return Err(wrong);
            }
            return Ok(Term::Float(if negative { -value } else { value }));
        }
        Ok(BigInt::parse(negative, digits, 10).ok_or(wrong)?.into())
    }

    fn digits(&mut self, base: u32) -> Result<&'t str, ParseError> {
        let digits = self.take_while(|c| c.is_digit(base) || c == '_');
        if digits.starts_with(|c: char| c.is_digit(base)) {
            Ok(digits)
        } else {
            Err(self.wanted("a number"))
        }
    }

    fn binary(&mut self) -> Result<Term, ParseError> {
        self.skip(2);
        let mut bits = Bits::default();
        if self.eat(">>") {
            return Ok(bits.term());
        }
        loop {
            self.segment(&mut bits)?;
            if self.eat(">>") {
                return Ok(bits.term());
            }
            self.expect(",", "a comma or the end of the binary")?;
        }
    }

    fn segment(&mut self, bits: &mut Bits) -> Result<(), ParseError> {
        self.space();
        let start = self.at;
        let wrong = |what| ParseError { at: start, what };
        if self.eat("\"") {
            let text = self.quoted('"')?;
            let utf8 = self.eat("/utf8");
            for character in text.chars() {
                if utf8 {
                    let mut buffer = [0; 4];
                    for &byte in character.encode_utf8(&mut buffer).as_bytes() {
                        bits.push(byte.into(), 8);
                    }
                } else {
                    bits.push(u64::from(u32::from(character)), 8);
                }
            }
            return Ok(());
        }
        let value = self.number()?.as_i64().ok_or(wrong("an integer"))?;
        let size = if self.eat(":") {
            let size = self.digits(10)?.parse::<u32>().ok();
            size.filter(|&size| size <= 64).ok_or(wrong("a size of at most 64 bits"))?
        } else {
            8
        };
        bits.push(value.cast_unsigned(), size);
        Ok(())
    }

    fn export(&mut self) -> Result<Term, ParseError> {
        let module = self.atom("a module")?;
        self.expect(":", "a colon")?;
        let function = self.atom("a function")?;
        self.expect("/", "a slash")?;
        let arity = self.word("an arity")?;
        Ok(Export { module, function, arity }.into())
    }

    /// What begins with `#`.
    fn hash(&mut self) -> Result<Term, ParseError> {
        if self.eat("#{") {
            return self.map();
        }
        let start = self.at;
        if self.eat("#Ref<") {
            let name = self.atom("a node")?;
            let mut words = Vec::new();
            while self.eat(".") {
                words.push(self.word("a word of the reference")?);
            }
            words.reverse();
            let node = self.node(name)?;
            let reference = Reference::new(node, &words);
            let wrong = ParseError { at: start, what: "a reference of at most 5 words" };
            return Ok(reference.ok_or(wrong)?.into());
        }
        if self.eat("#Port<") {
            let name = self.atom("a node")?;
            self.expect(".", "a dot")?;
            let id = self.digits(10)?.parse().map_err(|_| self.wanted("a port number"))?;
            return Ok(Port { node: self.node(name)?, id }.into());
        }
        Err(self.wanted("a map, a reference or a port; funs and records cannot be read"))
    }

    fn map(&mut self) -> Result<Term, ParseError> {
        let start = self.at;
        let mut pairs = Vec::new();
        if self.eat("}") {
            return Ok(Map::new().into());
        }
        loop {
            let key = self.term()?;
            self.expect("=>", "=>")?;
            pairs.push((key, self.term()?));
            if self.eat("}") {
                let twice = ParseError { at: start, what: "a map without the same key twice" };
                return Ok(Map::from_pairs(pairs).map_err(|_| twice)?.into());
            }
            self.expect(",", "a comma or the end of the map")?;
        }
    }

    fn pid(&mut self) -> Result<Term, ParseError> {
        self.skip(1);
        let name = self.atom("the node of a pid, by name")?;
        self.expect(".", "a dot")?;
        let id = self.word("the number of a pid")?;
        self.expect(".", "a dot")?;
        let serial = self.word("the serial of a pid")?;
        Ok(Pid { node: self.node(name)?, id, serial }.into())
    }

    /// An optional creation, and the closing mark.
    fn node(&mut self, name: Atom) -> Result<Node, ParseError> {
        let creation = if self.eat("!") { self.word("a creation")? } else { 0 };
        self.expect(">", "the closing >")?;
        Ok(Node::new(name, creation))
    }

    fn word(&mut self, what: &'static str) -> Result<u32, ParseError> {
        self.space();
        let digits = self.take_while(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| self.wanted(what))
    }
}

/// Bits, put together one segment after the other.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Used bits of the last byte; 0 when it is full.
    last: u8,
}

impl Bits {
    /// The low `size` bits of a value.
    fn push(&mut self, value: u64, size: u32) {
        for number in (0..size).rev() {
            let bit = u8::from(value.checked_shr(number).unwrap_or_default() & 1 == 1);
            if self.last == 0 {
                self.bytes.push(0);
            }
            if let Some(byte) = self.bytes.last_mut() {
                *byte |= bit << (7_u8.saturating_sub(self.last));
            }
            self.last = self.last.wrapping_add(1) % 8;
        }
    }

    fn term(self) -> Term {
        match BitString::new(&self.bytes, self.last) {
            Some(bits) => bits.into(),
            None => Term::Binary(Binary::from(self.bytes)),
        }
    }
}
