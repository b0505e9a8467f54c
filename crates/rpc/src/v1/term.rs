//! Bodies and errors as version 1 carries them.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use meshx_etf::{Atom, AtomForm, Binary, Decoder, Encoder, Limits, Map, Term, decode, encode};

use super::wire::Fault;
use crate::codec::{Body, Codec, CodecError};
use crate::error::{Error, Executed, Kind};

/// A longer error is not looked into.
const LOOKED_INTO: usize = 64 * 1024;
/// So much of a term is repeated in words.
const WORDS: usize = 300;

/// A body and how it is serialised: bytes as they are (0) or a term (1). A term that is a binary goes
/// as its bytes, as from Elixir.
pub(super) fn to_wire(body: &Body) -> Result<(u8, Bytes), CodecError> {
    match (body.codec, &body.bytes[..]) {
        (Codec::Raw, _) => Ok((0, body.bytes.clone())),
        (Codec::Etf, [131, 109, a, b, c, d, rest @ ..])
            if usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])) == Ok(rest.len()) =>
        {
            Ok((0, body.bytes.slice(6..)))
        }
        (Codec::Etf, _) => Ok((1, body.bytes.clone())),
        (codec, _) => {
            let reason = "version 1 of the protocol carries only bytes and terms".to_owned();
            Err(CodecError { codec, reason })
        }
    }
}

/// The other way round. A compressed term, which an Elixir program may be configured to send, is taken
/// if it has not more than `limit` bytes.
pub(super) fn from_wire(flag: u8, bytes: Bytes, limit: usize) -> Body {
    match (flag, &bytes[..]) {
        (0, _) => Body::raw(bytes),
        (_, [131, 80, ..]) => {
            Body { codec: Codec::Etf, bytes: inflated(&bytes, limit).unwrap_or(bytes) }
        }
        _ => Body { codec: Codec::Etf, bytes },
    }
}

fn inflated(bytes: &[u8], limit: usize) -> Option<Bytes> {
    let mut limits = Limits::default();
    limits.inflated = limit;
    let term = Decoder::new().limits(limits).term(bytes).ok()?;
    encode(&term).ok().map(Bytes::from)
}

/// An argument as another caller would have written it: a tuple for a list, and `nil` for `[]`. An
/// Elixir program calls a function of several arguments with a list, and one of none with `[]`.
pub(crate) fn unlisted(argument: &Body) -> Option<Body> {
    // A list of any form.
    if argument.codec != Codec::Etf || !matches!(&argument.bytes[..], [131, 106..=108, ..]) {
        return None;
    }
    let Ok(Term::List(elements)) = decode(&argument.bytes) else { return None };
    let term = if elements.is_empty() { Term::atom("nil") } else { Term::Tuple(elements) };
    Some(Body { codec: Codec::Etf, bytes: written(&term) })
}

/// What a caller is told of a function's failure. What fails with a term of its own, other than text,
/// tells that, as `exit` in Elixir does; any other failure is told as an Elixir exception.
pub(super) fn told(error: &Error) -> Bytes {
    match error.value() {
        Some(Body { codec: Codec::Etf, bytes })
            if error.kind() == Kind::Application && !matches!(&bytes[..], [131, 109, ..]) =>
        {
            bytes.clone()
        }
        _ if error.kind() == Kind::Value && error.is_surely_not_executed() => {
            exception("Elixir.ArgumentError", error.reason())
        }
        _ => exception("Elixir.RuntimeError", error.reason()),
    }
}

/// There is no such function: as the VM tells it, `{undef, [{Module, Function, Arguments, []}]}`. The
/// second form has only the number of arguments.
pub(super) fn undefined(service: &str, function: &str, argument: &Body) -> [Bytes; 2] {
    let arguments = match argument.codec {
        Codec::Raw => Some(Term::Binary(Binary::shared(argument.bytes.clone()))),
        _ => Some(&argument.bytes)
            .filter(|it| it.len() <= LOOKED_INTO)
            .and_then(|it| decode(it).ok()),
    };
    let arguments = arguments.map_or(Term::Integer(1), |it| Term::List(vec![it]));
    let told = |arguments| {
        let place = match Atom::new(function) {
            Ok(function) => {
                let function = Term::Atom(function);
                vec![Term::Tuple(vec![Term::atom(service), function, arguments, Term::nil()])]
            }
            // No Elixir program can have called that.
            Err(_) => Vec::new(),
        };
        written(&Term::Tuple(vec![Term::atom("undef"), Term::List(place)]))
    };
    [told(arguments), told(Term::Integer(1))]
}

