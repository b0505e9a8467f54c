//! Erlang's order of terms.

use std::cmp::Ordering;

use crate::{BigInt, BitString, Fun, Map, Node, Pid, Port, Record, Reference, Term};

/// Erlang's order (reference manual, "Term Comparisons"): what `<`, `==` and `lists:sort/1` use.
///
/// `number < atom < reference < fun < port < pid < tuple < map < nil < list < bit string`. Integers
/// and floats compare by value, so `1` and `1.0` are equal here.
///
/// ```
/// use std::cmp::Ordering;
/// use meshx_etf::{compare, term};
/// assert_eq!(compare(&term!(1), &term!(1.0)), Ordering::Equal);
/// assert_eq!(compare(&term!(#{1 => a}), &term!(#{1.0 => a})), Ordering::Less);
/// ```
pub fn compare(a: &Term, b: &Term) -> Ordering {
    order(a, b, false)
}

/// The order of map keys: every integer before every float.
pub(crate) fn exact(a: &Term, b: &Term) -> Ordering {
    order(a, b, true)
}

fn order(a: &Term, b: &Term, exact: bool) -> Ordering {
    match (a, b) {
        (Term::Integer(a), Term::Integer(b)) => a.cmp(b),
        (Term::Atom(a), Term::Atom(b)) => a.cmp(b),
        (Term::Binary(a), Term::Binary(b)) => a.cmp(b),
        (Term::Float(a), Term::Float(b)) if exact => a.total_cmp(b),
        (Term::Float(a), Term::Float(b)) => a.partial_cmp(b).unwrap_or_else(|| a.total_cmp(b)),
        (
            Term::Integer(_) | Term::Big(_) | Term::Float(_),
            Term::Integer(_) | Term::Big(_) | Term::Float(_),
        ) => number(a, b, exact),
        (Term::Tuple(a), Term::Tuple(b)) if a.len() == b.len() => elements(a, b, exact),
        (Term::Tuple(a), Term::Tuple(b)) => a.len().cmp(&b.len()),
        (Term::List(_) | Term::Improper(_), Term::List(_) | Term::Improper(_)) => list(a, b, exact),
        (Term::Map(a), Term::Map(b)) => map(a, b, exact),
        (Term::Binary(_) | Term::Bits(_), Term::Binary(_) | Term::Bits(_)) => bits(a, b),
        (Term::Pid(a), Term::Pid(b)) => pid(a, b),
        (Term::Port(a), Term::Port(b)) => port(a, b),
        (Term::Reference(a), Term::Reference(b)) => reference(a, b),
        (Term::Fun(a), Term::Fun(b)) => fun(a, b, exact),
        (Term::Export(a), Term::Export(b)) => a.cmp(b),
        (Term::Record(a), Term::Record(b)) => record(a, b, exact),
        _ => rank(a).cmp(&rank(b)),
    }
}

const NIL: u8 = 10;
const LIST: u8 = 11;

fn rank(term: &Term) -> u8 {
    match term {
        Term::Integer(_) | Term::Big(_) | Term::Float(_) => 0,
        Term::Atom(_) => 1,
        Term::Reference(_) => 2,
        Term::Fun(_) => 3,
        Term::Export(_) => 4,
        Term::Port(_) => 5,
        Term::Pid(_) => 6,
        Term::Tuple(_) => 7,
        Term::Record(_) => 8,
        Term::Map(_) => 9,
        Term::List(elements) if elements.is_empty() => NIL,
        Term::List(_) | Term::Improper(_) => LIST,
        Term::Binary(_) | Term::Bits(_) => 12,
    }
}

fn number(a: &Term, b: &Term, exact: bool) -> Ordering {
    match (a, b) {
        (Term::Float(a), b) => float(*a, b, exact),
        (a, Term::Float(b)) => float(*b, a, exact).reverse(),
        _ => big(a).cmp(&big(b)),
    }
}

fn big(term: &Term) -> BigInt {
    match term {
        Term::Integer(value) => (*value).into(),
        Term::Big(value) => value.clone(),
        _ => BigInt::default(),
    }
}

/// A float against an integer, without rounding either.
fn float(float: f64, integer: &Term, exact: bool) -> Ordering {
    if exact {
        return Ordering::Greater;
    }
    if !float.is_finite() {
        return float.total_cmp(&0.0);
    }
    let whole = BigInt::from_float(float).cmp(&big(integer));
    whole.then_with(|| float.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal))
}

// A loop, as all that recurses here: adapters would take several times the stack.
fn elements(a: &[Term], b: &[Term], exact: bool) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let found = order(a, b, exact);
        if found.is_ne() {
            return found;
        }
    }
    Ordering::Equal
}

fn list(a: &Term, b: &Term, exact: bool) -> Ordering {
    let (left, left_tail) = parts(a);
    let (right, right_tail) = parts(b);
    let found = elements(left, right, exact);
    if found.is_ne() {
        return found;
    }
    let tail_rank = |tail: Option<&Term>| tail.map_or(NIL, rank);
    match left.len().cmp(&right.len()) {
        Ordering::Equal => match (left_tail, right_tail) {
            (Some(a), Some(b)) => order(a, b, exact),
            _ => tail_rank(left_tail).cmp(&tail_rank(right_tail)),
        },
        // What is left of the longer one is a list that is not empty.
        Ordering::Less => tail_rank(left_tail).cmp(&LIST),
        Ordering::Greater => LIST.cmp(&tail_rank(right_tail)),
    }
}

fn parts(list: &Term) -> (&[Term], Option<&Term>) {
    match list {
        Term::List(elements) => (elements, None),
        Term::Improper(improper) => (improper.elements(), Some(improper.tail())),
        _ => (&[], None),
    }
}

fn map(a: &Map, b: &Map, exact_values: bool) -> Ordering {
    if a.len() != b.len() {
        return a.len().cmp(&b.len());
    }
    let (a, b) = (a.sorted(), b.sorted());
    for ((a, _), (b, _)) in a.iter().zip(&b) {
        let found = exact(a, b);
        if found.is_ne() {
            return found;
        }
    }
    for ((_, a), (_, b)) in a.iter().zip(&b) {
        let found = order(a, b, exact_values);
        if found.is_ne() {
            return found;
        }
    }
    Ordering::Equal
}

fn bits(a: &Term, b: &Term) -> Ordering {
    let view = |term: &Term| -> (Vec<u8>, u64) {
        match term {
            Term::Bits(bits) => (bits.as_slice().to_vec(), bits.bit_len()),
            Term::Binary(bytes) => {
                let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                (bytes.to_vec(), len.saturating_mul(8))
            }
            _ => (Vec::new(), 0),
        }
    };
    // The unused bits are zero, so that a prefix is not greater.
    let ((a, a_len), (b, b_len)) = (view(a), view(b));
    a.cmp(&b).then(a_len.cmp(&b_len))
}

fn node(a: &Node, b: &Node) -> Ordering {
    a.name().cmp(b.name()).then(a.creation().cmp(&b.creation()))
}

fn pid(a: &Pid, b: &Pid) -> Ordering {
    a.serial.cmp(&b.serial).then(a.id.cmp(&b.id)).then_with(|| node(&a.node, &b.node))
}

fn port(a: &Port, b: &Port) -> Ordering {
    node(&a.node, &b.node).then(a.id.cmp(&b.id))
}

fn reference(a: &Reference, b: &Reference) -> Ordering {
    node(a.node(), b.node()).then_with(|| {
        let (a, b) = (a.words(), b.words());
        a.len().cmp(&b.len()).then_with(|| a.iter().rev().cmp(b.iter().rev()))
    })
}

fn fun(a: &Fun, b: &Fun, exact: bool) -> Ordering {
    a.module
        .cmp(&b.module)
        .then(a.index.cmp(&b.index))
        .then(a.old_uniq.cmp(&b.old_uniq))
        .then(a.free.len().cmp(&b.free.len()))
        .then_with(|| elements(&a.free, &b.free, exact))
        // What Erlang does not look at must still tell two values apart here.
        .then_with(|| {
            if !exact {
                return Ordering::Equal;
            }
            (a.arity, a.old_index, a.uniq)
                .cmp(&(b.arity, b.old_index, b.uniq))
                .then_with(|| pid(&a.pid, &b.pid))
        })
}