/// An atom.
pub(super) fn atom(text: &str) -> Bytes {
    written(&Term::atom(text))
}

/// What a violation is called towards a client, and whether that is said at all.
pub(super) fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Malformed => "invalid_state",
        Fault::Reference => "invalid_ref",
        Fault::Checksum => "invalid_cks",
        Fault::TooLong { .. } => TOO_LARGE,
    }
}

/// Our own: the Elixir package has no limit.
const TOO_LARGE: &str = "message_too_large";

fn exception(module: &str, message: &str) -> Bytes {
    let mut map = Map::new();
    map.insert(Term::atom("__exception__"), Term::atom("true"));
    map.insert(Term::atom("__struct__"), Term::atom(module));
    map.insert(Term::atom("message"), Term::Binary(Binary::copy(message.as_bytes())));
    written(&Term::Map(map))
}

/// With atoms that every release of Erlang/OTP reads.
fn written(term: &Term) -> Bytes {
    let encoder = Encoder::new().atoms(AtomForm::Latin1);
    // Only a term with more elements than can be counted has no form; none is made here.
    encoder.term(term).unwrap_or_default().into()
}

/// The error that a server told of a call of `function`.
pub(super) fn read_error(flag: u8, bytes: Bytes, function: &str) -> Error {
    let value = from_wire(flag, bytes, LOOKED_INTO);
    let application = |reason: String| {
        Error::new(Kind::Application, Executed::Yes, reason).with_value(value.clone())
    };
    if value.bytes.len() > LOOKED_INTO {
        return application(format!("an error of {} bytes", value.bytes.len()));
    }
    if value.codec == Codec::Raw {
        return application(short(&String::from_utf8_lossy(&value.bytes)));
    }
    match decode(&value.bytes) {
        Ok(Term::Atom(name)) => {
            let (kind, executed, reason) = match name.as_str() {
                "killed" | "timeout_call_exec" => {
                    (Kind::Deadline, Executed::Yes, "the server's limit of time was reached")
                }
                "invalid_cks" => (
                    Kind::Integrity,
                    Executed::Never,
                    "the server misses a checksum or finds a wrong one; \
                     are checksums configured alike at both ends?",
                ),
                "timeout_cks" => {
                    (Kind::Integrity, Executed::Maybe, "the server was too slow to make checksums")
                }
                "invalid_ref" | "invalid_state" => {
                    (Kind::Protocol, Executed::Never, "the server did not take the request")
                }
                TOO_LARGE => {
                    (Kind::Value, Executed::Never, "the argument is larger than the server takes")
                }
                "invalid_pkt_size" => (
                    Kind::Value,
                    Executed::Maybe,
                    "the server's blocks are too small for its answer",
                ),
                "badarg" | "serialization_fail" => {
                    (Kind::Value, Executed::Maybe, "the server cannot read the argument")
                }
                "error_too_long" => (
                    Kind::Application,
                    Executed::Maybe,
                    "it failed with an error longer than a block",
                ),
                _ => return application(format!("it exited: {}", short(&name))),
            };
            Error::new(kind, executed, reason).with_value(value)
        }
        Ok(Term::Map(map)) => match (map.get_atom("__struct__"), map.get_atom("message")) {
            (Some(Term::Atom(module)), Some(Term::Binary(message))) => {
                let message = String::from_utf8_lossy(message.as_slice());
                let message = short(&message);
                application(match module.as_str().trim_start_matches("Elixir.") {
                    "RuntimeError" => message,
                    module => format!("{module}: {message}"),
                })
            }
            _ => application(short(&Term::Map(map))),
        },
        Ok(Term::Tuple(parts)) => match &parts[..] {
            [Term::Atom(reason), Term::List(stack)]
                if reason.as_str() == "undef" && is_of(stack, function) =>
            {
                let reason = "the server has no such function of one argument";
                Error::new(Kind::UnknownFunction, Executed::Never, reason).with_value(value)
            }
            [reason, Term::List(_)] => application(format!("it failed: {}", short(reason))),
            _ => application(short(&Term::Tuple(parts))),
        },
        Ok(term) => application(short(&term)),
        Err(_) => application("an error that is no term".to_owned()),
    }
}

/// Whether the function itself is what does not exist, and not one that it called.
fn is_of(stack: &[Term], function: &str) -> bool {
    let Some(first) = stack.first() else { return true };
    let Term::Tuple(place) = first else { return false };
    match &place[..] {
        [_, Term::Atom(name), arguments, ..] => {
            let one = match arguments {
                Term::Integer(count) => *count == 1,
                Term::List(arguments) => arguments.len() == 1,
                _ => false,
            };
            one && name.as_str() == function
        }
        _ => false,
    }
}

/// The first characters of it.
fn short(what: &dyn fmt::Display) -> String {
    struct Short(String);
    impl fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for letter in text.chars() {
                if self.0.len() >= WORDS {
                    self.0.push('…');
                    return Err(fmt::Error);
                }
                self.0.push(letter);
            }
            Ok(())
        }
    }
    let mut short = Short(String::new());
    // An error is where it ends.
    _ = write!(short, "{what}");
    short.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use meshx_etf::term;
    use proptest::prelude::*;

    use super::*;

    fn etf(term: &Term) -> Body {
        Body { codec: Codec::Etf, bytes: encode(term).unwrap().into() }
    }

    #[test]
    fn a_term_that_is_a_binary_goes_as_its_bytes() {
        let wire = |body: &Body| to_wire(body).unwrap();
        assert_eq!(wire(&etf(&term!("text"))), (0, Bytes::from("text")));
        assert_eq!(wire(&etf(&term!(""))), (0, Bytes::new()));
        assert_eq!(wire(&Body::raw("raw")), (0, Bytes::from("raw")));
        let list = etf(&term!(["text"]));
        assert_eq!(wire(&list), (1, list.bytes.clone()));
        // What only begins like one.
        for bytes in [&[131, 109, 0, 0, 0, 2, 1][..], &[131, 109, 0, 0, 0, 0, 1], &[131, 109]] {
            let body = Body { codec: Codec::Etf, bytes: Bytes::from(bytes) };
            assert_eq!(wire(&body), (1, body.bytes.clone()));
        }
        to_wire(&Body::encode(Codec::Json, "no").unwrap()).unwrap_err();
    }

    #[test]
    fn compressed_terms_are_read_under_the_limit() {
        let term = Term::List(vec![Term::Integer(1_000_000); 1000]);
        let packed = Encoder::new().compressed(6).term(&term).unwrap();
        assert_eq!(packed[..2], [131, 80]);
        let packed = Bytes::from(packed);
        assert_eq!(from_wire(1, packed.clone(), 100_000), etf(&term));
        assert_eq!(from_wire(1, packed.clone(), 1000).bytes, packed);
        assert_eq!(from_wire(0, packed.clone(), 100_000), Body::raw(packed));
    }

    #[test]
    fn an_undefined_function_is_the_called_one_or_another() {
        let told = |term: Term| {
            let error = read_error(1, encode(&term).unwrap().into(), "f");
            (error.kind(), error.executed())
        };
        let unknown = (Kind::UnknownFunction, Executed::Never);
        let failed = (Kind::Application, Executed::Yes);
        assert_eq!(told(term!({undef, [{m, f, [[1]], []}, {m, g, 2, []}]})), unknown);
        assert_eq!(told(term!({undef, [{m, f, 1, []}]})), unknown);
        assert_eq!(told(term!({undef, []})), unknown);
        // Something that it called.
        assert_eq!(told(term!({undef, [{m, g, [1], []}, {m, f, 1, []}]})), failed);
        assert_eq!(told(term!({undef, [{m, f, [1, 2], []}, {m, f, 1, []}]})), failed);
        assert_eq!(told(term!({undef, [f]})), failed);
    }

    #[test]
    fn long_errors_are_shown_in_part() {
        let error = read_error(1, etf(&Term::List(vec![term!(a); 10_000])).bytes, "f");
        assert!(error.reason().len() < 400 && error.reason().ends_with('…'), "{error}");
        let error = read_error(0, Bytes::from(vec![b'a'; 1000]), "f");
        assert!(error.reason().len() < 400, "{error}");
        let error = read_error(1, Bytes::from(vec![b'a'; 1 << 20]), "f");
        assert_eq!(error.reason(), "an error of 1048576 bytes");
    }

    proptest! {
        #[test]
        fn no_error_is_too_strange(
            flag: u8,
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            term: bool,
        ) {
            if let (true, Some(first)) = (term, bytes.first_mut()) {
                *first = 131;
            }
            let bytes = Bytes::from(bytes);
            let error = read_error(flag, bytes.clone(), "f");
            prop_assert!(error.value().is_some());
            drop(unlisted(&from_wire(flag, bytes, 1000)));
        }
    }
}