/// By module, name, whether it is exported, the number of fields, all their names, and then the
/// values, as in OTP 29.0 (seen).
fn record(a: &Record, b: &Record, exact: bool) -> Ordering {
    let fields = || a.fields.iter().zip(&b.fields);
    (&a.module, &a.name, a.exported, a.fields.len())
        .cmp(&(&b.module, &b.name, b.exported, b.fields.len()))
        .then_with(|| fields().map(|(a, b)| a.0.cmp(&b.0)).fold(Ordering::Equal, Ordering::then))
        .then_with(|| {
            let mut values = fields().map(|(a, b)| order(&a.1, &b.1, exact));
            values.find(|found| found.is_ne()).unwrap_or(Ordering::Equal)
        })
}

/// A hash that is equal for equal terms. It is not secret: whoever uses it must stay right and
/// quick when many keys share one.
pub(crate) fn fingerprint(term: &Term) -> u64 {
    let mut hash = Mix(u64::from(rank(term)));
    hash.term(term);
    hash.0
}

struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        if let Some(head) = last.get_mut(..rest.len()) {
            head.copy_from_slice(rest);
        }
        self.word(u64::from_le_bytes(last));
        self.word(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    fn node(&mut self, node: &Node) {
        self.bytes(node.name().as_bytes());
        self.word(node.creation().into());
    }

    fn all(&mut self, terms: &[Term]) {
        for term in terms {
            self.word(u64::from(rank(term)));
            self.term(term);
        }
        self.word(u64::try_from(terms.len()).unwrap_or(u64::MAX));
    }

    fn term(&mut self, term: &Term) {
        match term {
            Term::Integer(value) => self.word(value.cast_unsigned()),
            Term::Big(value) => match value.to_i64() {
                Some(value) => self.word(value.cast_unsigned()),
                None => {
                    self.word(value.is_negative().into());
                    self.bytes(value.magnitude());
                }
            },
            Term::Float(value) => self.word(value.to_bits()),
            Term::Atom(atom) => self.bytes(atom.as_bytes()),
            Term::Tuple(elements) | Term::List(elements) => self.all(elements),
            Term::Improper(list) => {
                self.all(list.elements());
                self.term(list.tail());
            }
            // In any order.
            Term::Map(map) => {
                let pairs = map.iter().map(|(key, value)| {
                    let mut pair = Self(fingerprint(key));
                    pair.term(value);
                    pair.0
                });
                let sum = pairs.fold(0_u64, u64::wrapping_add);
                self.word(sum);
            }
            Term::Binary(bytes) => self.bytes(bytes),
            Term::Bits(bits) => self.bit_string(bits),
            Term::Pid(pid) => {
                self.node(&pid.node);
                self.word((u64::from(pid.id) << 32) | u64::from(pid.serial));
            }
            Term::Port(port) => {
                self.node(&port.node);
                self.word(port.id);
            }
            Term::Reference(reference) => {
                self.node(reference.node());
                for &word in reference.words() {
                    self.word(word.into());
                }
            }
            Term::Fun(fun) => {
                self.bytes(fun.module.as_bytes());
                self.bytes(&fun.uniq);
                self.word(fun.index.into());
                self.all(&fun.free);
            }
            Term::Export(export) => {
                self.bytes(export.module.as_bytes());
                self.bytes(export.function.as_bytes());
                self.word(export.arity.into());
            }
            Term::Record(record) => {
                self.bytes(record.module.as_bytes());
                self.bytes(record.name.as_bytes());
                for (_, value) in &record.fields {
                    self.term(value);
                }
            }
        }
    }

    fn bit_string(&mut self, bits: &BitString) {
        self.bytes(bits.as_slice());
        self.word(bits.last_bits().into());
    }
}
